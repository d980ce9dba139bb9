"""What the tests of archives share: a directory of a test's own, and an archive in it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from walstream.archive import ArchiveDirectory, ArchiveReader, Equipment
from walstream.archive.checking import Verify
from walstream.archive.codecs import CODECS
from walstream.archive.paths import ArchivePaths
from walstream.archive.tail import Serve
from walstream.archive.watch import PollingWatch
from walstream.formats.compression import Compression
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE
from walstream.formats.segments import SegmentSize, history_file_name
from walstream.formats.timelines import TimelineHistory, TimelineSwitch
from walstream.interfaces import SystemIdentity, WALPosition
from walstream.testing.disk import ManualLane, ScriptedFiles
from walstream.testing.wal import SYSTEM_IDENTIFIER, WALBuilder, wal_bytes

__all__ = [
    "BUILT",
    "IDENTITY",
    "SIZE",
    "START",
    "ArchiveCase",
    "DirectoryCase",
    "Producer",
    "compressed",
    "history",
    "record_wal",
]

T = TypeVar("T")

SIZE = SegmentSize(1 << 20)
IDENTITY = SystemIdentity(SYSTEM_IDENTIFIER, SIZE, "18.6")
#: Where the WAL of most tests begins: segment 5.
START = SIZE.start(5)
#: The positions of which `record_wal` has WAL.
BUILT = range(SIZE, SIZE * 32)

_FIRST_TIMELINE = TimelineHistory(1, ())


@cache
def _built(system_identifier: int) -> bytes:
    builder = WALBuilder(system_identifier, SIZE, start=LSN(BUILT.start))
    builder.fill_to(BUILT.stop, 7000)
    return builder.bytes()


def record_wal(
    start: int,
    size: int,
    history: TimelineHistory = _FIRST_TIMELINE,
    system_identifier: int = SYSTEM_IDENTIFIER,
) -> bytes:
    """WAL of real records, inside `BUILT`; each page was begun on the timeline of the history."""
    first = start - start % PAGE_SIZE
    last = start + size
    wal = bytearray(_built(system_identifier)[first - BUILT.start : last - BUILT.start])
    for address in range(first, last, PAGE_SIZE):
        # The third field of a page's header.
        timeline = history.timeline_at(address).to_bytes(4, "little")
        piece = timeline[: max(0, last - address - 4)]
        wal[address - first + 4 : address - first + 4 + len(piece)] = piece
    return bytes(wal[start - first :])


def history(timeline: int, *switches: tuple[int, int]) -> TimelineHistory:
    """The history of a timeline that left those timelines at those positions."""
    return TimelineHistory(
        timeline, tuple(TimelineSwitch(past, LSN(at), "by a test") for past, at in switches)
    )


def compressed(content: bytes, suffix: str = "gz") -> bytes:
    """What a file of that suffix has in it."""
    method = next(method for method, codec in CODECS.items() if codec.suffix == suffix)
    compression = Compression.parse(f"{method.value}:1")
    assert compression is not None
    return b"".join(CODECS[method].encode([content], compression, len(content)))


@implementer(IPushProducer)
class Producer:
    """Records what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class DirectoryCase(SynchronousTestCase):
    """Has a directory, and puts files into it as pg_receivewal does."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.paths = ArchivePaths(os.path.abspath(self.path))
        self.files = ScriptedFiles(str(self.path))

    def wal(
        self, start: int, size: int, timeline: int = 1, system_identifier: int = SYSTEM_IDENTIFIER
    ) -> bytes:
        """The WAL of the tests' cluster, of real records as far as there are.

        Pages are on ancestors as the history file says.
        """
        file = self.path / history_file_name(timeline)
        ancestry = TimelineHistory.parse(timeline, file.read_bytes()) if file.exists() else None
        if BUILT.start <= start and start + size <= BUILT.stop:
            return record_wal(start, size, ancestry or history(timeline), system_identifier)
        return wal_bytes(
            start,
            size,
            segment_size=SIZE,
            timeline=timeline,
            history=ancestry,
            system_identifier=system_identifier,
        )

    def name(self, number: int, timeline: int = 1) -> str:
        """The name of a segment."""
        return SIZE.name(timeline, number)

    def put_segment(
        self,
        number: int,
        timeline: int = 1,
        *,
        partial: bool = False,
        valid: int = SIZE,
        system_identifier: int = SYSTEM_IDENTIFIER,
    ) -> Path:
        """Put a segment there; of a partial one so many bytes are WAL."""
        path = self.path / (self.name(number, timeline) + (".partial" if partial else ""))
        wal = self.wal(SIZE.start(number), valid, timeline, system_identifier)
        path.write_bytes(wal.ljust(SIZE, b"\0"))
        return path

    def compress_segment(self, number: int, suffix: str = "gz", timeline: int = 1) -> Path:
        """Put a segment there in compressed form, in place of the plain one if that is there."""
        self.put_segment(number, timeline).unlink()
        wal = self.wal(SIZE.start(number), SIZE, timeline)
        path = self.path / f"{self.name(number, timeline)}.{suffix}"
        path.write_bytes(compressed(wal, suffix))
        return path

    def put_history(self, timeline: int, *switches: tuple[int, int]) -> None:
        """Put a history file there."""
        content = history(timeline, *switches).format()
        (self.path / history_file_name(timeline)).write_bytes(content)

    def names(self) -> list[str]:
        """What other programs see in the directory."""
        return sorted(name for name in os.listdir(self.path) if not name.startswith("."))

    def own_names(self) -> list[str]:
        """What is in walstream's own directory."""
        return sorted(os.listdir(self.paths.own))


