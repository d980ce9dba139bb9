"""A cursor that gives WAL only when it has been here for a while."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from walstream.errors import EndOfTimeline
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE, SegmentSize
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import IWALCursor, IWALProvider
from walstream.protocols.arrivals import Arrivals

__all__ = ["DelayedCursor", "open_delayed"]

_NOTHING = memoryview(b"")
# It is looked again this often, in seconds, so that a reactor whose clock was set misses little.
_LONGEST_SLEEP = 60.0


async def open_delayed(
    cursor: IWALCursor,
    timeline: int,
    provider: IWALProvider,
    arrivals: Arrivals,
    clock: IReactorTime,
) -> IWALCursor:
    """*cursor*, which reads *timeline*, held back by as much as *arrivals* says.

    :raises WALUnavailable: if the history of the timeline is missing; the cursor is closed then.
    """
    identity = provider.identity
    size = DEFAULT_SEGMENT_SIZE if identity is None else identity.segment_size
    try:
        history = await provider.history(timeline)
        delayed = DelayedCursor(cursor, history, arrivals, size, clock)
        await delayed.look()
    except BaseException:
        cursor.close()
        raise
    return delayed


@implementer(IWALCursor)
class DelayedCursor:
    """Reads from another cursor what is old enough.

    The end of the timeline is told when it has been known for as long: a promotion lets nothing
    through. What is not to be had at all is told at once.
    """

    def __init__(
        self,
        cursor: IWALCursor,
        history: TimelineHistory,
        arrivals: Arrivals,
        size: SegmentSize,
        clock: IReactorTime,
    ) -> None:
        self._cursor = cursor
        self._history = history
        self._arrivals = arrivals
        self._size = size
        self._clock = clock
        self._released = 0
        self._waiter: Deferred[None] | None = None

    @property
    def position(self) -> int:
        """See `IWALCursor.position`."""
        return self._cursor.position

    @property
    def available(self) -> int:
        """See `IWALCursor.available`."""
        return min(self._released, self._cursor.available)

    def read(self, limit: int) -> memoryview:
        """See `IWALCursor.read`."""
        limit = min(limit, self._released - self._cursor.position)
        return self._cursor.read(limit) if limit > 0 else _NOTHING

    def ready(self) -> Deferred[None]:
        """See `IWALCursor.ready`."""
        if self._waiter is not None:
            raise RuntimeError("one ready() is outstanding already")
        waiter = self._waiter = Deferred.fromCoroutine(self._wait())
        return waiter.addBoth(self._waited)

    def close(self) -> None:
        """See `IWALCursor.close`."""
        if self._waiter is not None:
            self._waiter.cancel()
        self._cursor.close()

    async def look(self, timeline: int | None = None) -> float:
        """See whether the next byte is old enough, and what behind it; seconds until it is."""
        position, history = self._cursor.position, self._history
        seconds, by_file = await self._arrivals.wait_for(
            history, position, history.timeline if timeline is None else timeline
        )
        if not seconds:
            released = self._arrivals.old_until(history)
            if by_file:
                segment_end = self._size.start(self._size.number(position) + 1)
                released = max(released, min(segment_end, self._arrivals.here_at_start(history)))
            self._released = max(self._released, released)
        return seconds

    async def _wait(self) -> None:
        try:
            await self._cursor.ready()
        except EndOfTimeline as end:
            await self._grow_old(end.next_timeline)
            raise
        await self._grow_old()

    async def _grow_old(self, timeline: int | None = None) -> None:
        while seconds := await self.look(timeline):
            await deferLater(self._clock, min(seconds, _LONGEST_SLEEP))

    def _waited(self, result: object) -> object:
        self._waiter = None
        return result
