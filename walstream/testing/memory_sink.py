"""A sink in memory, for tests of whatever receives WAL; see `walstream.testing.memory`.

`MemorySink` keeps `IWALSink` to the letter. Its disk is the test: WAL becomes durable at once, or
when the test says so, or never.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from walstream.archive.abandoned import beyond
from walstream.errors import (
    Discontinuity,
    SinkFailed,
    TimelineMismatch,
    WALUnavailable,
    WrongSystem,
)
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE, SegmentSize, history_file_name
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import BackupHistoryFile, IWALSink, SystemIdentity, WALPosition

__all__ = ["MemorySink"]

K = TypeVar("K")


@implementer(IWALSink)
class MemorySink:
    """Keeps WAL in memory and records how it came.

    :ivar writes: position and bytes of every piece that was ever taken, in order.
    :ivar begun: where each stream began, in order.
    :ivar history_files: the contents of timeline history files by timeline.
    :ivar backup_histories: the contents of backup history files by name.
    :ivar gaps: what was accepted to be missing: where each begins, and where it ends.
    :ivar producer: the registered producer, or None.
    :ivar is_paused: whether the producer was told to pause, and not to resume since.
    :ivar auto_flush: whether a flush is done at once; else `complete_flush` does it.
    """

    def __init__(
        self,
        identity: SystemIdentity | None = None,
        *,
        auto_flush: bool = True,
        high_mark: int | None = None,
    ) -> None:
        """Hold nothing.

        :param identity: whose WAL it takes, and no other's; None: that of whoever is first.
        :param high_mark: bytes taken and not durable, above which the producer is paused until
            all are durable; None for no limit.
        """
        self.identity = identity
        self._is_bound = identity is not None
        self.written = self.flushed = self._start = 0
        self.writes: list[tuple[int, bytes]] = []
        self.begun: list[WALPosition] = []
        self.history_files: dict[int, bytes] = {}
        self.backup_histories: dict[str, bytes] = {}
        self.gaps: list[tuple[LSN, WALPosition]] = []
        self.producer: IPushProducer | None = None
        self.is_paused = False
        self.auto_flush = auto_flush
        self._high_mark = high_mark
        self._held: dict[int, tuple[int, bytearray]] = {}
        self._durable: WALPosition | None = None
        self._behind_gap: WALPosition | None = None
        self._timeline: int | None = None
        self._failure: SinkFailed | None = None
        self._under_way: tuple[int, list[Deferred[LSN]]] | None = None
        self._waiting: list[Deferred[LSN]] = []

    # IWALSink

    def adopt(self, identity: SystemIdentity) -> Deferred[None]:
        """See `IWALSink.adopt`."""
        held = self.identity
        if held is not None and replace(identity, server_version=held.server_version) != held:
            if self._is_bound or self._durable is not None:
                return fail(WrongSystem(f"the sink holds WAL of {held}, the server is {identity}"))
            self.history_files.clear()  # of a system of which no WAL came
        self.identity = identity
        return succeed(None)

    def resume_position(self) -> WALPosition | None:
        """See `IWALSink.resume_position`."""
        held = self._durable
        if held is None or self._behind_gap is not None:
            return self._behind_gap
        return WALPosition(held.timeline, self._size.floor(held.lsn))

    def durable_position(self) -> WALPosition | None:
        """See `IWALSink.durable_position`."""
        return self._durable

    def histories(self) -> Collection[int]:
        """See `IWALSink.histories`."""
        return self.history_files.keys()

    def history(self, timeline: int) -> Deferred[TimelineHistory]:
        """See `IWALSink.history`."""
        if timeline == 1:
            return succeed(TimelineHistory(1, ()))
        if timeline not in self.history_files:
            return fail(WALUnavailable(history_file_name(timeline)))
        return succeed(TimelineHistory.parse(timeline, self.history_files[timeline]))

    def store_history(self, timeline: int, content: bytes) -> Deferred[None]:
        """See `IWALSink.store_history`."""
        return self._store(self.history_files, timeline, content)

    def store_backup_history(self, file: BackupHistoryFile) -> Deferred[None]:
        """See `IWALSink.store_backup_history`."""
        return self._store(self.backup_histories, file.name, file.content)

    def begin(self, timeline: int, start: LSN) -> Deferred[None]:
        """See `IWALSink.begin`.

        :raises Discontinuity: (in the Deferred) if *start* is not `resume_position`, or where
            there is none, not a segment's start.
        """
        if self._failure is not None:
            return fail(self._failure)
        held = self.resume_position()
        expected = self._size.floor(start) if held is None else held.lsn
        if start != expected:
            return fail(Discontinuity(expected, start))
        is_other = self._durable is not None and self._durable.timeline != timeline
        if is_other or self._behind_gap is not None:
            self.flushed = start  # what is before it is durable, on the timelines before
        self._timeline = timeline
        self._start = self.written = start
        self.begun.append(WALPosition(timeline, start))
        self._rewind(timeline, start)
        return succeed(None)

    def write(self, start: int, data: memoryview) -> None:
        """See `IWALSink.write`."""
        if self._failure is not None:
            raise self._failure
        if self._timeline is None:
            raise SinkFailed("no stream has begun, so no WAL is expected")
        if start != self.written:
            raise Discontinuity(self.written, start)
        self.writes.append((start, bytes(data)))
        self._held[self._timeline][1].extend(data)
        self.written += len(data)
        if self._high_mark is not None and self.written - self.flushed > self._high_mark:
            self.pause()
            if self.auto_flush:
                self.complete_flush()

    def flush(self) -> Deferred[LSN]:
        """See `IWALSink.flush`."""
        if self._failure is not None:
            return fail(self._failure)
        if self.written <= max(self.flushed, self._start):
            return succeed(LSN(self.flushed))
        flushed: Deferred[LSN] = Deferred()
        self._waiting.append(flushed)
        if self._under_way is None:
            self._start_flush()
        return flushed

    def accept_gap(self, start: LSN, end: WALPosition) -> Deferred[None]:
        """See `IWALSink.accept_gap`."""
        if self._failure is not None:
            return fail(self._failure)
        held = self._durable
        if held is None or held.lsn != start:
            return fail(Discontinuity(0 if held is None else held.lsn, start))
        if self._size.offset(end.lsn) or end.lsn <= start:
            return fail(Discontinuity(start, end.lsn))
        self._timeline = None
        self.gaps = [gap for gap in self.gaps if gap[0] != start] + [(start, end)]
        self._behind_gap = end
        return succeed(None)

    def rewind(self, switch_point: LSN) -> Deferred[None]:
        """See `IWALSink.rewind`."""
        held = self._durable
        if held is None or held.lsn <= switch_point:
            return succeed(None)
        start = LSN(switch_point - switch_point % PAGE_SIZE)
        wal = self.stored(held.timeline, start, held.lsn - start)
        whole = beyond(wal, start, self._size, switch_point)
        if whole is not None:
            return fail(TimelineMismatch(whole))
        self._rewind(held.timeline, switch_point)
        self._timeline = None
        self.written = self.flushed = switch_point
        self._durable = WALPosition(held.timeline, switch_point)
        return succeed(None)

    def finish(self) -> Deferred[None]:
        """See `IWALSink.finish`."""
        return self.flush().addCallback(self._finished)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """See `IWALSink.registerProducer`.

        :raises RuntimeError: if one is registered.
        """
        if self.producer is not None:
            raise RuntimeError("a producer is registered already")
        if self._failure is not None:
            producer.stopProducing()
        else:
            self.producer = producer

    def unregisterProducer(self) -> None:
        """See `IWALSink.unregisterProducer`."""
        self.producer = None
        self.is_paused = False

    # What the test does.

    def stored(self, timeline: int, start: int, size: int) -> bytes:
        """What is held of *timeline* at *start*, at most *size* bytes; durable or not."""
        first, wal = self._held[timeline]
        return bytes(wal[start - first : start - first + size])

    @property
    def needs_flush(self) -> bool:
        """Whether `complete_flush` would let somebody go on: one who asked, or the producer."""
        return self._under_way is not None or self.is_paused

    def complete_flush(self) -> None:
        """The flush under way is done; without one, all that was taken is durable now."""
        if self._under_way is None:
            self._under_way = self.written, []
        self._end_flush()

    def fail(self, reason: str = "no space left on device") -> None:
        """The disk is gone: nothing more is taken or made durable."""
        self._failure = SinkFailed(f"could not write WAL: {reason}")
        waiting = (self._under_way[1] if self._under_way else []) + self._waiting
        self._under_way, self._waiting = None, []
        for flushed in waiting:
            flushed.errback(self._failure)
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()

    def recover(self) -> None:
        """The disk is back: another stream may begin."""
        self._failure = self._timeline = None

    def pause(self) -> None:
        """Tell the producer that it is enough."""
        if self.producer is not None and not self.is_paused:
            self.is_paused = True
            self.producer.pauseProducing()

    def resume(self) -> None:
        """Tell the producer to go on, if it was paused."""
        if self.producer is not None and self.is_paused:
            self.is_paused = False
            self.producer.resumeProducing()

    def _store(self, files: dict[K, bytes], key: K, content: bytes) -> Deferred[None]:
        if self._failure is not None:
            return fail(self._failure)
        files[key] = content
        return succeed(None)

    def _rewind(self, timeline: int, start: int) -> None:
        first, wal = self._held.setdefault(timeline, (start, bytearray()))
        del wal[start - first :]
        wal += bytes(start - first - len(wal))  # a gap

    def _finished(self, flushed: LSN) -> None:
        self._timeline = None

    def _start_flush(self) -> None:
        self._under_way, self._waiting = (self.written, self._waiting), []
        if self.auto_flush:
            self._end_flush()

    def _end_flush(self) -> None:
        assert self._under_way is not None
        (end, fired), self._under_way = self._under_way, None
        if self._timeline is not None and end > max(self.flushed, self._start):
            self.flushed = end
            self._behind_gap = None
            self._durable = WALPosition(self._timeline, LSN(end))
        for flushed in fired:
            flushed.callback(LSN(self.flushed))
        if self.flushed >= self.written:
            self.resume()
        if self._waiting and self._under_way is None:
            self._start_flush()

    @property
    def _size(self) -> SegmentSize:
        return DEFAULT_SEGMENT_SIZE if self.identity is None else self.identity.segment_size
