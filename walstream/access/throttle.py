"""How long who has been wrong has to wait.

Whoever tries passwords gets each answer late, the right one as well: otherwise it would tell by
itself that it is right. An answer is late by seconds at most, so a standby that has the right
password comes in from the same address, if not at once. Nobody else waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from twisted.internet.defer import Deferred, succeed

__all__ = ["Lateness", "Throttle"]

# So many addresses are remembered; of more, those whose last failure is the longest ago go.
_MOST: Final = 10_000


class Lateness(Protocol):
    """Says how late answers to passwords are to be. `Throttle` does it by itself."""

    def settle(self, address: str, *, is_wrong: bool) -> Deferred[float]:
        """Seconds by which the answer to that address is to be late.

        :param is_wrong: whether the password was; it counts from now on, for this answer too.
        """


@dataclass(slots=True)
class _Record:
    failures: float
    since: float


class Throttle:
    """Counts failures of each address, and forgets them with time.

    :param first: seconds that an answer takes after one failure; twice as much after two, and so
        on. 0: no answer is delayed.
    :param longest: seconds that any takes, at most.
    :param forgiven: after so many seconds a failure is forgotten.
    :param seconds: the time.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        first: float = 0.25,
        longest: float = 5.0,
        forgiven: float = 30.0,
    ) -> None:
        self._seconds = seconds
        self._first = first
        self._longest = longest
        self._forgiven = forgiven
        # More than these make no difference, so they need not be worked off.
        self._most_failures = 1.0
        while first and first * 2 ** (self._most_failures - 1) < longest:
            self._most_failures += 1
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def settle(self, address: str, *, is_wrong: bool) -> Deferred[float]:
        """See `Lateness.settle`."""
        delay = self.delay(address)
        if is_wrong:
            self.failed(address)
            delay = max(delay, self.delay(address))
        return succeed(delay)

    def delay(self, address: str) -> float:
        """Seconds by which an answer to that address is to be late at this moment."""
        record = self._records.get(address)
        if record is None:
            return 0.0
        self._forgive(record)
        if record.failures <= 0:
            del self._records[address]
            return 0.0
        doubled: float = self._first * 2.0 ** (record.failures - 1)
        return min(self._longest, doubled)

    def failed(self, address: str) -> None:
        """Somebody at that address was wrong."""
        if not self._first:
            return
        record = self._records.setdefault(address, _Record(0.0, self._seconds()))
        self._forgive(record)
        record.failures = min(self._most_failures, record.failures + 1)
        self._records.move_to_end(address)
        if len(self._records) > _MOST:
            self._records.popitem(last=False)

    def _forgive(self, record: _Record) -> None:
        now = self._seconds()
        whole = (now - record.since) // self._forgiven
        if whole > 0:
            record.failures = max(0.0, record.failures - whole)
        if whole:
            record.since = now
