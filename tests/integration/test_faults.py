"""What a machine does to an archive while it is written; see tests/unit/test_archive_faults.py.

Each fault comes while rows are committed. As long as it lasts nothing is acknowledged that is not
on the disk, the log says what is wrong and where, and once it is over the service goes on alone.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.load import finished_segments, identical, without_gap
from tests.integration.test_status import status
from tests.servers import Clusters
from tests.servers.clusters import left_alone
from tests.servers.daemon import Walstream, wait_until
from tests.servers.disk import Disk, disks_are_available
from tests.torture.failing import Failing, compilers_are_available
from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths
from walstream.archive.survey import survey
from walstream.cli.status import NOT_RUNNING
from walstream.embedded import Cluster
from walstream.formats.lsn import LSN

pytestmark = pytest.mark.skipif(
    os.name != "posix" or not Path("/proc/self/fd").exists(), reason="this is no Linux"
)


class _Run:
    """A primary, and walstream that archives it and acknowledges each commit."""

    def __init__(self, clusters: Clusters, archive: Path, directory: Path) -> None:
        self.primary = clusters.primary(settings={"wal_keep_size": "1GB"})
        self.primary.query("CREATE TABLE rows (n serial, filler text)")
        self.primary.query("SELECT pg_create_physical_replication_slot('archive', true)")
        self.archive = archive
        self.log = directory / "log"
        self._seen = 0

    @contextmanager
    def receiving(self, **options: Any) -> Iterator[Walstream]:
        """Walstream runs while the context lasts."""
        words = ["receive", "-d", self.primary.conninfo(), "-D", str(self.archive)]
        words += ["-S", "archive", "--synchronous", "--status-interval", "1"]
        with Walstream(*words, log=self.log, **options) as walstream:
            self.walstream = walstream
            self.catches_up()
            yield walstream

    def commit(self, rows: int = 1) -> None:
        """Commit so many rows, of 1 kB each."""
        self.primary.query(
            "INSERT INTO rows (filler) SELECT repeat('x', 1000) FROM generate_series(1, %s)", rows
        )

    def acknowledged(self) -> LSN:
        """What the slot says was acknowledged; it stays when nobody is connected."""
        rows = self.primary.query("SELECT restart_lsn FROM pg_replication_slots")
        return LSN.parse(rows[0][0])

    def end(self) -> LSN:
        """The end of the primary's WAL."""
        return LSN.parse(self.primary.end_of_wal())

    def catches_up(self) -> None:
        """It acknowledges all that there is."""
        self.commit()
        end = self.end()
        try:
            wait_until(lambda: self.acknowledged() >= end, f"acknowledged up to {end}", 20)
        except AssertionError as error:
            raise AssertionError(f"{error}; the log:\n{self.walstream.text}") from None
        self._seen = len(self.walstream.text)

    def nothing_false(self, archive: Path | None = None) -> None:
        """What was acknowledged is there: the end mark and the files say so."""
        acknowledged = self.acknowledged()
        found = survey(FileSystem(), ArchivePaths(str(archive or self.archive)))
        assert found.end is not None
        assert acknowledged <= found.end.lsn

    def is_told(self, *words: str) -> None:
        """Commit until the log has said it, since it last caught up: what lasts is said once."""

        def told() -> bool:
            self.commit()
            return all(word in self.walstream.text[self._seen :] for word in words)

        try:
            wait_until(told, f"told: {words}", 20)
        except AssertionError as error:
            raise AssertionError(f"{error}; the log:\n{self.walstream.text}") from None
        assert self.walstream.process.poll() is None

    def is_whole(self) -> None:
        """No gap, and byte by byte what the primary has."""
        count = len(finished_segments(self.archive))
        self.primary.query("SELECT pg_switch_wal()")
        self.catches_up()
        wait_until(lambda: len(finished_segments(self.archive)) > count, "one more segment")
        assert self.walstream.stop() == 0
        assert without_gap(self.archive)
        names = finished_segments(self.archive)
        assert identical(self.archive, self.primary.data / "pg_wal", len(names)) == names


@pytest.mark.skipif(not compilers_are_available(), reason="there is no C compiler")
@pytest.mark.skipif(not disks_are_available(), reason="file systems cannot be mounted here")
def test_a_disk_that_fails(clusters: Clusters, directory: Path) -> None:
    """EIO, EROFS, ENOSPC, and file systems that are unmounted and mounted: one after the other."""
    with Disk(directory, 48) as disk:
        archive = disk.path / "archive"
        failing = Failing(directory, archive)
        run = _Run(clusters, archive, directory)
        with run.receiving(environment=failing.environment):
            # Nothing is open between two attempts, so that it can be mended.
            with ExitStack() as read_only:
                with failing.calls(fsync=errno.EIO, fdatasync=errno.EIO):
                    run.is_told("could not make durable", ".partial: Input/output error")
                    run.nothing_false()
                    _patiently(lambda: read_only.enter_context(disk.read_only()))
                run.is_told("Read-only file system")
                run.nothing_false()
            run.catches_up()
            with failing.calls(fdatasync=errno.EIO):
                run.is_told("could not make durable")
                _patiently(disk.unmount)
            run.is_told(f"archive at {archive} is gone", "found no such directory")
            assert list(disk.path.iterdir()) == [], "the mount point was written to"
            disk.mount()
            run.catches_up()
            run.nothing_false()
            with failing.calls(write=errno.EIO):
                run.is_told("could not write", "Input/output error")
            run.catches_up()
            disk.unmount(lazily=True)
            run.is_told(f"the archive at {archive} is gone")
            assert list(disk.path.iterdir()) == [], "the mount point was written to"
            disk.mount()
            run.catches_up()
            with disk.full():
                _until_told(run, "No space left on device")
                run.nothing_false()
            run.catches_up()
            assert run.walstream.text.count("No space left on device") < 5, "it floods the log"
            run.is_whole()


