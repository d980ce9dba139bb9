"""Tests for walstream.embedded.configuration."""

from __future__ import annotations

import os
import socket
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from walstream.embedded import EmbeddedError
from walstream.embedded.configuration import free_port, settings_text


class SettingsTextTests(SynchronousTestCase):
    """Settings arrive in the server as they were given."""

    def test_quotes_every_value(self) -> None:
        """Numbers, words and empty values are all quoted strings."""
        self.assertEqual(
            settings_text({"port": 5432, "fsync": "off", "primary_slot_name": ""}),
            "port = '5432'\nfsync = 'off'\nprimary_slot_name = ''\n",
        )

    def test_doubles_quotes_and_backslashes(self) -> None:
        """What has a meaning inside a quoted string is doubled."""
        self.assertEqual(settings_text({"a": r"it's \n"}), r"a = 'it''s \\n'" + "\n")

    def test_refuses_a_value_of_two_lines(self) -> None:
        """A line break would end the setting."""
        error = self.assertRaises(EmbeddedError, settings_text, {"a": "one\ntwo"})
        self.assertIn("more than one line", str(error))


class FreePortTests(SynchronousTestCase):
    """A server can be given the port, now and when it comes back."""

    def test_the_port_can_be_bound(self) -> None:
        """Nothing listens on the port."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", free_port()))

    def test_the_port_is_none_that_outgoing_connections_get(self) -> None:
        """The port lies below those that the system gives to outgoing connections."""
        self.assertTrue(all(free_port() < 32768 for _ in range(20)))

    def test_no_port_is_given_twice(self) -> None:
        """Who has one may bind it later: neither this process nor another is given it meanwhile."""
        found: list[int] = []
        for process in (100, 101):
            self.patch(os, "getpid", partial(int, process))
            found += [free_port() for _ in range(150)]
        self.assertEqual(len(set(found)), 300)
