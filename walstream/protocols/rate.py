"""How fast WAL goes out: to one client, and to all of them together.

A token bucket each: what was not sent in a while may be sent at once, up to the burst, so that a
client that is up to date hardly notices that there is a limit. Whoever has to wait costs one
timer, or a place in the one queue of those who wait for the common rate.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from walstream.formats.pages import PAGE_SIZE

__all__ = ["Pace", "SharedRate", "TokenBucket"]

# What may be sent at once after a rest: what the rate gives in so many seconds, or so many bytes.
_BURST_SECONDS = 0.1
_LEAST_BURST = 64 << 10
# Who waits goes on when the rate has given as much as it does in so many seconds, or a page: so
# that a limited client costs a few system calls a second, and not one for every page.
_STEP_SECONDS = 0.05


class TokenBucket:
    """What may be sent: *rate* bytes a second, and up to *burst* bytes at once after a rest.

    It has no clock: it is told the time, in seconds. More than there is may be taken; the bucket
    is below zero then until the time has made up for it.
    """

    def __init__(self, rate: float, now: float, burst: float | None = None) -> None:
        self.rate = rate
        self.burst = max(rate * _BURST_SECONDS, _LEAST_BURST) if burst is None else burst
        self._level = self.burst
        self._seen = now

    def level(self, now: float) -> float:
        """How many bytes may be sent now; negative if too many were."""
        # A clock that was set back must not stop us; one that was set forward gives a burst.
        passed = max(0.0, now - self._seen)
        self._seen = now
        self._level = min(self._level + passed * self.rate, self.burst)
        return self._level

    def take(self, amount: int) -> None:
        """So many bytes were sent."""
        self._level -= amount

    def wait(self, wanted: int) -> float:
        """Seconds from the last look until it is worth to go on, for who wants so many bytes."""
        enough = min(wanted, self.burst, max(PAGE_SIZE, self.rate * _STEP_SECONDS))
        return max(0.0, (enough - self._level) / self.rate)


class SharedRate:
    """The rate of all clients together, which get their turns in the order in which they came.

    What there is for a turn of all is divided among those who wait, by bytes, but into no less
    than pages; who wants more waits again, behind the others. So nobody starves, however many
    there are, and however much one could take.

    :ivar rate: bytes a second; may be changed at any time.
    """

    def __init__(self, rate: float, clock: IReactorTime) -> None:
        self._clock = clock
        self._bucket = TokenBucket(rate, clock.seconds())
        self._waiting: dict[Pace, int] = {}
        self._turn_of: Pace | None = None
        self._grant = 0
        self._call: IDelayedCall | None = None

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self._bucket.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        now = self._clock.seconds()
        level = self._bucket.level(now)
        self._bucket = TokenBucket(rate, now)
        self._bucket.take(int(self._bucket.burst - min(level, self._bucket.burst)))
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._wake_later()

    def allowance(self, pace: Pace, wanted: int) -> int:
        """How much *pace* may send now; if nothing, it waits, and is woken when it is its turn."""
        if self._turn_of is pace:
            if self._grant > 0:
                return self._grant
        elif not self._waiting and (level := self._bucket.level(self._clock.seconds())) >= 1:
            return int(level)
        self._waiting[pace] = wanted
        self._wake_later()
        return 0

    def take(self, pace: Pace, amount: int) -> None:
        """*pace* has sent so many bytes."""
        self._bucket.take(amount)
        if self._turn_of is pace:
            self._grant -= amount

    def leave(self, pace: Pace) -> None:
        """*pace* waits no longer."""
        self._waiting.pop(pace, None)
        if not self._waiting and self._call is not None and self._call.active():
            self._call.cancel()

    def _wake_later(self) -> None:
        if not self._waiting or self._turn_of is not None:
            return
        if self._call is not None and self._call.active():
            return
        self._bucket.level(self._clock.seconds())
        delay = self._bucket.wait(sum(self._waiting.values()))
        self._call = self._clock.callLater(delay, self._give_turns)

    def _give_turns(self) -> None:
        level = self._bucket.level(self._clock.seconds())
        share = max(PAGE_SIZE, int(level) // max(1, len(self._waiting)))
        while self._waiting and (left := int(self._bucket.level(self._clock.seconds()))) > 0:
            pace = next(iter(self._waiting))
            del self._waiting[pace]
            self._turn_of, self._grant = pace, min(share, left)
            try:
                pace.wake()
            finally:
                self._turn_of = None
        self._wake_later()


class Pace:
    """How fast one client is served.

    :ivar wake: called when the client may be sent more, after it was told to wait. It may be
        called although nothing may be sent yet.
    :param rate: bytes a second; 0 for no limit of its own.
    :param shared: the rate that it shares with others, if there is one.
    """

    def __init__(self, rate: float, shared: SharedRate | None, clock: IReactorTime) -> None:
        self.wake: Callable[[], None] = _nothing
        self._own = TokenBucket(rate, clock.seconds()) if rate else None
        self._shared = shared
        self._clock = clock
        self._call: IDelayedCall | None = None

    def allowance(self, wanted: int) -> int:
        """How many of *wanted* bytes may be sent now. If none, `wake` is called when some may be.

        To be asked only by who has something to send and would send it now.
        """
        if self._own is not None:
            level = int(self._own.level(self._clock.seconds()))
            if level < 1:
                self._wait(self._own.wait(wanted))
                return 0
            wanted = min(wanted, level)
        if self._shared is not None:
            wanted = min(wanted, self._shared.allowance(self, wanted))
        return wanted

    def take(self, amount: int) -> None:
        """So many bytes were sent."""
        if self._own is not None:
            self._own.take(amount)
        if self._shared is not None:
            self._shared.take(self, amount)

    def stop(self) -> None:
        """Wait no longer."""
        self.wake = _nothing
        if self._call is not None and self._call.active():
            self._call.cancel()
        if self._shared is not None:
            self._shared.leave(self)

    def _wait(self, seconds: float) -> None:
        if self._call is None or not self._call.active():
            self._call = self._clock.callLater(seconds, self._go_on)

    def _go_on(self) -> None:
        self.wake()


def _nothing() -> None:
    pass
