"""Tests for `walstream.protocols.handshake`."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walstream.protocols.handshake import Handshake
from walstream.protocols.turns import Turns


class FakeTLS:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []
        self.on_data: Callable[[], None] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.given.append(data)
        self.on_data()


class HandshakeTests(SynchronousTestCase):
    """One step in a turn, and somebody else has it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.turns = Turns(1, self.clock)
        self.tls = FakeTLS()
        self.told: list[bool] = []
        self.enough = False
        self.handshake = Handshake(self.tls, self.turns, self.regulate)

    def regulate(self) -> None:
        self.told.append(self.handshake.is_waiting)
        if self.enough:
            self.handshake.end()

    def test_at_once(self) -> None:
        """It is nobody else's turn: what comes is given on, and read on."""
        for number in (b"1", b"2"):
            self.tls.dataReceived(number)
            self.assertEqual(self.tls.given[-1], number)
            self.assertFalse(self.handshake.is_waiting)
            self.clock.advance(0)
        self.assertNotIn(True, self.told)

    def test_later(self) -> None:
        """Nothing is read meanwhile; what still comes goes with it."""
        self.turns.ask(lambda: None)
        self.tls.dataReceived(b"1")
        self.tls.dataReceived(b"2")
        self.assertEqual((self.told, self.tls.given), ([True], []))
        self.clock.advance(0)
        self.assertEqual((self.told, self.tls.given), ([True, False], [b"12"]))

    def test_over(self) -> None:
        """TLS has its data at once from then on, whoever's turn it is."""
        self.tls.on_data = self.handshake.end
        self.tls.dataReceived(b"1")
        self.tls.dataReceived(b"2")
        self.assertEqual(self.tls.given, [b"1", b"2"])
        self.handshake.end()

    def test_nobody_wants_it_any_more(self) -> None:
        """What has come is dropped, and nobody waits for its turn to come."""
        self.turns.ask(lambda: None)
        self.tls.dataReceived(b"1")
        self.handshake.end()
        self.assertEqual(len(self.turns), 0)
        self.clock.advance(0)
        self.assertEqual(self.tls.given, [])

    def test_who_is_told_has_had_enough(self) -> None:
        """TLS gets nothing any more."""
        self.turns.ask(lambda: None)
        self.tls.dataReceived(b"1")
        self.enough = True
        self.clock.advance(0)
        self.assertEqual(self.tls.given, [])
