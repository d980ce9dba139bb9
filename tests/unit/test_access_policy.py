"""Tests for walstream.access.policy: what rules let in, as a whole."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walstream.access.policy import AccessFiles, Policy, read_policy
from walstream.errors import FormatError
from walstream.services.access import Access


class PolicyTests(SynchronousTestCase):
    """What is seen of a whole file."""

    def policy(self, text: str) -> Policy:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "hba").write_text(text)
        self.files = AccessFiles(str(directory / "hba"), None, str(directory / "roles"))
        return read_policy(self.files)

    def test_open_to_strangers(self) -> None:
        """Trust for other machines, where it is about replication."""
        for text in (
            "host replication all all trust",
            "host replication all 192.0.2.0/24 trust",
            "hostssl replication all all trust clientcert=verify-ca",
            "hostnossl replication a samenet trust",
            "host replication all db.example.org trust",
            "host replication all 0.0.0.0/0 trust",
        ):
            policy = self.policy(f"local replication all trust\n{text}\n")
            rule = policy.open_to_strangers()
            assert rule is not None
            self.assertEqual(rule.line.number, 2)
            Access(self.files, may_trust_strangers=True).check(policy)
            with self.assertRaises(FormatError) as caught:
                Access(self.files, may_trust_strangers=False).check(policy)
            self.assertIn("line 2 of configuration file", str(caught.exception))
            self.assertIn("--trust-network", str(caught.exception))

    def test_not_open_to_strangers(self) -> None:
        """Trust for this machine, or something to prove."""
        for text in (
            "local replication all trust",
            "host replication all 127.0.0.0/8 trust",
            "host replication all ::1/128 trust",
            "host replication all samehost trust",
            "host all all all trust",
            "host replication all all scram-sha-256",
            "hostssl replication all all cert",
            "host replication all all reject",
        ):
            policy = self.policy(text)
            self.assertIsNone(policy.open_to_strangers(), text)
            Access(self.files, may_trust_strangers=False).check(policy)

    def test_carriage_returns(self) -> None:
        """They begin no line: what is behind one in a comment stays in it."""
        self.assertEqual(self.policy("# not now:\rhost replication all all trust\n").rules, [])

    def test_in_clear(self) -> None:
        """Whom other machines' rules let in unencrypted."""
        for text, is_there in (
            ("host replication all all scram-sha-256", True),
            ("hostnossl replication all all scram-sha-256", True),
            ("hostssl replication all all scram-sha-256", False),
            ("host replication all all reject", False),
            ("host replication all samehost md5", False),
        ):
            policy = self.policy(text)
            self.assertEqual(policy.in_clear() is not None, is_there, text)
            has = {"has_tls": True, "has_authorities": True}
            warnings = list(policy.warnings(**has, is_exposed=True))
            self.assertEqual(len(warnings), is_there, text)
            self.assertEqual(list(policy.warnings(**has)), [])
