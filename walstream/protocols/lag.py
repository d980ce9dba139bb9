"""How far behind in time a client is: ``write_lag``, ``flush_lag`` and ``replay_lag``.

As PostgreSQL's ``LagTracker`` (walsender.c): when our WAL's end moves, where it is and when that
was is noted; when a client's report passes such a note, its age is the lag. PostgreSQL has 8192
notes for each walsender. Here all clients of a process share them, since our end is the same for
all: what a client costs is three positions, and to take a report is to look something up.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["NO_LAGS", "EndHistory", "LagTracker", "Lags"]

_MOST: Final = 4096
# A note goes when those left and right of it are less apart than this part of its age. So a year
# fits beside the last seconds: there are at most twice ln(a year / 3 ms) / ln(1 + 1/32) = 1500.
_GRAIN: Final = 1 / 32


class EndHistory:
    """When our WAL's end was where: at most 4096 notes, dense for what is recent.

    :ivar last: the furthest end so far; a byte position.
    """

    def __init__(self) -> None:
        self.last = 0
        self._ends = array("Q")
        self._times = array("d")

    def __len__(self) -> int:
        return len(self._ends)

    def note(self, end: int, now: float) -> None:
        """Our WAL ends at *end* at this moment, in seconds of any clock that only goes forward.

        One that is not beyond all before says nothing: it may be a historic timeline's.
        """
        if end <= self.last:
            return
        self.last = end
        self._ends.append(end)
        self._times.append(now)
        if len(self._ends) >= _MOST:
            self._thin_out(now)

    def count(self, position: int) -> int:
        """How many notes are at or before *position*."""
        return bisect_right(self._ends, position)

    def at(self, index: int) -> tuple[int, float]:
        """A note: the end, and when it was first seen there."""
        return self._ends[index], self._times[index]

    def passed(self, position: int) -> float | None:
        """Since when our end has been beyond *position*; None if it is not."""
        index = self.count(position)
        return self._times[index] if index < len(self._ends) else None

    def _thin_out(self, now: float) -> None:
        ends, times = self._ends[:1], self._times[:1]
        for index in range(1, len(self._ends) - 1):
            time = self._times[index]
            if self._times[index + 1] - times[-1] >= (now - time) * _GRAIN:
                ends.append(self._ends[index])
                times.append(time)
        ends.append(self._ends[-1])
        times.append(self._times[-1])
        # Whatever the clock did, there is a limit.
        self._ends, self._times = ends[-_MOST // 2 :], times[-_MOST // 2 :]


class Lags(NamedTuple):
    """Seconds from our having WAL to a client's report of it; None where that is not known."""

    write: float | None = None
    flush: float | None = None
    apply: float | None = None


NO_LAGS: Final = Lags()


class _Head:
    """How far one of a client's three positions has come.

    :ivar reached: the last note that it passed.
    :ivar has_more: whether there were notes beyond when it did.
    """

    __slots__ = ("has_more", "reached")

    def __init__(self) -> None:
        self.reached = 0
        self.has_more = False


class LagTracker:
    """The lags of one stream.

    :param now: the clock of the history's notes.
    """

    def __init__(self, ends: EndHistory, now: Callable[[], float]) -> None:
        self._ends = ends
        self._now = now
        # What a client lacked before it came is no lag of this stream's.
        self._began = now()
        self._heads = (_Head(), _Head(), _Head())
        self._lags = NO_LAGS
        self._reported = (0, 0, 0)

    def note_end(self, end: int) -> None:
        """The end of what may be sent was looked at."""
        if end > self._ends.last:
            self._ends.note(end, self._now())

    def reported(self, sent: int, write: int, flush: int, apply: int) -> Lags:
        """The lags after a report: new ones where it passed a note, else those of before.

        A client that has applied everything, and says so twice, has no lag until WAL comes again.
        """
        now, positions = self._now(), (write, flush, apply)
        measured = map(self._measure, self._heads, positions, (now, now, now))
        is_idle = flush == apply == sent and positions == self._reported
        self._reported = positions
        kept = NO_LAGS if is_idle else self._lags
        self._lags = Lags(*(b if n is None else n for n, b in zip(measured, kept, strict=True)))
        return self._lags

    def _measure(self, head: _Head, position: int, now: float) -> float | None:
        if position == 0:
            return None  # it does not report it
        count, total = self._ends.count(position), len(self._ends)
        end, time = self._ends.at(count - 1) if count else (0, self._began)
        is_new = end > head.reached
        if is_new:
            head.reached, head.has_more = end, count < total
        elif count == total:
            head.has_more = False
        if not is_new:
            if count == total:
                return None  # there is nothing that it could be late with
            if position < head.reached:
                return None  # it went back, to another timeline say
            time = self._expected(head, position, end, time, count)
        return max(0.0, now - max(time, self._began))

    def _expected(self, head: _Head, position: int, end: int, time: float, count: int) -> float:
        """When our end was at *position*, which lies between two notes: so a position that is
        stuck shows a growing lag.
        """
        next_end, next_time = self._ends.at(count)
        if not head.has_more:
            # It had everything; what it lacks came in one piece, and not in the time between.
            return next_time
        return time + (next_time - time) * (position - end) / (next_end - end)
