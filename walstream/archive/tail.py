"""The tail: how far WAL may be served on each timeline, and who waits for more."""

from __future__ import annotations

from collections.abc import Callable

from walstream.archive.ledger import AcceptedGap
from walstream.errors import EndOfTimeline
from walstream.formats.lsn import INVALID
from walstream.formats.positions import WALPosition
from walstream.formats.timelines import TimelineHistory

__all__ = ["Tail"]


class Tail:
    """The end of what may be served, on the current timeline and on those it descends from.

    :ivar end: the current timeline, and the position up to which it may be served.
    :ivar history: the history of that timeline.
    :ivar gaps: what the operator accepted to be missing before *end*.
    """

    def __init__(self) -> None:
        self.gaps: tuple[AcceptedGap, ...] = ()
        self.end = WALPosition(1, INVALID)
        self.history = TimelineHistory(1, ())
        self._switch_points: dict[int, int] = {}
        self._waiting: dict[Callable[[], None], None] = {}

    def move(self, end: WALPosition, history: TimelineHistory | None = None) -> None:
        """The end is now *end*, on a timeline of that *history* if it is another than before.

        Wakes all who wait, in the order in which they came.
        """
        self.end = end
        if history is not None:
            self.history = history
            self._switch_points = {past.timeline: past.switch_point for past in history.ancestors}
        self.wake()

    def wake(self) -> None:
        """Have all who wait look again."""
        waiting, self._waiting = self._waiting, {}
        for wake in waiting:
            wake()

    def available(self, timeline: int, position: int) -> int:
        """The position up to which *timeline* may be served to whoever is at *position*.

        0 if it is of another history. Before a gap, it is the gap's beginning.
        """
        if timeline == self.end.timeline:
            end: int = self.end.lsn
        else:
            end = self._switch_points.get(timeline, 0)
        for gap in self.gaps:
            if position < gap.end and gap.start < end:
                end = gap.start
        return end

    def is_over(self, timeline: int, position: int) -> EndOfTimeline | None:
        """What follows *timeline*, if it is a historic one that has come to its end."""
        switch_point = self._switch_points.get(timeline)
        if switch_point is None or position < switch_point:
            return None
        return EndOfTimeline(self.history.successor(timeline), switch_point)

    def gap_at(self, position: int) -> AcceptedGap | None:
        """The gap in which the byte at *position* is missing."""
        return next((gap for gap in self.gaps if gap.start <= position < gap.end), None)

    def wait(self, wake: Callable[[], None]) -> None:
        """Have *wake* called once, at the next move."""
        self._waiting[wake] = None

    def leave(self, wake: Callable[[], None]) -> None:
        """Wait no longer."""
        self._waiting.pop(wake, None)
