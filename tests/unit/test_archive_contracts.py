"""The archive directory keeps the contracts of `walstream.interfaces`, as sink and as provider."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Collection
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, execute
from twisted.python.failure import Failure

from walstream.archive.directory import ArchiveDirectory, ArchiveReader, Equipment
from walstream.archive.filesystem import FileSystem
from walstream.errors import SinkFailed
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory, TimelineSwitch
from walstream.interfaces import SystemIdentity, WALPosition
from walstream.testing.contracts import provider_contract, sink_contract
from walstream.testing.wal import SYSTEM_IDENTIFIER

T = TypeVar("T")

SIZE = SegmentSize(1 << 20)
IDENTITY = SystemIdentity(SYSTEM_IDENTIFIER, SIZE, "18.6")
START = SIZE.start(4)

# Everything waits for a disk in lanes, and there are none of a reactor's threads.
NO_REACTOR = cast(Any, None)


class ManualLane:
    """A lane whose jobs are done when the test says so."""

    def __init__(self) -> None:
        self._jobs: deque[Callable[[], object]] = deque()

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        result: Deferred[T] = Deferred()
        self._jobs.append(lambda: execute(job).addBoth(result.callback))
        return result

    def post(self, job: Callable[[], None]) -> None:
        self._jobs.append(job)

    def close(self) -> Deferred[None]:
        return self.run(lambda: None)

    def work(self) -> bool:
        """Do the jobs that there are; False if there were none."""
        some = bool(self._jobs)
        while self._jobs:
            self._jobs.popleft()()
        return some


class Disk(FileSystem):
    """A file system that is quick, until it is broken."""

    is_broken = False

    def pwrite(self, fd: int, data: memoryview | bytes, offset: int) -> int:
        self._check()
        return super().pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:
        self._check()

    def fdatasync(self, fd: int) -> None:
        self._check()

    def _check(self) -> None:
        if self.is_broken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class ArchiveUnderTest:
    """An empty archive in a directory of its own."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="walstream-")
        self.disk = Disk()
        self.lanes = [ManualLane(), ManualLane()]
        self.archive = ArchiveDirectory(
            self.path, NO_REACTOR, equipment=Equipment(self.disk, *self.lanes)
        )
        self.done(self.archive.storage.open())

    def done(self, result: Deferred[T]) -> T:
        """What a Deferred fires with once the lanes are empty."""
        self.settle()
        outcome: list[T | Failure] = []
        result.addBoth(outcome.append)
        if isinstance(outcome[0], Failure):
            outcome[0].raiseException()
        return outcome[0]

    def settle(self) -> None:
        while any([lane.work() for lane in self.lanes]):
            pass

    def cleanup(self) -> None:
        self.done(self.archive.storage.close())
        shutil.rmtree(self.path)


class ArchiveProviderUnderTest(ArchiveUnderTest):
    """An archive that a stream fills."""

    def __init__(self) -> None:
        super().__init__()
        self.start = WALPosition(1, START)
        self.done(self.archive.adopt(IDENTITY))
        self.done(self.archive.begin(1, START))
        self._last_segment = b""

    @property
    def provider(self) -> ArchiveDirectory | ArchiveReader:
        return self.archive

    def append(self, data: bytes) -> None:
        self.archive.write(self.archive.written, memoryview(data))
        self.done(self.archive.flush())
        self._last_segment += data
        self._last_segment = self._last_segment[-(SIZE + SIZE.offset(self.archive.written)) :]

    def switch_timeline(self) -> None:
        switch_point = LSN(self.archive.written)
        history = TimelineHistory(2, (TimelineSwitch(1, switch_point, "by a test"),))
        self.done(self.archive.finish())
        self.done(self.archive.store_history(2, history.format()))
        self.done(self.archive.begin(2, SIZE.floor(switch_point)))
        again = SIZE.offset(switch_point)
        self.append(self._last_segment[len(self._last_segment) - again :])


class StepWatch:
    """Tells that files have changed when it is asked to."""

    def start(self, changed: Callable[[Collection[str]], None]) -> None:
        self.tell: Callable[[Collection[str]], None] = changed

    def stop(self) -> None:
        self.tell = lambda paths: None


class ArchiveReaderUnderTest(ArchiveProviderUnderTest):
    """A reader that follows what another process, here the same, writes into an archive."""

    def __init__(self) -> None:
        self.reader: ArchiveReader | None = None
        super().__init__()
        self._watch = StepWatch()
        reading = [ManualLane(), ManualLane()]
        self.reader = ArchiveReader(
            self.path,
            NO_REACTOR,
            equipment=Equipment(FileSystem(), *reading),
            watch=self._watch,
        )
        self.lanes += reading
        self.done(self.reader.storage.open())

    @property
    def provider(self) -> ArchiveReader:
        assert self.reader is not None
        return self.reader

    def settle(self) -> None:
        super().settle()
        if self.reader is not None:
            self._watch.tell(())
            super().settle()

    def cleanup(self) -> None:
        self.done(self.provider.storage.close())
        super().cleanup()


class ArchiveSinkUnderTest(ArchiveUnderTest):
    """An archive that knows no cluster yet."""

    @property
    def sink(self) -> ArchiveDirectory:
        return self.archive

    def stored(self, timeline: int, start: int, size: int) -> bytes:
        cursor = self.done(self.archive.open(timeline, LSN(start)))
        wal = b""
        while len(wal) < size:
            if not (view := cursor.read(size - len(wal))):
                self.done(cursor.ready())
            wal += view
        cursor.close()
        return wal

    def break_storage(self) -> None:
        self.disk.is_broken = True

    def cleanup(self) -> None:
        try:
            super().cleanup()
        except SinkFailed:
            assert self.disk.is_broken
            shutil.rmtree(self.path)


ArchiveProviderContractTests = provider_contract(ArchiveProviderUnderTest)
ArchiveReaderContractTests = provider_contract(ArchiveReaderUnderTest)
ArchiveSinkContractTests = sink_contract(ArchiveSinkUnderTest)
