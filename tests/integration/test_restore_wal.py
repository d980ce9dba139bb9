"""Recoveries by ``walstream restore-wal``, and how a server takes its exit statuses."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.integration.load import finished_segments
from tests.integration.recovery import Commands, recover, recovering, tool
from tests.servers import Clusters, every_version
from tests.servers.clusters import left_alone
from tests.servers.daemon import Walstream, await_streaming, wait_until
from tests.servers.restoring import Restorer, restore_wal
from walstream.archive.codecs import CODECS
from walstream.embedded import Cluster, EmbeddedError
from walstream.formats.compression import Compression, Method

Settings = dict[str, str | int]


class Archived:
    """A primary with a base backup, whose WAL is received: a few segments so far."""

    def __init__(self, clusters: Clusters, directory: Path, tmp_path: Path) -> None:
        self.clusters = clusters
        self.archive = tmp_path / "archive"
        self.backup = directory / "backup"
        self.primary = clusters.primary(settings={"wal_keep_size": "1GB"})
        self.receiver = Walstream(
            "receive",
            "-d",
            self.primary.conninfo(),
            "-D",
            self.archive,
            "--synchronous",
            log=tmp_path / "receive.log",
        )
        await_streaming(self.primary)
        self.primary.base_backup(self.backup, "-X", "none")
        self.primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 20000) AS n")

    def insert(self, number: int) -> None:
        """A commit that is found again by its number."""
        self.primary.query("INSERT INTO numbers VALUES (%s)", number)

    def switch(self) -> None:
        """Have the last segment finished."""
        last = self.primary.query("SELECT pg_walfile_name(pg_switch_wal())")[0][0]
        wait_until(lambda: (self.archive / last).exists(), f"{last} finished")

    def end(self) -> None:
        """Lose the primary."""
        self.await_all()
        self.primary.kill()
        assert self.receiver.stop() == 0

    def await_all(self) -> None:
        """Wait until the archive has all WAL."""
        question = (
            "SELECT flush_lsn >= pg_current_wal_flush_lsn() FROM pg_stat_replication"
            " WHERE application_name = 'walstream'"
        )
        wait_until(lambda: self.primary.query(question) == [(True,)], "all of it archived")

    def recovering(
        self, restore: Restorer | None = None, settings: Settings | None = None
    ) -> AbstractContextManager[Cluster]:
        """A server that will recover from the backup and the archive."""
        restore = restore or restore_wal(self.archive)
        return recovering(self.clusters, self.backup, restore, settings=settings)

    def stops(self, *words: str | Path) -> str:
        """Recover, which must not come to an end; what restore-wal has said."""
        commands = Commands(*(words or ("restore-wal", self.archive)))
        with self.recovering(commands) as server:
            with pytest.raises(EmbeddedError):
                recover(server)
            log = server.log.read_text()
        assert "archive recovery complete" not in log
        _, status = commands.statuses[-1]
        assert status > 125, commands.statuses
        assert f"exit code {status}" in log or "command not found" in log, log
        return commands.errors


@pytest.fixture
def archived(clusters: Clusters, directory: Path, tmp_path: Path) -> Iterator[Archived]:
    """A primary whose WAL is archived."""
    made = Archived(clusters, directory, tmp_path)
    try:
        yield made
    finally:
        made.receiver.kill()


def rows(cluster: Cluster) -> set[int]:
    """What was inserted."""
    return {row[0] for row in cluster.query("SELECT n FROM numbers WHERE n < 0")}


def timeline(cluster: Cluster) -> int:
    """The timeline that a server writes on."""
    return int(cluster.query("SELECT pg_walfile_name(pg_current_wal_lsn())")[0][0][:8], 16)


def compress_some(archive: Path) -> None:
    """Compress three of the segments, each by another method."""
    methods = (Compression(Method.GZIP, 6), Compression(Method.LZ4, 1), Compression(Method.ZSTD, 3))
    for name, compression in zip(finished_segments(archive), methods, strict=False):
        content = (archive / name).read_bytes()
        codec = CODECS[compression.method]
        pieces = codec.encode([content], compression, len(content))
        (archive / f"{name}.{codec.suffix}").write_bytes(b"".join(pieces))
        (archive / name).unlink()


@every_version
def test_all_commits_come_back(archived: Archived) -> None:
    """The last ones by --partial; from segments as they are, and compressed by each method."""
    archived.insert(-1)
    archived.switch()
    archived.insert(-2)
    archived.end()
    compress_some(archived.archive)
    commands = Commands("restore-wal", "--partial", archived.archive)
    with archived.recovering(commands) as recovered:
        recover(recovered)
        assert rows(recovered) == {-1, -2}
        assert recovered.query("SELECT count(*) FROM numbers") == [(20002,)]
        assert timeline(recovered) == 2


def test_each_recovery_target(archived: Archived) -> None:
    """PostgreSQL's 003_recovery_targets: each kind of target is hit; one that is not is told."""
    primary = archived.primary
    archived.insert(-1)
    with primary.connect() as connection, connection.transaction():
        result = connection.execute(
            "INSERT INTO numbers VALUES (-2) RETURNING pg_current_xact_id()"
        )
        xid = str(result.fetchall()[0][0])
    archived.insert(-3)
    moment = str(primary.query("SELECT now()")[0][0])
    archived.insert(-4)
    primary.query("SELECT pg_create_restore_point('before five')")
    archived.insert(-5)
    lsn = primary.end_of_wal()
    archived.insert(-6)
    archived.switch()
    archived.end()
    for target, value, expected in (
        ("recovery_target_xid", xid, {-1, -2}),
        ("recovery_target_time", moment, {-1, -2, -3}),
        ("recovery_target_name", "before five", {-1, -2, -3, -4}),
        ("recovery_target_lsn", lsn, {-1, -2, -3, -4, -5}),
    ):
        with archived.recovering(
            settings={target: value, "recovery_target_action": "promote"}
        ) as server:
            recover(server)
            assert rows(server) == expected, target
    with archived.recovering(
        settings={"recovery_target": "immediate", "recovery_target_action": "promote"}
    ) as server:
        recover(server)
        assert server.query("SELECT to_regclass('numbers')") == [(None,)]
    with archived.recovering(settings={"recovery_target_name": "none"}) as server:
        with pytest.raises(EmbeddedError):
            recover(server)
        told = "recovery ended before configured recovery target was reached"
        assert told in server.log_tail()


