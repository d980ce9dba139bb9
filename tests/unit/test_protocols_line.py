"""Tests for `walstream.protocols.line`: the order in which a connection is closed."""

from __future__ import annotations

import socket
from typing import ClassVar, Literal

from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from walstream.protocols.line import Line, probe
from walstream.testing.transport import FlowTransport

MUCH = bytes(300_000)


@implementer(IPushProducer)
class Speaker(Line):
    """A line that notes what it is told, and may write when it is resumed."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, 5.0)
        self.events: list[str] = []
        self.received = b""
        self.on_resume: bytes = b""

    def connectionMade(self) -> None:
        self.open(60.0)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.events.append("lost")

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")
        if self.on_resume:
            self.send(self.on_resume)

    def stopProducing(self) -> None:
        self.events.append("stop")


class LineTests(SynchronousTestCase):
    """`Line` over TCP."""

    kind: ClassVar[Literal["tcp", "tls"]] = "tcp"

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = FlowTransport(self.kind, self.clock)
        self.line = self.transport.connect(Speaker(self.clock))

    def hear(self) -> bytes:
        heard = b""
        while piece := self.transport.take():
            heard += piece
        return heard

    def check_end(self, how: str) -> None:
        """The connection is gone, the peer knows how, and nothing is left."""
        self.assertEqual(self.transport.peer_saw, how)
        self.assertEqual(self.line.events.count("lost"), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_options(self) -> None:
        """Small messages leave at once, and a dead peer is noticed in the end."""
        self.assertTrue(self.transport.getTcpNoDelay())
        self.assertTrue(self.transport.getTcpKeepAlive())

    def test_close(self) -> None:
        """What was written leaves before the connection is closed."""
        self.line.send(b"last words")
        self.line.close("enough")
        self.assertEqual(self.hear(), b"last words")
        self.check_end("end")
        self.assertEqual(self.line.close_reason, "enough")

    def test_close_with_much_to_send(self) -> None:
        """Also if that takes the peer a while: the producer, which was paused, is not asked."""
        self.line.on_resume = b"never"
        self.line.send(MUCH)
        self.line.send(b"last words")
        self.line.close("enough")
        self.assertEqual(self.transport.take(100_000), MUCH[:100_000])
        self.clock.advance(4)
        self.assertEqual(self.hear(), MUCH[100_000:] + b"last words")
        self.assertNotIn("resume", self.line.events)
        self.check_end("end")

    def test_nothing_after_the_last_words(self) -> None:
        """What is sent after the close is dropped, whether the connection is there or not."""
        self.line.send(MUCH)
        self.line.close("enough")
        self.line.send(b"and another thing")
        self.assertEqual(self.hear(), MUCH)
        self.line.send(b"and another thing")
        self.check_end("end")

    def test_close_while_reading_is_paused(self) -> None:
        """A line that was not reading closes as any other."""
        self.line.pause_reading()
        self.transport.deliver(b"unread")
        self.line.send(b"last words")
        self.line.close("enough")
        self.assertEqual(self.hear(), b"last words")
        self.clock.advance(0)
        self.check_end("end")

    def test_peer_takes_too_long(self) -> None:
        """A peer that does not take the last words is cut off."""
        self.line.send(MUCH)
        self.line.close("enough")
        self.clock.advance(4.9)
        self.assertEqual(self.transport.peer_saw, "open")
        self.clock.advance(0.2)
        self.check_end("reset")

    def test_abort(self) -> None:
        """An abort waits for nothing."""
        self.line.send(MUCH)
        self.line.abort("now")
        self.clock.advance(0)
        self.check_end("reset")
        self.assertEqual(self.line.close_reason, "now")

    def test_abort_after_close(self) -> None:
        """Who has lost patience with a close may abort."""
        self.line.send(MUCH)
        self.line.close("enough")
        self.line.abort("now")
        self.clock.advance(0)
        self.check_end("reset")

    def test_abort_after_the_end(self) -> None:
        """An abort or a close that comes too late does no harm."""
        self.transport.peer_closed()
        self.line.abort("now")
        self.line.close("enough")
        self.clock.advance(0)
        self.assertEqual(self.line.events.count("lost"), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_startup_timeout(self) -> None:
        """Who was not let in in time is shown the door."""
        self.clock.advance(59.9)
        self.assertEqual(self.transport.peer_saw, "open")
        self.clock.advance(0.2)
        self.hear()
        self.check_end("end")
        self.assertEqual(self.line.close_reason, "authentication timeout")

    def test_let_in(self) -> None:
        """Who was let in may stay."""
        self.line.let_in()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_reading(self) -> None:
        """Reading rests and goes on; saying so twice is saying it once."""
        self.line.pause_reading()
        self.line.pause_reading()
        self.transport.deliver(b"abc")
        self.assertEqual(self.line.received, b"")
        self.line.resume_reading()
        self.line.resume_reading()
        self.clock.advance(0)
        self.assertEqual(self.line.received, b"abc")

    def test_peer_closes(self) -> None:
        """When the peer closes there is nothing left."""
        self.transport.peer_closed()
        self.hear()
        self.check_end("end")

    def test_producer(self) -> None:
        """A line is told when the transport has enough, and when it takes more."""
        self.line.send(MUCH)
        self.clock.advance(0)
        self.assertIn("pause", self.line.events)
        self.assertNotIn("resume", self.line.events)
        self.hear()
        self.assertIn("resume", self.line.events)


class TLSLineTests(LineTests):
    """`Line` over TLS."""

    kind = "tls"

    def test_mute_peer(self) -> None:
        """A peer that leaves the closing handshake unanswered is cut off."""
        self.transport.mute = True
        self.line.send(b"last words")
        self.line.close("enough")
        self.assertEqual(self.hear(), b"last words")
        self.assertEqual(self.transport.peer_saw, "open")
        self.clock.advance(5.1)
        self.assertNotEqual(self.transport.peer_saw, "open")
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ProbeTests(SynchronousTestCase):
    """Peers that are gone without a word."""

    def test_keepalives(self) -> None:
        """The kernel asks after a minute, and gives up after another."""
        with socket.socket() as connection:
            probe(connection)
            asks = [
                connection.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            ]
        self.assertEqual(asks, [60, 10, 6])

    def test_unix_sockets(self) -> None:
        """Nothing can be lost between two processes of one machine, and nothing is set there."""
        one, other = socket.socketpair()
        with one, other:
            probe(one)
