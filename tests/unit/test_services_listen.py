"""Tests for walstream.services.listen: who can reach an endpoint."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.services.listen import (
    check_endpoint,
    check_endpoints,
    private_socket,
    reaches_out,
    server_endpoints,
)


class CheckEndpointTests(SynchronousTestCase):
    """Server endpoint strings."""

    def refusal(self, description: str, *, trust_network: bool = False) -> str:
        """What is said of an endpoint that will not do."""
        error = self.assertRaises(
            FormatError, check_endpoint, description, trust_network=trust_network
        )
        return str(error)

    def test_this_machine(self) -> None:
        """What only this machine can reach will do."""
        for description in (
            "tcp:5433:interface=127.0.0.1",
            "tcp:5433:interface=127.0.0.2",
            "tcp:port=5433:interface=localhost",
            r"tcp6:5433:interface=\:\:1",
            "tcp:0:interface=127.0.0.1",
            "unix:/run/walstream/.s.PGSQL.5433",
            "unix:address=/run/walstream/.s.PGSQL.5433:mode=660",
        ):
            check_endpoint(description, trust_network=False)

    def test_other_machines(self) -> None:
        """What other machines can reach is refused, with the interface and the ways out."""
        for description, where in (
            ("tcp:5433", "all interfaces"),
            ("tcp6:5433", "interface ::"),
            ("tcp:5433:interface=0.0.0.0", "interface 0.0.0.0"),
            ("tcp:5433:interface=10.0.0.1", "interface 10.0.0.1"),
            ("tcp:5433:interface=db1", "interface db1"),
        ):
            said = self.refusal(description)
            self.assertIn(repr(description), said)
            self.assertIn(f"it listens on {where}, where nobody", said)
            self.assertIn("tcp:5433:interface=127.0.0.1", said)
            self.assertIn("--trust-network", said)
            check_endpoint(description, trust_network=True)

    def test_rules_and_tls(self) -> None:
        """With both others may come; without one of them it is named, and nothing else."""
        for has_rules, has_tls, remedy in (
            (False, False, "give it --hba and --tls-certificate, or"),
            (True, False, "give it --tls-certificate, or"),
            (False, True, "give it --hba, or"),
        ):
            with self.assertRaises(FormatError) as caught:
                check_endpoint(
                    "tcp:5433", trust_network=False, has_rules=has_rules, has_tls=has_tls
                )
            said = str(caught.exception)
            self.assertIn(remedy, said)
            self.assertEqual("nothing is encrypted" in said, not has_tls)
            self.assertEqual("nobody is asked" in said, not has_rules)
        check_endpoint("tcp:5433", trust_network=False, has_rules=True, has_tls=True)
        for has_rules in (True, False):
            check_endpoint("tcp:5433", trust_network=True, has_rules=has_rules)

    def test_reaches_out(self) -> None:
        """The question alone."""
        for description, expected in (
            ("tcp:5433", True),
            ("systemd:domain=INET:index=0", True),
            ("stdio:", True),
            ("tcp:5433:interface=127.0.0.1", False),
            ("unix:/run/x", False),
        ):
            self.assertIs(reaches_out(description), expected, description)

    def test_sockets_are_private(self) -> None:
        """Unless the endpoint says otherwise, whatever is in the path."""
        for description in (
            "unix:/run/x",
            "unix:address=/run/x",
            r"unix:/run/mode\:mode\=666",
            r"unix:/run/x\\",
            "unix:/run/x:backlog=5",
        ):
            made = private_socket(description)
            self.assertEqual(made, f"{description}:mode=600")
            endpoint = serverFromString(reactor, made)
            self.assertEqual(endpoint._mode, 0o600)
        for description in (
            "unix:/run/x:mode=666",
            "unix:/run/x:660",
            "unix:address=/run/x:lockfile=0:mode=660",
            "tcp:5433",
            "tcp:5433:interface=127.0.0.1",
            "systemd:domain=INET:index=0",
        ):
            self.assertEqual(private_socket(description), description)

    def test_unknown_reach(self) -> None:
        """What does not show who can reach it is refused as well, unless all are trusted."""
        for description, words in (
            ("systemd:domain=INET:index=0", "systemd knows who can reach its socket"),
            ("stdio:", "who can reach it is not to be seen"),
        ):
            said = self.refusal(description)
            self.assertIn(words, said)
            self.assertIn("--trust-network", said)
        check_endpoint("stdio:", trust_network=True)

    def test_tls(self) -> None:
        """An endpoint that speaks TLS from its first byte cannot serve PostgreSQL's clients."""
        for trust in (False, True):
            said = self.refusal("ssl:5433:interface=127.0.0.1", trust_network=trust)
            self.assertIn("ask for TLS after they have connected", said)
            self.assertIn("use a tcp: or unix: endpoint", said)

    def test_no_endpoint(self) -> None:
        """What is no endpoint at all is refused, with an example of one."""
        for description in ("", "5433", "tcp:", "tcp:five", "carrier-pigeon:1", "tcp:1:colour=red"):
            said = self.refusal(description, trust_network=True)
            self.assertIn(repr(description), said)
            self.assertIn("tcp:5433:interface=127.0.0.1", said)

    def test_port(self) -> None:
        """A port that there cannot be is refused before anything listens."""
        for port in ("-1", "65536"):
            said = self.refusal(f"tcp:{port}:interface=127.0.0.1", trust_network=True)
            self.assertIn(f"there is no port {port}", said)

    def test_nothing_listens(self) -> None:
        """A check leaves nothing behind."""
        path = Path(self.mktemp()).absolute()
        check_endpoint(f"unix:{path}", trust_network=False)
        self.assertFalse(path.exists())


