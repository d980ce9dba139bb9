"""Tests for how a client closes, which `walstream.protocols.stream_client` sees to."""

from __future__ import annotations

from typing import Literal

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import Disconnected
from walstream.protocols.login import Login
from walstream.protocols.receiver_settings import Dialect
from walstream.protocols.stream_client import StreamClient
from walstream.testing.transport import FlowTransport
from walstream.wire.encryption import Encryption


class ClosingTests(SynchronousTestCase):
    """A server that does not agree to the end of a connection holds nothing open."""

    def connect(self, kind: Literal["tcp", "tls"]) -> None:
        self.clock = Clock()
        self.client = StreamClient(Login("me"), Dialect.MODERN, self.clock, 60.0)
        if kind == "tls":
            self.client.encrypted(Encryption("TLSv1.3", "some", 256), verified=False)
        self.transport = FlowTransport(kind, self.clock)
        self.transport.connect(self.client)
        self.transport.take()

    def test_in_order(self) -> None:
        """Terminate, the end, and no timer left."""
        for kind in ("tcp", "tls"):
            self.connect(kind)
            self.client.close(Disconnected("all is done"))
            self.assertEqual(self.transport.take(), b"X\x00\x00\x00\x04")
            self.transport.take()
            self.assertEqual(self.transport.peer_saw, "end")
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_server_that_says_nothing(self) -> None:
        """TLS would wait for its answer for ever."""
        self.connect("tls")
        self.transport.mute = True
        self.client.close(Disconnected("all is done"))
        self.transport.take()
        self.clock.advance(4.9)
        self.assertTrue(self.transport.connected)
        self.clock.advance(0.2)
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reading_is_paused(self) -> None:
        """Its answer has to be read."""
        self.connect("tls")
        self.client.pause_reading()
        self.client.close(Disconnected("all is done"))
        self.transport.take()
        self.transport.take()
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])
