"""Tests for walstream.services.session_attrs."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.services.session_attrs import unsuitable
from walstream.upstream import TargetSessionAttrs

_SERVERS = {
    "primary": {"in_hot_standby": "off", "default_transaction_read_only": "off"},
    "read-only primary": {"in_hot_standby": "off", "default_transaction_read_only": "on"},
    "standby": {"in_hot_standby": "on", "default_transaction_read_only": "off"},
}


class UnsuitableTests(SynchronousTestCase):
    """Which servers will do."""

    def test_kinds(self) -> None:
        """Each kind of server will do for what libpq's documentation says."""
        for wanted, good in (
            ("any", {"primary", "read-only primary", "standby"}),
            ("read-write", {"primary"}),
            ("read-only", {"read-only primary", "standby"}),
            ("primary", {"primary", "read-only primary"}),
            ("standby", {"standby"}),
        ):
            found = {
                name
                for name, parameters in _SERVERS.items()
                if unsuitable(parameters, TargetSessionAttrs(wanted)) is None
            }
            self.assertEqual(found, good, wanted)

    def test_words(self) -> None:
        """The reason is in libpq's words."""
        for server, wanted, words in (
            ("standby", TargetSessionAttrs.PRIMARY, "server is in hot standby mode"),
            ("primary", TargetSessionAttrs.STANDBY, "server is not in hot standby mode"),
            ("standby", TargetSessionAttrs.READ_WRITE, "session is read-only"),
            ("primary", TargetSessionAttrs.READ_ONLY, "session is not read-only"),
        ):
            self.assertEqual(unsuitable(_SERVERS[server], wanted), words)

    def test_old_server(self) -> None:
        """A server that does not tell will do for any only, and the reason has the way out."""
        parameters = {"server_version": "13.9"}
        self.assertIsNone(unsuitable(parameters, TargetSessionAttrs.ANY))
        said = unsuitable(parameters, TargetSessionAttrs.PRIMARY) or ""
        self.assertIn("PostgreSQL 13.9", said)
        self.assertIn("leave target_session_attrs out", said)
