"""Tests for `walstream.protocols.direct`: past Twisted's TCP transport, and in step with it."""

from __future__ import annotations

import socket
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import main, tcp
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.unit.conversation import IDENTITY, NOW, START, streamed, wal
from walstream.formats.lsn import LSN
from walstream.interfaces import WALPosition
from walstream.protocols.direct import READ_SIZE, DirectReader, DirectWriter, direct_connection
from walstream.protocols.pump import MESSAGE_SIZE, QUANTUM, WALPump
from walstream.testing.memory import MemoryProvider
from walstream.testing.transport import FlowTransport
from walstream.wire.stream import WALPayload

SEND_BUFFER = 64 * 1024


@implementer(IPushProducer)
class Session(Protocol):
    """Notes what it is told, as a protocol and as its transport's producer."""

    def __init__(self) -> None:
        self.received = b""
        self.events: list[str] = []

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.events.append("dataReceived")
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append(type(reason.value).__name__)

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")

    def stopProducing(self) -> None:
        self.events.append("stop")


class SocketReactor(Clock):
    """What a connection over a real socket needs of a reactor; its turns are the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[tcp.Connection] = []
        self.writers: list[tcp.Connection] = []

    def addReader(self, reader: tcp.Connection) -> None:
        self.readers = [reader]

    def addWriter(self, writer: tcp.Connection) -> None:
        self.writers = [writer]

    def removeReader(self, reader: tcp.Connection) -> None:
        self.readers = []

    def removeWriter(self, writer: tcp.Connection) -> None:
        self.writers = []

    def turn(self) -> None:
        """As `twisted.internet.posixbase`, with everything ready."""
        for reader in self.readers:
            self._note(reader, reader.doRead())
        for writer in self.writers:
            self._note(writer, cast(Any, writer.doWrite()))

    def _note(self, connection: tcp.Connection, why: Exception | None) -> None:
        if why is not None:
            self.readers, self.writers = [], []
            connection.connectionLost(Failure(why))


class SocketCase(SynchronousTestCase):
    """A `twisted.internet.tcp.Connection` over one end of a real pair of sockets."""

    def setUp(self) -> None:
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        ours.setblocking(False)
        self.addCleanup(self.peer.close)
        self.addCleanup(ours.close)
        self.reactor = SocketReactor()
        self.session = Session()
        self.connection = tcp.Connection(ours, self.session, cast(Any, self.reactor))
        self.connection.connected = 1
        self.session.makeConnection(cast(Any, self.connection))
        self.connection.startReading()

    def hear(self) -> bytes:
        """What the peer can read at this moment."""
        heard = bytearray()
        while True:
            try:
                piece = self.peer.recv(1 << 20)
            except BlockingIOError:
                return bytes(heard)
            if not piece:
                return bytes(heard)
            heard += piece

    def hear_all(self) -> bytes:
        """What the peer reads in as many turns as it takes."""
        heard = self.hear()
        while True:
            self.reactor.turn()
            piece = self.hear()
            heard += piece
            if not piece:
                return heard


class DirectConnectionTests(SynchronousTestCase):
    """`direct_connection`."""

    def test_tcp(self) -> None:
        """Twisted's own TCP transport can be gone past."""
        session = FlowTransport().connect(Session(), direct=True)
        self.assertIs(direct_connection(session.transport), session.transport)

    def test_tls(self) -> None:
        """TLS cannot: neither on top of TCP nor in the transport itself, after startTLS."""
        session = FlowTransport("tls").connect(Session())
        self.assertIsNone(direct_connection(session.transport))
        session = FlowTransport().connect(Session(), direct=True)
        session.transport.TLS = True  # type: ignore[union-attr]
        self.assertIsNone(direct_connection(session.transport))

    def test_others(self) -> None:
        """Nor can any other transport, or none."""
        session = FlowTransport().connect(Session())
        self.assertIsNone(direct_connection(session.transport))
        self.assertIsNone(direct_connection(None))


