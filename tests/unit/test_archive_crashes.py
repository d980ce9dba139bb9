"""Whatever is killed: what was acknowledged is on the disk, and what is finished is whole.

A model of a disk that forgets all that was not synced is put under an archive, which is then
written, flushed, hit by errors and killed at random.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from functools import partial
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

_PAGE = 4096

_STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([1, 100, 8192, SIZE // 2, SIZE - 100, SIZE * 2])),
    st.tuples(st.just("flush"), st.just(0)),
    st.tuples(st.just("commit"), st.sampled_from([1, 8192, SIZE])),
    st.tuples(st.just("work"), st.integers(1, 6)),
    st.tuples(
        st.just("fail"),
        st.sampled_from(["fsync", "fdatasync", "rename", "write", "unlink", "stat", "set_size"]),
    ),
    st.tuples(st.just("lose"), st.sampled_from(["nothing", "empty", "copy", "lock"])),
    st.tuples(st.just("reconnect"), st.just(0)),
    st.tuples(st.just("kill"), st.just(0)),
)


class ForgetfulFiles(ScriptedFiles):
    """Remembers what a power failure would leave: the contents and the names that were synced.

    As a kernel does, it takes for written what a sync that failed should have written, contents
    and names; the next sync that goes well does not bring it to the disk (fsyncgate).
    """

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self._root = os.path.abspath(directory)
        self._contents: dict[int, bytearray] = {}
        self._dirty: dict[int, set[int]] = {}
        self._entries: dict[str, int] = {}
        self._dirty_entries: set[str] = set()
        self._graves: list[int] = []  # open, so that no number is used again

    def open(self, path: str, flags: int) -> int:
        is_new = not os.path.exists(path)
        fd = super().open(path, flags)
        if is_new:
            self._touch(path)
        return fd

    def pwrite(self, fd: int, data: memoryview | bytes, offset: int) -> int:
        written = super().pwrite(fd, data, offset)
        self._write(fd, offset, offset + written)
        return written

    def set_size(self, fd: int, size: int) -> None:
        super().set_size(fd, size)
        self._write(fd, 0, size)

    def rename(self, old: str, new: str) -> None:
        self._bury(new)
        super().rename(old, new)
        self._touch(old, new)

    def unlink(self, path: str) -> None:
        self._bury(path)
        super().unlink(path)
        self._touch(path)

    def fsync(self, fd: int) -> None:
        self._sync(fd, super().fsync)

    def fdatasync(self, fd: int) -> None:
        self._sync(fd, super().fdatasync)

    def settle(self) -> None:
        """What other programs have put there is on the disk."""
        for entry in os.scandir(self._root):
            if entry.is_file():
                self._contents[entry.inode()] = bytearray(Path(entry).read_bytes())
                self._entries[entry.name] = entry.inode()

    def after_power_failure(self) -> dict[str, bytes]:
        """The files that would be there."""
        return {
            name: bytes(self._contents.get(inode, b"")) for name, inode in self._entries.items()
        }

    def close_graves(self) -> None:
        """Let the numbers be used again."""
        for fd in self._graves:
            os.close(fd)

    def _sync(self, fd: int, sync: Callable[[int], None]) -> None:
        status = os.fstat(fd)
        is_root = os.path.exists(self._root) and os.path.samestat(status, os.stat(self._root))
        if is_root:
            names, self._dirty_entries = self._dirty_entries, set()
            sync(fd)
            for name in names:
                self._entries.pop(name, None)
                if os.path.isfile(path := os.path.join(self._root, name)):
                    self._entries[name] = os.stat(path).st_ino
        else:
            pages = self._dirty.pop(status.st_ino, set())
            sync(fd)
            if stat.S_ISREG(status.st_mode):
                self._keep(fd, status, pages)

    def _keep(self, fd: int, status: os.stat_result, pages: set[int]) -> None:
        content = self._contents.setdefault(status.st_ino, bytearray())
        content[:] = content[: status.st_size].ljust(status.st_size, b"\0")
        held = Path(f"/proc/self/fd/{fd}").read_bytes()
        for page in pages:
            place = slice(page * _PAGE, (page + 1) * _PAGE)
            content[place] = held[place]

    def _write(self, fd: int, start: int, end: int) -> None:
        pages = range(start // _PAGE, -(-end // _PAGE))
        self._dirty.setdefault(os.fstat(fd).st_ino, set()).update(pages)

    def _touch(self, *paths: str) -> None:
        self._dirty_entries.update(
            os.path.basename(path) for path in paths if os.path.dirname(path) == self._root
        )

    def _bury(self, path: str) -> None:
        if os.path.exists(path):
            self._graves.append(os.open(path, os.O_RDONLY))


class Killed(BaseException):
    """The process is gone: nothing that it would do comes to pass."""


class MortalFiles(ForgetfulFiles):
    """Kills before the call of that number. What is removed may be so on the disk at once."""

    lives = 1 << 30

    def unlink(self, path: str) -> None:
        super().unlink(path)
        self._entries.pop(os.path.basename(path), None)

    def _check(self, what: str, path: str) -> None:
        super()._check(what, path)
        self.lives -= 1
        if self.lives < 0:
            raise Killed


class CrashTests(DirectoryCase):
    """An archive on a disk that forgets, killed at any moment."""

    @settings(
        max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.lists(_STEPS, max_size=30))
    def test_acknowledged_is_durable(self, steps: list[tuple[str, Any]]) -> None:
        """At every instant; and finished segments are whole and never change."""
        run = _Run(self, Path(self.mktemp()))
        for step in steps:
            run.take(*step)
            run.check()
        run.end()

    def test_a_sync_that_follows_a_failed_one_is_not_believed(self) -> None:
        """The model is as strict as a kernel: what failed once is not on the disk later."""
        path = Path(self.mktemp())
        path.mkdir()
        files = ForgetfulFiles(str(path))
        fd = files.open(os.path.abspath(path / "a"), os.O_RDWR | os.O_CREAT)
        self.addCleanup(files.close, fd)
        for call in ("fsync a", "fsync ."):
            files.pwrite(fd, b"WAL", 0)
            files.fail(call, errno.EIO)
            sync = partial(files.fsync, fd)
            if call == "fsync .":
                sync = partial(files.fsync_directory, os.path.abspath(path))
            self.assertRaises(OSError, sync)
            files.heal()
            sync()
            files.fsync_directory(os.path.abspath(path))
            self.assertNotIn(b"WAL", files.after_power_failure().values())


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
        self.case.successResultOf(archive.adopt(IDENTITY))
        resume = archive.resume_position()
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
        own = [f".walstream/{name}" for name in ("rewrite", "spare", "fresh", "end", "lock")]
        for name in [".", *os.listdir(self.path), *own]:
            self.files.fail(f"{call} {name}", errno.EIO)

    def lose(self, what: str) -> None:
        """The directory is moved away, and another may take its place; or the lock file goes."""
        if what == "lock":
            (self.path / ".walstream" / "lock").unlink(missing_ok=True)
            return
        away, before = f"{self.path}-away", set[str]()
        os.rename(self.path, away)
        if what == "copy":
            shutil.copytree(away, self.path)
            before = {*os.listdir(self.path)}
        elif what == "empty":
            self.path.mkdir()
        self.flush(0)
        finishing = self.archive.finish()
        self.lane.release()
        finishing.addErrback(lambda failure: failure.trap(SinkFailed))
        self.files.heal()
        if what != "copy":
            # Of a copy we cannot know that it is none.
            self.case.failureResultOf(self.archive.adopt(IDENTITY), SinkFailed)
        if self.path.exists():
            assert {*os.listdir(self.path)} == before, "what is not ours was written to"
            shutil.rmtree(self.path)
        os.rename(away, self.path)
        self.begin(self.archive)

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
        possession = self.archive._sink._tenure.possession
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
        self.files.close_graves()
        assert max(self.archive.flushed, START) >= self.acknowledged, "flushed has gone back"
