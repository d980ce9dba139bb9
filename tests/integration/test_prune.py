"""``walstream prune`` beside those who read and fill an archive."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psycopg

from tests.integration.load import finished_segments
from tests.integration.recovery import recover, recovering, tool
from tests.servers import Clusters
from tests.servers.daemon import Serving, Walstream, wait_until
from tests.servers.restoring import restore_wal
from walstream.embedded import Cluster
from walstream.formats.segments import SegmentSize
from walstream.testing.wal import wal_bytes
from walstream.wire.copydata import WAL_DATA_HEADER_SIZE

SIZE = SegmentSize(1 << 20)
FIRST, LAST = 3, 62


def run_tool(*words: str | Path) -> str:
    """What the tool says."""
    done = subprocess.run(tool(*words), stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return done.stdout


def numbers(archive: Path) -> list[int]:
    """The segments that are there."""
    return [int(name[16:], 16) for name in finished_segments(archive)]


class SlowClient:
    """Takes WAL only when it is told to, and checks that it comes without a gap."""

    def __init__(self, conninfo: str, first: int) -> None:
        self.position = int(SIZE.start(first))
        self._connection = psycopg.connect(conninfo, replication="true", autocommit=True)
        self._wire = self._connection.pgconn
        result = self._wire.exec_(f"START_REPLICATION {SIZE.start(first)} TIMELINE 1".encode())
        assert result.status == psycopg.pq.ExecStatus.COPY_BOTH, result.error_message

    def read_to(self, position: int) -> None:
        """Take WAL up to there."""
        while self.position < position:
            _, data = self._wire.get_copy_data(0)
            if data and bytes(data[:1]) == b"w":
                assert int.from_bytes(data[1:9], "big") == self.position
                self.position += len(data) - WAL_DATA_HEADER_SIZE

    def close(self) -> None:
        """Go away."""
        self._connection.close()


def test_wal_is_kept_for_a_slow_client(tmp_path: Path) -> None:
    """L15: what it has not been sent stays, until it has been, or the sender is dead."""
    archive = tmp_path / "archive"
    archive.mkdir(mode=0o700)
    for number in range(FIRST, LAST + 1):
        content = wal_bytes(SIZE.start(number), SIZE, segment_size=SIZE)
        (archive / SIZE.name(1, number)).write_bytes(content)
    with Serving("send", "-D", archive, log=tmp_path / "log") as sender:
        client = SlowClient(sender.conninfo(), FIRST)
        client.read_to(SIZE.start(FIRST + 3))
        said = run_tool("prune", "--keep-from=readers", archive)
        assert f"process {sender.process.pid} serve" in said
        held = numbers(archive)
        assert FIRST <= held[0] < LAST - 20, "it was not slow enough to prove anything"
        assert held == list(range(held[0], LAST + 1))
        client.read_to(SIZE.start(LAST + 1))
        client.close()
        wait_until(lambda: "idle" in run_tool("ls", archive), "gone")
        said = run_tool("prune", "--keep-from=readers", archive)
        assert "a moment ago, and the client may ask for it again" in said
        assert sender.stop() == 0
    run_tool("prune", "--keep-size=30MB", archive)
    assert numbers(archive) == list(range(LAST - 29, LAST + 1))
    with Serving("send", "-D", archive, log=tmp_path / "log") as sender:
        second = SlowClient(sender.conninfo(), LAST - 29)
        second.read_to(SIZE.start(LAST - 29) + 1)
        sender.kill()
        run_tool("prune", "--keep-from=readers", archive)
        assert numbers(archive) == [LAST], "a dead process holds nothing"
        second.close()


def finish_segment(primary: Cluster, archive: Path) -> None:
    """Have the last segment finished: all others are archived by then."""
    primary.query("SELECT pg_logical_emit_message(true, 'something', 'is in it')")
    last = primary.query("SELECT pg_walfile_name(pg_switch_wal())")[0][0]
    wait_until(lambda: (archive / last).exists(), "the last segment")


def test_what_a_kept_backup_needs_stays(
    clusters: Clusters, directory: Path, tmp_path: Path
) -> None:
    """Beside a receiver that goes on; and the backup can be restored."""
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    archive = tmp_path / "archive"
    with Walstream(
        "receive", "-d", primary.conninfo(), "-D", archive, log=tmp_path / "log"
    ) as ours:
        ours.await_text("starting log streaming")
        for number in range(3):
            primary.query("CREATE TABLE IF NOT EXISTS numbers (n int)")
            primary.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
            primary.base_backup(directory / f"backup{number}", "-X", "none")
        finish_segment(primary, archive)
        assert len(numbers(archive)) >= 8
        before = numbers(archive)
        planned = run_tool("prune", "--dry-run", "--keep-backup", directory / "backup1", archive)
        assert numbers(archive) == before
        said = run_tool("prune", "--keep-backup", directory / "backup1", archive)
        assert said.startswith("removed ")
        gone = sorted(set(before) - set(numbers(archive)))
        assert [line.split()[0] for line in planned.splitlines()[:-1]] == [
            SIZE.name(1, number) for number in gone
        ]
        assert gone
        primary.query("INSERT INTO numbers VALUES (0)")
        finish_segment(primary, archive)
        assert ours.stop() == 0
    with recovering(clusters, directory / "backup1", restore_wal(archive)) as recovered:
        recover(recovered)
        assert recovered.query("SELECT count(*) FROM numbers") == [(60001,)]
    run_tool("ls", archive)
