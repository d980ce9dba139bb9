"""Tests for walstream.formats.client_address."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.formats.client_address import neighbourhood, parse_client_address


class ClientAddressTests(SynchronousTestCase):
    """Clients' addresses."""

    def test_parsed(self) -> None:
        """However it comes to a socket, an address is the same."""
        for text, address in (
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("fe80::1%eth0", "fe80::1"),
            ("2001:db8::1", "2001:db8::1"),
        ):
            self.assertEqual(str(parse_client_address(text)), address)
        self.assertRaises(ValueError, parse_client_address, "db1")

    def test_neighbourhood(self) -> None:
        """Each address of IPv4 is somebody; of IPv6, each network."""
        for text, counted in (
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.2", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::ffff:1", "2001:db8::/64"),
            ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ):
            self.assertEqual(neighbourhood(parse_client_address(text)), counted)