class DirectReaderTests(SocketCase):
    """`DirectReader`."""

    def setUp(self) -> None:
        super().setUp()
        self.views: list[memoryview] = []
        self.heard = bytearray()
        self.reader = DirectReader(self.connection, self.deliver)

    def deliver(self, data: memoryview) -> None:
        self.views.append(data)
        self.heard += data

    def test_reads(self) -> None:
        """What the peer sends is delivered, and not by way of the transport."""
        self.peer.sendall(b"abc")
        self.reactor.turn()
        self.peer.sendall(b"def")
        self.reactor.turn()
        self.assertEqual(self.heard, b"abcdef")
        self.assertEqual(self.session.events, [])

    def test_one_buffer(self) -> None:
        """All reads go into the same memory."""
        for _ in range(3):
            self.peer.sendall(b"abc")
            self.reactor.turn()
        self.assertEqual(len({id(view.obj) for view in self.views}), 1)
        self.assertEqual(len(cast(bytearray, self.views[0].obj)), READ_SIZE)

    def test_nothing_there(self) -> None:
        """A turn with nothing to read delivers nothing, and loses nothing."""
        self.reactor.turn()
        self.assertEqual((self.heard, self.session.events), (b"", []))

    def test_end(self) -> None:
        """The peer's end comes after all that it sent, as with the transport."""
        self.peer.sendall(b"abc")
        self.peer.close()
        self.reactor.turn()
        self.assertEqual(self.session.events, [])
        self.reactor.turn()
        self.assertEqual(self.heard, b"abc")
        self.assertEqual(self.session.events, ["stop", "ConnectionDone"])

    def test_lost(self) -> None:
        """An error of the socket is a lost connection."""
        self.connection.getHandle().close()
        self.assertIs(self.connection.doRead(), main.CONNECTION_LOST)

    def test_pause(self) -> None:
        """Pausing is the transport's: nothing is read until it is resumed."""
        self.connection.pauseProducing()
        self.peer.sendall(b"abc")
        self.reactor.turn()
        self.assertEqual(self.heard, b"")
        self.connection.resumeProducing()
        self.reactor.turn()
        self.assertEqual(self.heard, b"abc")

    def test_pause_within(self) -> None:
        """A pause within a delivery holds from the next read on."""
        self.reader.detach()
        self.reader = DirectReader(self.connection, self.deliver_and_pause)
        for _ in range(2):
            self.peer.sendall(b"abc")
            self.reactor.turn()
        self.assertEqual(self.heard, b"abc")

    def deliver_and_pause(self, data: memoryview) -> None:
        self.deliver(data)
        self.connection.pauseProducing()

    def test_detach(self) -> None:
        """Detached, also within a delivery, the transport reads for itself again."""
        self.reader.detach()
        self.reader = DirectReader(self.connection, self.deliver_and_detach)
        for data in (b"abc", b"def"):
            self.peer.sendall(data)
            self.reactor.turn()
        self.assertEqual((self.heard, self.session.received), (b"abc", b"def"))
        self.reader.detach()

    def deliver_and_detach(self, data: memoryview) -> None:
        self.deliver(data)
        self.reader.detach()

    def test_attached_again(self) -> None:
        """A connection may be read directly, then not, then again."""
        self.reader.detach()
        self.peer.sendall(b"abc")
        self.reactor.turn()
        self.reader = DirectReader(self.connection, self.deliver)
        self.peer.sendall(b"def")
        self.reactor.turn()
        self.assertEqual((self.session.received, self.heard), (b"abc", b"def"))

    def test_close_within(self) -> None:
        """A close within a delivery is the transport's, and in order."""
        self.reader.detach()
        self.reader = DirectReader(self.connection, self.deliver_and_close)
        self.peer.sendall(b"abc")
        self.reactor.turn()
        self.reactor.turn()
        self.assertEqual(self.heard, b"abc")
        self.assertEqual(self.session.events, ["stop", "ConnectionDone"])

    def deliver_and_close(self, data: memoryview) -> None:
        self.deliver(data)
        self.connection.unregisterProducer()
        self.session.events.append("stop")
        self.connection.loseConnection()


