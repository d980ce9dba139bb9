"""PostgreSQL's own tests of its tools, with a hub, or what it has archived, in the server's place.

They are those of ``src/bin``, each named in the test that does it; docs/reference/scenarios.md has
the table of all. pg_rewind is in ``test_drill_promotions.py``.
"""

from __future__ import annotations

import gzip
import json
import subprocess
from pathlib import Path

import lz4.frame

from tests.integration.chain import KEEP, await_true, insert, replication, running_hub
from tests.integration.load import finished_segments, identical
from tests.servers import Clusters, every_version, on_versions
from tests.servers.daemon import Serving
from walstream.embedded import Cluster, Installation
from walstream.formats.lsn import LSN


def run(installation: Installation, tool: str, *options: str | Path) -> tuple[int, str]:
    """A tool's exit status, and what it said."""
    done = subprocess.run(
        [installation.tool(tool), *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


class Receiving:
    """Runs of pg_receivewal over a hub, into one directory."""

    def __init__(self, hub: Serving, primary: Cluster, directory: Path) -> None:
        self.directory = directory
        self._hub = hub
        self._primary = primary
        directory.mkdir(mode=0o700)

    def run(self, *options: str) -> tuple[int, str]:
        """One run."""
        installation = self._primary.installation
        where: list[str | Path] = ["-d", self._hub.conninfo(), "-D", self.directory]
        return run(installation, "pg_receivewal", *where, "--verbose", "--no-loop", *options)

    def to_the_end(self, *options: str) -> None:
        """Write a segment and a bit, and receive just that."""
        insert(self._primary, 100)
        self._primary.query("SELECT pg_switch_wal()")
        endpos = self._primary.end_of_wal()
        insert(self._primary, 100)
        status, text = self.run("--endpos", endpos, *options)
        assert status == 0, text

    def partial(self) -> Path:
        """The newest file that is not finished; pg_receivewal leaves those of other forms."""
        return max(self.directory.glob("*.partial"))


@every_version
def test_pg_receivewal(clusters: Clusters, directory: Path, tmp_path: Path) -> None:
    """020_pg_receivewal, with the real one behind a hub: forms, slots, and over a promotion."""
    primary = clusters.primary(settings=KEEP)
    heir = clusters.standby(primary, name="heir", settings=KEEP)
    archive = tmp_path / "archive"
    with running_hub(heir.conninfo(), archive) as hub:
        copy = Receiving(hub, primary, tmp_path / "copy")
        status, text = copy.run("--slot", "nonexistent")
        assert status == 1
        assert 'replication slot "nonexistent" does not exist' in text
        assert not list(copy.directory.iterdir())
        for words in (("--create-slot",), ("--create-slot", "--if-not-exists"), ("--drop-slot",)):
            assert copy.run("--slot", "test", *words)[0] == 0, words
        copy.to_the_end("--synchronous")
        for options, suffix in (
            (("--compress", "gzip:1"), ".gz"),
            (("--compress", "lz4"), ".lz4"),
            (("--compress", "none"), ""),
        ):
            # The former partial's segment is finished in the new form.
            before = copy.partial()
            copy.to_the_end(*options)
            finished = copy.directory / f"{before.name[:24]}{suffix}"
            assert decoded(finished) == (archive / finished.name[:24]).read_bytes()
            assert copy.partial().name[24:] == f"{suffix}.partial"
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in copy.directory.iterdir())
        # An empty directory begins where the slot stands; it goes on over a promotion.
        with replication(hub.conninfo()) as connection:
            connection.pgconn.exec_(b"CREATE_REPLICATION_SLOT kept PHYSICAL RESERVE_WAL")
            slot = connection.pgconn.exec_(b"READ_REPLICATION_SLOT kept")
            reserved = LSN.parse((slot.get_value(0, 1) or b"").decode())
        primary.query("SELECT pg_switch_wal()")
        heir.wait_for_replay(insert(primary, 100))
        heir.promote()
        hub.await_text("switched to timeline 2")
        switched = Receiving(hub, heir, tmp_path / "switched")
        switched.to_the_end("--slot", "kept")
        names = finished_segments(switched.directory)
        assert names[0] == f"00000001{reserved >> 20:016X}"
        assert {name[:8] for name in names} == {"00000001", "00000002"}
        assert (switched.directory / "00000002.history").exists()
        switched.to_the_end("--slot", "kept")
        received = finished_segments(switched.directory)
        assert len(received) > len(names)
        identical(archive, switched.directory, len(received))


def decoded(path: Path) -> bytes:
    """A segment's WAL."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    return bytes(lz4.frame.decompress(content)) if path.suffix == ".lz4" else content


@on_versions(15, 18)
def test_base_backups_are_refused(clusters: Clusters, directory: Path, tmp_path: Path) -> None:
    """010_pg_basebackup: a hub has none; pg_basebackup says so, and leaves nothing.

    And with WAL of the hub's, one that was made of the primary is whole: pg_verifybackup's
    007_wal, and pg_waldump.
    """
    primary = clusters.primary(settings=KEEP | {"full_page_writes": "on"})
    programs = clusters.installation
    archive, base = tmp_path / "archive", directory / "base"
    with running_hub(primary.conninfo(), archive) as hub:
        for method in ("none", "fetch", "stream"):
            target = tmp_path / "refused"
            words = ("-d", hub.conninfo(), "-D", target, "-X", method, "-c", "fast")
            status, text = run(programs, "pg_basebackup", *words)
            assert status == 1
            assert "BASE_BACKUP is not available from a WAL archive" in text, text
            assert not target.exists()
        status, text = run(
            programs, "pg_recvlogical", "-d", hub.conninfo(dbname="postgres"), "-S", "s", "--start",
            "-f", "-", "--no-loop",
        )  # fmt: skip
        assert status == 1
        assert "logical replication is not available from a WAL archive" in text, text
        primary.base_backup(base, "-X", "none")
        primary.query("SELECT pg_switch_wal()")
        end = insert(primary, 10)
        await_true(primary, "SELECT flush_lsn >= %s::pg_lsn FROM pg_stat_replication", end)
        assert hub.stop() == 0
    names = finished_segments(archive)
    status, text = run(programs, "pg_verifybackup", "--wal-directory", archive, base)
    assert status == 0, text
    assert "backup successfully verified" in text
    status, text = run(programs, "pg_waldump", "-q", "-p", archive, names[0], names[-1])
    assert "error" not in text.replace(f"error in WAL record at {end}", ""), text
    manifest = json.loads((base / "backup_manifest").read_text())
    high, _, low = manifest["WAL-Ranges"][0]["Start-LSN"].partition("/")
    start = int(high, 16) << 32 | int(low, 16)
    with (archive / f"00000001{start >> 32:08X}{(start >> 20) & 0xFFF:08X}").open("r+b") as file:
        file.seek(start % (1 << 20) + 20)
        file.write(b"damage")
    status, text = run(programs, "pg_verifybackup", "--wal-directory", archive, base)
    assert (status, "WAL parsing failed" in text) == (1, True), text
