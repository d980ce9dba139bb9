"""Who may come in: how many clients there are, and how many connections that may become one.

Each connection costs a file descriptor, of which a process has a limited number; when there are
none left, an archive cannot open its segments. So both are bounded, before that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from walstream.errors import CommandError
from walstream.formats.client_address import neighbourhood, parse_client_address
from walstream.protocols.settings import major_version

__all__ = ["Admission", "ClientLimit", "Strangers", "too_many_clients"]

# A flood is said once, and then so often, in seconds.
_SAID_EVERY = 60.0


class Admission(Protocol):
    """Decides whether another client may come in. `ClientLimit` counts for itself.

    :ivar limit: how many there may be; 0 for any number.
    """

    limit: int

    def enter(self, pid: int) -> bool:
        """Whether session *pid* may come in. If so it counts until it leaves."""

    def leave(self, pid: int) -> None:
        """Session *pid* is over; it may never have come in."""


class ClientLimit:
    """So many clients may be there at a time: ``max_wal_senders``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._inside: set[int] = set()

    def enter(self, pid: int) -> bool:
        """See `Admission.enter`."""
        if self.limit and len(self._inside) >= self.limit:
            return False
        self._inside.add(pid)
        return True

    def leave(self, pid: int) -> None:
        """See `Admission.leave`."""
        self._inside.discard(pid)


class Strangers:
    """The connections that have not said yet who they are: when there are too many, some go.

    Whoever connects and means it says so at once; whoever opens connections and waits loses them
    first, and cannot keep others out: of those with the most connections, the oldest goes. So one
    place's flood is nobody else's trouble.
    """

    _log = Logger()

    def __init__(self, limit: int, clock: IReactorTime) -> None:
        self._limit = limit
        self._clock = clock
        # By where they come from; those of each place in the order in which they came.
        self._places: dict[str, dict[int, Callable[[], None]]] = {}
        self._place_of: dict[int, str] = {}
        self._unsaid = 0
        self._said = -_SAID_EVERY

    def __len__(self) -> int:
        return len(self._place_of)

    def enter(self, pid: int, address: str | None, close: Callable[[], None]) -> None:
        """A connection has been made; *close* ends it, at once.

        :param address: where it comes from; None for this machine.
        """
        place = "" if address is None else neighbourhood(parse_client_address(address))
        self._place_of[pid] = place
        self._places.setdefault(place, {})[pid] = close
        if len(self._place_of) > self._limit:
            crowd = max(self._places.values(), key=len)
            oldest, close_oldest = next(iter(crowd.items()))
            self.leave(oldest)
            self._say()
            close_oldest()

    def leave(self, pid: int) -> None:
        """It has said who it is, or is gone."""
        place = self._place_of.pop(pid, None)
        if place is not None:
            del self._places[place][pid]
            if not self._places[place]:
                del self._places[place]

    def _say(self) -> None:
        self._unsaid += 1
        now = self._clock.seconds()
        if abs(now - self._said) < _SAID_EVERY:
            return
        self._log.warn(
            "more than {limit} connections have not said who they are: the oldest are closed "
            "({closed} since this was last said)",
            limit=self._limit,
            closed=self._unsaid,
        )
        self._said, self._unsaid = now, 0


def too_many_clients(limit: int, server_version: str) -> CommandError:
    """What PostgreSQL of that version says to one client too many (`InitProcess` in proc.c)."""
    name = '"max_wal_senders"' if major_version(server_version) >= 17 else "max_wal_senders"
    return CommandError(
        "53300", f"number of requested standby connections exceeds {name} (currently {limit})"
    )