class DirectWriterTests(SocketCase):
    """`DirectWriter`."""

    def setUp(self) -> None:
        super().setUp()
        self.writer = DirectWriter(self.connection, SEND_BUFFER)

    def test_send_buffer(self) -> None:
        """The socket's send buffer has the size that was asked for (Linux doubles it)."""
        size = self.connection.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        self.assertIn(size, (SEND_BUFFER, 2 * SEND_BUFFER))

    def test_sends_at_once(self) -> None:
        """What the socket takes has left when `write` returns."""
        self.assertTrue(self.writer.may_write())
        self.assertEqual(self.writer.write([b"abc", memoryview(b"def")]), 6)
        self.assertEqual(self.hear(), b"abcdef")
        self.assertEqual(self.session.events, [])
        self.assertTrue(self.writer.may_write())

    def test_what_the_socket_does_not_take(self) -> None:
        """It is kept, and its producer paused; it leaves in the next turns, then all goes on."""
        data = bytes(range(256)) * 4096
        sent = self.writer.write([data[:1000], memoryview(data)[1000:]])
        self.assertLess(sent, len(data))
        self.assertEqual(self.session.events, ["pause"])
        self.assertFalse(self.writer.may_write())
        self.assertEqual(self.hear_all(), data)
        self.assertEqual(self.session.events[-1], "resume")
        self.assertTrue(self.writer.may_write())

    def test_kept_views_are_not_copied(self) -> None:
        """What is kept are views of the memory that was given."""
        data = memoryview(bytes(1 << 20))
        self.writer.write([data])
        (kept,) = self.writer._unsent
        self.assertIs(kept.obj, data.obj)

    def test_behind_what_the_transport_holds(self) -> None:
        """While the transport has something to write, it is not the time; then it is."""
        self.connection.write(b"first")
        self.assertFalse(self.writer.may_write())
        self.assertEqual(self.session.events, ["pause"])
        self.reactor.turn()
        self.assertEqual(self.session.events, ["pause", "resume"])
        self.assertTrue(self.writer.may_write())
        self.writer.write([b"second"])
        self.assertEqual(self.hear(), b"firstsecond")

    def test_before_what_the_transport_is_given(self) -> None:
        """What is kept leaves before whatever is written to the transport afterwards."""
        data = bytes(1 << 20)
        self.writer.write([data])
        self.connection.write(b"afterwards")
        heard = self.hear_all()
        self.assertEqual((heard[:-10], heard[-10:]), (data, b"afterwards"))

    def test_close_waits(self) -> None:
        """The connection closes once everything has left, whoever it was written to."""
        data = bytes(1 << 20)
        self.writer.write([data])
        self.connection.write(b"last words")
        self.connection.unregisterProducer()
        self.connection.loseConnection()
        self.assertEqual(self.hear_all(), data + b"last words")
        self.assertEqual(self.session.events, ["pause", "ConnectionDone"])

    def test_close_with_nothing_but_views(self) -> None:
        """Also if nothing was written to the transport itself."""
        data = bytes(1 << 20)
        self.writer.write([data])
        self.connection.unregisterProducer()
        self.connection.loseConnection()
        self.assertEqual(self.hear_all(), data)
        self.assertEqual(self.session.events, ["pause", "ConnectionDone"])

    def test_abort(self) -> None:
        """An abort does not wait for what is kept."""
        self.writer.write([bytes(1 << 20)])
        self.connection.abortConnection()
        self.reactor.advance(0)
        self.assertIn("ConnectionAborted", self.session.events)

    def test_peer_is_gone(self) -> None:
        """A lost connection is found out in the next turn, not in the write."""
        self.peer.close()
        self.assertEqual(self.writer.write([b"abc"]), 0)
        self.assertEqual(self.session.events, ["pause"])
        self.reactor.turn()
        self.assertEqual(len(self.session.events), 3)
        self.assertEqual(self.session.events[1], "stop")

    def test_peer_goes_while_something_is_kept(self) -> None:
        """Nor does what is kept hide it."""
        self.writer.write([bytes(1 << 20)])
        self.connection.pauseProducing()
        self.peer.close()
        self.reactor.turn()
        self.assertEqual(self.session.events[-1], "ConnectionLost")

    def test_pause_producer(self) -> None:
        """A producer that has had its share is resumed in the next turn, not before."""
        self.writer.pause_producer()
        self.assertEqual(self.session.events, ["pause"])
        self.reactor.turn()
        self.assertEqual(self.session.events, ["pause", "resume"])

    def test_without_a_producer(self) -> None:
        """Without a producer nobody is paused, and all leaves."""
        self.connection.unregisterProducer()
        data = bytes(1 << 20)
        self.writer.write([data])
        self.assertEqual(self.hear_all(), data)
        self.assertEqual(self.session.events, [])


class PumpedSession(Session):
    """Has a pump for its producer; may be told to write something else, as keepalives are."""

    def __init__(self, provider: MemoryProvider) -> None:
        super().__init__()
        self.provider = provider

    def connectionMade(self) -> None:
        connection = direct_connection(self.transport)
        assert connection is not None
        cursors: list[Any] = []
        self.provider.open(1, LSN(START)).addCallback(cursors.append)
        self.writer = DirectWriter(connection, SEND_BUFFER)
        self.pump = WALPump(
            cursors[0],
            cast(Any, connection),
            self.writer,
            WALPayload.MODERN,
            lambda: NOW,
            lambda: None,
            lambda failure: None,
        )
        super().connectionMade()
        self.is_paused = False
        self.pump.resumeProducing()

    def pauseProducing(self) -> None:
        self.is_paused = True
        self.pump.pauseProducing()

    def resumeProducing(self) -> None:
        self.is_paused = False
        self.pump.resumeProducing()

    def stopProducing(self) -> None:
        self.pump.stopProducing()


