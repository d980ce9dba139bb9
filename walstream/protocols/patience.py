"""Giving up a peer that owes something for too long: the rest of a message, or to read an answer.

A peer that says nothing at all owes nothing; see `walstream.protocols.silence` for that one.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Patience"]


class Patience:
    """Waits for one thing at a time.

    :param timeout: seconds; 0 waits for ever.
    :param give_up: called with what was waited for, once it has not come in time.
    """

    def __init__(self, clock: IReactorTime, timeout: float, give_up: Callable[[str], None]) -> None:
        self._clock = clock
        self._timeout = timeout
        self._give_up = give_up
        self._call: IDelayedCall | None = None
        self._owed: str | None = None

    def wait_for(self, owed: str | None, *, anew: bool = False) -> None:
        """What is owed from now on; None: nothing.

        :param anew: something has come that was owed: even the same has its time from now on.
        """
        if owed == self._owed and not (anew and owed is not None):
            return
        self.stop()
        self._owed = owed
        if owed is not None and self._timeout:
            self._call = self._clock.callLater(self._timeout, self._over)

    def stop(self) -> None:
        """Nothing is owed, and no timer is left."""
        self._owed = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _over(self) -> None:
        self._call, owed = None, self._owed or ""
        self._owed = None
        self._give_up(f"{owed} took longer than {self._timeout:g} s")
