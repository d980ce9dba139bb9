"""The sending service: listens, lets followers in, and sees them off in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint

from walstream.services.ports import Ports

__all__ = ["SenderService"]


class _Drainable(Protocol):
    """What is needed of a `WALSenderFactory` besides building protocols."""

    def drain(self, grace: float) -> Deferred[None]: ...


class SenderService(Service):
    """Listens on endpoints for followers, and serves them. May be started once.

    Twisted's `StreamServerEndpointService` stays up when its port is busy, and leaves open
    connections alone when it stops; this one does neither.

    :param endpoints: where to listen: on all of them or, if one can't be listened on, on none.
    :param factory: a `WALSenderFactory`; its provider is open, and neither opened nor closed here.
    :param grace: seconds that followers get to take and acknowledge what is there when the
        service stops.
    """

    def __init__(
        self,
        endpoints: Iterable[IStreamServerEndpoint],
        factory: IProtocolFactory,
        *,
        grace: float = 10.0,
    ) -> None:
        self._ports = Ports(endpoints, factory)
        self._factory = factory
        self._grace = grace

    def listening(self) -> Deferred[Sequence[IListeningPort]]:
        """Fires once followers can connect: with the ports, in the order of the endpoints.

        :raises CannotListenError: (in the Deferred) when one of them is taken, say.
        """
        return self._ports.opened()

    def startService(self) -> None:
        """Listen; `listening` tells how that went."""
        super().startService()  # type: ignore[no-untyped-call]
        self._ports.open()

    def stopService(self) -> Deferred[None]:
        """Let nobody in any more and see off those who are; fires when all are gone."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self.stop_accepting()
        await self.drain()

    def stop_accepting(self) -> Deferred[None]:
        """Let nobody in any more. Who is in stays."""
        return self._ports.close()

    def drain(self) -> Deferred[None]:
        """See everybody off as PostgreSQL's shutdown does; fires when all are gone."""
        factory: _Drainable = self._factory  # type: ignore[assignment]
        return factory.drain(self._grace)
