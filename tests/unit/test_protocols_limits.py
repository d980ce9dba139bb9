"""Tests of what `walstream.protocols.limits` does to sessions: rates, delays, lag, log lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import (
    COPY_BOTH,
    IDENTITY,
    NOW,
    SIZE,
    START,
    STARTUP,
    MemorySlots,
    keepalive,
    kinds,
    messages,
    status,
    streamed,
    wal,
)
from tests.unit.log_capture import capture_log
from walstream.interfaces import WALPosition
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.settings import SenderSettings
from walstream.protocols.standbys import Standby
from walstream.testing.memory import MemoryProvider
from walstream.testing.transport import FlowTransport
from walstream.wire.messages import query
from walstream.wire.startup import startup_message
from walstream.wire.stream import StreamReader, WALPayload

MB = 1 << 20


class Client:
    """A client of a factory's, which reads whatever comes.

    :ivar received: how much WAL came, and in which `sizes`.
    """

    def __init__(
        self,
        factory: WALSenderFactory,
        clock: Clock,
        kind: Literal["tcp", "tls"] = "tcp",
        *,
        direct: bool = False,
    ) -> None:
        session = factory.buildProtocol(None)
        assert session is not None
        self.session = session
        self.received = 0
        self.heard = b""
        self.transport = FlowTransport(kind, clock)
        self.transport.connect(session, direct=direct)
        self._reader = StreamReader(WALPayload.MODERN)

    def stream(self, name: str, start: str = "0/300000", timeline: int = 1) -> None:
        """Log in under a name, and ask for a stream."""
        self.transport.deliver(startup_message({**STARTUP, "application_name": name}))
        self.hear()
        self.transport.deliver(query(f"START_REPLICATION {start} TIMELINE {timeline}"))

    def hear(self) -> bytes:
        heard = b""
        while piece := self.transport.take():
            heard += piece
        return heard

    def read(self) -> None:
        """Read all that comes, and count the WAL."""
        heard = self.hear()
        if heard.startswith(COPY_BOTH):
            heard = heard[len(COPY_BOTH) :]
        for event in self._reader.events(memoryview(heard)):
            if isinstance(event[1], memoryview):
                self.received += len(event[1])


class LimitsCase(SynchronousTestCase):
    """A factory over a provider that holds eight MiB."""

    settings = SenderSettings()

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.texts = capture_log(self)
        self.provider = MemoryProvider(IDENTITY, WALPosition(1, START))
        for _ in range(8):
            self.append(SIZE)
        settings = replace(self.settings, wall_clock=lambda: NOW, monotonic=self.clock.seconds)
        self.factory = WALSenderFactory(self.provider, MemorySlots(), settings, self.clock)
        self.factory.startFactory()
        self.addCleanup(self.end)

    def end(self) -> None:
        self.factory.stopFactory()
        for session in list(self.factory.sessions):
            session.abort("the test is over")
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.provider.cursors, [])

    def append(self, size: int) -> int:
        return self.provider.append(wal(self.provider.end().lsn, size))

    def client(
        self, name: str = "s1", kind: Literal["tcp", "tls"] = "tcp", *, direct: bool = False
    ) -> Client:
        client = Client(self.factory, self.clock, kind, direct=direct)
        client.stream(name)
        return client

    def standby(self) -> Standby:
        self.factory.look()
        (standby,) = self.factory.standbys
        return standby

    def read_for(self, seconds: float, *clients: Client) -> None:
        for _ in range(round(seconds * 100)):
            self.clock.advance(0.01)
            for client in clients:
                client.read()


class RateTests(LimitsCase):
    """--max-rate"""

    settings = SenderSettings(max_rate=MB)

    def test_on_every_way(self) -> None:
        """Over TCP, straight to the socket, and over TLS: a megabyte a second, and in order."""
        for client in (
            self.client(direct=False),
            self.client(direct=True),
            self.client(kind="tls"),
        ):
            self.read_for(2.0, client)
            self.assertGreater(client.received, 2.0 * MB * 0.98)
            self.assertLess(client.received, 2.2 * MB)
            client.session.abort("enough")

    def test_each_for_itself(self) -> None:
        """One that reads does not take from another."""
        clients = [self.client(), self.client()]
        self.read_for(2.0, *clients)
        for client in clients:
            self.assertGreater(client.received, 2.0 * MB * 0.98)

    def test_the_wal_is_whole(self) -> None:
        """However it is cut, it is what was there, in messages that end where pages do."""
        client = self.client()
        heard = b""
        for _ in range(100):
            self.clock.advance(0.01)
            heard += client.hear()
        data, _ = streamed(heard[len(COPY_BOTH) :], START)
        self.assertEqual(data, wal(START, len(data)))
        self.assertEqual(len(data) % 8192, 0)

    def test_live(self) -> None:
        """A client that has everything gets what comes at once, up to the burst."""
        client = self.client()
        self.read_for(10.0, client)
        self.assertEqual(client.received, 8 * MB)
        for _ in range(20):
            self.append(5000)
            client.read()
            self.clock.advance(0.01)
        self.assertEqual(client.received, 8 * MB + 100_000)

    def test_what_is_not_limited(self) -> None:
        """Replies go out at once, and tell how far it is."""
        client = self.client()
        client.read()
        client.transport.deliver(status(START, reply_requested=True))
        reached = self.standby().sent
        self.assertEqual(client.hear(), keepalive(reached, reply_requested=False))
        self.assertLess(reached, START + SIZE)

    def test_sent(self) -> None:
        """How far a client is, is known though it says nothing and never has everything."""
        client = self.client(direct=True)
        for _ in range(5):
            self.read_for(0.2, client)
            self.assertEqual(self.standby().sent, START + client.received)

    def test_no_silence(self) -> None:
        """A client that waits for its rate is asked, answers, and stays."""
        self.append(100 * SIZE)
        client = self.client()
        for _ in range(80):
            self.clock.advance(1.0)
            if any(body[:1] == b"k" and body[-1] for _, body in messages(client.hear())):
                client.transport.deliver(status(START))
        self.assertEqual(client.transport.peer_saw, "open")

    def test_silence(self) -> None:
        """One that does not answer is cut off, whatever waits."""
        self.append(100 * SIZE)
        client = self.client()
        for _ in range(61):
            self.clock.advance(1.0)
            client.hear()
        self.assertEqual(client.transport.peer_saw, "reset")

    def test_silence_of_one_that_does_not_read(self) -> None:
        """One whose output is full is cut off as well."""
        for direct in (False, True):
            client = self.client(direct=direct)
            self.clock.pump([1.0] * 61)
            self.assertEqual(client.transport.peer_saw, "reset")


class TotalRateTests(LimitsCase):
    """--max-total-rate"""

    settings = SenderSettings(max_total_rate=MB)

    def test_together(self) -> None:
        """All of them together get a megabyte a second, and each its share."""
        clients = [self.client(direct=number % 2 == 0) for number in range(4)]
        self.read_for(4.0, *clients)
        received = [client.received for client in clients]
        self.assertGreater(sum(received), 3.9 * MB)
        self.assertLess(sum(received), 4.2 * MB)
        self.assertGreater(min(received), 0.8 * MB)

    def test_one_that_leaves(self) -> None:
        """Its share is the others'."""
        clients = [self.client() for _ in range(2)]
        self.read_for(1.0, *clients)
        clients[0].session.abort("enough")
        before = clients[1].received
        self.read_for(2.0, clients[1])
        self.assertGreater(clients[1].received - before, 1.9 * MB)


