"""Cursors of `walstream.testing.memory`, and the WAL that they read."""

from __future__ import annotations

from bisect import bisect_right
from typing import Protocol

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from walstream.errors import EndOfTimeline, WALUnavailable
from walstream.interfaces import IWALCursor

__all__ = ["MemoryCursor", "TimelineWAL", "WALSource"]


class TimelineWAL:
    """The WAL of one timeline, as the pieces in which it was appended.

    :ivar held_from: the position from which on it is held.
    :ivar available: the position up to which it may be served.
    :ivar written: the position up to which it is there.
    """

    def __init__(self, start: int) -> None:
        self.held_from = start
        self.written = start
        self.available = start
        self._starts: list[int] = []
        self._pieces: list[bytes] = []

    def append(self, data: bytes) -> None:
        """Put *data* at the end."""
        if data:
            self._starts.append(self.written)
            self._pieces.append(data)
            self.written += len(data)

    def view(self, start: int, limit: int) -> memoryview:
        """The WAL from *start* up to *limit* bytes on, or up to the end of its piece."""
        end = min(start + limit, self.available)
        if end <= start or start < self.held_from:
            return memoryview(b"")
        index = bisect_right(self._starts, start) - 1
        offset = start - self._starts[index]
        return memoryview(self._pieces[index])[offset : offset + end - start]


class WALSource(Protocol):
    """What a cursor needs of its provider."""

    cursors: list[MemoryCursor]

    def available(self, timeline: int) -> int: ...
    def view(self, timeline: int, start: int, limit: int) -> memoryview: ...
    def is_ready(self, timeline: int, position: int) -> bool: ...


@implementer(IWALCursor)
class MemoryCursor:
    """A place in a `MemoryProvider`'s WAL."""

    def __init__(self, provider: WALSource, timeline: int, position: int) -> None:
        self.position = position
        self._provider = provider
        self._timeline = timeline
        self._waiter: Deferred[None] | None = None

    @property
    def available(self) -> int:
        """See `IWALCursor.available`."""
        return self._provider.available(self._timeline)

    def read(self, limit: int) -> memoryview:
        """See `IWALCursor.read`. The boundaries are those of what was appended."""
        view = self._provider.view(self._timeline, self.position, limit)
        self.position += len(view)
        return view

    def ready(self) -> Deferred[None]:
        """See `IWALCursor.ready`.

        :raises RuntimeError: if one is outstanding; in the Deferred, if the cursor is closed.
        """
        if self._waiter is not None:
            raise RuntimeError("one ready() is outstanding already")
        if self not in self._provider.cursors:
            return fail(RuntimeError("the cursor is closed"))
        waiter = self._waiter = Deferred(self._cancelled)
        self.wake()
        return waiter

    def close(self) -> None:
        """See `IWALCursor.close`."""
        if self in self._provider.cursors:
            self._provider.cursors.remove(self)
        if self._waiter is not None:
            self._waiter.cancel()

    def wake(self) -> None:
        """See whether what is waited for is there."""
        waiter = self._waiter
        if waiter is None:
            return
        try:
            if not self._provider.is_ready(self._timeline, self.position):
                return
        except (EndOfTimeline, WALUnavailable) as over:
            self._waiter = None
            waiter.errback(over)
        else:
            self._waiter = None
            waiter.callback(None)

    def _cancelled(self, waiter: Deferred[None]) -> None:
        self._waiter = None