def test_what_is_wrong_stops_the_server(archived: Archived) -> None:
    """A hole, damage, an archive that is not mounted: it does not open without its WAL."""
    archived.insert(-1)
    archived.switch()
    archived.end()
    archive = archived.archive
    names = finished_segments(archive)
    third = archive / names[2]
    content = third.read_bytes()
    third.unlink()
    assert f"restore-wal {third.name}: {third.name} is missing in" in archived.stops()
    third.write_bytes(content[:49152] + bytes(98304) + content[147456:])
    assert f"{third.name} is damaged" in archived.stops()
    third.write_bytes(content[:-8192])
    assert f"{third.name} has {len(content) - 8192} bytes" in archived.stops()
    elsewhere = archive.with_name("elsewhere")
    archive.rename(elsewhere)
    assert "is it mounted?" in archived.stops()
    archive.mkdir()
    assert "is it mounted?" in archived.stops()
    archive.rmdir()
    elsewhere.rename(archive)
    third.write_bytes(content)
    with archived.recovering() as recovered:
        recover(recovered)
        assert rows(recovered) == {-1}


def test_a_wrong_command_line_stops_the_server(archived: Archived) -> None:
    """A misspelt restore_command must not look like an archive without WAL."""
    archived.end()
    archived.stops("restore-wall", archived.archive)
    archived.stops("restore-wal", "--unknown", archived.archive)
    archived.stops("restore-wal")


def test_another_clusters_archive_stops_the_server(
    archived: Archived, clusters: Clusters, directory: Path
) -> None:
    """PostgreSQL itself would take its WAL for the end of its own."""
    archived.end()
    other = clusters.primary("other", new_system=True)
    archived.backup = directory / "other-backup"
    other.base_backup(archived.backup)
    assert "but this server is of system" in archived.stops()