@pytest.mark.skipif(not compilers_are_available(), reason="there is no C compiler")
def test_a_primary_that_is_lost_with_the_disk(clusters: Clusters, directory: Path) -> None:
    """Once the disk is good again so is the archive, to whoever asks, though nobody sends WAL."""
    archive = directory / "archive"
    failing = Failing(directory, archive)
    run = _Run(clusters, archive, directory)
    with run.receiving(environment=failing.environment) as walstream:
        with failing.calls(fsync=errno.EIO, fdatasync=errno.EIO):
            run.is_told("could not make durable", ".partial: Input/output error")
            run.primary.kill()
            seen = len(walstream.text)
            wait_until(lambda: "again: Input/output error" in walstream.text[seen:], "told")
            assert status(archive)[0] == NOT_RUNNING
        wait_until(lambda: "is taken into use again" in walstream.text[seen:], "taken again")
        wait_until(lambda: status(archive)[0] == 0, "with a control socket")


def _patiently(action: Callable[[], object]) -> None:
    """Do what can be done between two attempts, and not during one."""

    def done() -> bool:
        try:
            action()
        except subprocess.CalledProcessError:
            return False
        return True

    wait_until(done, "possible", 10)


def _until_told(run: _Run, words: str) -> None:
    before = len(run.walstream.text)

    def told() -> bool:
        run.commit(50)
        return words in run.walstream.text[before:]

    wait_until(told, f"told: {words}", 30)


def test_a_directory_that_goes_away(clusters: Clusters, directory: Path) -> None:
    """Renamed away, removed, another one in its place, its lock or its .partial removed."""
    archive, away = directory / "archive", directory / "away"
    run = _Run(clusters, archive, directory)
    with run.receiving():
        archive.rename(away)
        run.is_told(f"the archive at {archive} is gone", "found no such directory")
        run.nothing_false(away)
        archive.mkdir()
        run.is_told("found an empty directory")
        assert list(archive.iterdir()) == []
        archive.rmdir()
        away.rename(archive)
        run.catches_up()

        (archive / ".walstream" / "lock").unlink()
        run.is_told("lock")
        run.catches_up()

        # It has a control socket, which no file can be made of.
        with left_alone(run.primary):  # nothing is written to it meanwhile
            run.catches_up()
            shutil.copytree(archive, away, ignore=shutil.ignore_patterns("control"))
            end = run.acknowledged()
            shutil.rmtree(archive)
        run.is_told("found no such directory", str(end.__class__(run.acknowledged())))
        away.rename(archive)
        run.catches_up()

        next(archive.glob("*.partial")).unlink()
        run.is_told("holds less than was acknowledged")
        assert run.walstream.stop() == 0
    with run.receiving():
        run.is_whole()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="root's capabilities are needed"
)
def test_permission_lost(clusters: Clusters, directory: Path) -> None:
    """A directory that its owner may not enter any more, and then may again."""
    archive = directory / "archive"
    run = _Run(clusters, archive, directory)
    without = "--bounding-set=-dac_override,-dac_read_search"
    with run.receiving(wrapper=("setpriv", without)):
        archive.chmod(0)
        run.is_told("Permission denied", str(archive))
        archive.chmod(0o700)
        run.catches_up()
        run.nothing_false()
        run.is_whole()


@pytest.mark.skipif(not compilers_are_available(), reason="there is no C compiler")
def test_clock_stepped(clusters: Clusters, directory: Path) -> None:
    """By an hour, both ways: the stream goes on, and status updates come as often as before."""
    run = _Run(clusters, directory / "archive", directory)
    failing = Failing(directory, run.archive)

    def replied(primary: Cluster) -> float:
        rows = primary.query(
            "SELECT extract(epoch FROM reply_time - now())::float8 FROM pg_stat_replication"
        )
        return float(rows[0][0]) if rows else 0.0

    def last_reply(primary: Cluster) -> object:
        return primary.query("SELECT reply_time FROM pg_stat_replication")

    with run.receiving(environment=failing.environment) as walstream:
        for step in (3600, -3600):
            with failing.calls(clock=step):
                wait_until(lambda: abs(replied(run.primary) - step) < 1.5, "in another time")  # noqa: B023
                # One a second; the server would ask for one after half a minute.
                for _ in range(2):
                    last = last_reply(run.primary)
                    wait_until(lambda: last_reply(run.primary) != last, "another update", 10)  # noqa: B023
                run.catches_up()
        assert walstream.text.count("starting log streaming") == 1, walstream.text
        run.is_whole()
