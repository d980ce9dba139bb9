"""The archive keeps the contracts of sinks and providers, with lanes that wait and with others."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from walstream.archive import ArchiveDirectory, ArchiveReader, Equipment
from walstream.archive.watch import PollingWatch
from walstream.errors import SinkFailed
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory, TimelineSwitch
from walstream.interfaces import IWALProvider, SystemIdentity, WALPosition
from walstream.testing.contracts import provider_contract, sink_contract
from walstream.testing.disk import ManualLane, ScriptedFiles
from walstream.testing.wal import SYSTEM_IDENTIFIER, wal_bytes

SIZE = SegmentSize(1 << 20)
IDENTITY = SystemIdentity(SYSTEM_IDENTIFIER, SIZE, "18.6")
START = SIZE.start(3)


class _Archive:
    """An archive in a directory of its own, whose lanes the test drives."""

    is_held = False

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="walstream-test-"))
        self.reactor = cast(Any, MemoryReactorClock())
        self.files = ScriptedFiles(str(self.path))
        self.lanes = ManualLane(self.is_held), ManualLane(self.is_held)
        self.sink = ArchiveDirectory(
            self.path, self.reactor, equipment=Equipment(self.files, *self.lanes)
        )
        self.done(self.sink.storage.open())

    def settle(self) -> None:
        """Run the lanes until neither has anything to do."""
        while any(lane.waiting for lane in self.lanes):
            for lane in self.lanes:
                lane.work()

    def done(self, result: Deferred[Any]) -> None:
        """Wait for something that must not fail."""
        outcomes: list[Any] = []
        result.addBoth(outcomes.append)
        self.settle()
        if isinstance(outcomes[0], Failure):
            outcomes[0].raiseException()

    def cleanup(self) -> None:
        """Close all and remove the directory."""
        self.files.heal()
        with contextlib.suppress(SinkFailed):
            self.done(self.sink.storage.close())
        shutil.rmtree(self.path)


class ArchiveSink(_Archive):
    """The sink under test."""

    def stored(self, timeline: int, start: int, size: int) -> bytes:
        """Read it from the files that are there."""
        wal = b""
        while len(wal) < size:
            position = start + len(wal)
            path = self.path / SIZE.name(timeline, SIZE.number(position))
            if not path.exists():
                path = path.with_suffix(".partial")
            wal += path.read_bytes()[SIZE.offset(position) :]
        return wal[:size]

    def break_storage(self) -> None:
        """Neither old files nor new ones can be synced."""
        for number in range(16):
            self.files.fail(f"fsync {SIZE.name(1, number)}.partial", errno.EIO)
            self.files.fail(f"fdatasync {SIZE.name(1, number)}.partial", errno.EIO)


class HeldArchiveSink(ArchiveSink):
    """Whose lanes wait."""

    is_held = True


class ArchiveProvider(_Archive):
    """The provider under test, which is filled through its sink."""

    def __init__(self) -> None:
        super().__init__()
        self.start = WALPosition(1, START)
        self.begin(self.start)

    @property
    def provider(self) -> IWALProvider:
        """The same object is both."""
        return self.sink

    def begin(self, start: WALPosition) -> None:
        """Begin a stream."""
        self.done(self.sink.adopt(IDENTITY))
        self.done(self.sink.begin(start.timeline, start.lsn))

    def append(self, data: bytes) -> None:
        """Write, and make durable."""
        self.sink.write(self.sink.written, memoryview(data))
        self.done(self.sink.flush())

    def switch_timeline(self) -> None:
        """Timeline 1 ends here."""
        switch_point = LSN(self.sink.written)
        start = SIZE.floor(switch_point)
        self.done(self.sink.finish())
        history = TimelineHistory(2, (TimelineSwitch(1, switch_point, "by a test"),))
        self.done(self.sink.store_history(2, history.format()))
        self.begin(WALPosition(2, start))
        self.append(wal_bytes(start, switch_point - start, segment_size=SIZE))


class HeldArchiveProvider(ArchiveProvider):
    """Whose lanes wait."""

    is_held = True


class FollowingReader(ArchiveProvider):
    """A reader of an archive that another object fills, and that it looks at on a clock."""

    def __init__(self) -> None:
        self.reader: ArchiveReader | None = None
        super().__init__()
        lanes = ManualLane(), ManualLane()
        equipment = Equipment(ScriptedFiles(str(self.path)), *lanes)
        watch = PollingWatch(self.reactor)
        self.reader = ArchiveReader(self.path, self.reactor, equipment=equipment, watch=watch)
        self.done(self.reader.storage.open())

    @property
    def provider(self) -> IWALProvider:
        """What is under test is the reader."""
        assert self.reader is not None
        return self.reader

    def settle(self) -> None:
        """Let the reader look, too."""
        super().settle()
        self.reactor.advance(1)

    def cleanup(self) -> None:
        """Close both."""
        if self.reader is not None:
            self.done(self.reader.storage.close())
        super().cleanup()


ArchiveSinkContract = sink_contract(ArchiveSink)
HeldArchiveSinkContract = sink_contract(HeldArchiveSink)
ArchiveProviderContract = provider_contract(ArchiveProvider)
HeldArchiveProviderContract = provider_contract(HeldArchiveProvider)
FollowingReaderContract = provider_contract(FollowingReader)