class DelayTests(LimitsCase):
    """--delay"""

    settings = SenderSettings(delays={"Late": 60.0, "*": 0.0})

    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(100)  # what was there at the start is old now

    def test_later(self) -> None:
        """The client of that name has what is new a minute later; others at once."""
        late, prompt = self.client("late"), self.client("prompt")
        self.read_for(0.1, late, prompt)
        self.assertEqual((late.received, prompt.received), (8 * MB, 8 * MB))
        self.append(1000)
        for _ in range(2):
            self.read_for(29.9, late, prompt)
            for client in (late, prompt):
                client.transport.deliver(status(START))
        self.assertEqual((late.received, prompt.received), (8 * MB, 8 * MB + 1000))
        self.assertEqual(late.session.stream and late.session.stream.sent, START + 8 * MB)
        self.read_for(1.5, late)
        self.assertEqual(late.received, 8 * MB + 1000)

    def test_no_silence(self) -> None:
        """It is asked meanwhile, told how far it is, and stays if it answers."""
        client = self.client("late")
        client.read()
        self.append(1000)
        asked = 0
        for _ in range(55):
            self.clock.advance(1.0)
            if client.hear() == keepalive(START + 8 * SIZE, reply_requested=True):
                asked += 1
                client.transport.deliver(status(START))
        self.assertEqual(asked, 1)
        self.assertEqual(client.transport.peer_saw, "open")

    def test_a_promotion(self) -> None:
        """The end of the timeline comes as late; also to who asks for it anew."""
        client = self.client("late")
        client.read()
        self.provider.end_timeline()
        self.clock.pump([1.0] * 30)
        self.assertEqual(kinds(client.hear()), "d")  # a keepalive
        client.transport.deliver(status(START))
        client.session.abort("it connects again")
        self.clock.advance(0)
        client = Client(self.factory, self.clock)
        client.stream("late", "0/B00000")
        self.assertEqual(client.hear(), COPY_BOTH)
        self.clock.pump([1.0] * 28)
        self.assertEqual(client.hear(), b"")
        self.clock.pump([1.0] * 5)
        self.assertEqual(kinds(client.hear()), "dc")

    def test_shut_down(self) -> None:
        """A stop of the service does not wait for what is not old enough, nor give it."""
        client = self.client("late")
        client.read()
        self.append(1000)
        drained = self.factory.drain(10)
        client.transport.deliver(status(START + 8 * MB, START + 8 * MB))
        self.assertEqual(kinds(client.hear()), "dC")
        self.successResultOf(drained)


