"""Serving with more than one core: several workers behind the same ports.

Python runs on one core. The main process listens, and hands each connection, as a file descriptor,
to the worker that has the fewest; what there is only once stays with it: slots, the numbers of
sessions, what clients report. In a hub it receives, too.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.interfaces import ISlotStore, IWALProvider
from walstream.protocols.direct import direct_connection
from walstream.protocols.settings import SenderSettings
from walstream.protocols.standbys import Standbys
from walstream.services.accepting import Inlet
from walstream.services.access import Access
from walstream.services.outcome import Outcome
from walstream.services.worker_pool import WorkerPool
from walstream.services.worker_process import WorkerProcess
from walstream.services.worker_sessions import WorkerSessions
from walstream.services.worker_shares import share_of_clients, shares_of_rate

if TYPE_CHECKING:
    from walstream.tls.server import ServerFiles

__all__ = ["SenderProcesses"]

# Connections that wait for a worker, before no more are accepted: as many as a socket's backlog.
_MOST_WAITING = 50
# Connections that a worker is being given at a time. Each has a descriptor here, in between and in
# the worker, and none of the three may have too many. A worker takes so many in one turn.
_MOST_UNDER_WAY = 20
# Seconds, after the grace, that a worker has to say that all are gone.
_PATIENCE = 2.0


class SenderProcesses(Factory):
    """Serves an archive directory by worker processes; in place of a `WALSenderFactory`.

    Opened before it listens, and closed after it was drained: see `Storage`. A connection has to be
    a plain socket's.

    :ivar standbys: the clients that were let in, by whichever worker.
    :param reactor: `IReactorProcess` and `IReactorSocket`.
    :param archive: the directory, which the workers read by themselves.
    :param provider: the same archive, as this process knows it: open before the workers are.
    :param slots: the slots of all of them.
    :param count: how many workers.
    :param access: who comes in; None: everybody.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        archive: str | os.PathLike[str],
        provider: IWALProvider,
        slots: ISlotStore,
        settings: SenderSettings,
        count: int,
        *,
        tls: ServerFiles | None = None,
        access: Access | None = None,
        make: Callable[..., Any] = WorkerProcess,
    ) -> None:
        """
        :param tls: with what connections are encrypted, in the workers; None: they are not.
        """
        self._clock = reactor
        self._rate = settings.max_total_rate
        self._provider = provider
        self._sessions: WorkerSessions[WorkerProcess] = WorkerSessions(
            slots, None if access is None else access.throttle(reactor)
        )
        self._waiting: deque[Any] = deque()
        self._under_way: Counter[WorkerProcess] = Counter()
        self._inlet = Inlet()
        self._is_draining = False
        self._drained: Outcome[None] = Outcome()
        path = os.path.abspath(archive)

        def worker(number: int) -> WorkerProcess:
            share = share_of_clients(settings.max_clients, number, count)
            to_begin = replace(settings, max_total_rate=-(-settings.max_total_rate // count))
            made: WorkerProcess = make(
                reactor, number, path, to_begin, share, self._sessions, tls, access
            )
            return made

        self._pool = WorkerPool(
            worker,
            count,
            reactor,
            self._sessions.lost,
            self._hand_out,
            before_beat=self._share_rate,
        )

    @property
    def standbys(self) -> Standbys:
        """The clients of all workers."""
        return self._sessions.standbys

    # Storage.

    def open(self) -> Deferred[None]:
        """Start the workers.

        :raises WalstreamError: (in the Deferred) if one can't be; none is left then.
        """
        return self._pool.open()

    def close(self) -> Deferred[None]:
        """End the workers."""
        return self._pool.close()

    # As a `WALSenderFactory`.

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """What hands a new connection over; nothing once the sender is being stopped."""
        return None if self._is_draining else _Arrival(self._arrived)

    def look(self) -> None:
        """Nothing to do: workers say every second how far each client was sent to."""

    def reload(self, *, tls: bool) -> None:
        """Have the workers read files again: see `Reload`. Those that are starting, too."""
        for worker in self._pool.alive:
            worker.reload(tls=tls)

    def drain(self, grace: float) -> Deferred[None]:
        """End all sessions, in all workers: see `WALSenderFactory.drain`."""
        if not self._is_draining:
            self._is_draining = True
            Deferred.fromCoroutine(self._drain(grace)).addBoth(self._drained.set)
        return self._drained.wait()

    async def _drain(self, grace: float) -> None:
        while self._waiting:
            _let_go(self._waiting.pop())
        workers = self._pool.ready
        await DeferredList([Deferred.fromCoroutine(self._see_off(w, grace)) for w in workers])

    async def _see_off(self, worker: WorkerProcess, grace: float) -> None:
        draining = worker.drain(grace, self._provider.end())
        try:
            await draining.addTimeout(grace + _PATIENCE, self._clock)
        except TimeoutError:
            self._log.warn(
                "worker {number} did not see its clients off in time: killed", number=worker.number
            )
            worker.kill()
        except Exception:
            pass  # it has ended, which the pool says

    # Connections.

    def _arrived(self, transport: Any) -> None:
        if self._is_draining:
            _let_go(transport)
            return
        self._waiting.append(transport)
        self._hand_out()
        if len(self._waiting) < _MOST_WAITING:
            return
        # From each port at most those of one turn come on top of that.
        self._inlet.close_behind(transport)
        if len(self._waiting) == _MOST_WAITING and not self._pool.available:
            self._log.error("no worker can take a connection: clients have to wait")

    def _hand_out(self) -> None:
        while self._waiting and (workers := self._ready_for_more()):
            worker = min(workers, key=self._burden)
            self._hand(self._waiting.popleft(), worker)
        if not self._waiting:
            self._inlet.open()

    def _ready_for_more(self) -> list[WorkerProcess]:
        return [each for each in self._pool.available if self._under_way[each] < _MOST_UNDER_WAY]

    def _burden(self, worker: WorkerProcess) -> tuple[bool, int]:
        """The less, the better: one that may have no more clients would only turn it away."""
        is_full = worker.share is not None and self._sessions.clients(worker) >= worker.share
        return is_full, self._sessions.number(worker)

    def _share_rate(self) -> None:
        if self._rate:
            workers = self._pool.ready
            shares = shares_of_rate(self._rate, [*map(self._sessions.clients, workers)])
            for worker, rate in zip(workers, shares, strict=True):
                worker.rate = rate

    def _hand(self, transport: Any, worker: WorkerProcess) -> None:
        pid = self._sessions.begin(worker)
        self._under_way[worker] += 1

        def handed(result: object) -> None:
            # The worker has it, or has ended; or could not take it, which is our fault.
            if isinstance(result, Failure):
                self._sessions.ended(pid)
            _let_go(transport)
            self._under_way[worker] -= 1
            if not self._under_way[worker]:
                del self._under_way[worker]
            self._hand_out()

        worker.adopt(transport.getHandle(), pid).addBoth(handed)


class _Arrival(Protocol):
    """A connection of which nothing is read or written here."""

    def __init__(self, arrived: Callable[[Any], None]) -> None:
        self._arrived = arrived

    def connectionMade(self) -> None:
        transport = direct_connection(self.transport)
        if transport is None:
            # Its state, TLS for one, is in this process, and cannot be handed over.
            raise RuntimeError(f"{self.transport!r} is no plain socket: it needs one process")
        transport.stopReading()
        self._arrived(transport)


def _let_go(transport: Any) -> None:
    """Close our copy of the socket, and not the connection, which may be a worker's by now.

    The transport's own ways of closing shut the connection down for all who have it.
    """
    transport.getHandle().close()
