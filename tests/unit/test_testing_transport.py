"""What `walstream.testing.transport` promises; `tests.live.test_testing_transport` compares."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHandshakeListener,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from walstream.testing.transport import FlowTransport

CHECKOUT = Path(__file__).parents[2]
KIB = 1024


@implementer(IHandshakeListener)
class Recorder(Protocol):
    """Keeps what it is told."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.received: list[bytes] = []
        self.on_data: Callable[[], None] = lambda: None

    def connectionMade(self) -> None:
        self.events.append("made")

    def handshakeCompleted(self) -> None:
        self.events.append("handshake")

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)
        self.on_data()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append(type(reason.value).__name__)


@implementer(IPushProducer)
class Producer:
    """Keeps what it is told."""

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.on_resume: Callable[[], None] = lambda: None

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")
        self.on_resume()

    def stopProducing(self) -> None:
        self.events.append("stop")


class FlowTransportCase(SynchronousTestCase):
    """A connected transport, and a producer that is not registered yet."""

    def connect(self, transport: FlowTransport) -> FlowTransport:
        self.events: list[str] = []
        self.protocol = transport.connect(Recorder(self.events))
        self.producer = Producer(self.events)
        self.events.clear()
        return transport

    def tcp(self) -> FlowTransport:
        return self.connect(FlowTransport("tcp"))

    def tls(self) -> FlowTransport:
        return self.connect(FlowTransport("tls"))

    def both(self) -> Iterator[FlowTransport]:
        """One of each kind, made when its turn comes, with events of its own."""
        yield self.tcp()
        yield self.tls()


