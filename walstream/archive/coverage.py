"""Which WAL an archive holds without a gap: runs of segments, and lines of timelines.

A line is a timeline with its ancestors, each up to where it was left: what recovery to that
timeline reads, in order. Pure: knows numbers of segments, and no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from walstream.archive.inventory import Held, Inventory
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory

__all__ = ["Run", "current_timeline", "find_gaps", "line_of", "missing_histories", "runs_of"]


class Run(NamedTuple):
    """Segments of one timeline that follow on one another, the last included."""

    timeline: int
    first: int
    last: int


class Reach(NamedTuple):
    """The part of a line that is on one timeline.

    :ivar first: the segment in which it begins.
    :ivar end: the segment in which it was left, of which the next timeline has a copy; None for
        the newest, which goes on.
    """

    timeline: int
    first: int
    end: int | None


def runs_of(segments: Iterable[Held]) -> list[Run]:
    """The runs that segments make, which come by timeline and number."""
    runs: list[Run] = []
    timeline = first = last = 0
    for held in segments:
        if held.timeline == timeline and held.number in (last, last + 1):
            last = held.number
            continue
        if timeline:
            runs.append(Run(timeline, first, last))
        timeline, first, last = held.timeline, held.number, held.number
    if timeline:
        runs.append(Run(timeline, first, last))
    return runs


def line_of(history: TimelineHistory, size: SegmentSize) -> list[Reach]:
    """The line of a timeline, the oldest ancestor first."""
    reaches: list[Reach] = []
    end = None
    timeline = history.timeline
    # A timeline may have been left before it began: see TimelineHistory.
    for past in reversed(history.ancestors):
        first = size.number(past.switch_point)
        first = first if end is None else min(first, end)
        reaches.append(Reach(timeline, first, end))
        timeline, end = past.timeline, first
    reaches.append(Reach(timeline, 0, end))
    return reaches[::-1]


def current_timeline(found: Inventory) -> int | None:
    """The timeline of the newest segment, by pg_receivewal's rule."""
    newest = [max(held, key=_rank) for held in (found.segments, found.partials) if held]
    return max(newest, key=_rank).timeline if newest else None


def missing_histories(found: Inventory) -> list[int]:
    """The timelines of segments whose history file is not held, though they descend from others."""
    timelines = {held.timeline for held in (*found.segments, *found.partials)}
    return sorted(timelines - {1} - set(found.histories))


def find_gaps(found: Inventory, starts: Mapping[int, int] | None = None) -> list[Run]:
    """The segments that are missing between the oldest that is held and the newest.

    On the line of each timeline that is held, so that an abandoned branch is looked at too.

    :param starts: where the archive is known to begin on a timeline, as a segment's number: from
        there on nothing may be missing.
    """
    if found.identity is None:
        return []
    runs = runs_of(found.segments)
    gaps: set[Run] = set()
    for timeline in {held.timeline for held in (*found.segments, *found.partials)}:
        history = found.histories.get(timeline, TimelineHistory(timeline, ()))
        gaps.update(_gaps_on_line(line_of(history, found.size), runs, found, starts or {}))
    return sorted(gaps)


def _gaps_on_line(
    line: Sequence[Reach], runs: Sequence[Run], found: Inventory, starts: Mapping[int, int]
) -> Iterator[Run]:
    known = [starts[reach.timeline] for reach in line if reach.timeline in starts]
    held = [
        run.first
        for reach in line
        for run in runs
        if run.timeline == reach.timeline and (reach.end is None or run.first < reach.end)
    ]
    if not held and not known:
        return
    # What lies before a known beginning is being removed, or was not removed to the end.
    beginning = min(known or held)
    for reach in line:
        own = [run for run in runs if run.timeline == reach.timeline]
        own += [
            Run(each.timeline, each.number, each.number)
            for each in found.partials
            if each.timeline == reach.timeline and reach.end is None
        ]
        end = reach.end
        if end is None:
            end = max((run.last for run in own), default=-1) + 1
        yield from _missing(reach.timeline, max(reach.first, beginning), end, own)


def _missing(timeline: int, first: int, end: int, held: Iterable[Run]) -> Iterator[Run]:
    """What of the segments from *first* to before *end* is in none of the runs."""
    for run in sorted(held):
        if run.last < first:
            continue
        if run.first >= end:
            break
        if run.first > first:
            yield Run(timeline, first, run.first - 1)
        first = run.last + 1
    if first < end:
        yield Run(timeline, first, end - 1)


def _rank(held: Held) -> tuple[int, int]:
    return held.number, held.timeline
