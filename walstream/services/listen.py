"""Server endpoint strings: whether they reach further than this machine, and what they stand for.

Where one does, clients have to prove who they are, and what they get has to be encrypted. Twisted
itself answers the question: the endpoint is told to listen on a reactor that only takes down what
it is asked.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from walstream.errors import FormatError

__all__ = [
    "ServerEndpoint",
    "check_endpoint",
    "check_endpoints",
    "private_socket",
    "reaches_out",
    "server_endpoints",
]

_REMEDY = (
    "or let it listen on this machine only, e.g. tcp:5433:interface=127.0.0.1 or "
    "unix:/run/walstream/.s.PGSQL.5433; --trust-network allows more, on a network that you trust"
)
# Colons that separate the arguments of an endpoint string: those without a backslash before them.
_ARGUMENTS = re.compile(r"((?:[^:\\]|\\.)*)(?::|$)", re.DOTALL)


@implementer(IStreamServerEndpoint)
class ServerEndpoint:
    """What a server endpoint string stands for; as text it is that string.

    A UNIX socket is for its owner only, unless the string says otherwise.
    """

    def __init__(self, reactor: Any, description: str) -> None:
        self._description = description
        self._endpoint: IStreamServerEndpoint = serverFromString(
            reactor, private_socket(description)
        )

    def __str__(self) -> str:
        return self._description

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: N803
        """Listen, as Twisted does."""
        return self._endpoint.listen(protocolFactory)


def server_endpoints(reactor: Any, listen: str | Sequence[str]) -> list[ServerEndpoint]:
    """What a server endpoint string, or several, stand for.

    :raises ValueError: if one is none.
    """
    descriptions = [listen] if isinstance(listen, str) else listen
    return [ServerEndpoint(reactor, description) for description in descriptions]


def check_endpoints(
    descriptions: Sequence[str],
    *,
    trust_network: bool,
    has_rules: bool = False,
    has_tls: bool = False,
) -> None:
    """Check server endpoint strings that are to be listened on together: see `check_endpoint`.

    :raises FormatError: of the first that will not do, or is at the address of one before it.
    """
    taken: dict[object, str] = {}
    for description in descriptions:
        check_endpoint(
            description, trust_network=trust_network, has_rules=has_rules, has_tls=has_tls
        )
        # Two of a kind that tells no address are the same if their texts are.
        for address in _probed(description).addresses or [description]:
            other = taken.get(address)
            if other is not None:
                how = "is given twice" if other == description else f"and {other!r} are the same"
                raise FormatError(f"{description!r} {how}: leave one of them out")
            taken[address] = description


def check_endpoint(
    description: str, *, trust_network: bool, has_rules: bool = False, has_tls: bool = False
) -> None:
    """Check a server endpoint string.

    :param trust_network: whether clients from other machines may come in, whatever there is.
    :param has_rules: whether there are rules about who comes in.
    :param has_tls: whether connections can be encrypted.
    :raises FormatError: if it isn't one, or one that other machines can reach without trust.
    """
    if trust_network or (has_rules and has_tls):
        _probed(description)
        return
    where = _reach(description)
    if where is not None:
        lacks = "nobody is asked for a password" if not has_rules else "nothing is encrypted"
        if not has_rules and not has_tls:
            lacks += ", and nothing is encrypted"
        remedy = " and ".join(
            option
            for option, is_there in (("--hba", has_rules), ("--tls-certificate", has_tls))
            if not is_there
        )
        raise FormatError(
            f"{description!r} will not do: {where}, where {lacks}; give it {remedy}, {_REMEDY}"
        )


def reaches_out(description: str) -> bool:
    """Whether other machines can reach an endpoint, as far as is known.

    :raises FormatError: if it isn't one.
    """
    return _reach(description) is not None


def private_socket(description: str) -> str:
    """The endpoint, with a UNIX socket for its owner only, unless it says otherwise.

    Twisted's are for everybody.
    """
    kind, *arguments = [match[1] for match in _ARGUMENTS.finditer(description)][:-1]
    if kind.lower() != "unix":
        return description
    says_mode = any(argument.startswith("mode=") for argument in arguments)
    is_second = len(arguments) > 1 and "=" not in arguments[1]
    return description if says_mode or is_second else f"{description}:mode=600"


def _reach(description: str) -> str | None:
    """Where it can be reached from other machines, as words; None if it cannot."""
    if description.partition(":")[0].lower() == "systemd":
        return "systemd knows who can reach its socket, walstream does not"
    probe = _probed(description)
    if not probe.addresses:
        return "who can reach it is not to be seen"
    for interface in probe.interfaces:
        if not _is_loopback(interface):
            where = f"interface {interface}" if interface else "all interfaces"
            return f"it listens on {where}"
    return None


def _probed(description: str) -> _ListeningProbe:
    """What it listens on.

    :raises FormatError: if it is no endpoint, or none that will do for anybody.
    """
    kind = description.partition(":")[0].lower()
    if kind == "ssl":
        raise FormatError(
            f"{description!r} will not do: PostgreSQL's clients ask for TLS after they "
            "have connected, and it speaks TLS before; use a tcp: or unix: endpoint"
        )
    probe = _ListeningProbe()
    endpoint = _parse(probe, description)
    if kind != "systemd":
        # An endpoint of a kind that the probe doesn't know fails, which leaves no trace in it.
        factory: Any = None
        maybeDeferred(endpoint.listen, factory).addErrback(lambda _: None)
    _check_ports(description, probe)
    return probe


def _parse(probe: _ListeningProbe, description: str) -> IStreamServerEndpoint:
    reactor: Any = probe
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except Exception as error:
        raise FormatError(
            f"{description!r} is not a server endpoint ({error}); "
            "one is, for example, tcp:5433:interface=127.0.0.1"
        ) from error
    return endpoint


def _check_ports(description: str, probe: _ListeningProbe) -> None:
    for port in probe.ports:
        if not 0 <= port <= 65535:
            raise FormatError(f"{description!r} will not do: there is no port {port}")


class _ListeningProbe:
    """Stands in for a reactor (`IReactorTCP`, `IReactorUNIX`) that endpoints listen on."""

    def __init__(self) -> None:
        self.addresses: list[object] = []
        self.ports: list[int] = []
        self.interfaces: list[str] = []

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> None:
        self.addresses.append((interface, port))
        self.ports.append(port)
        self.interfaces.append(interface)

    def listenUNIX(self, address: str, *arguments: object, **options: object) -> None:  # noqa: N802
        self.addresses.append(os.path.abspath(address))


def _is_loopback(interface: str) -> bool:
    if interface == "localhost":
        return True
    try:
        return ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return False
