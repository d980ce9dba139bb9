"""Comma lists of hosts, addresses and ports."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.upstream import UpstreamHost
from walstream.upstream.hosts import parse_hosts


class HostListTests(SynchronousTestCase):
    """`parse_hosts`, by the rules of libpq's documentation ("Specifying Multiple Hosts")."""

    def error(self, *lists: str) -> str:
        """What is wrong with the lists."""
        return str(self.assertRaises(FormatError, parse_hosts, *lists))

    def test_one_port_is_for_all_hosts(self) -> None:
        """And no port is the default port."""
        self.assertEqual(
            parse_hosts("a,b", "", "5433"),
            (UpstreamHost("a", None, 5433), UpstreamHost("b", None, 5433)),
        )
        self.assertEqual(parse_hosts("a", "", ""), (UpstreamHost("a", None, 5432),))

    def test_a_port_for_each_host(self) -> None:
        """An empty one is the default port."""
        hosts = parse_hosts("a,b,c", "", "1,,3")
        self.assertEqual([host.port for host in hosts], [1, 5432, 3])

    def test_addresses_stand_beside_names(self) -> None:
        """An empty address leaves the name to be looked up."""
        self.assertEqual(
            parse_hosts("a,b", "10.0.0.1,", ""),
            (UpstreamHost("a", "10.0.0.1"), UpstreamHost("b", None)),
        )

    def test_addresses_alone(self) -> None:
        """No name is needed."""
        self.assertEqual(
            parse_hosts("", "10.0.0.1,::1", ""),
            (UpstreamHost("", "10.0.0.1"), UpstreamHost("", "::1")),
        )

    def test_empty_host_is_a_local_socket(self) -> None:
        """In either of the usual directories, in the place where it stands in the list."""
        names = [host.name for host in parse_hosts("a,,b", "", "")]
        self.assertEqual(names, ["a", "/var/run/postgresql", "/tmp", "b"])

    def test_lists_that_do_not_fit(self) -> None:
        """Are told with their lengths."""
        self.assertIn(
            "2 host names to 3 hostaddr", self.error("a,b", "1.1.1.1,2.2.2.2,3.3.3.3", "")
        )
        self.assertIn("2 port numbers to 3 hosts", self.error("a,b,c", "", "1,2"))
        self.assertIn("2 port numbers to 1 hosts", self.error("a", "", "1,2"))

    def test_ports_that_cannot_be(self) -> None:
        """Numbers from 1 to 65535 only."""
        for port in ("0", "65536", "-1", "x", "5432x"):
            self.assertIn(f'invalid port number: "{port}"', self.error("a", "", port))

    def test_address_that_is_none(self) -> None:
        """A name is not taken for an address."""
        self.assertIn('hostaddr "db1"', self.error("", "db1", ""))


class UpstreamHostTests(SynchronousTestCase):
    """One host."""

    def test_socket_path(self) -> None:
        """The directory and the port make the path; hosts on the network have none."""
        self.assertEqual(UpstreamHost("/tmp", None, 5433).socket_path, "/tmp/.s.PGSQL.5433")
        self.assertEqual(UpstreamHost("@pg").socket_path, "@pg/.s.PGSQL.5432")
        self.assertIsNone(UpstreamHost("db1").socket_path)
        self.assertIsNone(UpstreamHost("/tmp", "10.0.0.1").socket_path)

    def test_text(self) -> None:
        """As messages show it."""
        self.assertEqual(str(UpstreamHost("db1")), "db1:5432")
        self.assertEqual(str(UpstreamHost("", "10.0.0.1")), "10.0.0.1:5432")
        self.assertEqual(str(UpstreamHost("db1", "10.0.0.1")), "db1 (10.0.0.1):5432")
        self.assertEqual(str(UpstreamHost("/tmp")), "/tmp/.s.PGSQL.5432")
