"""The ledger: what an archive holds, from where to where on which timeline, and what it lacks.

It is kept in ``.walstream/ledger.json`` and written on rare events only: a timeline was begun, a
gap accepted, a hole found, WAL removed from the old end. Where the archive ends is for the end
mark and the segments to say. `Ledger` is a pure value; what reads or writes the file belongs into
a lane.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from walstream.archive.filesystem import FileSystem
from walstream.archive.json_text import MISREAD
from walstream.archive.paths import ArchivePaths
from walstream.errors import ArchiveError
from walstream.formats.lsn import INVALID, LSN
from walstream.formats.positions import WALPosition
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory

__all__ = ["AcceptedGap", "HeldRange", "Hole", "Ledger", "change_ledger", "load_ledger", "now"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class HeldRange:
    """A run of WAL on one timeline.

    :ivar start: its first position; where the timeline began, if that is held.
    :ivar end: where the timeline was left, or a gap began; None for the one that goes on.
    """

    timeline: int
    start: LSN
    end: LSN | None = None


@dataclass(frozen=True, slots=True)
class AcceptedGap:
    """WAL that the archive lacks for ever, as the operator said by ``--accept-gap``.

    :ivar start: where the archive ended, on *timeline*.
    :ivar end: where it goes on, on *end_timeline*; the start of a segment.
    :ivar accepted: when, in ISO 8601.
    """

    timeline: int
    start: LSN
    end_timeline: int
    end: LSN
    accepted: str

    def __str__(self) -> str:
        return (
            f"from {self.start} (timeline {self.timeline}) to {self.end} (timeline "
            f"{self.end_timeline}), accepted by --accept-gap on {self.accepted}"
        )


@dataclass(frozen=True, slots=True)
class Hole:
    """Segments that are missing in the middle; a record of what was found, undone if they return.

    :ivar start: the position from which on, on *timeline*, WAL is missing.
    :ivar end: the position up to which it is.
    :ivar found: when it was first found, in ISO 8601.
    """

    timeline: int
    start: LSN
    end: LSN
    found: str

    def segments(self, size: SegmentSize) -> list[str]:
        """The names of the segments that are missing."""
        numbers = range(size.number(self.start), size.number(self.end - 1) + 1)
        return [size.name(self.timeline, number) for number in numbers]


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the archive of one cluster holds.

    :ivar ranges: in order. Each begins where the one before ends, or a gap of *gaps* is between.
    :ivar gaps: all that were ever accepted, in order; kept also when the WAL around is gone.
    :ivar holes: what was found missing when the archive was last opened.
    :ivar removed_before: WAL before this position was removed, as retention does it: no hole.
    """

    system_identifier: int
    segment_size: SegmentSize
    ranges: tuple[HeldRange, ...] = ()
    gaps: tuple[AcceptedGap, ...] = ()
    holes: tuple[Hole, ...] = ()
    removed_before: LSN = field(default=INVALID)

    @property
    def current(self) -> HeldRange | None:
        """The range that goes on."""
        return self.ranges[-1] if self.ranges else None

    def begun(self, start: WALPosition, history: TimelineHistory | None = None) -> Ledger:
        """A stream begins at *start*; if on another timeline, this one is left for it.

        Every timeline between the two in *history* is passed through, even if it was a short one.
        """
        current = self.current
        if current is None:
            return replace(self, ranges=(HeldRange(start.timeline, start.lsn),))
        if any(each.timeline == start.timeline for each in self.ranges):
            return self  # also where a process was killed before the first byte of a newer one
        steps = [] if history is None else _steps(current.timeline, history)
        if not steps:
            steps = [(start.timeline, start.lsn)]
        ranges = list(self.ranges)
        for timeline, switch_point in steps:
            # It may have been left before we came to it: see TimelineHistory.
            end = max(switch_point, ranges[-1].start)
            ranges[-1] = replace(ranges[-1], end=end)
            ranges.append(HeldRange(timeline, end))
        return replace(self, ranges=tuple(ranges))

    def gap_accepted(self, start: WALPosition, end: WALPosition, when: str) -> Ledger:
        """The archive ends at *start* and will go on at *end*.

        If nothing has come since a gap was accepted at the same place, it is that one which grows.
        """
        ranges, gaps = list(self.ranges), list(self.gaps)
        if gaps and ranges and (gaps[-1].start, gaps[-1].end) == (start.lsn, ranges[-1].start):
            del gaps[-1], ranges[-1]
        elif ranges:
            ranges[-1] = replace(ranges[-1], end=max(start.lsn, ranges[-1].start))
        gaps.append(AcceptedGap(start.timeline, start.lsn, end.timeline, end.lsn, when))
        ranges.append(HeldRange(end.timeline, end.lsn))
        return replace(self, ranges=tuple(ranges), gaps=tuple(gaps))

    def removed(self, before: LSN) -> Ledger:
        """All WAL before this position was, or is about to be, removed. It may be a start again."""
        if before <= self.removed_before:
            return self
        kept = [
            replace(each, start=max(each.start, before))
            for each in self.ranges
            if each.end is None or each.end > before
        ]
        holes = tuple(hole for hole in self.holes if hole.end > before)
        return replace(self, ranges=tuple(kept), holes=holes, removed_before=before)

    def pending_gap(self, durable: WALPosition) -> AcceptedGap | None:
        """The gap behind which nothing has come yet, if the archive is durable up to *durable*."""
        current = self.current
        if not self.gaps or current is None or self.gaps[-1].end != current.start:
            return None
        return self.gaps[-1] if durable.lsn <= current.start else None

    def is_left(self, timeline: int, position: LSN) -> bool:
        """Whether what is held of *timeline* from *position* on is beyond where it was left."""
        current = self.current
        if current is None or timeline >= current.timeline:
            return False
        ends = [each.end for each in self.ranges if each.timeline == timeline]
        return bool(ends) and all(end is not None and position >= end for end in ends)


