"""Which WAL an archive holds without a gap: runs of segments, and lines of timelines.

A line is a timeline with its ancestors, each up to where it was left: what recovery to that
timeline reads, in order. All but `look_twice` is pure: numbers of segments, and no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from walstream.archive.filesystem import FileSystem
from walstream.archive.inventory import Held, Inventory, take_inventory
from walstream.archive.ledger import AcceptedGap
from walstream.archive.paths import ArchivePaths
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory

__all__ = [
    "Gap",
    "Run",
    "current_timeline",
    "find_gaps",
    "line_of",
    "look_twice",
    "missing_histories",
    "runs_of",
]


class Run(NamedTuple):
    """Segments of one timeline that follow on one another, the last included."""

    timeline: int
    first: int
    last: int


class Gap(NamedTuple):
    """A run of segments that are missing.

    :ivar accepted: when the operator accepted that, in ISO 8601; None if it was not.
    """

    timeline: int
    first: int
    last: int
    accepted: str | None = None


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
    every = (*found.segments, *found.partials)
    newest = max(every, key=attrgetter("number", "timeline"), default=None)
    return None if newest is None else newest.timeline


def missing_histories(found: Inventory) -> list[int]:
    """The timelines of segments whose history file is not held, though they descend from others."""
    timelines = {held.timeline for held in (*found.segments, *found.partials)}
    return sorted(timelines - {1} - set(found.histories))


def find_gaps(found: Inventory) -> list[Gap]:
    """The segments that are missing between the oldest that is held and the newest.

    On the line of each timeline that is held, so that an abandoned branch is looked at too. What
    is missing from the beginning on was removed. Up to the end mark everything has to be there.
    """
    if found.identity is None:
        return []
    runs = runs_of(found.segments)
    beginning = min((run.first for run in runs), default=0)
    if found.ledger is not None:
        # What lies before is being removed, or was not removed to the end.
        beginning = max(beginning, found.size.number(found.ledger.removed_before))
    missing: set[Run] = set()
    for timeline in {held.timeline for held in (*found.segments, *found.partials)}:
        history = found.histories.get(timeline, TimelineHistory(timeline, ()))
        missing.update(_missing_on_line(line_of(history, found.size), runs, found, beginning))
    accepted = found.ledger.gaps if found.ledger is not None else ()
    gaps = [gap for run in missing for gap in _split(run, accepted, found.size)]
    return sorted(gaps, key=lambda gap: gap[:3])


def look_twice(files: FileSystem, paths: ArchivePaths) -> tuple[Inventory, list[Gap]]:
    """An inventory, and its gaps; errors as `take_inventory`.

    A file that gets another name while names are read may be missed, so gaps are looked at again.
    """
    found = take_inventory(files, paths)
    gaps = find_gaps(found)
    if gaps:
        found = take_inventory(files, paths)
        gaps = find_gaps(found)
    return found, gaps


def _missing_on_line(
    line: Sequence[Reach], runs: Sequence[Run], found: Inventory, beginning: int
) -> Iterator[Run]:
    held = [
        run.first
        for reach in line
        for run in runs
        if run.timeline == reach.timeline and (reach.end is None or run.first < reach.end)
    ]
    if not held:
        return
    beginning = max(beginning, min(held))
    for reach in line:
        own = [run for run in runs if run.timeline == reach.timeline]
        end = reach.end
        if end is None:
            finished = max((run.last for run in own), default=-1)
            own += [
                Run(each.timeline, each.number, each.number)
                for each in found.partials
                if each.timeline == reach.timeline and each.number > finished
            ]
            end = max([run.last + 1 for run in own] + [_durable_end(found, reach.timeline)])
        yield from _missing(reach.timeline, max(reach.first, beginning), end, own)


def _durable_end(found: Inventory, timeline: int) -> int:
    """The number behind the last segment that has durable WAL by the end mark; 0 if none has."""
    mark = found.mark
    if mark is None or mark.timeline != timeline or not mark.lsn:
        return 0
    return found.size.number(mark.lsn - 1) + 1


def _split(run: Run, accepted: Iterable[AcceptedGap], size: SegmentSize) -> Iterator[Gap]:
    """What of a run was accepted to be missing, and what was not."""
    rest = [run]
    for gap in accepted:
        first, last = size.number(gap.start), size.number(gap.end) - 1
        if not gap.timeline <= run.timeline <= gap.end_timeline:
            continue
        for part in rest[:]:
            inside = Run(run.timeline, max(part.first, first), min(part.last, last))
            if inside.first > inside.last:
                continue
            rest.remove(part)
            rest += _missing(run.timeline, part.first, part.last + 1, [inside])
            yield Gap(*inside, gap.accepted)
    for part in rest:
        yield Gap(*part)


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
