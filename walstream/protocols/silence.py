"""Noticing that a peer has fallen silent, as ``wal_sender_timeout`` has PostgreSQL do."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["SilenceWatch"]


class SilenceWatch:
    """Asks a peer for a sign of life after half of a time of silence, and gives it up after all.

    It does not wake up for every message: it looks at the time of the last one when that may have
    become too old.

    :param timeout: seconds; 0 never asks and never gives up.
    :param ask: asks the peer for a sign of life.
    :param give_up: called once, when it gave none.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float,
        ask: Callable[[], None],
        give_up: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._ask = ask
        self._give_up = give_up
        self._asked = False
        self._suspended = False
        self._last_sign = 0.0
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Watch from now on."""
        self.heard()
        if self._timeout:
            self._call = self._clock.callLater(self._timeout / 2, self._look)

    def stop(self) -> None:
        """Watch no longer."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def heard(self) -> None:
        """The peer has given a sign of life."""
        self._last_sign = self._clock.seconds()
        self._asked = False

    @property
    def seconds(self) -> float:
        """For how long the peer has been silent."""
        return self._clock.seconds() - self._last_sign

    def suspend(self) -> None:
        """We do not listen: the peer's silence means nothing."""
        self._suspended = True

    def resume(self) -> None:
        """We listen again."""
        self._suspended = False
        self.heard()

    def _look(self) -> None:
        self._call = None
        if self._suspended:
            self.heard()
        now, half = self._clock.seconds(), self._timeout / 2
        if now >= self._last_sign + self._timeout:
            if self._asked:
                self._give_up()
                return
            # The time has passed without us: the process or its machine stood still, or somebody
            # set the clock that the reactor goes by. Nobody is given up who was not asked.
            self._last_sign = now - half
        asks = not self._asked and now >= self._last_sign + half
        self._asked = self._asked or asks
        due = self._last_sign + (self._timeout if self._asked else half)
        # Before it asks: whoever is told to may stop the watch.
        self._call = self._clock.callLater(max(0.0, due - now), self._look)
        if asks:
            self._ask()