def now() -> str:
    """The time as the ledger has it: in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def load_ledger(files: FileSystem, paths: ArchivePaths) -> Ledger | None:
    """Read the ledger; None if there is none.

    :raises ArchiveError: if it is not what `change_ledger` writes; with the way out.
    """
    try:
        content = files.read(paths.ledger)
    except FileNotFoundError:
        return None
    try:
        return _parse(json.loads(content))
    except MISREAD as error:
        raise ArchiveError(
            f"{paths.ledger} is damaged ({error!r}): remove it, and it is made again from the "
            "archive's segments; a gap that was accepted is shown as a hole then"
        ) from error


def change_ledger(
    files: FileSystem, paths: ArchivePaths, change: Callable[[Ledger | None], Ledger]
) -> Ledger:
    """Change what the ledger says, durably, and all of it or nothing; what it says then.

    Nothing is written if nothing changes. Two processes may do so, one after the other: the one
    that receives, and one that removes what is old.

    :param change: makes the new ledger of the one that there is.
    :raises ArchiveError: if the ledger is damaged.
    :raises OSError: if it could not be made durable; it is as before, or as wished, then.
    """
    files.make_directory(paths.own)
    lock = files.open(paths.ledger_lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = load_ledger(files, paths)
        after = change(before)
        if after != before:
            files.store(paths.ledger_incoming, paths.ledger, format_ledger(after))
        return after
    finally:
        files.close(lock)


def format_ledger(ledger: Ledger) -> bytes:
    """The ledger as it is in the file. Numbers that JSON's readers may round are texts."""
    fields = {
        "format": _FORMAT,
        "system_identifier": str(ledger.system_identifier),
        "segment_size": int(ledger.segment_size),
        "removed_before": str(ledger.removed_before),
        "ranges": list(map(_fields, ledger.ranges)),
        "gaps": list(map(_fields, ledger.gaps)),
        "holes": list(map(_fields, ledger.holes)),
    }
    return (json.dumps(fields, indent=1) + "\n").encode()


def _fields(entry: Any) -> dict[str, object]:
    return {
        name: str(value) if isinstance(value, LSN) else value
        for name, value in asdict(entry).items()
    }


def _parse(fields: dict[str, Any]) -> Ledger:
    if fields["format"] != _FORMAT:
        raise ValueError(f"its format is {fields['format']}, not {_FORMAT}")
    ledger = Ledger(
        system_identifier=int(fields["system_identifier"]),
        segment_size=SegmentSize(int(fields["segment_size"])),
        ranges=tuple(_entry(HeldRange, each) for each in fields["ranges"]),
        gaps=tuple(_entry(AcceptedGap, each) for each in fields["gaps"]),
        holes=tuple(_entry(Hole, each) for each in fields["holes"]),
        removed_before=LSN.parse(fields["removed_before"]),
    )
    _check(ledger.ranges)
    return ledger


def _entry(kind: Callable[..., Any], fields: dict[str, Any]) -> Any:
    return kind(**{name: _value(name, value) for name, value in fields.items()})


def _value(name: str, value: Any) -> Any:
    if name in ("start", "end"):
        return None if value is None and name == "end" else LSN.parse(value)
    wanted = int if name.endswith("timeline") else str
    if not isinstance(value, wanted):
        raise TypeError(f"{name} is not {'a number' if wanted is int else 'a text'}")
    return value


def _check(ranges: Iterable[HeldRange]) -> None:
    before: HeldRange | None = None
    for each in ranges:
        if before is not None and (before.end is None or before.end > each.start):
            raise ValueError(f"the range from {each.start} does not follow the one before it")
        if each.end is not None and each.end < each.start:
            raise ValueError(f"the range from {each.start} ends before it begins")
        before = each
    if before is not None and before.end is not None:
        raise ValueError("no range goes on")


def _steps(timeline: int, history: TimelineHistory) -> list[tuple[int, LSN]]:
    """The timelines that follow *timeline* in a history, and where each begins."""
    followers = [*history.ancestors[1:], None]
    return [
        (history.timeline if follower is None else follower.timeline, left.switch_point)
        for left, follower in zip(history.ancestors, followers, strict=False)
        if left.timeline >= timeline
    ]
