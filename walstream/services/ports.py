"""Listening on several endpoints: on all of them or on none, and closing all of them.

An endpoint may take its time, it may fail, and one may be told to stop in between. Who is let in is
the factory's business, which is one for all: so are its limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.services.accepting import accept_few
from walstream.services.outcome import Outcome

__all__ = ["Ports"]


class Ports:
    """Listens on endpoints, one after the other. May be opened once.

    :param endpoints: where to listen, in this order; the log calls them what they are as texts.
    :param factory: builds the protocols of them all.
    """

    _log = Logger()

    def __init__(
        self, endpoints: Iterable[IStreamServerEndpoint], factory: IProtocolFactory
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._factory = factory
        self._ports: list[IListeningPort] = []
        self._opened: Outcome[Sequence[IListeningPort]] = Outcome()
        self._closed: Outcome[None] = Outcome()
        self._is_begun = self._is_closing = False

    def opened(self) -> Deferred[Sequence[IListeningPort]]:
        """Fires with the ports, in the order of the endpoints, once all of them are open.

        If it is told to close meanwhile: with those that are open by then.

        :raises Exception: (in the Deferred) what one could not be opened for. None is open then.
        """
        return self._opened.wait()

    def open(self) -> None:
        """Listen; `opened` tells how that went."""
        self._is_begun = True
        Deferred.fromCoroutine(self._open()).addBoth(self._opened.set)

    def close(self) -> Deferred[None]:
        """Listen no more; fires when all are closed.

        One that is being opened is waited for, and no other is opened any more.
        """
        if not self._is_closing:
            self._is_closing = True
            Deferred.fromCoroutine(self._close()).addBoth(self._closed.set)
        return self._closed.wait()

    async def _open(self) -> Sequence[IListeningPort]:
        for endpoint in self._endpoints:
            if self._is_closing:
                break
            try:
                port = await maybeDeferred(endpoint.listen, self._factory)
            except Exception as error:
                self._log.error(
                    "cannot listen on {endpoint}: {reason}",
                    endpoint=str(endpoint),
                    reason=str(error),
                )
                await self._close_ports()
                raise
            accept_few(port)
            self._ports.append(port)
        for port in self._ports:
            self._log.info("listening on {address}", address=str(port.getHost()))
        return tuple(self._ports)

    async def _close(self) -> None:
        if self._is_begun:
            await self._opened.wait().addErrback(lambda _: None)  # it is in the log
        await self._close_ports()

    async def _close_ports(self) -> None:
        """All at a time; one that cannot be closed in order keeps no other from it."""
        ports, self._ports = self._ports, []
        await DeferredList(
            [maybeDeferred(port.stopListening).addErrback(self._cannot_close) for port in ports]
        )

    def _cannot_close(self, failure: Failure) -> None:
        # A UNIX socket whose file somebody has removed, for one.
        self._log.error("cannot close a port in order: {reason}", reason=failure.getErrorMessage())
