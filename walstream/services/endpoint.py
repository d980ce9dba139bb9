"""From an `Upstream` to a server that let us in: tries the hosts in turn, as libpq does.

Knows how to reach a host and whether it will do; not what is asked of it afterwards.
"""

from __future__ import annotations

import ipaddress
import random
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from walstream.errors import Disconnected, ServerError, WalstreamError
from walstream.protocols.login import Login
from walstream.services.host_login import HostLogin, InThread
from walstream.services.session_attrs import unsuitable
from walstream.upstream import TargetSessionAttrs, Upstream, UpstreamHost

__all__ = ["UpstreamAddress", "UpstreamEndpoint"]

# What may go wrong at one host while another may do: no such name, no such host, no such socket,
# a path or a name that can't be one, and everything that the server or the protocol says.
_HOST_FAILURES = (ConnectError, OSError, ValueError, WalstreamError)

# A server that starts up or shuts down; libpq goes on to the next host after no other refusal.
_CANNOT_CONNECT_NOW = "57P03"

# libpq's options for TCP, as far as the system has them (tcp(7)).
_SOCKET_OPTIONS: Mapping[str, int | None] = {
    "keepalives_idle": getattr(socket, "TCP_KEEPIDLE", None),
    "keepalives_interval": getattr(socket, "TCP_KEEPINTVL", None),
    "keepalives_count": getattr(socket, "TCP_KEEPCNT", None),
    "tcp_user_timeout": getattr(socket, "TCP_USER_TIMEOUT", None),
}


@implementer(IAddress)
@dataclass(frozen=True, slots=True)
class UpstreamAddress:
    """What a factory is asked to build a protocol for: a host, and as whom to log in there.

    :ivar pass_over: has the next attempt begin with the host behind this one, which let us in but
        is no good.
    """

    host: UpstreamHost
    login: Login
    pass_over: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)


@implementer(IStreamClientEndpoint)
class UpstreamEndpoint:
    """Connects to the first host of an upstream that lets us in, and is what was wanted.

    Its factories get `UpstreamAddress`es, and build `ReplicationClient`s. What an address says of
    its host lasts for one attempt: unlike libpq, which looks no further than the login, we would
    else never get past a first host whose WAL is not what we want.

    :param shuffle: puts a list into random order (``load_balance_hosts=random``).
    :param warns: whether to say how a password was sent, if it was sent badly.
    :param in_thread: reads the files that have the password and the certificates.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        upstream: Upstream,
        *,
        shuffle: Callable[[list[UpstreamHost]], None] = random.shuffle,
        warns: bool = True,
        in_thread: InThread = deferToThread,
    ) -> None:
        self._reactor = reactor
        self._upstream = upstream
        self._shuffle = shuffle
        self._passed_over: UpstreamHost | None = None
        self._warns = warns
        self._in_thread = in_thread
        self._said: set[str] = set()

    def __repr__(self) -> str:
        return f"<UpstreamEndpoint {', '.join(map(str, self._upstream.hosts))}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        """Connect and log in.

        :raises Disconnected: (in the Deferred) when no host did, with what each of them said.
        """
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        said: list[str] = []
        for host, wanted in self._attempts():
            try:
                return await self._attempt(host, wanted, factory)
            except ConnectingCancelledError:
                raise
            except _HOST_FAILURES as error:
                said.append(f"{host}: {str(error).rstrip('.')}")
                if isinstance(error, ServerError) and error.sqlstate != _CANNOT_CONNECT_NOW:
                    break
        raise Disconnected("; ".join(said))

    def _attempts(self) -> Iterator[tuple[UpstreamHost, TargetSessionAttrs]]:
        """Whom to try, and what it must be. Who prefers a standby makes a second round."""
        hosts = list(self._upstream.hosts)
        if self._upstream.shuffled:
            self._shuffle(hosts)
        passed_over, self._passed_over = self._passed_over, None
        if passed_over is not None:
            behind = hosts.index(passed_over) + 1
            hosts = hosts[behind:] + hosts[:behind]
        rounds = [self._upstream.wanted]
        if self._upstream.wanted is TargetSessionAttrs.PREFER_STANDBY:
            rounds = [TargetSessionAttrs.STANDBY, TargetSessionAttrs.ANY]
        return ((host, wanted) for wanted in rounds for host in hosts)

    def _attempt(
        self, host: UpstreamHost, wanted: TargetSessionAttrs, factory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        attempt = Deferred.fromCoroutine(self._log_in(host, wanted, factory))
        seconds = self._upstream.connect_timeout
        if seconds is not None:
            attempt.addTimeout(seconds, self._reactor, _timed_out)
        return attempt

    async def _log_in(
        self, host: UpstreamHost, wanted: TargetSessionAttrs, factory: IProtocolFactory
    ) -> IProtocol:
        account = await self._in_thread(partial(self._upstream.login, host))
        address = UpstreamAddress(host, account, partial(self._pass_over, host))
        login = HostLogin(
            self._transport(host),
            host,
            self._upstream.tls,
            factory,
            address,
            partial(self._prepare, host),
            in_thread=self._in_thread,
        )
        try:
            client = await login.log_in()
        finally:
            for said in login.said:
                self._say_once(host, said)
        if (reason := unsuitable(client.parameters, wanted)) is not None:
            client.close(Disconnected(reason))
            raise Disconnected(reason)
        return client

    def _prepare(self, host: UpstreamHost, transport: Any) -> None:
        if host.socket_path is None:
            _set_tcp_options(transport, self._upstream.tcp_options)

    def _say_once(self, host: UpstreamHost, what: str) -> None:
        """What is not as good as it could be, and is so each time."""
        if self._warns and what not in self._said:
            self._said.add(what)
            self._log.warn("{host}: {what}", host=str(host), what=what)

    def _pass_over(self, host: UpstreamHost) -> None:
        self._passed_over = host

    def _transport(self, host: UpstreamHost) -> IStreamClientEndpoint:
        # The time limit is the whole attempt's, so these need none of their own.
        reactor: Any = self._reactor
        limit: Any = None
        if (path := host.socket_path) is not None:
            # "@" stands for the abstract namespace, whose names begin with a zero byte.
            path = f"\0{path[1:]}" if path.startswith("@") else path
            return UNIXClientEndpoint(reactor, path, limit)
        match _ip_version(target := host.address or host.name):
            case 4:
                return TCP4ClientEndpoint(reactor, target, host.port, limit)
            case 6:
                return TCP6ClientEndpoint(reactor, target, host.port, limit)
        return HostnameEndpoint(reactor, target, host.port, limit)


def _ip_version(text: str) -> int | None:
    try:
        return ipaddress.ip_address(text).version
    except ValueError:
        return None


def _timed_out(_: object, seconds: float) -> NoReturn:
    raise Disconnected(f"timeout expired: not logged in within {seconds:g} s")


def _set_tcp_options(transport: Any, options: Mapping[str, int]) -> None:
    """As libpq: keepalives are on unless switched off, and 0 is the system's own value."""
    if options.get("keepalives") == 0:
        transport.setTcpKeepAlive(False)
    for name, number in _SOCKET_OPTIONS.items():
        if number is not None and options.get(name, 0) > 0:
            transport.getHandle().setsockopt(socket.IPPROTO_TCP, number, options[name])
