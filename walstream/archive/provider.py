"""The reading side of an archive: how far it goes, and cursors over it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from walstream.archive.cursor import Cursor
from walstream.archive.documents import Documents
from walstream.archive.filesystem import FileSystem
from walstream.archive.images import Image, Images
from walstream.archive.lane import Lane
from walstream.archive.ledger import AcceptedGap
from walstream.archive.mapping import SegmentRequest, load_image
from walstream.archive.paths import ArchivePaths, forms_of
from walstream.archive.places import Places
from walstream.archive.tail import Tail
from walstream.errors import WALUnavailable
from walstream.formats.lsn import LSN
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE, SegmentSize, backup_history_name
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import BackupHistoryFile, SystemIdentity, WALPosition

__all__ = ["ArchiveProvider"]


class ArchiveProvider:
    """Serves an archive directory; see `IWALProvider` for what its methods promise.

    Whoever knows better how far the archive goes says so with `extend`.

    :ivar is_followed: whether anybody has ever asked how far it goes.
    """

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        documents: Documents,
        lane: Lane,
        places: Places,
    ) -> None:
        self.identity: SystemIdentity | None = None
        self.is_followed = False
        self._files = files
        self._paths = paths
        self._documents = documents
        self._places = places
        self._tail = Tail(lane.tell)
        self._images = Images(lane, self._load)

    # IWALProvider

    def end(self) -> WALPosition:
        """See `IWALProvider.end`."""
        return self._tail.end

    async def backup_history(self, start: LSN) -> BackupHistoryFile | None:
        """See `IWALProvider.backup_history`."""
        timeline = self._tail.history.timeline_at(start)
        return await self._documents.backup_history(
            backup_history_name(timeline, start, self._size())
        )

    async def open(self, timeline: int, start: LSN) -> Cursor:
        """See `IWALProvider.open`. At the end there is nothing to hold yet, so none is needed."""
        size, available = self._size(), self._tail.available(timeline, start)
        gap = self._tail.gap_at(start)
        if start > available and (gap is not None or timeline != self._tail.end.timeline):
            raise WALUnavailable(
                size.name(timeline, size.number(start)), gap=None if gap is None else str(gap)
            )
        place = await self._places.enter(WALPosition(timeline, start))
        cursor = Cursor(timeline, start, size, self._tail, self._images, place)
        if start < available:
            try:
                await cursor.ready()
            except BaseException:
                cursor.close()
                raise
        return cursor

    def last_written(self, timeline: int, position: LSN) -> Callable[[], float | None]:
        """What a lane has to do to find `IDatedProvider.last_written`."""
        candidates = self._candidates(timeline, self._size().number(position))
        return partial(self._find_time, list(map(self._paths.of, candidates)))

    def _find_time(self, paths: list[str]) -> float | None:
        times = (self._files.find_time(path) for path in paths)
        return next((time for time in times if time is not None), None)

    # For those who fill the archive, or watch how another process does.

    def extend(self, end: WALPosition, history: TimelineHistory | None = None) -> None:
        """WAL is durable up to *end*; with its *history*, when that is on another timeline."""
        before = self._tail.end
        if history is not None and before.timeline in history:
            switch_point = history.switch_point(before.timeline)
            if switch_point is not None:
                # Only the new timeline's file surely has all of the segment up to there.
                self._images.forget(before.timeline, self._size().number(switch_point))
        self._tail.move(end, history)

    def begin_anew(self) -> None:
        """What is `written` from now on is not the continuation of what was."""
        self._tail.recent.clear()

    def written(self, timeline: int, start: int, data: memoryview) -> None:
        """WAL was received that may be served before it is durable, once its timeline is served."""
        tail = self._tail
        if timeline != tail.end.timeline or start + len(data) > tail.durable:
            tail.recent.append(start, data)

    def extend_written(self, lsn: int) -> None:
        """What was `written` of it may be served up to *lsn*."""
        tail = self._tail
        tail.move_ahead(min(lsn, tail.recent.reach(tail.durable)))

    def take_back(self) -> None:
        """What is not durable is not to be read any more, from the files that have it now.

        It is expected again, the same, and served then. The end stays where it is.
        """
        tail = self._tail
        was_ahead = tail.readable > tail.durable
        # Also if nobody has read of it: what is kept may be what was wrong, and would be served in
        # the place of what comes again.
        tail.fall_back()
        if was_ahead:
            self._images.forget_from(tail.end.timeline, self._size().number(tail.durable))

    def was_replaced(self, timeline: int, number: int) -> None:
        """A segment is in another file than before."""
        self._images.forget(timeline, number)

    @property
    def gaps(self) -> tuple[AcceptedGap, ...]:
        """The gaps that were accepted: nobody is served across one."""
        return self._tail.gaps

    @gaps.setter
    def gaps(self, gaps: tuple[AcceptedGap, ...]) -> None:
        self._tail.gaps = gaps
        self._tail.wake()  # who waits where one begins waits in vain

    @property
    def history(self) -> TimelineHistory:
        """The history of the current timeline."""
        return self._tail.history

    def close(self) -> None:
        """Let go of what nobody uses."""
        self._images.clear()

    # Images

    def _size(self) -> SegmentSize:
        return self.identity.segment_size if self.identity is not None else DEFAULT_SEGMENT_SIZE

    def _load(self, timeline: int, number: int, offset: int) -> Callable[[], Image]:
        assert self.identity is not None, "WAL is available, so it is known whose"
        size = self.identity.segment_size
        start = size.start(number)
        request = SegmentRequest(
            segment=size.name(timeline, number),
            candidates=self._candidates(timeline, number),
            identity=self.identity,
            start=start,
            valid=min(self._tail.available(timeline, start + offset) - start, size),
            offset=offset,
        )
        return partial(load_image, self._files, self._paths, request)

    def _candidates(self, timeline: int, number: int) -> list[str]:
        """The files that may hold what is available of a segment, best first.

        Each may be compressed, and become so between two looks. The segment in which a historic
        timeline ends may never have been finished on it. As PostgreSQL does, it is read from a
        timeline's that follows: it has the same bytes up to the switch point. A .partial is good
        only where the archive ends, from where it is durable on, or a gap begins.
        """
        size, history = self._size(), self._tail.history
        names = forms_of(size.name(timeline, number))
        while timeline != history.timeline:
            switch_point = history.switch_point(timeline)
            if switch_point is None or size.number(switch_point) != number:
                return names
            timeline = history.successor(timeline)
            names += forms_of(size.name(timeline, number))
        tail = self._tail
        is_unfinished = size.number(tail.durable) <= number <= size.number(tail.end.lsn)
        if is_unfinished or number in (size.number(gap.start) for gap in tail.gaps):
            # It may get its final name at any moment, between two looks too.
            name = names[-1]
            names += [f"{name}.partial", *forms_of(name)]
        return names
