"""Tests for `walstream.protocols.admission`, and of how sessions keep to it."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import IDENTITY, NOW, START, STARTUP, MemorySlots, error, kinds
from tests.unit.log_capture import capture_log
from walstream.interfaces import SystemIdentity, WALPosition
from walstream.protocols.admission import ClientLimit, Strangers, too_many_clients
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.settings import SenderSettings
from walstream.testing.memory import MemoryProvider
from walstream.testing.transport import FlowTransport
from walstream.wire.startup import startup_message


class ClientLimitTests(SynchronousTestCase):
    """`ClientLimit`."""

    def test_limit(self) -> None:
        """So many come in; one more when one has left."""
        limit = ClientLimit(2)
        self.assertEqual([limit.enter(pid) for pid in (1, 2, 3)], [True, True, False])
        limit.leave(3)
        self.assertFalse(limit.enter(4))
        limit.leave(1)
        self.assertTrue(limit.enter(5))

    def test_no_limit(self) -> None:
        """With 0 any number comes in."""
        limit = ClientLimit(0)
        self.assertTrue(all(limit.enter(pid) for pid in range(5000)))

    def test_words(self) -> None:
        """PostgreSQL's, which have changed with 17."""
        for version, name in (("16.10", "max_wal_senders"), ("17.6", '"max_wal_senders"')):
            said = too_many_clients(10, version)
            self.assertEqual(said.sqlstate, "53300")
            self.assertEqual(
                said.message,
                f"number of requested standby connections exceeds {name} (currently 10)",
            )


class StrangersTests(SynchronousTestCase):
    """`Strangers`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.strangers = Strangers(2, self.clock)
        self.closed: list[int] = []

    def enter(self, pid: int, address: str | None = None) -> None:
        self.strangers.enter(pid, address, lambda: self.closed.append(pid))

    def test_the_oldest_go(self) -> None:
        """Of one too many, the one that has been there longest."""
        for pid in (1, 2, 3, 4):
            self.enter(pid)
        self.assertEqual(self.closed, [1, 2])
        self.assertEqual(len(self.strangers), 2)

    def test_of_the_most(self) -> None:
        """Whoever has the most connections loses them, and not who comes from elsewhere."""
        self.strangers = Strangers(5, self.clock)
        self.enter(1, "192.0.2.1")
        self.enter(2, "2001:db8::1")
        self.enter(3)
        for pid in range(4, 20):
            self.enter(pid, "192.0.2.2")
        self.assertEqual(self.closed, list(range(4, 18)))
        for pid in range(20, 30):
            self.enter(pid, f"2001:db8::{pid}")
        self.assertEqual(self.closed[14:], [2, *range(20, 29)])

    def test_who_has_left_is_not_closed(self) -> None:
        """Who has said who it is stays, whoever comes."""
        self.enter(1)
        self.strangers.leave(1)
        for pid in (2, 3, 4):
            self.enter(pid)
        self.assertEqual(self.closed, [2])

    def test_log(self) -> None:
        """A flood is said once, and again after a minute, with the number."""
        texts = capture_log(self)
        for pid in range(1000):
            self.enter(pid)
        self.assertEqual(len(texts), 1)
        self.clock.advance(60)
        self.enter(1000)
        self.assertEqual(len(texts), 2)
        self.assertIn("(998 since", texts[1])


class AdmissionTests(SynchronousTestCase):
    """The sessions of a factory that lets two clients in, and knows three strangers."""

    identity = IDENTITY

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        provider = MemoryProvider(self.identity, WALPosition(1, START))
        settings = SenderSettings(max_clients=2, max_strangers=3, wall_clock=lambda: NOW)
        self.factory = WALSenderFactory(provider, MemorySlots(), settings, self.clock)
        self.addCleanup(self.end)

    def end(self) -> None:
        for session in list(self.factory.sessions):
            session.abort("the test is over")
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.factory.limits.strangers), 0)

    def connect(self) -> FlowTransport:
        session = self.factory.buildProtocol(None)
        assert session is not None
        transport = FlowTransport(clock=self.clock)
        transport.connect(session)
        return transport

    def log_in(self) -> tuple[FlowTransport, bytes]:
        transport = self.connect()
        transport.deliver(startup_message(STARTUP))
        return transport, transport.take()

    def test_too_many_clients(self) -> None:
        """The third is told why it has to go, before AuthenticationOk, and the log has it."""
        texts = capture_log(self)
        (first, answer), _ = self.log_in(), self.log_in()
        self.assertEqual(kinds(answer)[0], "R")
        third, answer = self.log_in()
        message = 'number of requested standby connections exceeds "max_wal_senders" (currently 2)'
        self.assertEqual(answer, error("FATAL", "53300", message))
        self.assertEqual(third.peer_saw, "end")
        client = "user=postgres application_name=pg_receivewal host=127.0.0.1 port=40001"
        self.assertIn(f"replication connection 3 refused: {client}: {message}", texts)
        first.peer_closed()
        _, answer = self.log_in()
        self.assertEqual(kinds(answer)[0], "R")

    def test_who_is_refused_takes_no_place(self) -> None:
        """Nor does who asks for something that there is not."""
        for _ in range(3):
            transport = self.connect()
            transport.deliver(startup_message({"user": "postgres", "replication": "database"}))
            self.assertEqual(kinds(transport.take()), "E")
        _, answer = self.log_in()
        self.assertEqual(kinds(answer)[0], "R")

    def test_connections_that_wait(self) -> None:
        """Those that say nothing are closed, the oldest first; clients are not."""
        (client, _), silent = self.log_in(), [self.connect() for _ in range(5)]
        silent[0].deliver(b"\0")
        self.clock.advance(0)
        self.assertEqual([s.peer_saw for s in silent], ["reset", "reset", "open", "open", "open"])
        self.assertEqual(client.peer_saw, "open")
        _, answer = self.log_in()
        self.assertEqual(kinds(answer)[0], "R")


class OldVersionTests(AdmissionTests):
    """The same for an archive of an older server."""

    identity = SystemIdentity(IDENTITY.system_identifier, IDENTITY.segment_size, "15.14")

    def test_too_many_clients(self) -> None:
        """The words are of that version."""
        self.log_in()
        self.log_in()
        _, answer = self.log_in()
        self.assertIn(b"exceeds max_wal_senders (currently 2)", answer)
