"""In which pieces an archive is verified: units of work, each for one process.

WAL is read along lines: a timeline with its ancestors, each up to where it was left. Where a line
has a gap, a run of segments ends; runs are cut into units of a size that keeps all cores busy. What
is on no line, such as the end of a timeline that was left, makes runs of its own. Pure: knows what
an inventory lists, and opens no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from walstream.archive.coverage import line_of
from walstream.archive.inventory import Held, Inventory
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory

__all__ = ["Piece", "Unit", "history_of", "plan"]

# How much WAL makes a unit at most: enough that the handing over costs nothing to speak of.
_UNIT = 128 << 20

# The longest record, and so how far the one that ends a unit may reach beyond it.
_LONGEST_RECORD = 1 << 30

Wanted = Callable[[Held], bool]


class Piece(NamedTuple):
    """A segment's file.

    :ivar is_partial: whether the segment is still being received, or was when its timeline ended.
    :ivar durable: up to where a partial one has to hold WAL; None if nobody has said.
    """

    name: str
    number: int
    is_partial: bool
    durable: int | None


class Unit(NamedTuple):
    """What one process verifies at a time.

    :ivar history: of the timeline that the segments are read on.
    :ivar pieces: segments that follow on one another.
    :ivar before: the segment before them, which is looked at for the record that goes on in the
        first of them, and for the chain of records; None if that is another unit's.
    :ivar behind: the segments that the last record may go on in.
    :ivar goes_on: whether this unit follows on the one before it.
    """

    identity: SystemIdentity
    history: TimelineHistory
    pieces: Sequence[Piece]
    before: Piece | None
    behind: Sequence[Piece]
    goes_on: bool


def history_of(found: Inventory, timeline: int) -> TimelineHistory:
    """The history of a timeline, without ancestors if that is not known."""
    return found.histories.get(timeline, TimelineHistory(timeline, ()))


def plan(
    found: Inventory, jobs: int, wanted: Wanted, ends: Sequence[WALPosition]
) -> Iterator[Unit]:
    """The units of an archive, in order along its lines; each wanted file is in one of them.

    :param jobs: how many processes there are to keep busy.
    :param ends: up to where the archive is, or was, durable.
    """
    if found.identity is None:
        return
    total = sum(map(wanted, found.segments)) + sum(map(wanted, found.partials))
    length = max(1, min(_UNIT // found.size, -(-total // (4 * jobs))))
    done: set[str] = set()
    for history, line in _lines(found):
        for run in _runs(line):
            pieces = [_piece(held, found.size, ends) for held in run]
            is_new = [held.name not in done and wanted(held) for held in run]
            done.update(held.name for held, new in zip(run, is_new, strict=True) if new)
            yield from _units(found.identity, history, pieces, is_new, length)


def _lines(found: Inventory) -> Iterator[tuple[TimelineHistory, list[Held]]]:
    """The files along each line, newest timeline first, and then those that are on none."""
    by_timeline: dict[int, list[Held]] = {}
    extra: dict[int, list[Held]] = {}
    for held in _in_order(found):
        own = by_timeline.setdefault(held.timeline, [])
        if own and own[-1].number == held.number:
            extra.setdefault(held.timeline, []).append(held)  # the same in another form
        else:
            own.append(held)
    left = {past.timeline for each in by_timeline for past in history_of(found, each).ancestors}
    for timeline in sorted(by_timeline, reverse=True):
        if timeline not in left:
            history = history_of(found, timeline)
            yield history, _along(history, by_timeline, found)
    for timeline, own in [*by_timeline.items(), *extra.items()]:
        yield history_of(found, timeline), own


def _in_order(found: Inventory) -> list[Held]:
    """By timeline and number; of the same segment first what is read first."""
    every = [*found.segments, *found.partials]
    return sorted(
        every, key=lambda held: (held.timeline, held.number, _is_partial(held), held.name)
    )


def _along(
    history: TimelineHistory, by_timeline: dict[int, list[Held]], found: Inventory
) -> list[Held]:
    line: list[Held] = []
    for reach in line_of(history, found.size):
        for held in by_timeline.get(reach.timeline, ()):
            if held.number >= reach.first and (reach.end is None or held.number < reach.end):
                line.append(held)
    return line


def _runs(line: Iterable[Held]) -> Iterator[list[Held]]:
    run: list[Held] = []
    for held in line:
        if run and held.number != run[-1].number + 1:
            yield run
            run = []
        run.append(held)
    if run:
        yield run


def _units(
    identity: SystemIdentity,
    history: TimelineHistory,
    run: Sequence[Piece],
    is_new: Sequence[bool],
    length: int,
) -> Iterator[Unit]:
    """Those of a run which are new, at most *length* of them in a unit."""
    reach = _LONGEST_RECORD // identity.segment_size + 1
    begin = 0
    while begin < len(run):
        if not is_new[begin]:
            begin += 1
            continue
        end = begin + 1
        while end < min(begin + length, len(run)) and is_new[end]:
            end += 1
        goes_on = begin > 0 and is_new[begin - 1]
        before = run[begin - 1] if begin > 0 and not goes_on else None
        yield Unit(identity, history, run[begin:end], before, run[end : end + reach], goes_on)
        begin = end


def _piece(held: Held, size: SegmentSize, ends: Sequence[WALPosition]) -> Piece:
    start, end, durable = size.start(held.number), size.start(held.number + 1), None
    if _is_partial(held):
        on_it = (
            each.lsn for each in ends if each.timeline == held.timeline and start < each.lsn <= end
        )
        durable = max(on_it, default=None)
    return Piece(held.name, held.number, _is_partial(held), durable)


def _is_partial(held: Held) -> bool:
    return held.name.endswith(".partial")
