"""Whether a stream continues what an archive holds, without a gap and on the same history."""

from __future__ import annotations

from walstream.errors import Discontinuity, TimelineMismatch
from walstream.formats.lsn import LSN
from walstream.formats.positions import WALPosition
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory

__all__ = ["begins_at", "check_continues", "check_gap"]


def begins_at(history: TimelineHistory) -> int:
    """Where a timeline left the one before; 0 if it is the first."""
    return history.ancestors[-1].switch_point if history.ancestors else 0


def check_continues(
    held: WALPosition | None,
    start: WALPosition,
    history: TimelineHistory,
    size: SegmentSize,
    behind_gap: WALPosition | None = None,
) -> None:
    """Check that a stream from *start* on continues an archive that is durable up to *held*.

    On the same timeline it begins with the segment that holds the archive's end. On a later one,
    with that of the switch point, which must be the same segment: of the new timeline it has the
    old one's bytes up to there, so nothing is missing.

    :param history: of the timeline of *start*.
    :param behind_gap: where the archive goes on instead, if a gap was accepted.
    :raises Discontinuity: if there would be another gap, or an overlap of more than a segment.
    :raises TimelineMismatch: if the timeline does not descend from what is held.
    """
    if size.offset(start.lsn):
        raise Discontinuity(size.floor(start.lsn), start.lsn)
    if held is None:
        return
    if behind_gap is not None:
        if start.lsn != behind_gap.lsn:
            raise Discontinuity(behind_gap.lsn, start.lsn)
        if start.timeline != held.timeline:
            _check_descends(held, history)
        return
    if start.timeline != held.timeline:
        _check_descends(held, history)
        first = size.floor(begins_at(history))
        if start.lsn != first:
            raise Discontinuity(first, start.lsn)
    resume = size.floor(held.lsn)
    if start.lsn != resume:
        raise Discontinuity(resume, start.lsn)


def check_gap(
    held: WALPosition | None,
    start: LSN,
    end: WALPosition,
    history: TimelineHistory,
    size: SegmentSize,
) -> WALPosition:
    """Check that a gap may be left between *start* and *end*; where it begins.

    :param history: of the timeline of *end*.
    :raises Discontinuity: if the archive does not end at *start*, or does not go on at *end* then.
    :raises TimelineMismatch: if the timeline of *end* does not descend from what is held.
    """
    if held is None or held.lsn != start:
        raise Discontinuity(0 if held is None else held.lsn, start)
    if size.offset(end.lsn) or end.lsn <= held.lsn:
        raise Discontinuity(held.lsn, end.lsn)
    if end.timeline != held.timeline:
        _check_descends(held, history)
    return held


def _check_descends(held: WALPosition, history: TimelineHistory) -> None:
    if held.timeline not in history:
        raise TimelineMismatch(
            f"timeline {history.timeline} does not descend from timeline {held.timeline}, on "
            f"which the archive ends at {held.lsn}"
        )
    # A timeline may even have been left for a younger one before it began: see TimelineHistory.
    left = min(past.switch_point for past in history.ancestors if past.timeline >= held.timeline)
    if held.lsn > left:
        raise TimelineMismatch(
            f"timeline {history.timeline} left timeline {held.timeline} at {left}, but the "
            f"archive holds that timeline up to {held.lsn}: the two have forked"
        )
