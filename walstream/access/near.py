"""This machine's addresses, for ``samehost`` and ``samenet``."""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from walstream.formats.hba_address import Near

__all__ = ["own_addresses"]

_Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

# Where an address is in its sockaddr, and how long it is; the same on all systems.
_PLACES: Final = {int(socket.AF_INET): (4, 4), int(socket.AF_INET6): (8, 16)}


class _InterfaceAddress(ctypes.Structure):
    """``struct ifaddrs`` (getifaddrs(3)), as far as it is needed."""


_InterfaceAddress._fields_ = [
    ("next", ctypes.POINTER(_InterfaceAddress)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
    ("netmask", ctypes.c_void_p),
]


def own_addresses() -> Near:
    """The addresses of this machine at this moment, each with its network.

    :raises OSError: if the system does not tell.
    """
    return tuple(_interfaces())


def _interfaces() -> Iterator[_Interface]:
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_InterfaceAddress)()
    if libc.getifaddrs(ctypes.byref(first)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    try:
        each = _following(first)
        while each is not None:
            address, netmask = _packed(each.address), _packed(each.netmask)
            if address is not None:
                yield _interface(address, netmask)
            each = _following(each.next)
    finally:
        libc.freeifaddrs(first)


def _following(pointer: Any) -> Any:
    return pointer.contents if pointer else None


def _interface(address: bytes, netmask: bytes | None) -> _Interface:
    # Without a mask that says anything an interface has no network but itself, as PostgreSQL has
    # it (``run_ifaddr_callback``), and not the whole Internet.
    ones = int.from_bytes(netmask or b"", "big").bit_count() or len(address) * 8
    return ipaddress.ip_interface((address, ones))


def _packed(pointer: int | None) -> bytes | None:
    """The address in a sockaddr; None if it is not of the Internet's."""
    if not pointer:
        return None
    if sys.platform == "linux":
        family = int.from_bytes(ctypes.string_at(pointer, 2), sys.byteorder)
    else:
        family = ctypes.string_at(pointer, 2)[1]  # the BSDs have the length before it
    place = _PLACES.get(family)
    return None if place is None else ctypes.string_at(pointer + place[0], place[1])
