"""The address of a client: what it is, and who all counts as being there.

What is counted for each address, wrong passwords or connections that wait, must not be had anew
by taking the next of the addresses that one has.
"""

from __future__ import annotations

import ipaddress
from typing import Final, TypeAlias

__all__ = ["IPAddress", "neighbourhood", "parse_client_address"]

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# The bits of an IPv6 address that name a network: whoever has one address has all of it.
_NETWORK_BITS: Final = 64


def parse_client_address(text: str) -> IPAddress:
    """The address of a client, as rules mean it.

    A client of IPv4 at a socket of IPv6 is one of IPv4; the name of our own interface, by which it
    comes, is nothing of its address.

    :raises ValueError: if it is none.
    """
    ip = ipaddress.ip_address(text.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip


def neighbourhood(address: IPAddress) -> str:
    """By what one counts who comes from there: the address; of IPv6, its network."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _NETWORK_BITS), strict=False))
    return str(address)
