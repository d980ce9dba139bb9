"""The hub: one archive, with a source that fills it, followers that it serves, or both.

Knows in which order its parts start and stop, which is what there is to know about a hub.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.protocols.receiver import StreamEnd
from walstream.services.outcome import Outcome
from walstream.services.receive import ReceiverService
from walstream.services.send import SenderService

__all__ = ["HubService", "Storage"]


class Storage(Protocol):
    """What has to be opened before, and closed after, it is used: an archive directory, say."""

    def open(self) -> Deferred[None]: ...

    def close(self) -> Deferred[None]: ...


class HubService(Service):
    """Opens an archive and runs a receiver, a sender or both on it. May be started once.

    It starts as listed here, and is up when all are:

    1. open the storage;
    2. listen: an archive that is empty yet is no reason to turn followers away;
    3. connect to the upstream.

    It stops in an order of its own, each step when the one before is done:

    1. let no follower in any more;
    2. stop the source, which makes durable what came;
    3. see the followers off, with everything that is durable;
    4. close the storage.

    :param storage: what the receiver's sink and the sender's provider keep WAL in; opened in this
        order, closed in the reverse.
    :param receiver: the source, with ``synchronous=True`` if there are followers: they are served
        what is durable, so it has to become durable as it comes.
    :param sender: serves the followers.
    :ivar reloads: read again what may be changed while it runs.
    """

    _log = Logger()

    def __init__(
        self,
        storage: Sequence[Storage],
        *,
        receiver: ReceiverService | None = None,
        sender: SenderService | None = None,
        reloads: Sequence[Callable[[], object]] = (),
    ) -> None:
        self.reloads = reloads
        self._storage = storage
        self._receiver = receiver
        self._sender = sender
        self._opened: list[Storage] = []
        self._ready: Outcome[None] = Outcome()
        self._finished: Outcome[StreamEnd] = Outcome()
        self._started = self._stopping = False

    def ready(self) -> Deferred[None]:
        """Fires when the archive is open and followers can connect.

        :raises Exception: (in the Deferred) what prevented it.
        """
        return self._ready.wait()

    def finished(self) -> Deferred[StreamEnd]:
        """Fires when there is no more to do: see `ReceiverService.finished`; or it was stopped.

        :raises Exception: (in the Deferred) what the receiver gave up on, or prevented the start.
        """
        return self._finished.wait()

    def startService(self) -> None:
        """Start the parts; `ready` and `finished` tell how that went."""
        super().startService()  # type: ignore[no-untyped-call]
        self._started = True
        starting = Deferred.fromCoroutine(self._start())
        starting.addErrback(self._cannot_start).addBoth(self._ready.set)

    def stopService(self) -> Deferred[None]:
        """Stop the parts in order; fires when all is done."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _start(self) -> None:
        for storage in self._storage:
            await storage.open()
            self._opened.append(storage)
        if self._sender is not None and not self._stopping:
            self._sender.startService()
            await self._sender.listening()
        if self._receiver is not None and not self._stopping:
            self._receiver.startService()
            self._receiver.finished().addBoth(self._finished.set)

    def _cannot_start(self, failure: Failure) -> Failure:
        self._log.error("cannot start: {reason}", reason=failure.getErrorMessage())
        self._finished.set(failure)
        return failure

    async def _stop(self) -> None:
        self._stopping = True
        if self._started:
            await self._ready.wait().addErrback(lambda _: None)  # logged when it was set
        sender = self._sender if self._sender is not None and self._sender.running else None
        if sender is not None:
            await sender.stop_accepting()
        if self._receiver is not None and self._receiver.running:
            await self._receiver.stopService()
        if sender is not None:
            await sender.stopService()
        try:
            await self._close_storage()
        except Exception:
            self._finished.set(Failure())
            raise
        self._finished.set(StreamEnd.STOPPED)

    async def _close_storage(self) -> None:
        """Close all of it, even if something can't be closed well; that is raised afterwards."""
        while self._opened:
            try:
                await self._opened.pop().close()
            except Exception as error:
                self._log.error("cannot close the archive in order: {reason}", reason=str(error))
                await self._close_storage()
                raise
