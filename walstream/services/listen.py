"""Whether a server endpoint string reaches further than this machine.

Nobody is authenticated yet, so that is the one question about ``--listen`` that matters. Twisted
itself answers it: the endpoint is told to listen on a reactor that only takes down what it is
asked.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint

from walstream.errors import FormatError

__all__ = ["check_endpoint"]

_REMEDY = (
    "this version lets every client in, so it listens on this machine only, e.g. "
    "tcp:5433:interface=127.0.0.1 or unix:/run/walstream/.s.PGSQL.5433; "
    "--trust-network allows more, on a network that you trust"
)


def check_endpoint(description: str, *, trust_network: bool) -> None:
    """Check a server endpoint string.

    :param trust_network: whether clients from other machines may come in.
    :raises FormatError: if it isn't one, or one that other machines can reach without trust.
    """
    kind = description.partition(":")[0].lower()
    if kind == "ssl":
        raise FormatError(
            f"{description!r} will not do: this version of walstream does not speak TLS, and "
            "PostgreSQL's clients ask for it after they connected; use a tcp: or unix: endpoint"
        )
    if kind == "systemd" and not trust_network:
        raise FormatError(
            f"{description!r} will not do: systemd knows who can reach its socket, "
            f"walstream does not; {_REMEDY}"
        )
    probe = _ListeningProbe()
    endpoint = _parse(probe, description)
    if kind != "systemd":
        # An endpoint of a kind that the probe doesn't know fails, which leaves no trace in it.
        factory: Any = None
        maybeDeferred(endpoint.listen, factory).addErrback(lambda _: None)
    _check_ports(description, probe)
    if not trust_network:
        _check_reach(description, probe)


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


def _check_reach(description: str, probe: _ListeningProbe) -> None:
    if not probe.asked:
        raise FormatError(
            f"{description!r} will not do: who can reach it is not to be seen; {_REMEDY}"
        )
    for interface in probe.interfaces:
        if not _is_loopback(interface):
            where = f"interface {interface}" if interface else "all interfaces"
            raise FormatError(f"{description!r} will not do: it listens on {where}; {_REMEDY}")


class _ListeningProbe:
    """Stands in for a reactor (`IReactorTCP`, `IReactorUNIX`) that endpoints listen on."""

    def __init__(self) -> None:
        self.asked = False
        self.ports: list[int] = []
        self.interfaces: list[str] = []

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> None:
        self.asked = True
        self.ports.append(port)
        self.interfaces.append(interface)

    def listenUNIX(self, *arguments: object, **options: object) -> None:  # noqa: N802
        self.asked = True


def _is_loopback(interface: str) -> bool:
    if interface == "localhost":
        return True
    try:
        return ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return False
