"""The sending service: listens, lets followers in, and sees them off in order."""

from __future__ import annotations

from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.services.accepting import accept_few
from walstream.services.outcome import Outcome

__all__ = ["SenderService"]


class _Drainable(Protocol):
    """What is needed of a `WALSenderFactory` besides building protocols."""

    def drain(self, grace: float) -> Deferred[None]: ...


class SenderService(Service):
    """Listens on an endpoint for followers, and serves them. May be started once.

    Twisted's `StreamServerEndpointService` stays up when its port is busy, and leaves open
    connections alone when it stops; this one does neither.

    :param endpoint: where to listen.
    :param factory: a `WALSenderFactory`; its provider is open, and neither opened nor closed here.
    :param grace: seconds that followers get to take and acknowledge what is there when the
        service stops.
    """

    _log = Logger()

    def __init__(
        self,
        endpoint: IStreamServerEndpoint,
        factory: IProtocolFactory,
        *,
        grace: float = 10.0,
    ) -> None:
        self._endpoint = endpoint
        self._factory = factory
        self._grace = grace
        self._listening: Outcome[IListeningPort] = Outcome()
        self._started = False

    def listening(self) -> Deferred[IListeningPort]:
        """Fires once followers can connect.

        :raises CannotListenError: (in the Deferred) when the port is taken, say.
        """
        return self._listening.wait()

    def startService(self) -> None:
        """Listen; `listening` tells how that went."""
        super().startService()  # type: ignore[no-untyped-call]
        self._started = True
        maybeDeferred(self._endpoint.listen, self._factory).addCallbacks(
            self._listens, self._cannot_listen
        )

    def stopService(self) -> Deferred[None]:
        """Let nobody in any more and see off those who are; fires when all are gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self.stop_accepting()
        await self.drain()

    def stop_accepting(self) -> Deferred[None]:
        """Let nobody in any more. Who is in stays."""
        return Deferred.fromCoroutine(self._stop_accepting())

    def drain(self) -> Deferred[None]:
        """See everybody off as PostgreSQL's shutdown does; fires when all are gone."""
        factory: _Drainable = self._factory  # type: ignore[assignment]
        return factory.drain(self._grace)

    async def _stop_accepting(self) -> None:
        if not self._started:
            return
        try:
            port = await self._listening.wait()
        except Exception:
            return  # It never listened, and said so.
        await maybeDeferred(port.stopListening)

    def _listens(self, port: IListeningPort) -> None:
        accept_few(port)
        self._log.info("listening on {address}", address=str(port.getHost()))
        self._listening.set(port)

    def _cannot_listen(self, failure: Failure) -> None:
        self._log.error("cannot listen: {reason}", reason=failure.getErrorMessage())
        self._listening.set(failure)
