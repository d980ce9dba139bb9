"""What becomes of an error that ended a connection: which are given up on, and how long to wait."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from twisted.internet.interfaces import IReactorTime

from walstream.errors import (
    ArchiveError,
    ArchiveLost,
    DamagedWAL,
    Disconnected,
    Discontinuity,
    FormatError,
    NotSynchronous,
    ProtocolViolation,
    ServerError,
    ServerNotTrusted,
    SinkFailed,
    UpstreamRefused,
    WalstreamError,
    WrongSystem,
)

__all__ = ["VERDICTS", "Backoff", "Repetition", "Verdict", "verdict"]


class Verdict(Enum):
    """What a receiver does about an error."""

    RETRY = "connect again"
    GIVE_UP = "end, since it would only happen again"


#: The nearest class counts. Everything else is a fault in the program: retried, and logged in full.
VERDICTS: Mapping[type[BaseException], Verdict] = {
    # Another cluster's WAL: a person has to say which of the two is meant.
    WrongSystem: Verdict.GIVE_UP,
    # The directory has to be put in order first.
    ArchiveError: Verdict.GIVE_UP,
    # A file or an answer is not what it should be, and won't be next time.
    FormatError: Verdict.GIVE_UP,
    # An operator wanted to be asked.
    NotSynchronous: Verdict.GIVE_UP,
    # A standby may catch up, a failover may complete, a host list may lead elsewhere.
    UpstreamRefused: Verdict.RETRY,
    # It starts up or shuts down; or a role, a slot or a line of pg_hba.conf is missing there.
    ServerError: Verdict.RETRY,
    # An impostor must not be able to end us; and nothing was given away.
    ServerNotTrusted: Verdict.RETRY,
    Disconnected: Verdict.RETRY,
    ProtocolViolation: Verdict.RETRY,
    # The archive is as good as before; a new stream continues where it really ends.
    Discontinuity: Verdict.RETRY,
    # Nothing of it counts, and it is received again: perhaps another host, or the repaired server.
    DamagedWAL: Verdict.RETRY,
    # A disk may have room again.
    SinkFailed: Verdict.RETRY,
    # A file system may be mounted again, a directory may come back.
    ArchiveLost: Verdict.RETRY,
    WalstreamError: Verdict.RETRY,
}


def verdict(error: BaseException) -> Verdict:
    """What `VERDICTS` says of *error*."""
    return next((VERDICTS[kind] for kind in type(error).__mro__ if kind in VERDICTS), Verdict.RETRY)


class Repetition:
    """Whether an error deserves a line in the log: not when it is the one of a moment ago.

    What lasts for a day is tried every few seconds; it is said once, and then once a minute.

    :param interval: seconds after which the same error is worth saying again.
    """

    def __init__(self, clock: IReactorTime, interval: float = 60.0) -> None:
        self._clock = clock
        self._interval = interval
        self._said = ""
        self._said_at = 0.0

    def is_news(self, text: str) -> bool:
        """Whether to say *text*, which is taken for said then."""
        now = self._clock.seconds()
        if text == self._said and now < self._said_at + self._interval:
            return False
        self._said, self._said_at = text, now
        return True

    def is_over(self) -> None:
        """All is well: whatever comes is news."""
        self._said = ""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait between attempts: twice as long each time, up to a limit.

    When a stream that lasted is cut off, the first retry comes at once, and these are for those
    that follow.

    :ivar first: seconds before the first retry that waits.
    :ivar longest: seconds before any retry, at most; a stream that lasted so long makes good for
        the failures before it.
    :ivar settled: seconds after which a stream is taken to last.
    """

    first: float = 0.1
    longest: float = 5.0
    settled: float = 1.0

    def delay(self, failures: int, chance: Callable[[], float] = random.random) -> float:
        """Seconds to wait after one more failure than *failures*.

        The last half of them is up to *chance*, which gives a number in [0, 1): receivers that
        lost a server at the same moment should not all come back at the same moment.
        """
        seconds = min(self.longest, self.first * 2.0 ** min(failures, 30))
        return seconds * (1 + chance()) / 2