class FaceTests(FlowTransportCase):
    """What a protocol finds its transport to be."""

    def test_provides_what_a_real_transport_provides(self) -> None:
        """Both kinds are TCP transports, consumers and push producers."""
        for transport in self.both():
            for interface in (ITCPTransport, IConsumer, IPushProducer, ISystemHandle):
                verifyObject(interface, transport)

    def test_is_the_protocols_transport(self) -> None:
        """The protocol gets the double itself, of either kind."""
        for transport in self.both():
            self.assertIs(self.protocol.transport, transport)

    def test_has_addresses_and_options(self) -> None:
        """Addresses are TCP's, and options keep what they are set to."""
        transport = self.tcp()
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        self.assertEqual((transport.getTcpNoDelay(), transport.getTcpKeepAlive()), (True, True))
        transport.setTcpNoDelay(False)
        self.assertFalse(transport.getTcpNoDelay())
        self.assertEqual(transport.getHost().port, 5432)
        self.assertEqual(transport.getPeer().host, "127.0.0.1")

    def test_needs_no_reactor(self) -> None:
        """A test that uses it leaves the choice of a reactor to others."""
        code = (
            "import sys; from walstream.testing.transport import FlowTransport\n"
            "from twisted.internet.protocol import Protocol\n"
            "for kind in ('tcp', 'tls'):\n"
            "    t = FlowTransport(kind); t.connect(Protocol()); t.write(b'x')\n"
            "    assert t.take() == b'x'; t.loseConnection(); t.turn()\n"
            "sys.exit('twisted.internet.reactor' in sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=False)
        self.assertEqual(run.returncode, 0)

    def test_direct_protocols_get_twisteds_own_transport(self) -> None:
        """Code that goes to the socket finds a connection with a socket in memory."""
        transport = FlowTransport()
        protocol = transport.connect(Protocol(), direct=True)
        connection: Any = protocol.transport
        self.assertIsInstance(connection, Connection)
        self.assertRaises(BlockingIOError, connection.getHandle().sendmsg, [b"no room"])
        connection.write(b"ordinary")
        self.assertEqual(transport.take(), b"ordinary")

    def test_tls_has_nothing_direct(self) -> None:
        """There is no way past TLS."""
        self.assertRaises(ValueError, FlowTransport("tls").connect, Protocol(), direct=True)


class DirectWriter(Protocol):
    """Writes past the transport, as `walstream.protocols.direct` does: the rest in doWrite."""

    rest = b""
    connection: Any

    def connectionMade(self) -> None:
        self.connection = self.transport
        self.ordinary: Callable[[], object] = self.connection.doWrite
        self.connection.doWrite = self.do_write

    def do_write(self) -> object:
        try:
            self.rest = self.rest[self.connection.getHandle().sendmsg([self.rest]) :]
        except BlockingIOError:
            return None
        return None if self.rest else self.ordinary()


class DirectTests(SynchronousTestCase):
    """Code that replaces ``doWrite`` sees a socket that is full until the peer reads."""

    def test_waits_for_the_peer(self) -> None:
        """What the transport knows nothing of goes out as the peer takes it."""
        transport = FlowTransport()
        protocol = transport.connect(DirectWriter(), direct=True)
        protocol.rest = b"0123456789"
        protocol.connection.startWriting()
        transport.turn()
        self.assertEqual(protocol.rest, b"0123456789")
        self.assertEqual(transport.take(4), b"0123")
        self.assertEqual(transport.take(), b"456789")
        self.assertEqual(transport.clock.getDelayedCalls(), [])

    def test_reads_into_a_buffer(self) -> None:
        """The socket has recv_into, and is empty after it."""
        transport = FlowTransport()
        protocol = transport.connect(Protocol(), direct=True)
        connection: Any = protocol.transport
        connection.pauseProducing()
        transport.deliver(b"hello")
        handle = connection.getHandle()
        view = memoryview(bytearray(8))
        self.assertEqual(handle.recv_into(view), 5)
        self.assertEqual(bytes(view[:5]), b"hello")
        self.assertRaises(BlockingIOError, handle.recv_into, view)


class WriteTests(FlowTransportCase):
    """Writing, and the producer's pauses."""

    def test_nothing_leaves_before_the_peer_reads(self) -> None:
        """What is written stays in the transport, byte by byte."""
        transport = self.tcp()
        transport.write(b"abc")
        transport.writeSequence([b"d", b"ef"])
        transport.turn()
        self.assertEqual(transport.unread, b"abcdef")
        self.assertEqual(transport.take(2), b"ab")
        self.assertEqual(transport.unread, b"cdef")
        self.assertEqual(transport.take(100), b"cdef")
        self.assertEqual(transport.unread, b"")

    def test_tcp_takes_bytes_only(self) -> None:
        """Everything else is a TypeError, in sequences too."""
        transport = self.tcp()
        for data in (bytearray(b"x"), memoryview(b"x"), "x"):
            self.assertRaises(TypeError, transport.write, data)
            self.assertRaises(TypeError, transport.writeSequence, [data])

    def test_tcp_loses_a_generator(self) -> None:
        """The type check has consumed it."""
        transport = self.tcp()
        transport.writeSequence(piece for piece in (b"lost",))
        self.assertEqual(transport.take(), b"")

    def test_tcp_pauses_on_every_write_past_the_mark(self) -> None:
        """20 writes of 16 KiB: the mark is passed by the fifth, and 16 writes pause."""
        transport = self.tcp()
        transport.registerProducer(self.producer, True)
        for _ in range(20):
            transport.write(bytes(16 * KIB))
        self.assertEqual(self.events, ["pause"] * 16)

    def test_tls_pauses_once(self) -> None:
        """TLS passes one pause on until the next resume."""
        transport = self.tls()
        transport.registerProducer(self.producer, True)
        for _ in range(20):
            transport.write(bytes(16 * KIB))
        self.assertEqual(self.events, ["pause"])

    def test_resumes_only_when_empty(self) -> None:
        """One byte that is left keeps the producer paused, in both kinds."""
        for transport in self.both():
            transport.registerProducer(self.producer, True)
            transport.write(bytes(100 * KIB))
            transport.take(60 * KIB)
            self.assertEqual(self.events, ["pause"])
            transport.take()
            self.assertEqual(self.events, ["pause", "resume"])

    def test_never_resumes_what_was_not_paused(self) -> None:
        """A producer below the mark hears nothing."""
        transport = self.tcp()
        transport.registerProducer(self.producer, True)
        transport.write(bytes(64 * KIB))
        transport.take()
        self.assertEqual(self.events, [])

    def test_take_leaves_what_a_resumed_producer_writes(self) -> None:
        """A producer that never ends does not make the peer read for ever."""
        for transport in self.both():
            self.producer.on_resume = lambda t=transport: t.write(bytes(70 * KIB))  # type: ignore[misc]
            transport.registerProducer(self.producer, True)
            transport.write(bytes(100 * KIB))
            self.assertEqual(len(transport.take()), 100 * KIB)
            self.assertEqual(len(transport.take()), 70 * KIB)
            self.assertEqual(self.events, ["pause", "resume"] * 2 + ["pause"])

    def test_mark_can_be_set(self) -> None:
        """A small mark makes small tests."""
        transport = self.connect(FlowTransport(buffer_size=10))
        transport.registerProducer(self.producer, True)
        transport.write(bytes(10))
        self.assertEqual(self.events, [])
        transport.write(b"!")
        self.assertEqual(self.events, ["pause"])

    def test_protocol_can_set_the_mark_of_tcp_only(self) -> None:
        """On TLS the attribute belongs to a wrapper, as with Twisted's."""
        for transport, expected in zip(self.both(), ([], ["pause"]), strict=True):
            transport.bufferSize = 256 * KIB
            self.assertEqual(transport.bufferSize, 256 * KIB)
            transport.registerProducer(self.producer, True)
            transport.write(bytes(100 * KIB))
            self.assertEqual(self.events, expected)

    def test_small_tls_writes_wait_for_a_turn(self) -> None:
        """Twisted aggregates them until the reactor's next turn."""
        transport = self.tls()
        transport.write(b"small")
        self.assertEqual(transport.unread, b"")
        transport.turn()
        self.assertEqual(transport.unread, b"small")

    def test_writes_before_the_handshake_pause(self) -> None:
        """TLS keeps what it cannot encrypt yet, and resumes when it can."""
        transport = self.connect(FlowTransport("tls", handshake=False))
        transport.registerProducer(self.producer, True)
        transport.write(b"early")
        self.assertEqual(transport.take(), b"")
        self.assertEqual(self.events, ["pause"])
        transport.finish_handshake()
        self.assertEqual(self.events, ["pause", "handshake", "resume"])
        self.assertEqual(transport.take(), b"early")


class RegisterTests(FlowTransportCase):
    """Registering a producer."""

    def test_a_second_producer_is_refused(self) -> None:
        """RuntimeError, until the first is unregistered; that is silent, also twice."""
        for transport in self.both():
            transport.registerProducer(self.producer, True)
            self.assertRaises(RuntimeError, transport.registerProducer, self.producer, True)
            transport.unregisterProducer()
            transport.unregisterProducer()
            transport.registerProducer(self.producer, True)
            self.assertEqual(self.events, [])

    def test_a_dead_transport_stops_its_producer(self) -> None:
        """Registering after the end calls stopProducing."""
        for transport in self.both():
            transport.abortConnection()
            transport.turn()
            self.events.clear()
            transport.registerProducer(self.producer, True)
            self.assertEqual(self.events, ["stop"])


class CloseTests(FlowTransportCase):
    """The end of a connection, by us and by the peer."""

    def test_close_waits_for_what_was_written(self) -> None:
        """The order of style: last write, unregister, lose; everything arrives."""
        for transport in self.both():
            transport.registerProducer(self.producer, True)
            transport.write(bytes(100 * KIB) + b"last")
            transport.unregisterProducer()
            transport.loseConnection()
            transport.turn()
            self.assertEqual(self.events, ["pause"])
            self.assertTrue(transport.disconnecting)
            self.assertTrue(transport.take().endswith(b"last"))
            self.assertEqual(self.events, ["pause", "ConnectionDone"])
            self.assertFalse(transport.connected)
            self.assertEqual(transport.peer_saw, "end")

    def test_close_of_an_idle_connection_takes_a_turn(self) -> None:
        """connectionLost never comes from inside loseConnection."""
        for transport in self.both():
            transport.loseConnection()
            self.assertEqual(self.events, [])
            transport.clock.advance(0)
            self.assertEqual(self.events, ["ConnectionDone"])

    def test_tcp_does_not_wait_for_an_unpaused_producer(self) -> None:
        """What it writes later is lost."""
        transport = self.tcp()
        transport.registerProducer(self.producer, True)
        transport.write(b"early")
        transport.loseConnection()
        self.assertEqual(transport.take(), b"early")
        transport.write(b"LATE")
        self.assertEqual(transport.take(), b"")
        self.assertEqual(self.events, ["stop", "ConnectionDone"])

    def test_tcp_waits_for_ever_for_a_paused_producer(self) -> None:
        """It never closes, and not even a reset is noticed."""
        transport = self.tcp()
        transport.registerProducer(self.producer, True)
        transport.write(bytes(100 * KIB))
        transport.loseConnection()
        transport.take()
        transport.peer_closed(ConnectionLost)
        self.assertEqual(self.events, ["pause", "resume"])

    def test_tls_waits_for_ever_for_a_producer(self) -> None:
        """TLS does not close before it is unregistered."""
        transport = self.tls()
        transport.registerProducer(self.producer, True)
        transport.loseConnection()
        transport.take()
        self.assertEqual(self.events, [])
        transport.unregisterProducer()
        transport.turn()
        self.assertEqual(self.events, ["ConnectionDone"])

    def test_tls_waits_for_the_peers_answer(self) -> None:
        """A mute peer holds the connection open until it answers."""
        transport = self.tls()
        transport.mute = True
        transport.loseConnection()
        transport.take()
        self.assertEqual(self.events, [])
        transport.mute = False
        transport.turn()
        self.assertEqual(self.events, ["ConnectionDone"])

    def test_tls_never_closes_while_reading_is_paused(self) -> None:
        """The peer's answer is not read."""
        transport = self.tls()
        transport.pauseProducing()
        transport.loseConnection()
        transport.take()
        self.assertEqual(self.events, [])
        transport.resumeProducing()
        transport.turn()
        self.assertEqual(self.events, ["ConnectionDone"])

    def test_abort_takes_a_turn_and_names_its_kind(self) -> None:
        """ConnectionAborted on TCP, ConnectionLost on TLS; the producer is stopped first."""
        reasons = ("ConnectionAborted", "ConnectionLost")
        for transport, reason in zip(self.both(), reasons, strict=True):
            transport.registerProducer(self.producer, True)
            transport.abortConnection()
            self.assertTrue(transport.aborted)
            self.assertEqual(self.events, [])
            transport.clock.advance(0)
            self.assertEqual(self.events, ["stop", reason])
            self.assertEqual(transport.peer_saw, "reset")

    def test_peer_closes(self) -> None:
        """The producer is stopped before the protocol hears of the end."""
        transport = self.tcp()
        transport.registerProducer(self.producer, True)
        transport.peer_closed()
        self.assertEqual(self.events, ["stop", "ConnectionDone"])

    def test_tls_peer_closes(self) -> None:
        """The answer of TLS is a close of its own, which stops an unpaused producer."""
        transport = self.tls()
        transport.registerProducer(self.producer, True)
        transport.peer_closed()
        self.assertEqual(self.events, ["stop", "ConnectionDone"])

    def test_peer_resets(self) -> None:
        """A reset is ConnectionLost on both kinds."""
        for transport in self.both():
            transport.registerProducer(self.producer, True)
            transport.peer_closed(ConnectionLost)
            self.assertEqual(self.events, ["stop", "ConnectionLost"])

    def test_end_is_not_noticed_while_reading_is_paused(self) -> None:
        """It waits behind the data that waits."""
        transport = self.tcp()
        transport.pauseProducing()
        transport.deliver(b"last")
        transport.peer_closed()
        self.assertEqual((self.protocol.received, self.events), ([], []))
        transport.resumeProducing()
        transport.turn()
        self.assertEqual(self.protocol.received, [b"last"])
        self.assertEqual(self.events, ["ConnectionDone"])

    def test_nothing_is_left_on_the_clock(self) -> None:
        """A connection that has ended has no calls outstanding."""
        for kind in ("tcp", "tls"):
            clock = Clock()
            transport = self.connect(FlowTransport(kind, clock))
            transport.write(b"x")
            transport.deliver(b"y")
            transport.loseConnection()
            transport.take()
            self.assertEqual(clock.getDelayedCalls(), [])


class ReadTests(FlowTransportCase):
    """What the peer sends."""

    def test_one_delivery_is_one_call(self) -> None:
        """Up to the read size, data arrives as it was delivered."""
        for transport in self.both():
            transport.deliver(b"one")
            transport.deliver(b"two")
            self.assertEqual(self.protocol.received, [b"one", b"two"])

    def test_long_deliveries_are_cut(self) -> None:
        """TCP reads 64 KiB at a time, TLS gives one record of 16 KiB at a time."""
        for transport, size in zip(self.both(), (64 * KIB, 16 * KIB), strict=True):
            transport.deliver(bytes(100 * KIB))
            self.assertEqual(len(self.protocol.received[0]), size)
            self.assertEqual(sum(map(len, self.protocol.received)), 100 * KIB)

    def test_data_waits_while_reading_is_paused(self) -> None:
        """It arrives in the turn after the resume, never from inside it."""
        for transport in self.both():
            transport.pauseProducing()
            self.assertTrue(transport.paused)
            transport.deliver(b"one")
            transport.deliver(b"two")
            self.assertEqual(self.protocol.received, [])
            self.assertGreaterEqual(transport.unreceived, 6)
            transport.resumeProducing()
            self.assertFalse(transport.paused)
            self.assertEqual(self.protocol.received, [])
            transport.turn()
            self.assertEqual(b"".join(self.protocol.received), b"onetwo")

    def test_tls_delivers_more_after_a_pause(self) -> None:
        """What was read from the socket is decrypted and delivered; TCP stops at once."""
        for transport, calls in zip(self.both(), (1, 3), strict=True):
            self.protocol.on_data = transport.pauseProducing
            transport.deliver(bytes(300 * KIB))
            self.assertEqual(len(self.protocol.received), calls)

    def test_an_error_costs_the_connection(self) -> None:
        """What a protocol lets out is logged, and is the reason of the loss."""

        def fail() -> None:
            raise LookupError("a bug")

        transport = self.tcp()
        self.protocol.on_data = fail
        transport.deliver(b"x")
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)
        self.assertEqual(self.events, ["LookupError"])
