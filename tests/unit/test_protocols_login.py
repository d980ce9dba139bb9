"""Tests for `walstream.protocols.login`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.protocols.login import Login


class LoginTests(SynchronousTestCase):
    """`Login`."""

    def test_parameters(self) -> None:
        """Who logs in, as whom, and for what."""
        self.assertEqual(
            Login("alice").startup_parameters(),
            {
                "user": "alice",
                "database": "replication",
                "application_name": "walstream",
                "replication": "on",
            },
        )

    def test_further_parameters(self) -> None:
        """Others are passed on."""
        login = Login("alice", parameters={"options": "-c wal_sender_timeout=5s"})
        self.assertEqual(login.startup_parameters()["options"], "-c wal_sender_timeout=5s")

    def test_replication_cannot_be_turned_off(self) -> None:
        """Nothing that a user gives can make it anything but a replication connection."""
        login = Login("alice", parameters={"replication": "off", "user": "bob"})
        parameters = login.startup_parameters()
        self.assertEqual((parameters["replication"], parameters["user"]), ("on", "alice"))

    def test_password_is_not_shown(self) -> None:
        """A login's text has no password, and neither has the startup packet."""
        login = Login("alice", "secret")
        self.assertNotIn("secret", repr(login))
        self.assertNotIn("secret", login.startup_parameters().values())
