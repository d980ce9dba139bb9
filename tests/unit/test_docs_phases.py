"""The manual's phase diagrams say what the protocols' tables say."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tools import phases_diagram


class PhaseDiagramTests(SynchronousTestCase):
    """What docs/reference/protocol.md holds is what tools/phases_diagram.py prints.

    If one fails: ``python -m tools.phases_diagram update``, and read what it changed.
    """

    def generated(self, role: str) -> str:
        """What stands between the page's two markers of *role*."""
        _, generated, _ = phases_diagram.cut(phases_diagram.PAGE.read_text("utf-8"), role)
        return generated

    def test_the_receivers_phases_are_up_to_date(self) -> None:
        """As ``python -m tools.phases_diagram receiver`` prints them."""
        self.assertEqual(self.generated("receiver"), phases_diagram.receiver())

    def test_the_senders_phases_are_up_to_date(self) -> None:
        """As ``python -m tools.phases_diagram sender`` prints them."""
        self.assertEqual(self.generated("sender"), phases_diagram.sender())

    def test_the_phases_before_a_login_are_up_to_date(self) -> None:
        """As ``python -m tools.phases_diagram entry`` prints them."""
        self.assertEqual(self.generated("entry"), phases_diagram.entry())

    def test_every_message_of_the_tables_has_its_documented_name(self) -> None:
        """CopyDone from a client, ParameterStatus from a server: one letter, two meanings."""
        self.assertIn("STREAMING --> ANSWERING: CopyDone (c)\n", phases_diagram.sender())
        self.assertIn("READY --> READY: ParameterStatus (S), ", phases_diagram.receiver())
        self.assertIn("Flush (H), Sync (S)\n", phases_diagram.sender())
