"""When WAL came here, for clients that are to have it only when it has been here for a while.

What comes while we run is dated by a clock that nobody sets, at each look at the provider's end: a
little late, never early. Of what was here before, the files know when they were last written to;
that is when their last byte came, so it is not early either. A file that was written to in the
future, by the clock of the day, counts from our start on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from walstream.formats.lsn import LSN
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import IDatedProvider, IWALProvider, WALPosition

__all__ = ["Arrivals"]

# How exact a time of arrival is: this part of the delay, in whole looks of at least a second. It
# bounds what is remembered as well.
_RESOLUTION = 1 / 1000
_LEAST_INTERVAL = 1.0
_EVERYTHING = 1 << 64
_A_MOMENT = 0.001


@dataclass(frozen=True, slots=True)
class _Arrival:
    """At that time, everything up to *end* was here."""

    time: float
    end: WALPosition

    def reach(self, history: TimelineHistory) -> int:
        """How far that is on the timeline of *history*; beyond all of it if it was left."""
        if self.end.timeline > history.timeline:
            return _EVERYTHING
        if self.end.timeline == history.timeline:
            return self.end.lsn
        if self.end.timeline not in history:
            return 0
        return min(self.end.lsn, history.switch_point(self.end.timeline) or 0)


class Arrivals:
    """Remembers when a provider's WAL came, for as long as *delay* asks for.

    :ivar delay: for how long WAL has to have been here, in seconds.
    :param monotonic: seconds, by a clock that is never set.
    :param wall_clock: the time of day in Unix seconds, by which files are dated.
    """

    _log = Logger()

    def __init__(
        self,
        provider: IWALProvider,
        delay: float,
        clock: IReactorTime,
        monotonic: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        self.delay = delay
        self._provider = provider
        self._monotonic = monotonic
        self._wall_clock = wall_clock
        self._arrivals: list[_Arrival] = []
        # When we began, by both clocks.
        self._started = self._started_at = 0.0
        self._look_again = LoopingCall(self.look)
        self._look_again.clock = clock

    def __len__(self) -> int:
        return len(self._arrivals)

    def start(self) -> None:
        """Look from now on."""
        if not self._look_again.running:
            if not self._arrivals:
                self._started, self._started_at = self._monotonic(), self._wall_clock()
            looking = self._look_again.start(max(_LEAST_INTERVAL, self.delay * _RESOLUTION))
            looking.addErrback(lambda failure: self._log.failure("WAL is not dated", failure))

    def stop(self) -> None:
        """Look no longer."""
        if self._look_again.running:
            self._look_again.stop()

    def look(self) -> None:
        """Date what has come since the last look."""
        now, end = self._monotonic(), self._provider.end()
        if not self._arrivals or self._arrivals[-1].end != end:
            self._arrivals.append(_Arrival(now, end))
        # Of those that are old enough the last one tells as much as all of them.
        old = self._count_old(now)
        if old > 1:
            del self._arrivals[: old - 1]

    def old_until(self, history: TimelineHistory) -> int:
        """Up to where the timeline of *history* is old enough, as far as we have seen it come."""
        old = self._count_old(self._monotonic())
        return self._arrivals[old - 1].reach(history) if old else 0

    async def wait_for(
        self, history: TimelineHistory, position: int, timeline: int
    ) -> tuple[float, bool]:
        """In how many seconds the byte at *position* will have been here long enough.

        :param history: of the timeline that is read.
        :param timeline: the timeline of whose segment the file is asked; another one if the byte
            is the first one behind the end of the timeline that is read.
        :return: those seconds, 0 if it has; and whether the file was asked: what it says holds
            for the whole of the segment, as far as that was here when we began.
        """
        index = bisect_left(self._arrivals, True, key=lambda a: a.reach(history) > position)
        now = self._monotonic()
        if index == len(self._arrivals):
            return self.delay, False  # it has come since the last look
        arrived = self._arrivals[index].time
        asks = index == 0 and arrived > now - self.delay
        if asks:
            arrived = self._started - await self._age(timeline, position)
        # The same comparison as in `_count_old`: what is said to be old there must be so here.
        if arrived <= now - self.delay:
            return 0.0, asks
        return max(arrived + self.delay - now, _A_MOMENT), asks

    def here_at_start(self, history: TimelineHistory) -> int:
        """How far the timeline of *history* was here when we first looked."""
        return self._arrivals[0].reach(history) if self._arrivals else 0

    async def _age(self, timeline: int, position: int) -> float:
        """For how long, when we began, the segment of *position* had been here at least."""
        if not IDatedProvider.providedBy(self._provider):
            return 0.0
        written = await IDatedProvider(self._provider).last_written(timeline, LSN(position))
        return 0.0 if written is None else max(0.0, self._started_at - written)

    def _count_old(self, now: float) -> int:
        return bisect_right(self._arrivals, now - self.delay, key=lambda a: a.time)