class CheckEndpointsTests(SynchronousTestCase):
    """Several that are listened on together."""

    def refusal(self, *descriptions: str) -> str:
        """What is said of endpoints that will not do."""
        error = self.assertRaises(
            FormatError, check_endpoints, descriptions, trust_network=False, has_rules=True
        )
        return str(error)

    def test_good(self) -> None:
        """Whatever differs in the interface, the port or the path."""
        check_endpoints(
            [
                "tcp:5433:interface=127.0.0.1",
                "tcp:5434:interface=127.0.0.1",
                "tcp:5433:interface=127.0.0.2",
                r"tcp6:5433:interface=\:\:1",
                "unix:/run/walstream/.s.PGSQL.5433",
                "unix:/run/walstream/.s.PGSQL.5434",
            ],
            trust_network=False,
        )

    def test_each_is_checked(self) -> None:
        """The one that reaches too far is named, wherever it is, and not those that don't."""
        near = "unix:/run/walstream/.s.PGSQL.5433"
        for descriptions in (("tcp:5433", near), (near, "tcp:5433")):
            said = self.refusal(*descriptions)
            self.assertIn("'tcp:5433' will not do: it listens on all interfaces", said)
            self.assertIn("give it --tls-certificate, or", said)
            check_endpoints(descriptions, trust_network=True)
            check_endpoints(descriptions, trust_network=False, has_rules=True, has_tls=True)

    def test_twice(self) -> None:
        """The same text is refused, and so is another one for the same address."""
        near = "tcp:5433:interface=127.0.0.1"
        for one, other, said in (
            (near, near, f"{near!r} is given twice: leave one of them out"),
            (near, "tcp:interface=127.0.0.1:port=5433", f"and {near!r} are the same: leave"),
            ("unix:/run/x", "unix:address=/run/./x:mode=660", "and 'unix:/run/x' are the same"),
        ):
            words = self.refusal("unix:/run/y", one, other)
            self.assertTrue(words.startswith(repr(other)), words)
            self.assertIn(said, words)
        with self.assertRaisesRegex(FormatError, "'stdio:' is given twice"):
            check_endpoints(["stdio:", "unix:/run/x", "stdio:"], trust_network=True)


class ServerEndpointTests(SynchronousTestCase):
    """What the strings stand for."""

    def test_one_or_several(self) -> None:
        """Each is called what it was given as."""
        several = ["tcp:0:interface=127.0.0.1", "unix:/run/x"]
        for given, expected in ((several, several), (several[0], several[:1])):
            self.assertEqual([*map(str, server_endpoints(reactor, given))], expected)

    def test_sockets_are_private(self) -> None:
        """They listen where it says, for the owner only."""
        reactor = MemoryReactor()
        tcp, unix = server_endpoints(reactor, ["tcp:5433:interface=127.0.0.1", "unix:/run/x"])
        factory = Factory()
        self.successResultOf(tcp.listen(factory))
        self.successResultOf(unix.listen(factory))
        self.assertEqual(reactor.tcpServers, [(5433, factory, 50, "127.0.0.1")])
        self.assertEqual(reactor.unixServers, [("/run/x", factory, 50, 0o600, True)])

    def test_none(self) -> None:
        """What is no endpoint is a mistake."""
        self.assertRaises(ValueError, server_endpoints, reactor, "carrier-pigeon:1")
