"""The sessions of all workers, as the main process knows them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Generic, Protocol, TypeVar

from walstream.access.role_places import RolePlaces
from walstream.access.throttle import Lateness
from walstream.interfaces import ISlotStore
from walstream.protocols.standbys import Standby, Standbys
from walstream.services.worker_standbys import sent_values, standby_values

__all__ = ["Host", "SessionHost", "WorkerSessions"]


class SessionHost(Protocol):
    """A worker, as far as its sessions are concerned."""

    def cancel(self, pid: int, key: bytes) -> None:
        """A CancelRequest names this session."""

    def terminate(self, pid: int) -> None:
        """Its slot is taken from this session."""


Host = TypeVar("Host", bound=SessionHost)


class WorkerSessions(Generic[Host]):
    """Numbers sessions, and knows which worker has which.

    :ivar standbys: the clients that were let in, as their workers report them.
    :ivar places: how many connections each role has.
    :ivar throttle: counts wrong passwords, whichever worker they came to; None: none is asked for.
    """

    def __init__(self, slots: ISlotStore, throttle: Lateness | None = None) -> None:
        self.standbys = Standbys()
        self.slots = slots
        self.places = RolePlaces()
        self.throttle = throttle
        self._pids = count(1)
        self._sessions: dict[int, Host] = {}
        self._numbers: dict[Host, int] = {}
        self._clients: dict[Host, int] = {}
        self._known: dict[int, Standby] = {}
        slots.watch_terminations(self._terminate)

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, host: Host) -> int:
        """A client is handed to a worker; the number of its session."""
        pid = next(self._pids)
        self._sessions[pid] = host
        self._numbers[host] = self.number(host) + 1
        return pid

    def number(self, host: Host) -> int:
        """How many sessions a worker has."""
        return self._numbers.get(host, 0)

    def clients(self, host: Host) -> int:
        """How many of them are clients that were let in, as far as it is known."""
        return self._clients.get(host, 0)

    def ended(self, pid: int) -> None:
        """A session is over, in whatever way; what it had is given back."""
        host = self._sessions.get(pid)
        if host is not None:
            self.left(pid)
            del self._sessions[pid]
            self._numbers[host] -= 1
            self.slots.end_session(pid)

    def lost(self, host: Host) -> int:
        """A worker has ended, and its sessions with it; their number."""
        pids = [pid for pid, its_host in self._sessions.items() if its_host is host]
        for pid in pids:
            self.ended(pid)
        self._numbers.pop(host, None)
        self._clients.pop(host, None)
        return len(pids)

    def cancel(self, pid: int, key: bytes) -> None:
        """A CancelRequest has come, to whichever worker."""
        host = self._sessions.get(pid)
        if host is not None:
            host.cancel(pid, key)

    # What workers report.

    def changed(self, lines: Iterable[bytes]) -> None:
        """Clients have reported something: lines of `pack_standby`."""
        for line in lines:
            values = standby_values(line)
            pid = values["pid"]
            host = self._sessions.get(pid)
            if host is None:
                continue
            standby = self._known.get(pid)
            if standby is None:
                standby = self._known[pid] = Standby(**values)
                self._clients[host] = self.clients(host) + 1
            else:
                for name, value in values.items():
                    setattr(standby, name, value)
            self.standbys.changed(standby)

    def sent(self, lines: Iterable[bytes]) -> None:
        """How far clients were sent to, which is no news to anybody: lines of pid and position."""
        for line in lines:
            pid, position = sent_values(line)
            standby = self._known.get(pid)
            if standby is not None:
                standby.sent = position

    def left(self, pid: int) -> None:
        """A client that had been let in is gone."""
        standby = self._known.pop(pid, None)
        if standby is not None:
            self._clients[self._sessions[pid]] -= 1
            self.standbys.left(standby)

    def _terminate(self, pid: int) -> None:
        host = self._sessions.get(pid)
        if host is not None:
            host.terminate(pid)
