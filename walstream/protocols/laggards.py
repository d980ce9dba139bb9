"""Says in the log which clients fall behind, and which have caught up again."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from walstream.formats.amounts import in_bytes
from walstream.formats.lsn import LSN
from walstream.protocols.standbys import Standby, Standbys
from walstream.protocols.welcome import described

__all__ = ["Laggards"]

# Seconds between two looks at all clients. A client is heard of when it reports, and one that does
# not report at all has to be noticed too.
_INTERVAL = 5.0


class Laggards:
    """Looks every few seconds at how far each client is behind, as long as there are any.

    One that is further behind than *limit* is said once, and once more when it is back below half
    of that: a client that stays about there is no line for every look.

    :param end_for: the byte position up to which a client could have WAL; has what is known of the
        client brought up to date first.
    :param limit: bytes.
    """

    _log = Logger()

    def __init__(
        self,
        standbys: Standbys,
        end_for: Callable[[Standby], int],
        limit: int,
        clock: IReactorTime,
    ) -> None:
        self._standbys = standbys
        self._end_for = end_for
        self._limit = limit
        self._clock = clock
        self._behind: set[int] = set()
        self._call: IDelayedCall | None = None

    def standby_changed(self, standby: Standby) -> None:
        """See `StandbyWatcher`."""
        if self._call is None:
            self._call = self._clock.callLater(_INTERVAL, self._look)

    def standby_left(self, standby: Standby) -> None:
        """See `StandbyWatcher`."""
        self._behind.discard(standby.pid)
        if not len(self._standbys) and self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        self._call = self._clock.callLater(_INTERVAL, self._look)
        for standby in self._standbys:
            if standby.timeline:
                self._look_at(standby)

    def _look_at(self, standby: Standby) -> None:
        end = self._end_for(standby)
        # Not every client reports what it has made durable, and one of 2009 reports nothing.
        reached = standby.flush or standby.write or standby.sent
        lag = end - reached
        if lag > self._limit and standby.pid not in self._behind:
            self._behind.add(standby.pid)
            self._say("is {lag} behind, at {reached}", standby, lag, reached)
        elif lag < self._limit / 2 and standby.pid in self._behind:
            self._behind.discard(standby.pid)
            self._say("has caught up to {lag}, at {reached}", standby, lag, reached)

    def _say(self, what: str, standby: Standby, lag: int, reached: int) -> None:
        self._log.warn(
            "replication connection {pid} " + what + ": {client}",
            pid=standby.pid,
            client=described(standby.user, standby.application_name),
            lag=in_bytes(max(0, lag)),
            reached=str(LSN(reached)),
        )
