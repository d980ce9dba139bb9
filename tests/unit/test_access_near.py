"""Tests for walstream.access.near: this machine's addresses."""

from __future__ import annotations

import ctypes
from ipaddress import ip_interface

from twisted.trial.unittest import SynchronousTestCase

from walstream.access.near import own_addresses


class OwnAddressesTests(SynchronousTestCase):
    """As the system has them."""

    def test_loopback(self) -> None:
        """Every machine has it."""
        self.assertIn(ip_interface("127.0.0.1/8"), own_addresses())

    def test_an_error(self) -> None:
        """Is the system's."""

        class Broken:
            def getaddrinfo(self) -> None: ...

            def getifaddrs(self, _: object) -> int:
                return -1

        self.patch(ctypes, "CDLL", lambda *_, **__: Broken())
        self.patch(ctypes, "get_errno", lambda: 12)
        self.assertRaises(OSError, own_addresses)
