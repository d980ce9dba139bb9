"""Hosts and ports: libpq's comma lists, and what each entry of them means."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from walstream.errors import FormatError

__all__ = ["DEFAULT_PORT", "DEFAULT_SOCKET_DIRECTORIES", "UpstreamHost", "parse_hosts"]

#: What PostgreSQL is compiled with unless its packager chose otherwise (``DEF_PGPORT``).
DEFAULT_PORT = 5432

#: Where a server's UNIX socket may be when nobody says: each build has one of these compiled in.
DEFAULT_SOCKET_DIRECTORIES = ("/var/run/postgresql", "/tmp")


@dataclass(frozen=True, slots=True)
class UpstreamHost:
    """One place where the upstream may be.

    :ivar name: a host's name or address, or the directory of a UNIX socket (it begins with ``/``,
        or with ``@`` in the abstract namespace); empty if there is an *address* only.
    :ivar address: the address to connect to without looking *name* up, if one was given.
    """

    name: str
    address: str | None = None
    port: int = DEFAULT_PORT

    @property
    def socket_path(self) -> str | None:
        """The path of the UNIX socket; None for a host on the network."""
        if self.address is None and self.name.startswith(("/", "@")):
            return f"{self.name}/.s.PGSQL.{self.port}"
        return None

    def __str__(self) -> str:
        if self.socket_path is not None:
            return self.socket_path
        if self.address is None or not self.name:
            return f"{self.name or self.address}:{self.port}"
        return f"{self.name} ({self.address}):{self.port}"


def parse_hosts(host: str, hostaddr: str, port: str) -> tuple[UpstreamHost, ...]:
    """The hosts that three comma lists name, in order (``pqConnectOptions2`` in libpq).

    ``hostaddr`` and ``host`` must have the same length when both are given; one port is for all
    hosts, else there is one for each. An empty port is the default port. No host at all is a UNIX
    socket in one of `DEFAULT_SOCKET_DIRECTORIES`.

    :raises FormatError: if the lists don't fit, and for a port or address that can't be one.
    """
    names, addresses = _split(host), _split(hostaddr)
    if names and addresses and len(names) != len(addresses):
        raise FormatError(
            f"could not match {len(names)} host names to {len(addresses)} hostaddr values"
        )
    count = len(addresses) or len(names) or 1
    ports = [_parse_port(text) for text in _split(port)] or [DEFAULT_PORT]
    if len(ports) not in (1, count):
        raise FormatError(f"could not match {len(ports)} port numbers to {count} hosts")
    entries = zip(
        names or [""] * count,
        addresses or [""] * count,
        ports if len(ports) == count else ports * count,
        strict=True,
    )
    return tuple(found for entry in entries for found in _hosts_of(*entry))


def _split(text: str) -> list[str]:
    return text.split(",") if text else []


def _hosts_of(name: str, address: str, port: int) -> list[UpstreamHost]:
    if address:
        return [UpstreamHost(name, _parse_address(address), port)]
    if name:
        return [UpstreamHost(name, None, port)]
    return [UpstreamHost(directory, None, port) for directory in DEFAULT_SOCKET_DIRECTORIES]


def _parse_port(text: str) -> int:
    digits = text.strip()
    if not digits:
        return DEFAULT_PORT
    if not (digits.isascii() and digits.isdecimal() and 1 <= int(digits) <= 65535):
        raise FormatError(f'invalid port number: "{text}"')
    return int(digits)


def _parse_address(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise FormatError(
            f'hostaddr "{text}" is not an IP address; names belong into host'
        ) from None
    return text
