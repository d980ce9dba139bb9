"""A worker: one of several processes that serve the clients of one port, over one archive.

Its main process listens, and hands it connections. It reads the archive by itself, and asks the
main process about all that there is only once: slots, and who is who.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.access.gate import AccessGate
from walstream.archive.reader import ArchiveReader
from walstream.interfaces import IGate, WALPosition
from walstream.protocols.limits import Limits
from walstream.protocols.sender import WALSender
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.settings import SenderSettings
from walstream.services.access import Access
from walstream.services.tls_files import TLSFiles
from walstream.services.worker_channel import (
    Adopt,
    Beat,
    Begin,
    Cancel,
    Channel,
    Drain,
    Leave,
    Reload,
    SessionEnded,
    Terminate,
)
from walstream.services.worker_reports import Reports
from walstream.services.worker_roles import RemotePlaces, RemoteThrottle
from walstream.services.worker_shares import ClientShare
from walstream.services.worker_slots import RemoteSlots

if TYPE_CHECKING:
    from walstream.tls.server import ServerFiles, ServerTLS

__all__ = ["Worker"]


class WorkerSenders(WALSenderFactory):
    """The sessions of a worker. Their numbers are the main process's to give."""

    def __init__(
        self,
        channel: Channel,
        reader: ArchiveReader,
        slots: RemoteSlots,
        settings: SenderSettings,
        share: int | None,
        reactor: Any,
        tls: ServerTLS | None,
        gate: IGate | None,
    ) -> None:
        """
        :param share: how many clients may be here.
        """
        limits = Limits.of(settings, reader, reactor)
        if share is not None:
            limits.admission = ClientShare(settings.max_clients, share)
        super().__init__(reader, slots, settings, reactor, limits, tls, gate)
        if share is not None:
            # One at least, since 0 is any number: who is turned away was let in so far, too.
            self.most_clients = max(1, share)
        self._channel = channel

    def share(self, rate: float | None) -> None:
        """So much is this worker's of the rate of all clients."""
        shared = self.limits.shared_rate
        if rate is not None and shared is not None and rate != shared.rate:
            shared.rate = rate

    def cancel(self, pid: int, key: bytes) -> None:
        """A CancelRequest, which may name a session of another worker's."""
        self._channel.tell(Cancel, pid=pid, key=key)

    def cancel_own(self, pid: int, key: bytes) -> None:
        """One that names a session of this worker's."""
        super().cancel(pid, key)

    def gone(self, session: WALSender) -> None:
        """The client is gone."""
        super().gone(session)
        self._channel.tell(SessionEnded, pid=session.pid)


class Worker(Channel):
    """The worker's end of the channel, and all that hangs on it.

    :param reactor: the process's own.
    :param reader: the archive, not open yet.
    :param over: called once, when there is no more to do: with True if that was in order.
    """

    _log = Logger()

    def __init__(self, reactor: Any, reader: ArchiveReader, over: Callable[[bool], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._over = over
        self._reader = reader
        self._reports = Reports(self, reactor)
        self._slots = RemoteSlots(self, self._reports)
        self._tls_files: TLSFiles | None = None
        self._senders: WorkerSenders | None = None
        self._gate: AccessGate | None = None
        self._is_leaving = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The main process is gone: so are we, and the clients' connections, at once."""
        super().connectionLost(reason)
        if not self._is_leaving:
            self._log.error("the main process is gone: ending")
            self._over(False)

    @Begin.responder
    async def begin(
        self, settings: bytes, clients: int | None, tls: bytes | None, access: bytes | None
    ) -> dict[str, object]:
        """See `Begin`."""
        await self._reader.storage.open()
        server_tls = None if tls is None else _server_tls(pickle.loads(tls))
        if server_tls is not None:
            self._tls_files = TLSFiles.of(server_tls, self._reactor)
        if access is not None:
            plan: Access = pickle.loads(access)
            self._gate = plan.gate(self._reactor, RemotePlaces(self), RemoteThrottle(self))
            await self._gate.open()
        self._senders = WorkerSenders(
            self,
            self._reader,
            self._slots,
            pickle.loads(settings),
            clients,
            self._reactor,
            server_tls,
            self._gate,
        )
        self._senders.startFactory()
        self._senders.standbys.watch(self._reports)
        transport: Any = self.transport
        transport.registerProducer(self._reports, True)
        return {}

    @Adopt.responder
    def adopt(self, descriptor: int, family: int, pid: int) -> dict[str, object]:
        """See `Adopt`."""
        senders = self._begun()
        try:
            if senders.is_flooded:
                self.tell(SessionEnded, pid=pid)
            else:
                adoption = _Adoption(senders.session, pid)
                self._reactor.adoptStreamConnection(
                    descriptor, socket.AddressFamily(family), adoption
                )
        except OSError:
            # The client has gone meanwhile, and has no address any more.
            self.tell(SessionEnded, pid=pid)
        finally:
            os.close(descriptor)
        return {}

    @Cancel.responder
    def cancel(self, pid: int, key: bytes) -> dict[str, object]:
        """See `Cancel`."""
        self._begun().cancel_own(pid, key)
        return {}

    @Terminate.responder
    def terminate(self, pid: int) -> dict[str, object]:
        """See `Terminate`."""
        self._slots.terminate(pid)
        return {}

    @Beat.responder
    def beat(self, rate: float | None) -> dict[str, object]:
        """See `Beat`. It is also the time to say what nobody waits for."""
        senders = self._begun()
        senders.share(rate)
        senders.look()
        self._reports.sent_so_far(senders.standbys)
        return {}

    @Drain.responder
    async def drain(self, grace: float, end: WALPosition) -> dict[str, object]:
        """See `Drain`. The archive tells by itself how far it goes, but perhaps a little later."""
        if self._reader.end() < end:
            try:
                await self._reader.look()
            except Exception:
                self._log.failure("cannot see how far the archive goes")
        await self._begun().drain(grace)
        return {}

    @Reload.responder
    def reload(self, tls: bool) -> dict[str, object]:
        """See `Reload`."""
        # What was not read yet is as good as new.
        if tls and self._tls_files is not None:
            self._tls_files.reload()
        if not tls and self._gate is not None:
            self._gate.reload()
        return {}

    @Leave.responder
    async def leave(self) -> dict[str, object]:
        """See `Leave`."""
        self._is_leaving = True
        if self._tls_files is not None:
            await self._tls_files.close()
        if self._gate is not None:
            await self._gate.close()
        await self._reader.storage.close()
        self._over(True)
        return {}

    def _begun(self) -> WorkerSenders:
        assert self._senders is not None, "clients come when we have said that they may"
        return self._senders


def _server_tls(files: ServerFiles) -> ServerTLS:
    from walstream.tls.server import ServerTLS

    return ServerTLS(files)


class _Adoption(Factory):
    """Makes the protocol of one connection that was handed over."""

    noisy = False

    def __init__(self, session: Callable[[int], WALSender], pid: int) -> None:
        self._session = session
        self._pid = pid

    def buildProtocol(self, addr: IAddress | None) -> WALSender:
        return self._session(self._pid)
