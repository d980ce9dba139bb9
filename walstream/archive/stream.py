"""One stream on its way into an archive: from `begin` to `finish`, on one timeline.

The reactor's thread writes, into the page cache; the lane makes durable, in order. Nothing is
counted as durable before the file's data and the directory entry that names it are, and after the
first failure nothing more is: a segment behind a hole would be a gap under a finished name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.archive.checking import RecordCheck
from walstream.archive.lane import Lane
from walstream.archive.segment import OpenSegment
from walstream.archive.supply import SegmentSupply
from walstream.errors import ArchiveLost, DamagedWAL, Discontinuity, SinkFailed
from walstream.formats.arriving_pages import ArrivingPages
from walstream.formats.lsn import LSN
from walstream.formats.positions import WALPosition
from walstream.formats.segments import SegmentSize

__all__ = ["Stream", "StreamOwner"]

# Writeback is started this often while WAL comes in bulk, so that an fsync finds little left to
# do. Measured with 16 MiB segments: every MiB costs a fifth more CPU, once a segment as much time.
_WRITEBACK_EVERY = 4 << 20


class StreamOwner(Protocol):
    """Who is told what becomes of a stream, in the reactor's thread unless another one is said."""

    def stream_is_durable(self, lsn: int) -> None:
        """Everything up to *lsn* is durable.

        :raises OSError: to end the stream.
        """

    def stream_is_synced(self, lsn: int) -> None:
        """Everything up to *lsn* is durable. This one comes in the lane's thread, and earlier.

        :raises OSError: to end the stream.
        """

    def stream_is_followed(self) -> bool:
        """Whether anybody in this process waits for WAL to become durable. In any thread."""

    def stream_is_checked(self) -> None:
        """More may be read than before: see `Stream.readable`. Comes in the lane's thread."""

    def stream_has_unsynced(self, segments: int) -> None:
        """So many segments are complete and not yet durable."""

    def stream_replaced(self, start: int) -> None:
        """Another file has taken the place of the .partial of the segment at *start*."""

    def stream_failed(self, error: SinkFailed | DamagedWAL) -> None:
        """Nothing more of the stream can be kept."""