class LagTests(LimitsCase):
    """--lag-warning"""

    settings = SenderSettings(lag_warning=3 * MB, delays={"late": 1e6})

    def lines(self) -> list[str]:
        return [text.partition(": ")[0] for text in self.texts if "behind" in text or "up" in text]

    def report(self, client: Client, position: int) -> None:
        client.transport.deliver(status(position, position))
        self.clock.pump([1.0] * 5)

    def test_once_each_way(self) -> None:
        """It is said once when one falls behind, and once when it is back below half of it."""
        client = self.client()
        client.read()
        end = START + 8 * MB
        for position in (end, end - 3 * MB, end - 4 * MB, end - 6 * MB, end - 3 * MB, end - 2 * MB):
            self.report(client, position)
        self.assertEqual(self.lines(), ["replication connection 1 is 4 MiB behind, at 0/700000"])
        self.report(client, end - MB)
        self.report(client, end - 4 * MB)
        self.assertEqual(
            self.lines()[1:],
            [
                "replication connection 1 has caught up to 1 MiB, at 0/A00000",
                "replication connection 1 is 4 MiB behind, at 0/700000",
            ],
        )
        self.assertTrue(self.texts[-1].endswith(": user=postgres application_name=s1"))

    def test_one_that_says_nothing(self) -> None:
        """It is measured by what was sent to it, while others bring more and more."""
        client = self.client()
        client.read()
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.lines(), [])
        client.transport.deliver(status(START + 8 * MB))
        self.append(4 * MB)
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.lines(), ["replication connection 1 is 4 MiB behind, at 0/B00000"])

    def test_one_that_is_to_be_late(self) -> None:
        """Is not behind as long as it has what it may have."""
        client = self.client("late")
        client.read()
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.lines(), [])


class LogTests(LimitsCase):
    """What the log says of each client."""

    def test_lines(self) -> None:
        """That it came, and from where; that it went, why, how long it was there, how far it is."""
        client = self.client()
        client.read()
        client.transport.deliver(status(START + SIZE, START + 4096))
        self.clock.advance(3723.5)
        client.transport.peer_closed()
        who = "user=postgres application_name=s1 host=127.0.0.1 port=40001"
        self.assertEqual(
            [text for text in self.texts if "connection 1" in text and "behind" not in text],
            [
                f"replication connection 1 authorized: {who}",
                f"replication connection 1 ended: {who}: the client closed the connection; "
                "session time 1:02:03.500, sent 0/B00000, flushed 0/301000",
            ],
        )

    def test_without_a_stream(self) -> None:
        """Of one that streamed nothing there is no position to tell."""
        client = Client(self.factory, self.clock)
        client.transport.deliver(startup_message(STARTUP))
        client.transport.peer_closed()
        self.assertTrue(self.texts[-1].endswith("; session time 0:00:00.000"), self.texts[-1])

    def test_one_that_is_refused(self) -> None:
        """Why; and what it said cannot forge lines."""
        client = Client(self.factory, self.clock)
        client.transport.deliver(startup_message({"user": "u", "replication": "\n\x1b[31mx"}))
        client.hear()
        (line,) = [text for text in self.texts if "refused" in text]
        self.assertTrue(line.isprintable(), ascii(line))

    def test_a_reason_that_the_client_chose(self) -> None:
        """A message type that is a control character is escaped."""
        client = self.client()
        client.read()
        client.transport.deliver(b"\x1b\0\0\0\x04")
        client.hear()
        client.transport.peer_closed()
        (line,) = [text for text in self.texts if "ended" in text]
        self.assertTrue(line.isprintable(), ascii(line))
