"""What is costly, a few at a time: in between, all streams have their turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from twisted.internet.interfaces import IReactorTime

__all__ = ["Turns"]


class Turns:
    """Lets so many go on in each turn of the reactor; others wait for the next, in their order.

    :param few: how many.
    """

    def __init__(self, few: int, clock: IReactorTime) -> None:
        self._few = self._left = few
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_due = False

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, go_on: Callable[[], None]) -> None:
        """Call *go_on*: now, if this turn has room for it."""
        if self._waiting or not self._left:
            self._waiting.append(go_on)
        else:
            self._take_place()
            go_on()

    def forget(self, go_on: Callable[[], None]) -> None:
        """Do not call *go_on* any more: its turn is the next one's."""
        with suppress(ValueError):
            self._waiting.remove(go_on)

    def _take_place(self) -> None:
        self._left -= 1
        if not self._is_due:
            self._is_due = True
            self._clock.callLater(0, self._next_turn)

    def _next_turn(self) -> None:
        self._is_due = False
        self._left = self._few
        while self._waiting and self._left:
            self._take_place()
            self._waiting.popleft()()