def test_a_standby_follows_the_archive(archived: Archived) -> None:
    """PostgreSQL's 002_archiving: segment by segment, never a .partial; and it can be promoted."""
    archived.insert(-1)
    archived.switch()
    commands = Commands("restore-wal", archived.archive)
    with recovering(
        archived.clusters, archived.backup, commands, signal="standby.signal"
    ) as standby:
        standby.start()
        wait_until(lambda: has(standby, {-1}), "the first segments replayed")
        archived.insert(-2)
        archived.await_all()
        assert list(archived.archive.glob("*.partial"))
        asked = len(commands.statuses)
        wait_until(lambda: len(commands.statuses) >= asked + 6, "asked for more, in vain")
        assert rows(standby) == {-1}, "an unfinished segment was replayed"
        archived.switch()
        wait_until(lambda: has(standby, {-1, -2}), "the next segment replayed")
        standby.promote()
        assert timeline(standby) == 2
    assert {status for _, status in commands.statuses} == {0, 1}


def has(standby: Cluster, expected: set[int]) -> bool:
    """Whether a standby has replayed that, and perhaps not yet the table itself."""
    if standby.query("SELECT to_regclass('numbers')") == [(None,)]:
        return False
    return rows(standby) == expected


def test_wal_level_minimal_cannot_be_passed(archived: Archived) -> None:
    """PostgreSQL's 024_archive_recovery: not everything is in such WAL, so it is refused."""
    archived.await_all()
    primary = archived.primary
    primary.configure({"wal_level": "minimal", "max_wal_senders": 0})
    primary.restart()
    archived.insert(-1)
    primary.configure({"wal_level": "replica", "max_wal_senders": 10})
    primary.restart()
    wait_until(lambda: archived.receiver.text.count("starting log streaming") == 2, "back")
    archived.switch()
    archived.end()
    with archived.recovering() as server:
        with pytest.raises(EmbeddedError):
            recover(server)
        assert "WAL was generated with" in server.log_tail()


def test_timelines_of_recoveries(archived: Archived, tmp_path: Path) -> None:
    """PostgreSQL's 028_pitr_timelines: recovered twice along different branches.

    Timeline 3 is told to follow 2, and stops before 2 began. Its WAL is another server's, so it
    has an archive of its own; a DBA who recovers along it puts the two together.
    """
    archive = archived.archive
    standby = archived.clusters.standby(archived.primary)
    archived.insert(-1)
    archived.primary.query("SELECT pg_create_restore_point('fork')")
    archived.switch()
    archived.insert(-2)
    with left_alone(archived.primary):
        standby.wait_for_replay(archived.primary.end_of_wal())
        archived.end()
    standby.promote()
    standby.query("INSERT INTO numbers VALUES (-3)")
    receive_switched(standby, archive, tmp_path / "second.log")
    standby.kill()
    with archived.recovering() as newest:
        recover(newest)
        assert rows(newest) == {-1, -2, -3}
    with archived.recovering(
        settings={
            "recovery_target_timeline": "2",
            "recovery_target_name": "fork",
            "recovery_target_action": "promote",
        }
    ) as third:
        recover(third)
        assert (rows(third), timeline(third)) == ({-1}, 3)
        third.query("INSERT INTO numbers VALUES (-4)")
        receive_switched(third, tmp_path / "third", tmp_path / "third.log")
    for path in (tmp_path / "third").glob("00000003*"):
        shutil.copy(path, archive)
    with archived.recovering(settings={"recovery_target_timeline": "3"}) as along:
        recover(along)
        assert rows(along) == {-1, -4}
    listed = subprocess.run(tool("ls", archive), stdout=subprocess.PIPE, text=True, check=False)
    assert listed.returncode == 0, listed.stdout


def receive_switched(server: Cluster, archive: Path, log: Path) -> None:
    """Receive a server's WAL from where the archive ends, or from now on, for one segment."""
    pattern = f"{timeline(server):08X}" + "?" * 16
    with Walstream("receive", "-d", server.conninfo(), "-D", archive, log=log) as receiver:
        receiver.await_text("starting log streaming")
        server.query("SELECT pg_switch_wal()")
        wait_until(lambda: bool(list(archive.glob(pattern))), "a segment archived")
        assert receiver.stop() == 0