class EagerSocket:
    """Takes everything at once."""

    def __init__(self) -> None:
        self.taken = b""

    def sendmsg(self, parts: list[bytes | memoryview]) -> int:
        data = b"".join(parts)
        self.taken += data
        return len(data)


NOTICE = b"N\x00\x00\x00\x05\x00"


class DirectPumpTests(SynchronousTestCase):
    """A pump that goes past its transport."""

    steps = st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 400_000)),
            st.tuples(st.just("take"), st.integers(1, 900_000)),
            st.tuples(st.just("write"), st.just(0)),
            st.tuples(st.just("turn"), st.just(0)),
            st.tuples(st.just("hold"), st.just(0)),
            st.tuples(st.just("let go"), st.just(0)),
        ),
        max_size=25,
    )

    @settings(max_examples=60, deadline=None)
    @given(steps)
    def test_any_order(self, steps: list[tuple[str, int]]) -> None:
        """Whatever is written by whichever way, and read in whatever amounts, stays in order."""
        provider = MemoryProvider(IDENTITY, WALPosition(1, START))
        transport = FlowTransport()
        session = transport.connect(PumpedSession(provider), direct=True)
        heard, written = bytearray(), 0
        for step, size in steps:
            match step:
                case "append":
                    provider.append(wal(provider.end().lsn, size))
                case "take":
                    heard += transport.take(size)
                case "write" if not session.is_paused:
                    session.transport.write(NOTICE)  # type: ignore[union-attr]
                    written += 1
                case "turn":
                    transport.turn()
                case "hold":
                    provider.hold_back()
                case "let go":
                    provider.let_go()
            unsent = sum(len(view) for view in session.writer._unsent)
            self.assertLessEqual(unsent, DirectWriter.batch * (MESSAGE_SIZE + 30))
        provider.let_go()
        while piece := transport.take():
            heard += piece
        found, others = streamed(bytes(heard), START)
        self.assertEqual(found, wal(START, provider.end().lsn - START))
        self.assertEqual(len(others), written)

    def test_takes_turns(self) -> None:
        """A client that takes all that it is given gets its share, then the others have a turn."""
        provider = MemoryProvider(IDENTITY, WALPosition(1, START))
        session = FlowTransport().connect(PumpedSession(provider), direct=True)
        session.writer._socket = eager = cast(Any, EagerSocket())
        provider.append(wal(START, 3 * QUANTUM))
        shares = []
        while not session.pump.caught_up:
            before = session.pump.sent
            self.assertTrue(session.is_paused)
            session.resumeProducing()
            shares.append(session.pump.sent - before)
        self.assertEqual(streamed(eager.taken, START)[0], wal(START, 3 * QUANTUM))
        self.assertLessEqual(max(shares), QUANTUM + DirectWriter.batch * MESSAGE_SIZE)

    def test_stop_while_something_is_kept(self) -> None:
        """What was given to the connection before the stop still leaves, whole and unchanged."""
        provider = MemoryProvider(IDENTITY, WALPosition(1, START))
        provider.append(wal(START, 1 << 20))
        transport = FlowTransport()
        session = transport.connect(PumpedSession(provider), direct=True)
        heard = transport.take(1000)
        session.pump.stopProducing()
        session.transport.write(NOTICE)  # type: ignore[union-attr]
        while piece := transport.take():
            heard += piece
        found, others = streamed(heard, START)
        self.assertEqual(found, wal(START, len(found)))
        self.assertEqual(session.pump.sent, START + len(found))
        self.assertEqual(len(others), 1)

    def test_connection_is_lost(self) -> None:
        """A lost connection stops the pump."""
        for reason in (ConnectionDone, ConnectionLost):
            provider = MemoryProvider(IDENTITY, WALPosition(1, START))
            provider.append(wal(START, 1 << 20))
            transport = FlowTransport()
            transport.connect(PumpedSession(provider), direct=True)
            transport.take(1000)
            transport.peer_closed(reason)
            self.assertFalse(transport.connected)
            self.assertEqual(provider.cursors, [])
