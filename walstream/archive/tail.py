"""The tail: how far WAL may be served on each timeline, and who waits for more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import Enum

from twisted.logger import Logger

from walstream.archive.ledger import AcceptedGap
from walstream.archive.recent import RecentWAL
from walstream.errors import EndOfTimeline
from walstream.formats.lsn import INVALID, LSN
from walstream.formats.positions import WALPosition
from walstream.formats.timelines import TimelineHistory

__all__ = ["Serve", "Tail"]

# So many who wait are woken at once, each of whom may send what has come; then the reactor has its
# turn, and more may come before the next. With a thousand of them that is about a millisecond.
_AT_ONCE = 32


class Serve(Enum):
    """When WAL that is being received is served."""

    #: Once it is durable here.
    FLUSHED = "flushed"
    #: Once it was checked, and written to the file; from memory, until it is durable.
    WRITTEN = "written"


class Tail:
    """The end of what may be served, on the current timeline and on those it descends from.

    On the current timeline there are three positions. They are one, unless WAL is served before it
    is durable.

    :ivar end: the current timeline, and the position up to which it was ever to be served. Never
        goes back on one timeline.
    :ivar readable: up to where it can be read now. Before the end only when what was served was
        not durable, and could not be kept: it is expected again, the same.
    :ivar durable: up to where it is known to be durable.
    :ivar history: the history of that timeline.
    :ivar gaps: what the operator accepted to be missing before *end*.
    :ivar recent: what can be read and is not durable.
    """

    _log = Logger()

    def __init__(self, soon: Callable[[Callable[[], None]], None] | None = None) -> None:
        """
        :param soon: has what it is given called in the reactor's next turn; otherwise all who wait
            are woken in one.
        """
        self.gaps: tuple[AcceptedGap, ...] = ()
        self.end = WALPosition(1, INVALID)
        self.readable: int = INVALID
        self.durable: int = INVALID
        self.recent = RecentWAL()
        self.history = TimelineHistory(1, ())
        self._switch_points: dict[int, int] = {}
        self._waiting: OrderedDict[Callable[[], None], None] = OrderedDict()
        self._soon = soon
        # How many are to be woken still; whether they will be by themselves.
        self._due = 0
        self._is_waking = False

    def move(self, end: WALPosition, history: TimelineHistory | None = None) -> None:
        """WAL is durable up to *end*, on a timeline of that *history* if it is another than before.

        Wakes all who wait, in the order in which they came, unless they have it already.
        """
        self.durable = end.lsn
        self.recent.forget_before(end.lsn)
        if history is None:
            self.move_ahead(end.lsn)
            return
        self.history = history
        self._switch_points = {past.timeline: past.switch_point for past in history.ancestors}
        self.end = end
        self.readable = end.lsn
        self.wake()

    def move_ahead(self, lsn: int) -> None:
        """WAL of the current timeline can be read up to *lsn*, durable or not. Wakes all."""
        if lsn <= self.readable:
            return
        self.readable = lsn
        if lsn > self.end.lsn:
            self.end = WALPosition(self.end.timeline, LSN(lsn))
        self.wake()

    def fall_back(self) -> None:
        """What is not durable can't be read any more, nor what was kept to be read soon."""
        self.readable = self.durable
        self.recent.clear()

    def wake(self) -> None:
        """Have all who wait look again: some of them at once, the others in the next turns."""
        self._due = len(self._waiting)
        if not self._is_waking:
            self._wake_some()

    def available(self, timeline: int, position: int) -> int:
        """The position up to which *timeline* may be served to whoever is at *position*.

        0 if it is of another history. Before a gap, it is the gap's beginning.
        """
        if timeline == self.end.timeline:
            end = self.readable
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
        if not self.gaps:
            return None
        return next((gap for gap in self.gaps if gap.start <= position < gap.end), None)

    def wait(self, wake: Callable[[], None]) -> None:
        """Have *wake* called once, at the next move."""
        self._waiting[wake] = None

    def leave(self, wake: Callable[[], None]) -> None:
        """Wait no longer."""
        self._waiting.pop(wake, None)

    def _wake_some(self) -> None:
        self._is_waking = True
        # Who waits again meanwhile comes behind all who are due.
        some = self._due if self._soon is None else min(self._due, _AT_ONCE)
        self._due -= some
        while some and self._waiting:
            some -= 1
            wake, _ = self._waiting.popitem(last=False)
            try:
                wake()
            except Exception:
                # The others are waiting too.
                self._log.failure("a cursor could not be woken")
        if self._due and self._waiting and self._soon is not None:
            self._soon(self._wake_some)
        else:
            self._is_waking = False
