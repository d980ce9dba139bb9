"""The address of a line of ``pg_hba.conf``: whom it means.

PostgreSQL's documentation, "The pg_hba.conf File", *address*; ``hba.c``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from walstream.errors import FormatError
from walstream.formats.auth_file import Token
from walstream.formats.client_address import IPAddress

__all__ = ["ANYWHERE", "AddressRule", "Near", "parse_address"]

_Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

Near: TypeAlias = Collection[_Interface]
"""Our own addresses, with their networks: for ``samehost`` and ``samenet``."""

# What PostgreSQL takes for an address (inet_aton(3)), and no host is called.
_SHORT_IP: Final = re.compile(r"(?:[^:]*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class AddressRule:
    """Whom a line means; all of its attributes None: everybody.

    :ivar network: who comes from these addresses. An IPv4 client of a socket that takes both is
        known by its IPv4 address.
    :ivar host_name: who comes from the host of that name, or, if it begins with a dot, from any
        host whose name ends so. It has to be asked for.
    :ivar near: ``samehost`` or ``samenet``.
    """

    network: _Network | None = None
    host_name: str | None = None
    near: str | None = None

    def means(self, address: IPAddress, host_names: Sequence[str], near: Near) -> bool:
        """Whether it means a client at that address.

        :param host_names: the names of the address that lead back to it.
        """
        if self.network is not None:
            return address in self.network
        if self.host_name is not None:
            return any(_is_called(name, self.host_name) for name in host_names)
        if self.near == "samehost":
            return any(address == own.ip for own in near)
        if self.near == "samenet":
            return any(address in own.network for own in near)
        return True


ANYWHERE: Final = AddressRule()


def parse_address(token: Token, mask: Callable[[], str]) -> AddressRule:
    """Read an address.

    :param mask: gives the next field, which is the netmask of an address without one.
    :raises FormatError: if it is none.
    """
    if token.is_keyword("all"):
        return ANYWHERE
    if token.is_keyword("samehost") or token.is_keyword("samenet"):
        return AddressRule(near=token.text)
    text, slash, length = token.text.partition("/")
    address = _ip(text)
    if address is None:
        if slash:
            raise FormatError(f'specifying both host name and CIDR mask is invalid: "{token.text}"')
        if _SHORT_IP.fullmatch(text):
            raise FormatError(f'invalid IP address "{text}": it takes four decimal numbers')
        return AddressRule(host_name=text)
    if slash:
        return AddressRule(network=_network(address, length, token.text))
    return AddressRule(network=_masked(address, mask()))


def _ip(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(address: IPAddress, length: str, text: str) -> _Network:
    if not (length.isascii() and length.isdigit() and int(length) <= address.max_prefixlen):
        raise FormatError(f'invalid CIDR mask in address "{text}"')
    return ipaddress.ip_network((address, int(length)), strict=False)


def _masked(address: IPAddress, text: str) -> _Network:
    mask = _ip(text)
    if mask is None:
        raise FormatError(f'invalid IP mask "{text}"')
    if mask.version != address.version:
        raise FormatError("IP address and mask do not match")
    ones = bin(int(mask)).count("1")
    # PostgreSQL takes any bits; a mask with holes means no network, and is hardly meant.
    if int(mask) != ((1 << ones) - 1) << (mask.max_prefixlen - ones):
        raise FormatError(f'invalid IP mask "{text}": its ones are not at its beginning')
    return ipaddress.ip_network((address, ones), strict=False)


def _is_called(name: str, wanted: str) -> bool:
    """Names are compared without regard to case (``pg_strcasecmp``)."""
    name, wanted = name.lower(), wanted.lower()
    return name.endswith(wanted) if wanted.startswith(".") else name == wanted
