"""A provider in memory, for tests of whatever reads WAL; `MemorySink` is its counterpart.

`MemoryProvider` keeps `IWALProvider` to the letter and in few lines, so it also serves as the
example to write another one after. It takes any bytes for WAL: `walstream.testing.wal` has real
ones. When WAL appears, how far it may be served, and when it is gone, the test decides.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from walstream.errors import EndOfTimeline, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE, SegmentSize, history_file_name
from walstream.formats.timelines import TimelineHistory, TimelineSwitch
from walstream.interfaces import (
    BackupHistoryFile,
    IWALCursor,
    IWALProvider,
    SystemIdentity,
    WALPosition,
)
from walstream.testing.memory_cursor import MemoryCursor, TimelineWAL
from walstream.testing.memory_sink import MemorySink

__all__ = ["FIRST_POSITION", "MemoryCursor", "MemoryProvider", "MemorySink"]

#: Where the WAL of a new cluster begins.
FIRST_POSITION = WALPosition(1, DEFAULT_SEGMENT_SIZE.start(1))


@implementer(IWALProvider)
class MemoryProvider:
    """WAL in memory, which a test appends to, cuts off and branches.

    :ivar cursors: the cursors that are open, in the order in which they were opened.
    """

    def __init__(
        self,
        identity: SystemIdentity | None = None,
        start: WALPosition = FIRST_POSITION,
    ) -> None:
        """Hold nothing yet; the first byte appended has the position *start*."""
        self.identity = identity
        self.cursors: list[MemoryCursor] = []
        self._history = TimelineHistory(start.timeline, ())
        self._wal = {start.timeline: TimelineWAL(start.lsn)}
        self._history_files: dict[int, bytes] = {}
        self._backup_histories: dict[int, BackupHistoryFile] = {}
        self._is_held_back = False

    # IWALProvider

    def end(self) -> WALPosition:
        """See `IWALProvider.end`."""
        return WALPosition(self._history.timeline, LSN(self._current.available))

    def history(self, timeline: int) -> Deferred[TimelineHistory]:
        """See `IWALProvider.history`."""
        if timeline == 1:
            return succeed(TimelineHistory(1, ()))
        return self.history_file(timeline).addCallback(
            lambda content: TimelineHistory.parse(timeline, content)
        )

    def history_file(self, timeline: int) -> Deferred[bytes]:
        """See `IWALProvider.history_file`."""
        content = self._history_files.get(timeline)
        if content is None:
            return fail(WALUnavailable(history_file_name(timeline)))
        return succeed(content)

    def backup_history(self, start: LSN) -> Deferred[BackupHistoryFile | None]:
        """See `IWALProvider.backup_history`."""
        return succeed(self._backup_histories.get(start))

    def open(self, timeline: int, start: LSN) -> Deferred[IWALCursor]:
        """See `IWALProvider.open`."""
        wal = self._wal.get(timeline)
        is_current = timeline == self._history.timeline
        if wal is None or start < wal.held_from or (start > wal.available and not is_current):
            return fail(self.unavailable(timeline, start))
        cursor = MemoryCursor(self, timeline, start)
        self.cursors.append(cursor)
        return succeed(cursor)

    # What the test does.

    def append(self, data: bytes, *, visible: bool = True) -> LSN:
        """Append WAL to the current timeline, and give the position behind it.

        :param visible: whether it may be served; if not, `advance_end` lets it be.
        """
        self._current.append(data)
        if visible:
            self.advance_end()
        return LSN(self._current.written)

    def advance_end(self, end: int | None = None) -> None:
        """Let WAL be served up to *end*, or as far as it was appended.

        :raises ValueError: if *end* is behind what may be served, or ahead of what is there.
        """
        wal = self._current
        end = wal.written if end is None else end
        if not wal.available <= end <= wal.written:
            raise ValueError(f"{LSN(end)} is not where the end may go")
        wal.available = end
        self._wake()

    def end_timeline(
        self, new_timeline: int | None = None, reason: str = "no recovery target specified"
    ) -> WALPosition:
        """Leave the current timeline where its served WAL ends; give where the new one begins.

        WAL that was not visible is gone. As on a promoted server, the segment of the switch point
        is held on the new timeline from its start.
        """
        old = self.end()
        new_timeline = old.timeline + 1 if new_timeline is None else new_timeline
        switch = TimelineSwitch(old.timeline, old.lsn, reason)
        self._history = TimelineHistory(new_timeline, (*self._history.ancestors, switch))
        self.add_history(new_timeline, self._history.format())
        self._wal[new_timeline] = self._branch(self._wal[old.timeline])
        self._wake()
        return self.end()

    def add_history(self, timeline: int, content: bytes) -> None:
        """Hold a timeline history file, whatever is in it."""
        self._history_files[timeline] = content

    def add_backup_history(self, start: LSN, file: BackupHistoryFile) -> None:
        """Hold the backup history file of the base backup that started at *start*."""
        self._backup_histories[start] = file

    def drop_before(self, position: int) -> None:
        """Let go of the segments that end at or before *position*, on all timelines."""
        for wal in self._wal.values():
            last = self._size.floor(min(position, wal.available))
            wal.held_from = max(wal.held_from, last)
        self._wake()

    def hold_back(self) -> None:
        """Have nothing at hand until `let_go`: reads give nothing, and nobody becomes ready."""
        self._is_held_back = True

    def let_go(self) -> None:
        """Go on after `hold_back`."""
        self._is_held_back = False
        self._wake()

    # For the cursors.

    def available(self, timeline: int) -> int:
        """The position up to which *timeline* may be served."""
        return self._wal[timeline].available

    def view(self, timeline: int, start: int, limit: int) -> memoryview:
        """The WAL at *start*, as far as it is at hand."""
        return self._wal[timeline].view(start, 0 if self._is_held_back else limit)

    def is_ready(self, timeline: int, position: int) -> bool:
        """Whether there is something to read at *position*, or never will be.

        :raises EndOfTimeline: if the timeline ends there.
        :raises WALUnavailable: if the WAL there is not held any more.
        """
        wal = self._wal[timeline]
        if self._is_held_back:
            return False
        if position >= wal.available and timeline != self._history.timeline:
            raise EndOfTimeline(self._history.successor(timeline), wal.available)
        if position < wal.held_from:
            raise self.unavailable(timeline, position)
        return position < wal.available

    def unavailable(self, timeline: int, position: int) -> WALUnavailable:
        """The error that names the segment of *position*."""
        return WALUnavailable(self._size.name(timeline, self._size.number(position)))

    @property
    def _current(self) -> TimelineWAL:
        return self._wal[self._history.timeline]

    @property
    def _size(self) -> SegmentSize:
        return DEFAULT_SEGMENT_SIZE if self.identity is None else self.identity.segment_size

    def _branch(self, old: TimelineWAL) -> TimelineWAL:
        new = TimelineWAL(max(old.held_from, self._size.floor(old.available)))
        while piece := old.view(new.written, old.available):
            new.append(bytes(piece))
        new.available = new.written
        return new

    def _wake(self) -> None:
        for cursor in list(self.cursors):
            cursor.wake()