class ArchiveCase(DirectoryCase):
    """Has an archive, too, once it is opened. Its lanes work at once unless they are held.

    :cvar verify: what of the WAL is checked before it counts.
    :cvar serve: when it is served.
    """

    verify = Verify.HEADERS
    serve = Serve.FLUSHED

    def setUp(self) -> None:
        super().setUp()
        self.reactor: Any = MemoryReactorClock()
        self.writing = ManualLane()
        self.reading = ManualLane()

    def equipment(self) -> Equipment:
        """Lanes for another archive, and the files of the test."""
        self.writing, self.reading = ManualLane(), ManualLane()
        return Equipment(self.files, self.writing, self.reading)

    def make(self) -> ArchiveDirectory:
        """An archive that is not open yet."""
        return ArchiveDirectory(
            self.path,
            self.reactor,
            equipment=self.equipment(),
            verify=self.verify,
            serve=self.serve,
        )

    def open(self) -> ArchiveDirectory:
        """An archive that is closed when the test is over."""
        archive = self.make()
        self.successResultOf(archive.storage.open())
        self.addCleanup(self.close, archive, self.writing, self.reading)
        return archive

    def close(self, archive: ArchiveDirectory, *lanes: ManualLane) -> None:
        """Close an archive, in whatever state it is."""
        for lane in lanes:
            lane.release()
        self.files.heal()
        archive.storage.close().addErrback(lambda _: None)

    def abandon(self, archive: ArchiveDirectory) -> None:
        """Leave an archive as a process does that is killed: nothing is written or closed."""
        tenure = archive._sink._tenure
        assert tenure.possession is not None
        tenure.possession.lock.release()
        tenure.possession = None

    def open_reader(self) -> ArchiveReader:
        """A reader of the same directory, which looks when the clock moves."""
        equipment = Equipment(ScriptedFiles(str(self.path)), ManualLane(), ManualLane())
        watch = PollingWatch(self.reactor)
        reader = ArchiveReader(self.path, self.reactor, equipment=equipment, watch=watch)
        self.successResultOf(reader.storage.open())
        self.addCleanup(reader.storage.close)
        return reader

    def begin(self, archive: ArchiveDirectory, start: int = START, timeline: int = 1) -> None:
        """Begin a stream."""
        self.successResultOf(archive.adopt(IDENTITY))
        self.successResultOf(archive.begin(timeline, LSN(start)))

    def write(self, archive: ArchiveDirectory, size: int, timeline: int = 1) -> None:
        """Write so many bytes more."""
        start = archive.written
        archive.write(start, memoryview(self.wal(start, size, timeline)))

    def flush(self, archive: ArchiveDirectory) -> int:
        """Make durable what was written."""
        return self.successResultOf(archive.flush())

    def finish(self, archive: ArchiveDirectory) -> None:
        """End the stream."""
        self.successResultOf(archive.finish())

    def switch(self, archive: ArchiveDirectory) -> int:
        """End the stream's timeline where it is, and begin timeline 2; the switch point."""
        at = archive.written
        self.finish(archive)
        self.successResultOf(archive.store_history(2, history(2, (1, at)).format()))
        self.begin(archive, SIZE.floor(at), 2)
        return at

    def read(self, number: int, timeline: int = 1, *, partial: bool = False) -> bytes:
        """What a segment's file holds."""
        name = self.name(number, timeline) + (".partial" if partial else "")
        return (self.path / name).read_bytes()

    def assert_finished(self, numbers: Iterable[int], timeline: int = 1) -> None:
        """Segments are whole, and what was sent."""
        for number in numbers:
            wal = self.wal(SIZE.start(number), SIZE, timeline)
            self.assertTrue(self.read(number, timeline) == wal, f"segment {number} is wrong")

    def assert_durable(self, archive: ArchiveDirectory, lsn: int, timeline: int = 1) -> None:
        """The archive says that it is durable up to there, in every way it can."""
        self.assertEqual(archive.durable_position(), WALPosition(timeline, LSN(lsn)))
        self.assertEqual(archive.flushed, lsn)

    def failure(self, result: Deferred[Any], error: type[BaseException]) -> str:
        """What a Deferred failed with, in words."""
        return str(self.failureResultOf(result, error).value)
