"""WAL that was received and is not durable yet, in memory: what followers are given before it is.

They are not given what the file has. If a sync fails, the kernel may forget what was written, and
who reads the file then, or sends from it, has whatever the disk had before: a standby would stop
at that, and stay there.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

__all__ = ["MOST", "RecentWAL"]

MOST: Final = 64 << 20
"""So many bytes are kept; if the disk is further behind, followers wait for it."""

_NOTHING: Final = memoryview(b"")


class RecentWAL:
    """A run of pieces without a gap, the oldest of which go when they are durable.

    :ivar end: the byte position behind the last piece; 0 if there are none.
    """

    def __init__(self, most: int = MOST) -> None:
        self.end = 0
        self._most = most
        self._starts: list[int] = []
        self._pieces: list[memoryview] = []

    def append(self, start: int, data: memoryview) -> None:
        """Keep a copy of a piece that was received, but for what is there already.

        A piece that does not fit is left out, and so is what follows until all before is gone.
        """
        end = start + len(data)
        if self._starts and not start <= self.end < end:
            return
        kept = data[self.end - start :] if self._starts else data
        if end - (self._starts[0] if self._starts else start) > self._most:
            return
        self._starts.append(end - len(kept))
        self._pieces.append(memoryview(bytes(kept)))
        self.end = end

    def reach(self, durable: int) -> int:
        """Up to where followers can be given WAL that is durable up to there."""
        return self.end if self._starts and self._starts[0] <= durable < self.end else durable

    def view(self, position: int) -> memoryview:
        """What there is from *position* on, of one piece; nothing if it is not kept."""
        index = bisect_right(self._starts, position) - 1
        if index < 0 or position >= self.end:
            return _NOTHING
        return self._pieces[index][position - self._starts[index] :]

    def forget_before(self, position: int) -> None:
        """What is before that is durable. Views that were given stay what they are."""
        if position >= self.end:
            self.clear()
            return
        number = bisect_right(self._starts, position) - 1
        if number > 0:
            del self._starts[:number], self._pieces[:number]

    def clear(self) -> None:
        """Keep nothing."""
        self._starts.clear()
        self._pieces.clear()
        self.end = 0
