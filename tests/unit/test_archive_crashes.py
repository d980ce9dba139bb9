"""Whatever is killed: what was acknowledged is on the disk, and what is finished is whole.

A model of a disk that forgets all that was not synced is put under an archive, which is then
written, flushed, hit by errors and killed at random.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.testing import MemoryReactorClock

from tests.unit.archives import IDENTITY, SIZE, START, DirectoryCase
from walstream.archive import ArchiveDirectory, Equipment
from walstream.archive.survey import survey
from walstream.errors import SinkFailed
from walstream.formats.lsn import LSN
from walstream.testing.disk import ManualLane, ScriptedFiles

_STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([1, 100, 8192, SIZE // 2, SIZE - 100, SIZE * 2])),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("commit"), st.sampled_from([1, 8192, SIZE])),
    st.tuples(st.just("work"), st.integers(1, 6)),
    st.tuples(st.just("fail"), st.sampled_from(["fsync", "fdatasync", "rename", "write"])),
    st.tuples(st.just("reconnect"), st.just(0)),
    st.tuples(st.just("kill"), st.just(0)),
)


class ForgetfulFiles(ScriptedFiles):
    """Remembers what a power failure would leave: the contents and the names that were synced."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self._root = os.path.abspath(directory)
        self._contents: dict[int, bytes] = {}
        self._entries: dict[str, int] = {}

    def open(self, path: str, flags: int) -> int:
        fd = super().open(path, flags)
        if flags & os.O_TRUNC:
            self._contents.pop(os.fstat(fd).st_ino, None)  # the number was another file's
        return fd

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        path = os.readlink(f"/proc/self/fd/{fd}")
        if path == self._root:
            self._entries = {
                entry.name: entry.inode() for entry in os.scandir(self._root) if entry.is_file()
            }
        elif os.path.isfile(path):
            self._keep(fd)

    def fdatasync(self, fd: int) -> None:
        super().fdatasync(fd)
        self._keep(fd)

    def after_power_failure(self) -> dict[str, bytes]:
        """The files that would be there."""
        return {name: self._contents.get(inode, b"") for name, inode in self._entries.items()}

    def _keep(self, fd: int) -> None:
        self._contents[os.fstat(fd).st_ino] = Path(f"/proc/self/fd/{fd}").read_bytes()


class CrashTests(DirectoryCase):
    """An archive on a disk that forgets, killed at any moment."""

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(_STEPS, max_size=30))
    def test_acknowledged_is_durable(self, steps: list[tuple[str, Any]]) -> None:
        """At every instant; and finished segments are whole and never change."""
        run = _Run(self, Path(self.mktemp()))
        for step in steps:
            run.take(*step)
            run.check()
        run.end()


class _Run:
    def __init__(self, case: CrashTests, path: Path) -> None:
        path.mkdir()
        self.case = case
        self.path = path
        self.acknowledged: int = START  # nothing, that is
        self.files = ForgetfulFiles(str(path))
        self.lane = ManualLane()
        self.archive = self.open()

    def open(self) -> ArchiveDirectory:
        self.lane = ManualLane()
        equipment = Equipment(self.files, self.lane, ManualLane())
        reactor: Any = MemoryReactorClock()
        archive = ArchiveDirectory(self.path, reactor, equipment=equipment)
        self.case.successResultOf(archive.storage.open())
        self.begin(archive)
        return archive

    def begin(self, archive: ArchiveDirectory) -> None:
        """Stream from where the archive says, as a receiver does."""
        resume = archive.resume_position()
        self.case.successResultOf(archive.adopt(IDENTITY))
        beginning = archive.begin(1, LSN(START) if resume is None else resume.lsn)
        self.case.successResultOf(beginning)
        self.lane.is_held = True

    def take(self, what: str, argument: Any) -> None:
        step: Callable[[Any], None] = getattr(self, what)
        step(argument)

    def write(self, size: int) -> None:
        start = self.archive.written
        try:
            self.archive.write(start, memoryview(self.case.wal(start, size)))
        except SinkFailed:
            self.reconnect(0)

    def flush(self, _: int) -> None:
        self.archive.flush().addCallbacks(self.flushed, lambda failure: failure.trap(SinkFailed))

    def flushed(self, lsn: LSN) -> None:
        self.acknowledged = max(self.acknowledged, lsn)

    def commit(self, size: int) -> None:
        self.write(size)
        self.flush(0)
        self.lane.work()

    def work(self, jobs: int) -> None:
        self.lane.work(jobs)

    def fail(self, call: str) -> None:
        for name in [*os.listdir(self.path), ".walstream/rewrite"]:
            self.files.fail(f"{call} {name}", errno.EIO)

    def reconnect(self, _: int) -> None:
        """The stream ends, well or not, and another one begins."""
        finishing = self.archive.finish()
        self.lane.release()
        finishing.addErrback(lambda failure: failure.trap(SinkFailed))
        self.case.successResultOf(finishing)
        self.files.heal()
        self.begin(self.archive)

    def kill(self, _: int) -> None:
        """The process is gone, and what it had not given to the kernel; the rest is there."""
        possession = self.archive._sink._hold.possession
        assert possession is not None
        possession.lock.release()
        self.files.heal()
        self.archive = self.open()

    def check(self) -> None:
        """What has been promised so far is true of the disk."""
        self.acknowledged = max(self.acknowledged, self.archive.flushed)
        acknowledged = self.archive.flushed
        self.check_files(self.files.after_power_failure(), acknowledged)
        now = {entry.name: entry for entry in os.scandir(self.path) if entry.is_file()}
        for name in now:
            if name.isalnum():
                wal = self.case.wal(int(name[16:], 16) * SIZE, SIZE)
                assert Path(now[name]).read_bytes() == wal, f"{name} is finished and not whole"
        found = survey(self.files, self.case.paths.__class__(str(self.path)))
        if found.end is not None:
            contents = {name: Path(entry).read_bytes() for name, entry in now.items()}
            self.check_files(contents, found.end.lsn)

    def check_files(self, files: dict[str, bytes], end: int) -> None:
        """They hold the WAL up to there."""
        for start in range(START, end, SIZE):
            name = SIZE.name(1, SIZE.number(start))
            content = files.get(name, files.get(f"{name}.partial", b""))
            size = min(SIZE, end - start)
            assert content[:size] == self.case.wal(start, size), f"{name} lacks what was promised"

    def end(self) -> None:
        closing = self.archive.storage.close()
        self.lane.release()
        closing.addErrback(lambda failure: failure.trap(SinkFailed))
        self.case.successResultOf(closing)
        assert max(self.archive.flushed, START) >= self.acknowledged, "flushed has gone back"
