"""The tail: how far WAL may be served on each timeline, and who waits for more."""

from __future__ import annotations

from collections.abc import Callable

from walstream.errors import EndOfTimeline
from walstream.formats.lsn import INVALID
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import WALPosition

__all__ = ["Tail"]


class Tail:
    """The end of what may be served, on the current timeline and on those it descends from.

    :ivar end: the current timeline, and the position up to which it may be served.
    :ivar history: the history of that timeline.
    """

    def __init__(self) -> None:
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
        waiting, self._waiting = self._waiting, {}
        for wake in waiting:
            wake()

    def available(self, timeline: int) -> int:
        """The position up to which *timeline* may be served; 0 if it is of another history."""
        if timeline == self.end.timeline:
            return self.end.lsn
        return self._switch_points.get(timeline, 0)

    def is_over(self, timeline: int) -> EndOfTimeline | None:
        """What follows *timeline*, if it is a historic one."""
        switch_point = self._switch_points.get(timeline)
        if switch_point is None:
            return None
        return EndOfTimeline(self.history.successor(timeline), switch_point)

    def wait(self, wake: Callable[[], None]) -> None:
        """Have *wake* called once, at the next move."""
        self._waiting[wake] = None

    def leave(self, wake: Callable[[], None]) -> None:
        """Wait no longer."""
        self._waiting.pop(wake, None)
