"""A listening port takes few connections at a time."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port
from twisted.trial.unittest import SynchronousTestCase

from walstream.services.accepting import accept_few


class AcceptFewTests(SynchronousTestCase):
    """`accept_few`."""

    def test_twenty(self) -> None:
        """Whatever Twisted thinks it could take, and it is the port that it was."""
        clock: Any = Clock()
        port = Port(0, Factory(), reactor=clock)
        accept_few(port)
        for number in (100, 120, 1):
            port.numberAccepts = number
            self.assertEqual(port.numberAccepts, 20)
        self.assertIsInstance(port, Port)
        self.assertEqual(type(port).__name__, "Port")

    def test_others(self) -> None:
        """What is no port of Twisted's is left alone."""
        other: Any = object()
        accept_few(other)
