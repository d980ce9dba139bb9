"""Tests for walstream.access.near: this machine's addresses."""

from __future__ import annotations

import ctypes
import socket
import sys
from ipaddress import ip_interface
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from walstream.access import near
from walstream.access.near import own_addresses


class OwnAddressesTests(SynchronousTestCase):
    """As the system has them."""

    def test_loopback(self) -> None:
        """Every machine has it."""
        self.assertIn(ip_interface("127.0.0.1/8"), own_addresses())

    def test_a_mask_that_says_nothing(self) -> None:
        """Such an interface has no network but itself, or everybody would be in it."""
        address, nothing = (
            ctypes.create_string_buffer(
                int(socket.AF_INET).to_bytes(2, sys.byteorder) + bytes(2) + packed
            )
            for packed in (bytes([192, 0, 2, 7]), bytes(4))
        )
        for mask in (nothing, None):
            interface: Any = near._InterfaceAddress()
            interface.address = ctypes.addressof(address)
            interface.netmask = None if mask is None else ctypes.addressof(mask)

            class System:
                def getifaddrs(self, first: Any, found: Any = interface) -> int:
                    first._obj.contents = found
                    return 0

                def freeifaddrs(self, first: Any) -> None: ...

            self.patch(ctypes, "CDLL", lambda *_, system=System, **__: system())
            self.assertEqual(own_addresses(), (ip_interface("192.0.2.7/32"),))

    test_a_mask_that_says_nothing.skip = (  # type: ignore[attr-defined]
        None if sys.platform == "linux" else "addresses have another form there"
    )

    def test_an_error(self) -> None:
        """Is the system's."""

        class Broken:
            def getaddrinfo(self) -> None: ...

            def getifaddrs(self, _: object) -> int:
                return -1

        self.patch(ctypes, "CDLL", lambda *_, **__: Broken())
        self.patch(ctypes, "get_errno", lambda: 12)
        self.assertRaises(OSError, own_addresses)
