"""Tests for walstream.services.listen: who can reach an endpoint."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.services.listen import check_endpoint


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
            self.assertIn(f"it listens on {where}; ", said)
            self.assertIn("tcp:5433:interface=127.0.0.1", said)
            self.assertIn("--trust-network", said)
            check_endpoint(description, trust_network=True)

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
            self.assertIn("does not speak TLS", said)
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
