"""Tests for walstream.upstream.hosts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.upstream.hosts import DEFAULT_SOCKET_DIRECTORIES, UpstreamHost, parse_hosts


class ParseHostsTests(SynchronousTestCase):
    """libpq's three comma lists."""

    def test_lists(self) -> None:
        """Hosts, addresses and ports belong together by their places."""
        for lists, hosts in (
            (("a", "", ""), [("a", None, 5432)]),
            (("a,b", "", ""), [("a", None, 5432), ("b", None, 5432)]),
            (("a,b", "", "1"), [("a", None, 1), ("b", None, 1)]),
            (("a,b", "", "1,2"), [("a", None, 1), ("b", None, 2)]),
            (("a,b", "", ",2"), [("a", None, 5432), ("b", None, 2)]),
            (("a,b", "10.0.0.1,::1", "7"), [("a", "10.0.0.1", 7), ("b", "::1", 7)]),
            (("", "10.0.0.1,10.0.0.2", "1,2"), [("", "10.0.0.1", 1), ("", "10.0.0.2", 2)]),
            (("a,b", ",10.0.0.2", ""), [("a", None, 5432), ("b", "10.0.0.2", 5432)]),
            (("a", "", " 65535 "), [("a", None, 65535)]),
        ):
            self.assertEqual(list(parse_hosts(*lists)), [UpstreamHost(*host) for host in hosts])

    def test_no_host(self) -> None:
        """No host, or an empty one among others, is a UNIX socket where one may be."""
        local = tuple(UpstreamHost(path, None, 5433) for path in DEFAULT_SOCKET_DIRECTORIES)
        self.assertEqual(parse_hosts("", "", "5433"), local)
        other = UpstreamHost("a", None, 5433)
        self.assertEqual(parse_hosts("a,", "", "5433"), (other, *local))

    def test_lists_that_do_not_fit(self) -> None:
        """Lists of different lengths are refused in libpq's words."""
        for lists, words in (
            (("a,b", "::1", ""), "could not match 2 host names to 1 hostaddr values"),
            (("a,b,c", "", "1,2"), "could not match 2 port numbers to 3 hosts"),
            (("a", "", "1,2"), "could not match 2 port numbers to 1 hosts"),
        ):
            self.assertEqual(str(self.assertRaises(FormatError, parse_hosts, *lists)), words)

    def test_faulty_ports(self) -> None:
        """A port that cannot be one is refused in libpq's words."""
        for port in ("0", "65536", "-1", "x", "54.32", "٣"):
            error = self.assertRaises(FormatError, parse_hosts, "a", "", port)
            self.assertEqual(str(error), f'invalid port number: "{port}"')

    def test_name_for_an_address(self) -> None:
        """A name in the place of an address is refused, with its proper place."""
        error = self.assertRaises(FormatError, parse_hosts, "", "db1", "")
        self.assertIn('hostaddr "db1" is not an IP address', str(error))
        self.assertIn("host", str(error).partition(";")[2])


class UpstreamHostTests(SynchronousTestCase):
    """One place where the upstream may be."""

    def test_socket_path(self) -> None:
        """A host that is a directory has a socket, also in the abstract namespace."""
        for host, path in (
            (UpstreamHost("/run/pg", None, 5433), "/run/pg/.s.PGSQL.5433"),
            (UpstreamHost("@pg"), "@pg/.s.PGSQL.5432"),
            (UpstreamHost("db1"), None),
            (UpstreamHost("", "10.0.0.1"), None),
        ):
            self.assertEqual(host.socket_path, path)

    def test_address_wins_over_a_directory(self) -> None:
        """With an address there is no socket, even if the name looks like a directory."""
        self.assertIsNone(UpstreamHost("/run/pg", "10.0.0.1").socket_path)

    def test_text(self) -> None:
        """A host is shown as it will be connected to, with the name that was given."""
        for host, text in (
            (UpstreamHost("db1", None, 5433), "db1:5433"),
            (UpstreamHost("db1", "10.0.0.1", 5433), "db1 (10.0.0.1):5433"),
            (UpstreamHost("", "10.0.0.1", 5433), "10.0.0.1:5433"),
            (UpstreamHost("/run/pg", None, 5433), "/run/pg/.s.PGSQL.5433"),
        ):
            self.assertEqual(str(host), text)