class Stream:
    """Writes WAL of one timeline, in order.

    :ivar timeline: the timeline.
    :ivar start: the position at which it began, the start of a segment.
    :ivar written: the position up to which WAL was taken.
    :ivar flushed: the position up to which it is durable; may be further on for as long as WAL
        comes again that is durable already.
    :ivar failure: why nothing more can be kept, or None.
    :ivar in_thread: called in the lane's thread with each new durable position, unless None; says
        whether that was all that anybody had to be told.
    :ivar in_reactor: called in the reactor's thread afterwards, unless None.
    """

    _log = Logger()

    def __init__(
        self,
        start: WALPosition,
        flushed: int,
        size: SegmentSize,
        first: OpenSegment | None,
        supply: SegmentSupply,
        lane: Lane,
        owner: StreamOwner,
        pages: ArrivingPages,
        records: RecordCheck | None = None,
    ) -> None:
        self.timeline = start.timeline
        self.start: int = start.lsn
        self.written: int = start.lsn
        self.flushed = flushed
        self.failure: SinkFailed | DamagedWAL | None = None
        self.in_thread: Callable[[int], bool] | None = None
        self.in_reactor: Callable[[], None] | None = None
        self._size = size
        self._supply = supply
        self._lane = lane
        self._owner = owner
        self._pages = pages
        self._records = records
        self._first = first
        self._awaits_place = first is not None and not first.is_in_place
        self._segment: OpenSegment | None = None
        self._unsynced = 0
        self._write_back_at = start.lsn + _WRITEBACK_EVERY
        self._flushing: list[Deferred[LSN]] | None = None
        self._to_flush: list[Deferred[LSN]] = []
        # Set by the first job that failed, in the lane's thread so that no job comes in between.
        self._is_broken = False
        # As `flushed`, and ahead of it: by the lane's thread's own knowledge.
        self._synced = flushed
        # As far as the lane has looked at the records, if it does.
        self._checked = flushed
        self._sync_is_due = False
        # Where the lane has come, in which segment; whether the reactor knows, and is to know.
        self._news: tuple[int, OpenSegment] | None = None
        self._has_news = self._reactor_is_told = self._is_enough = False

    @property
    def readable(self) -> int:
        """The position up to which WAL was found good, and is in the files that have the names.

        May go back when the stream fails: to what is durable.
        """
        if self.failure is not None or self._awaits_place:
            return self.flushed
        return self.written if self._records is None else self._checked

    # Taking WAL.

    def write(self, start: int, data: memoryview) -> None:
        """See `IWALSink.write`."""
        if self.failure is not None:
            raise self.failure
        if start != self.written:
            raise Discontinuity(self.written, start)
        self._pages.check(start, data)
        segment = self._segment
        try:
            while True:
                if segment is None:
                    if not data:
                        return
                    segment = self._segment = self._next_segment()
                room = segment.end - start
                if len(data) <= room:
                    break
                segment.put(start, data[:room])
                self.written = start = segment.end
                self._complete(segment)
                segment, data = None, data[room:]
            segment.put(start, data)
        except (OSError, ArchiveLost) as error:
            raise self._fail(error, "write", segment) from error
        self.written = end = start + len(data)
        if end == segment.end:
            self._complete(segment)
        elif end >= self._write_back_at:
            self._write_back(segment, end)

    def _next_segment(self) -> OpenSegment:
        segment, self._first = self._first, None
        if segment is not None:
            return segment
        return self._supply.take(self.timeline, self._size.number(self.written))

    def _next_path(self) -> str:
        return self._supply.path(self.timeline, self._size.number(self.written))

    def _write_back(self, segment: OpenSegment, end: int) -> None:
        self._write_back_at = end + _WRITEBACK_EVERY
        if not segment.is_writing_back:
            # While the lane has not come to the last range, the next one includes this one.
            segment.is_writing_back = True
            self._lane.post(partial(segment.start_writeback, end))

    def _complete(self, segment: OpenSegment) -> None:
        self._segment = None
        self._write_back_at = segment.end + _WRITEBACK_EVERY
        self._unsynced += 1
        job = self._make_durable(segment, segment.end, segment.finish)
        self._lane.post(segment.close)
        job.addCallback(self._completed, segment)
        job.addErrback(self._job_failed, segment)
        self._owner.stream_has_unsynced(self._unsynced)

    def _completed(self, _: None, segment: OpenSegment) -> None:
        self._unsynced -= 1
        self._advance(segment.end, segment)
        self._owner.stream_has_unsynced(self._unsynced)

    # Making it durable.

    def flush(self) -> Deferred[LSN]:
        """See `IWALSink.flush`."""
        self.catch_up()
        if self.failure is not None:
            return fail(self.failure)
        if self.flushed >= self.written:
            return succeed(LSN(self.flushed))
        flushed: Deferred[LSN] = Deferred()
        self._to_flush.append(flushed)
        if self._flushing is None:
            self._start_flush()
        return flushed

    def _start_flush(self) -> None:
        self._flushing, self._to_flush = self._to_flush, []
        end, segment = self.written, self._segment
        # Behind the last complete segment there is nothing to sync, but the lane is to come there.
        sync = segment.sync if segment is not None else _nothing
        job = self._make_durable(segment, end, sync)
        job.addCallback(self._flush_done, end, segment)
        job.addErrback(self._job_failed, segment)

    def _flush_done(self, _: None, end: int, segment: OpenSegment | None) -> None:
        self._advance(end, segment)
        waiting, self._flushing = self._flushing or [], None
        for flushed in waiting:
            flushed.callback(LSN(self.flushed))
        if self._to_flush and self._flushing is None:
            self._start_flush()

    def _make_durable(
        self, segment: OpenSegment | None, end: int, step: Callable[[], None]
    ) -> Deferred[None]:
        return self._lane.run(partial(self._sync, segment, end, step))

    def sync_soon(self) -> None:
        """See `IPromptSink.sync_soon`."""
        if not self._sync_is_due and self.failure is None:
            self._sync_is_due = True
            self._lane.post(self._sync_what_there_is)

    # What the lane does.

    def _sync(self, segment: OpenSegment | None, end: int, step: Callable[[], None]) -> None:
        if self._is_broken:
            raise _AfterFailure
        try:
            if self._records is not None and segment is not None:
                self._records.check(segment, end)
                self._checked = end
                self._owner.stream_is_checked()
            step()
            if end > self._synced:
                self._synced = end
                self._is_enough = False
                in_thread = self.in_thread  # once: the reactor's thread may end the watch meanwhile
                if in_thread is not None:
                    self._owner.stream_is_synced(end)
                    self._is_enough = in_thread(end)
        except BaseException:
            self._is_broken = True
            raise

    def _sync_what_there_is(self) -> None:
        self._sync_is_due = False  # what comes from here on is the next one's
        # The segment first: the position may run ahead, into the next one, at any moment.
        segment = self._segment
        written = self.written
        if segment is None or self._is_broken or (end := min(written, segment.end)) <= self._synced:
            return
        if segment.start > self._synced:
            # The segment before has been completed meanwhile, and its turn is after this.
            self._sync_is_due = True
            self._lane.post(self._sync_what_there_is)
            return
        try:
            self._sync(segment, end, segment.sync)
        except BaseException:
            self._lane.tell(partial(self._job_failed, Failure(), segment))
            return
        self._news = end, segment
        self._has_news = True
        # To wake the reactor costs more than all else here, and on a commit's path at that.
        is_urgent = not self._is_enough or segment.was_replaced or self._owner.stream_is_followed()
        if is_urgent and not self._reactor_is_told:
            self._reactor_is_told = True
            self._lane.tell(self.catch_up)

    # What follows, in the reactor's thread.

    def catch_up(self) -> None:
        """Learn how far the lane has come."""
        # First of all: the lane may be about to tell of what is learned here without it.
        self._reactor_is_told = False
        if not self._has_news:
            return
        self._has_news = False  # before the news are looked at
        if self._news is not None and self.failure is None:
            end, segment = self._news
            try:
                self._advance(end, segment)
            except OSError:
                self._job_failed(Failure(), segment)

    def _advance(self, end: int, segment: OpenSegment | None) -> None:
        if segment is not None and segment.was_replaced:
            segment.was_replaced = self._awaits_place = False
            self._owner.stream_replaced(segment.start)
        if end > self.flushed:
            self.flushed = end
            self._owner.stream_is_durable(end)
            if self.in_reactor is not None:
                self.in_reactor()

    # The end.

    def finish(self) -> Deferred[None]:
        """Make everything durable and close what is open; see `IWALSink.finish`."""
        return Deferred.fromCoroutine(self._finish())

    async def _finish(self) -> None:
        try:
            await self.flush()
        finally:
            await self._lane.run(self._close)

    def _close(self) -> None:
        for segment in (self._first, self._segment):
            if segment is not None:
                segment.close()

    def _job_failed(self, failure: Failure, segment: OpenSegment | None) -> None:
        # If the lane could not even run it, this is the first that is known of it.
        self._is_broken = True
        if self.failure is not None:
            return
        if failure.check(OSError, ArchiveLost, DamagedWAL) is None:
            self._log.failure("a job of the archive failed", failure)
        self._fail(failure.value, "make durable", segment)

    def _fail(
        self, error: BaseException | None, what: str, segment: OpenSegment | None
    ) -> SinkFailed | DamagedWAL:
        self.failure = self._failure_of(error, what, segment)
        waiting = (self._flushing or []) + self._to_flush
        self._flushing, self._to_flush = None, []
        for flushed in waiting:
            flushed.errback(self.failure)
        self._owner.stream_failed(self.failure)
        return self.failure

    def _failure_of(
        self, error: BaseException | None, what: str, segment: OpenSegment | None
    ) -> SinkFailed | DamagedWAL:
        if isinstance(error, ArchiveLost | DamagedWAL):
            return error
        path = getattr(error, "filename", None)
        if path is None:
            path = segment.path if segment is not None else self._next_path()
        reason = getattr(error, "strerror", None) or repr(error)
        failed = SinkFailed(f"could not {what} {path}: {reason}")
        failed.__cause__ = error
        return failed


class _AfterFailure(Exception):
    """A job that was not run, since one before it failed."""


def _nothing() -> None:
    pass
