"""Noticing, while WAL streams, that the server has come to wait for us, or has ceased to.

A walsender that streams answers no questions, and tells its standby nothing of such a change. So
the server is asked over a second connection, which ends again at once: a replication connection,
since that is what we are let in for. It takes one of the server's ``max_wal_senders`` for a moment.

All that depends on it is speed and words: what commits wait for is durable and reported within a
second even so (`walstream.protocols.acknowledgement`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.errors import Disconnected
from walstream.protocols.client import ReplicationClient
from walstream.protocols.questions import Questions
from walstream.protocols.synchronous import StandbyDemands, ask_demands
from walstream.services.endpoint import UpstreamAddress, UpstreamEndpoint
from walstream.upstream import TargetSessionAttrs, Upstream, UpstreamHost

__all__ = ["Inquiry", "StandbyInquiry", "SynchronousWatch"]

# Seconds that the whole of an inquiry may take.
_PATIENCE = 10.0


class Inquiry(Protocol):
    """Asks a server what it demands of its standbys."""

    def ask(self, host: UpstreamHost) -> Deferred[StandbyDemands | None]:
        """Ask; None if the server does not tell."""


class StandbyInquiry:
    """Asks over a connection of its own.

    It has a name of its own too, so that nobody takes it for the one that streams.
    """

    def __init__(self, reactor: Any, upstream: Upstream) -> None:
        self._reactor = reactor
        name = f"{upstream.account.application_name} (check)"
        self._upstream = replace(
            upstream,
            account=replace(upstream.account, application_name=name),
            wanted=TargetSessionAttrs.ANY,
        )

    def ask(self, host: UpstreamHost) -> Deferred[StandbyDemands | None]:
        """See `Inquiry.ask`.

        :raises Exception: (in the Deferred) if it cannot be asked now.
        """
        asking = Deferred.fromCoroutine(self._ask(host))
        return asking.addTimeout(_PATIENCE, self._reactor)

    async def _ask(self, host: UpstreamHost) -> StandbyDemands | None:
        upstream = replace(self._upstream, hosts=(host,))
        endpoint = UpstreamEndpoint(self._reactor, upstream, warns=False)
        client = cast(ReplicationClient, await endpoint.connect(_ClientFactory()))
        try:
            return await ask_demands(Questions(client.query, client.parameters), client.parameters)
        except CancelledError:
            client.abort(Disconnected("it took too long"))
            raise
        finally:
            client.close(Disconnected("it was asked"))


class SynchronousWatch:
    """Asks again and again, while there is a stream.

    :param interval: seconds between two inquiries, more or less; 0: never ask.
    :param chance: gives a number in [0, 1): many receivers should not ask all at once.
    """

    _log = Logger()

    def __init__(
        self,
        inquiry: Inquiry,
        clock: IReactorTime,
        interval: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._inquiry = inquiry
        self._clock = clock
        self._interval = interval
        self._chance = chance
        self._call: IDelayedCall | None = None
        self._asking: Deferred[StandbyDemands | None] | None = None
        self._times_stopped = 0
        self._is_blind = False

    def start(self, host: UpstreamHost, told: Callable[[StandbyDemands], None]) -> None:
        """Ask this server from now on, and tell *told* what it says."""
        self.stop()
        self._ask_later(host, told)

    def stop(self) -> None:
        """Ask no more."""
        self._times_stopped += 1
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def _ask_later(self, host: UpstreamHost, told: Callable[[StandbyDemands], None]) -> None:
        if self._interval:
            seconds = self._interval * (0.75 + self._chance() / 2)
            self._call = self._clock.callLater(seconds, self._ask, host, told)

    def _ask(self, host: UpstreamHost, told: Callable[[StandbyDemands], None]) -> None:
        self._call = None
        before = self._times_stopped

        def answered(result: StandbyDemands | Failure | None) -> None:
            if self._times_stopped != before:
                return
            self._asking = None
            self._is_blind = isinstance(result, Failure) and self._is_blind_by(result)
            if isinstance(result, StandbyDemands):
                told(result)
            if self._times_stopped == before:  # and was not stopped by what it told
                self._ask_later(host, told)

        asking = self._asking = self._inquiry.ask(host)
        asking.addBoth(answered)
        if asking.called:
            self._asking = None

    def _is_blind_by(self, failure: Failure) -> bool:
        if not self._is_blind:
            self._log.warn(
                "cannot ask the server, while WAL streams, whether its commits wait for this "
                "receiver: {reason}. Should they come to do so, each is acknowledged within a "
                "second of its arrival. This is tried on, and not logged again",
                reason=failure.getErrorMessage(),
            )
        return True


class _ClientFactory(Factory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> ReplicationClient:
        address: object = addr
        assert isinstance(address, UpstreamAddress), "the endpoint is ours"
        return ReplicationClient(address.login)
