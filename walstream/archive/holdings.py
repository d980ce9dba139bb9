"""The segments that an archive has, by the names in its directory, against what its ledger says.

Names only: whether a segment holds what its name says is for verification. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from walstream.archive.ledger import HeldRange, Hole, Ledger
from walstream.formats.lsn import LSN
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.segments import SegmentFile, SegmentSize
from walstream.formats.timelines import TimelineHistory

__all__ = ["Holdings", "find_holes", "take_stock"]


@dataclass(frozen=True, slots=True)
class Holdings:
    """The segments of an archive, as (timeline, number).

    :ivar finished: those that are whole, compressed or not.
    :ivar unfinished: those of which there is a ``.partial``.
    """

    finished: frozenset[tuple[int, int]]
    unfinished: frozenset[tuple[int, int]]

    @classmethod
    def of(cls, segments: Iterable[SegmentFile]) -> Holdings:
        """Those that these files hold. A compressed ``.partial`` is nothing that one can go by."""
        finished, unfinished = set(), set()
        for segment in segments:
            key = segment.timeline, segment.number
            if not segment.partial:
                finished.add(key)
            elif segment.compression is None:
                unfinished.add(key)
        return cls(frozenset(finished), frozenset(unfinished))

    def lowest(self, timeline: int | None = None) -> int | None:
        """The lowest number of a segment, of that timeline or of any."""
        numbers = (
            number
            for each, number in self.finished | self.unfinished
            if timeline is None or each == timeline
        )
        return min(numbers, default=None)

    def timelines(self) -> list[int]:
        """The timelines of which there is a segment, the oldest first."""
        return sorted({timeline for timeline, _ in self.finished | self.unfinished})


def take_stock(
    ledger: Ledger | None,
    identity: SystemIdentity,
    holdings: Holdings,
    end: WALPosition,
    history_of: Callable[[int], TimelineHistory | None],
    when: str,
) -> Ledger:
    """The ledger as it should be, by what is there; an archive that has none gets one.

    :param end: where the archive ends.
    :param history_of: the history of a timeline, if it is held.
    :param when: the time, for what is found missing.
    """
    if ledger is None or not ledger.ranges:
        empty = Ledger(identity.system_identifier, identity.segment_size)
        ledger = replace(ledger or empty, ranges=_surveyed(identity, holdings, end, history_of))
    elif ledger.current is not None and end.timeline > ledger.current.timeline:
        # Another program has gone on with the archive.
        begins = _begins(identity.segment_size, holdings, end)
        ledger = ledger.begun(WALPosition(end.timeline, begins), history_of(end.timeline))
    lowest = holdings.lowest()
    if lowest is not None:
        # Whatever is missing from the beginning on was removed since nobody needs it any more.
        first, start = ledger.ranges[0].start, identity.segment_size.start(lowest)
        ledger = ledger.removed(start) if start > first else ledger
    return replace(ledger, holes=tuple(find_holes(ledger, holdings, end, when)))


def find_holes(ledger: Ledger, holdings: Holdings, end: WALPosition, when: str) -> Iterator[Hole]:
    """The segments that the ledger's ranges should have and that are not there.

    One that was known keeps the time when it was found.
    """
    for held in ledger.ranges:
        numbers = _missing(ledger.segment_size, held, holdings, end)
        for first, last in _runs(numbers):
            start = max(ledger.segment_size.start(first), held.start)
            stop = ledger.segment_size.start(last + 1)
            hole = Hole(held.timeline, start, min(stop, held.end or stop), when)
            known = [
                each.found
                for each in ledger.holes
                if each.timeline == hole.timeline
                and each.start < hole.end
                and hole.start < each.end
            ]
            yield replace(hole, found=min(known, default=when))


def _missing(
    size: SegmentSize, held: HeldRange, holdings: Holdings, end: WALPosition
) -> Iterator[int]:
    stop = held.end
    if stop is None:
        # Of the segment in which the archive ends there need not be anything yet.
        stop = size.floor(end.lsn) if end.timeline == held.timeline else held.start
    if stop <= held.start:
        return
    last = size.number(stop - 1)
    for number in range(size.number(held.start), last + 1):
        if (held.timeline, number) in holdings.finished:
            continue
        if number < last or not size.offset(stop) or not _has_tail(holdings, held, number):
            yield number


def _has_tail(holdings: Holdings, held: HeldRange, number: int) -> bool:
    """Whether the beginning of a segment is there: a newer timeline's file of it has it too."""
    return any(
        timeline >= held.timeline and each == number
        for timeline, each in holdings.finished | holdings.unfinished
    )


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """The runs of numbers that follow on one another: the first and the last of each."""
    ordered = list(numbers)
    breaks = [0]
    breaks += [index for index, (one, two) in enumerate(pairwise(ordered), 1) if two > one + 1]
    breaks.append(len(ordered))
    for first, behind in pairwise(breaks):
        if behind > first:
            yield ordered[first], ordered[behind - 1]


def _begins(size: SegmentSize, holdings: Holdings, end: WALPosition) -> LSN:
    """Where a timeline begins whose history is not held: with its first segment."""
    lowest = holdings.lowest(end.timeline)
    return size.floor(end.lsn) if lowest is None else size.start(lowest)


def _surveyed(
    identity: SystemIdentity,
    holdings: Holdings,
    end: WALPosition,
    history_of: Callable[[int], TimelineHistory | None],
) -> tuple[HeldRange, ...]:
    """The ranges of an archive that has no ledger: along the history of the timeline of its end."""
    size = identity.segment_size
    lowest = holdings.lowest()
    if lowest is None:
        return (HeldRange(end.timeline, size.floor(end.lsn)),)
    first = size.start(lowest)
    path = Ledger(identity.system_identifier, size)
    history = history_of(end.timeline)
    timelines = [each for each in holdings.timelines() if each <= end.timeline] or [end.timeline]
    if history is not None:
        oldest = next((each for each in timelines if each in history), end.timeline)
        path = path.begun(WALPosition(oldest, first))
        path = path.begun(end, history)
    else:
        for timeline in timelines:
            begins = _begins(size, holdings, WALPosition(timeline, end.lsn))
            path = path.begun(WALPosition(timeline, begins))
    return path.ranges
