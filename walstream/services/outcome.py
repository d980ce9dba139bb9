"""How something ends: told to everyone who asks, before or after, and to nobody who does not."""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Outcome"]

_T = TypeVar("_T")


class Outcome(Generic[_T]):
    """A result that any number may wait for.

    A Deferred has one chain of callbacks and complains of a failure that none of them took; an
    outcome does neither, so whoever sets it logs a failure itself.
    """

    def __init__(self) -> None:
        self._waiting: list[Deferred[_T]] = []
        self._result: list[_T | Failure] = []

    def set(self, result: _T | Failure) -> None:
        """It has ended, so or so. The first time counts."""
        if self._result:
            return
        self._result.append(result)
        while self._waiting:
            _give(self._waiting.pop(0), result)

    def wait(self) -> Deferred[_T]:
        """Fires when it ends, or at once if it has ended. May be cancelled."""
        waiter: Deferred[_T] = Deferred(self._waiting.remove)
        if self._result:
            _give(waiter, self._result[0])
        else:
            self._waiting.append(waiter)
        return waiter


def _give(waiter: Deferred[_T], result: _T | Failure) -> None:
    if isinstance(result, Failure):
        waiter.errback(result)
    else:
        waiter.callback(result)
