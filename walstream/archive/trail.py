"""Where the readers of an archive were a moment ago: the position furthest back, of each second."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from walstream.formats.positions import WALPosition

__all__ = ["MOMENT", "Trail"]

#: How long a moment is, in seconds. A standby connects again after 5 s unless told otherwise
#: (``wal_retrieve_retry_interval``).
MOMENT: Final = 15


class Trail:
    """The positions that were left in the last `MOMENT`.

    However many readers there are, there is one position for each second.

    :ivar oldest: the one that is furthest back, None if there is none. Read in any thread.
    :param changed: called when `oldest` has changed by the passing of time.
    """

    def __init__(self, clock: IReactorTime, changed: Callable[[], None]) -> None:
        self.oldest: WALPosition | None = None
        self._clock = clock
        self._changed = changed
        self._seconds: dict[int, WALPosition] = {}
        self._timer: IDelayedCall | None = None

    def add(self, position: WALPosition) -> None:
        """A reader has just left *position*."""
        second = int(self._clock.seconds())
        left = self._seconds.get(second)
        if left is None or position.lsn < left.lsn:
            self._seconds[second] = position
            self._find_oldest()
        if self._timer is None:
            self._timer = self._clock.callLater(1, self._forget)

    def close(self) -> None:
        """Nothing is remembered any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._seconds.clear()
        self.oldest = None

    def _forget(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for second in [each for each in self._seconds if each + MOMENT < now]:
            del self._seconds[second]
        if self._seconds:
            self._timer = self._clock.callLater(1, self._forget)
        before = self.oldest
        self._find_oldest()
        if self.oldest != before:
            self._changed()

    def _find_oldest(self) -> None:
        self.oldest = min(self._seconds.values(), key=attrgetter("lsn"), default=None)
