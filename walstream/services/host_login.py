"""Logging in at one host: with TLS, without, or first the one and then the other.

What is tried, and what has the next one tried, is libpq's: what failed to be encrypted, or was
turned away before it was let in, is tried in the other way, if ``sslmode`` allows both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread

from walstream.errors import (
    Disconnected,
    FormatError,
    HandshakeFailed,
    ServerError,
    ServerNotTrusted,
)
from walstream.protocols.client import ReplicationClient
from walstream.protocols.opening import Opening, TLSClient
from walstream.tls.options import CertificateMode, ClientOptions, Method
from walstream.upstream import UpstreamHost

__all__ = ["HostLogin", "InThread"]

#: Has a job done that may wait for a disk.
InThread: TypeAlias = Callable[[Callable[[], Any]], Deferred[Any]]

# A server that starts up or shuts down: it would say the same to whoever asks in another way.
_CANNOT_CONNECT_NOW = "57P03"


class HostLogin:
    """One attempt to log in at one host.

    :param endpoint: leads there.
    :param tls: how to encrypt; None: not at all.
    :param factory: builds the `ReplicationClient`.
    :param address: what it is to be built for.
    :param prepare: called with the transport of each new connection.
    :param context: makes the TLS of one connection, to a host of that name: out of files, so it is
        done by *in_thread*.
    :ivar said: what is not as it could be, for people.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        host: UpstreamHost,
        tls: ClientOptions | None,
        factory: IProtocolFactory,
        address: IAddress,
        prepare: Callable[[Any], None],
        *,
        in_thread: InThread = deferToThread,
        context: Callable[[ClientOptions, str], TLSClient] | None = None,
    ) -> None:
        self.said: list[str] = []
        self._client: ReplicationClient | None = None
        self._endpoint = endpoint
        self._host = host
        self._tls = tls
        self._factory = factory
        self._address = address
        self._prepare = prepare
        self._in_thread = in_thread
        self._context = context or _context
        # UNIX sockets are not encrypted: nobody can listen there.
        is_plain = tls is None or host.socket_path is not None
        self._methods = [Method.PLAIN] if is_plain or tls is None else list(tls.methods)

    async def log_in(self) -> ReplicationClient:
        """Log in.

        :raises WalstreamError: why that can't be.
        """
        while True:
            method = self._methods.pop(0)
            try:
                self._client = await self._connect(method)
                await self._await_login(self._client)
                return self._client
            except (FormatError, HandshakeFailed, ServerError) as error:
                if not self._goes_on_after(error, method):
                    raise
                self.said.append(f"{method.value}: {error}; going on {self._methods[0].value}")

    def _goes_on_after(self, error: Exception, method: Method) -> bool:
        if not self._methods:
            return False
        if isinstance(error, ServerError):
            was_let_in = self._client is not None and self._client.was_let_in
            return not was_let_in and error.sqlstate != _CANNOT_CONNECT_NOW
        return method is Method.TLS

    async def _await_login(self, client: ReplicationClient) -> None:
        try:
            await client.logged_in()
        except CancelledError:
            client.abort(Disconnected("given up before it let us in"))
            raise
        finally:
            if client.weakness is not None:
                self.said.append(client.weakness)

    async def _connect(self, method: Method) -> ReplicationClient:
        if method is Method.TLS:
            return await self._connect_by_tls()
        self._check_plain()
        build = partial(self._factory.buildProtocol, self._address)
        connected = await self._endpoint.connect(_Builds(self._factory, build))
        client = cast(ReplicationClient, connected)
        self._prepare(client.transport)
        return client

    async def _connect_by_tls(self) -> ReplicationClient:
        assert self._tls is not None, "or there is one way only"
        tls = await self._in_thread(partial(self._context, self._tls, self._host.name))
        opening = Opening(tls, self._tls.is_direct, self._prepare)
        await self._endpoint.connect(_Builds(self._factory, lambda: opening))
        encryption = await opening.done
        if encryption is None:
            # It is the same connection that goes on, if it goes on.
            if Method.PLAIN not in self._methods:
                opening.give_up()
                raise ServerNotTrusted("server does not support SSL, but SSL was required")
            self._methods.remove(Method.PLAIN)
            self._check_plain()
        client = self._build()
        if encryption is not None:
            client.encrypted(encryption, verified=tls.is_verified)
        opening.hand_over(client)
        return client

    def _build(self) -> ReplicationClient:
        client = self._factory.buildProtocol(self._address)
        if client is None:
            raise Disconnected("given up")
        return cast(ReplicationClient, client)

    def _check_plain(self) -> None:
        if self._tls is not None and self._tls.certificate_mode is CertificateMode.REQUIRE:
            raise ServerNotTrusted("server did not request an SSL certificate")


class _Builds(Factory):
    """Builds one protocol, whatever address the socket tells."""

    noisy = False

    def __init__(self, factory: IProtocolFactory, build: Callable[[], Any]) -> None:
        self._factory = factory
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._build()

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()


def _context(options: ClientOptions, host: str) -> TLSClient:
    from walstream.tls.client import ClientContext

    return ClientContext(options, host)
