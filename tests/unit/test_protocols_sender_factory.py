"""Tests for `walstream.protocols.sender_factory`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import (
    IDENTITY,
    NOW,
    SHUT_DOWN,
    START,
    STARTUP,
    MemorySlots,
    kinds,
    messages,
    status,
    wal,
)
from tests.unit.log_capture import capture_log
from walstream.interfaces import WALPosition
from walstream.protocols.sender import WALSender
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.settings import SenderSettings
from walstream.testing.memory import MemoryProvider
from walstream.testing.transport import FlowTransport
from walstream.wire.messages import parse_backend_key_data, query
from walstream.wire.startup import PROTOCOL_3_0, PROTOCOL_3_2, startup_message


class Client:
    """A client of a session that the factory built."""

    def __init__(self, factory: WALSenderFactory, clock: Clock) -> None:
        session = factory.buildProtocol(None)
        assert session is not None
        self.session: WALSender = session
        self.transport = FlowTransport(clock=clock)
        self.transport.connect(session)

    def say(self, data: bytes) -> bytes:
        """Send *data*, and read all that comes."""
        self.transport.deliver(data)
        return self.hear()

    def hear(self) -> bytes:
        heard = b""
        while piece := self.transport.take():
            heard += piece
        return heard

    def log_in(self, version: int = PROTOCOL_3_0) -> bytes:
        """Log in; the pid and the key as a CancelRequest names them."""
        packet = startup_message(STARTUP)
        answer = self.say(packet[:4] + version.to_bytes(4, "big") + packet[8:])
        (body,) = (body for kind, body in messages(answer) if kind == ord("K"))
        return body

    def stream(self) -> None:
        """Log in, and read a stream."""
        self.log_in()
        heard = self.say(query("START_REPLICATION 0/300000"))
        assert kinds(heard) == "Wd"


class WALSenderFactoryTests(SynchronousTestCase):
    """`WALSenderFactory`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.provider = MemoryProvider(IDENTITY, WALPosition(1, START))
        self.end = self.provider.append(wal(START, 100))
        self.slots = MemorySlots()
        self.factory = WALSenderFactory(
            self.provider, self.slots, SenderSettings(wall_clock=lambda: NOW), self.clock
        )
        self.addCleanup(self.check_nothing_is_left)

    def check_nothing_is_left(self) -> None:
        for session in list(self.factory.sessions):
            session.abort("the test is over")
        self.clock.advance(0)
        self.assertEqual(list(self.factory.sessions), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.provider.cursors, [])

    def connect(self) -> Client:
        return Client(self.factory, self.clock)

    # Sessions.

    def test_sessions(self) -> None:
        """The factory knows the sessions that there are, as long as there are."""
        clients = [self.connect(), self.connect()]
        self.assertEqual(list(self.factory.sessions), [client.session for client in clients])
        clients[0].transport.peer_closed()
        self.assertEqual(list(self.factory.sessions), [clients[1].session])

    def test_a_flood(self) -> None:
        """However many connect at once, no more than so many are there until they are gone."""
        settings = SenderSettings(max_clients=2, max_strangers=3)
        factory = WALSenderFactory(self.provider, self.slots, settings, self.clock)
        made = [factory.buildProtocol(None) for _ in range(100)]
        sessions = [session for session in made if session is not None]
        self.assertEqual(len(sessions), 2 + 3 + 50)
        for session in sessions:
            factory.gone(session)
        self.assertIsNotNone(factory.buildProtocol(None))

    def test_look(self) -> None:
        """A look brings up to date how far each client was sent to."""
        clients = [Client(self.factory, self.clock) for _ in range(2)]
        clients[0].stream()
        clients[1].log_in()
        end = self.provider.append(wal(self.provider.end().lsn, 100))
        self.factory.look()
        self.assertEqual([each.sent for each in self.factory.standbys], [end, 0])

    def test_pids_and_keys(self) -> None:
        """Each session has a number of its own, and a key that nobody can guess."""
        bodies = [self.connect().log_in() for _ in range(3)]
        pids, keys = zip(*map(parse_backend_key_data, bodies), strict=True)
        self.assertEqual(len(set(pids)), 3)
        self.assertEqual(len(set(keys)), 3)
        self.assertEqual({len(key) for key in keys}, {4})
        self.assertNotIn(0, pids)

    # CancelRequest.

    def cancel(self, body: bytes) -> None:
        """A connection of its own brings a CancelRequest."""
        packet = bytes.fromhex("04D2162E") + body
        client = self.connect()
        self.assertEqual(client.say((len(packet) + 4).to_bytes(4, "big") + packet), b"")
        self.assertEqual(client.transport.peer_saw, "end")

    def test_cancel(self) -> None:
        """A CancelRequest with pid and key breaks off that session's stream, and no other."""
        client, other = self.connect(), self.connect()
        key = client.log_in()
        client.say(query("START_REPLICATION 0/300000"))
        other.stream()
        self.cancel(key)
        self.assertEqual(kinds(client.hear()), "EZ")
        self.assertEqual(other.hear(), b"")

    def test_cancel_with_a_wrong_key(self) -> None:
        """Without the key, or with another's pid, nothing happens."""
        client = self.connect()
        key = client.log_in()
        client.say(query("START_REPLICATION 0/300000"))
        wrong = bytes([key[-1] ^ 1])
        for body in (
            key[:-1] + wrong,
            key[:4],
            key[:-1],
            key + b"\0",
            b"\0\0\0\x63" + key[4:],
            b"",
        ):
            self.cancel(body)
        self.assertEqual(client.hear(), b"")

    def test_cancel_with_a_part_of_the_key(self) -> None:
        """A client of protocol 3.2 has a long key, of which the beginning is not enough."""
        client = self.connect()
        key = client.log_in(PROTOCOL_3_2)
        self.assertEqual(len(key), 4 + 32)
        client.say(query("START_REPLICATION 0/300000"))
        self.cancel(key[:8])
        self.assertEqual(client.hear(), b"")
        self.cancel(key)
        self.assertEqual(kinds(client.hear()), "EZ")

    def test_slot_is_taken_from_a_session(self) -> None:
        """The slot store ends a session by its pid, and no other; one that is gone is none."""
        client, other = self.connect(), self.connect()
        for each in (client, other):
            each.stream()
        self.slots.terminate(client.session.pid)
        self.slots.terminate(99)
        self.assertEqual(kinds(client.hear()), "E")
        self.assertEqual(other.hear(), b"")

    # drain.

    def test_drain_without_sessions(self) -> None:
        """Without sessions it is done at once, and nobody is let in any more."""
        self.successResultOf(self.factory.drain(10))
        self.assertIsNone(self.factory.buildProtocol(None))

    def test_drain(self) -> None:
        """Idle sessions end at once, streams when everything is acknowledged."""
        idle, streaming = self.connect(), self.connect()
        idle.log_in()
        streaming.stream()
        drained = self.factory.drain(10)
        self.assertIsNone(self.factory.buildProtocol(None))
        self.assertEqual(kinds(idle.hear()), "E")
        self.assertEqual(kinds(streaming.hear()), "d")
        self.assertNoResult(drained)
        self.assertEqual(streaming.say(status(self.end)), SHUT_DOWN)
        self.successResultOf(drained)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_grace(self) -> None:
        """Who has not gone when the grace is over is cut off, and the log names it."""
        texts = capture_log(self)
        client = self.connect()
        client.stream()
        drained = self.factory.drain(10)
        self.clock.advance(9.9)
        self.assertNoResult(drained)
        self.clock.advance(0.2)
        self.successResultOf(drained)
        self.assertEqual(client.transport.peer_saw, "reset")
        self.assertIn("replication connection 1 did not end in time: aborted", texts)

    def test_drain_with_half_open_connections(self) -> None:
        """Who has not said who it is ends at once."""
        self.connect()
        client = self.connect()
        client.transport.deliver(startup_message(STARTUP)[:10])
        drained = self.factory.drain(10)
        for session in list(self.factory.sessions):
            assert session.transport is not None
        self.clock.advance(5.1)
        self.successResultOf(drained)

    def test_drain_twice(self) -> None:
        """Asked a second time, both wait for the same."""
        client = self.connect()
        client.stream()
        first, second = self.factory.drain(10), self.factory.drain(10)
        client.hear()
        self.assertNoResult(first)
        self.assertEqual(client.say(status(self.end)), SHUT_DOWN)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.factory.drain(10))

    def test_waiter_may_give_up(self) -> None:
        """A caller that cancels its wait does not keep sessions from ending."""
        client = self.connect()
        client.stream()
        drained = self.factory.drain(10)
        drained.addErrback(lambda _: None)
        drained.cancel()
        client.hear()
        self.assertEqual(client.say(status(self.end)), SHUT_DOWN)
        self.assertEqual(list(self.factory.sessions), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
