"""Tests for `walstream.protocols.outgoing`."""

from __future__ import annotations

from typing import cast

from twisted.internet.interfaces import ITransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import IDENTITY, NOW, PID, START, keepalive, status, wal, wal_message
from walstream.errors import EndOfTimeline, ProtocolViolation
from walstream.formats.lsn import LSN
from walstream.interfaces import WALPosition
from walstream.protocols.lag import EndHistory, LagTracker
from walstream.protocols.outgoing import OutgoingStream, StreamEvents
from walstream.protocols.settings import SenderSettings
from walstream.protocols.standbys import Standby, StandbyState
from walstream.testing.memory import MemoryProvider
from walstream.wire.copydata import HotStandbyFeedback, UnknownStandbyMessage
from walstream.wire.stream import WALPayload

ASKS = True
TELLS = False


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def writeSequence(self, iovec: list[bytes]) -> None:
        self.written += b"".join(iovec)


class OutgoingCase(SynchronousTestCase):
    """A stream of a provider that holds 100 bytes."""

    timeout = 60.0
    payload = WALPayload.MODERN

    def setUp(self) -> None:
        self.clock = Clock()
        self.provider = MemoryProvider(IDENTITY, WALPosition(1, START))
        self.end = self.provider.append(wal(START, 100))
        self.transport = Transport()
        self.ends = EndHistory()
        self.flushed: list[int] = []
        self.over: list[Failure] = []
        self.events: list[str] = []
        self.standby = Standby(PID, "postgres", "s1", None, NOW, StandbyState.CATCHUP)
        self.changes: list[StandbyState] = []
        self.stream = self.make()

    def make(self) -> OutgoingStream:
        stream = OutgoingStream(
            self.successResultOf(self.provider.open(1, LSN(START))),
            self.standby,
            LagTracker(self.ends, self.clock.seconds),
            cast(ITransport, self.transport),
            None,
            self.payload,
            SenderSettings(wall_clock=lambda: NOW),
            self.timeout,
            self.clock,
            StreamEvents(
                lambda: self.changes.append(self.standby.state),
                self.flushed.append,
                self.over.append,
                lambda: self.events.append("silent"),
                lambda: self.events.append("acknowledged"),
            ),
        )
        self.addCleanup(self.check_stop, stream)
        return stream

    def check_stop(self, stream: OutgoingStream) -> None:
        """A stopped stream leaves neither timers nor cursors; it may be stopped twice."""
        stream.stop()
        stream.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNotIn(stream._pump._cursor, self.provider.cursors)

    def start(self) -> OutgoingStream:
        """Begin; the WAL that there is has been sent."""
        self.stream.start()
        self.transport.written = b""
        return self.stream

    def receive(self, message: bytes) -> None:
        """The client's CopyData message arrives."""
        self.stream.receive(message[5:])

    def sent(self) -> bytes:
        """What was written since this was asked last."""
        written, self.transport.written = self.transport.written, b""
        return written


class StreamTests(OutgoingCase):
    """WAL out, status updates in."""

    def test_start(self) -> None:
        """It begins with what there is."""
        self.stream.start()
        self.assertEqual(self.sent(), wal_message(START, wal(START, 100), self.end))
        self.assertEqual(self.stream.sent, self.end)

    def test_start_while_paused(self) -> None:
        """A stream that was paused before it began waits until it is resumed."""
        self.stream.pause()
        self.stream.start()
        self.assertEqual(self.sent(), b"")
        self.stream.resume()
        self.assertEqual(self.sent(), wal_message(START, wal(START, 100), self.end))

    def test_progress(self) -> None:
        """What a client reports is kept as it is."""
        self.start()
        progress = self.standby
        self.assertEqual((progress.write, progress.flush, progress.apply), (0, 0, 0))
        self.receive(status(5, 4, 3))
        self.receive(status(2, 1, 9))
        self.assertEqual((progress.write, progress.flush, progress.apply), (2, 1, 9))
        self.assertIsNone(progress.feedback)

    def test_flushed(self) -> None:
        """Each flush position is told, but none is none."""
        self.start()
        for flush in (5, 0, 4, 4):
            self.receive(status(9, flush))
        self.assertEqual(self.flushed, [5, 4, 4])

    def test_feedback(self) -> None:
        """Hot standby feedback is kept, and is no status."""
        self.start()
        feedback = HotStandbyFeedback(1, 2, 3, 4, 5)
        self.stream.receive(feedback.pack())
        self.assertEqual(self.standby.feedback, feedback)
        self.assertEqual((self.flushed, self.sent()), ([], b""))

    def test_reply(self) -> None:
        """Asked for a reply, it tells how far it has sent."""
        self.start()
        self.receive(status(START, reply_requested=True))
        self.assertEqual(self.sent(), keepalive(self.end, reply_requested=TELLS))

    def test_broken_message(self) -> None:
        """What is too short, and what is unknown, are told apart."""
        self.start()
        self.assertRaises(ProtocolViolation, self.stream.receive, b"r")
        self.assertRaises(UnknownStandbyMessage, self.stream.receive, b"x")

    def test_over(self) -> None:
        """The end of the cursor is told, with why."""
        self.start()
        self.provider.end_timeline()
        (failure,) = self.over
        failure.trap(EndOfTimeline)


class PauseTests(OutgoingCase):
    """The connection takes nothing for the moment."""

    def setUp(self) -> None:
        super().setUp()
        self.start()
        self.stream.pause()

    def test_wal_rests(self) -> None:
        """WAL waits for the connection."""
        end = self.provider.append(wal(self.end, 10))
        self.assertEqual(self.sent(), b"")
        self.stream.resume()
        self.assertEqual(self.sent(), wal_message(self.end, wal(self.end, 10), end))

    def test_one_reply_is_owed(self) -> None:
        """However often a reply was asked for, one follows, before the WAL."""
        for _ in range(1000):
            self.receive(status(START, reply_requested=True))
        self.assertEqual(self.sent(), b"")
        end = self.provider.append(wal(self.end, 10))
        self.stream.resume()
        self.assertEqual(
            self.sent(),
            keepalive(self.end, reply_requested=TELLS)
            + wal_message(self.end, wal(self.end, 10), end),
        )
        self.stream.pause()
        self.stream.resume()
        self.assertEqual(self.sent(), b"")

    def test_question_is_owed(self) -> None:
        """If any of the keepalives that are owed asks for a reply, the one that leaves asks."""
        for order in ((ASKS, TELLS), (TELLS, ASKS)):
            self.stream.pause()
            for asks in order:
                self.stream.keepalive(reply_requested=asks)
            self.stream.resume()
            self.assertEqual(self.sent(), keepalive(self.end, reply_requested=ASKS))
            self.stream.pause()
            self.stream.keepalive()
            self.stream.resume()
            self.assertEqual(self.sent(), keepalive(self.end, reply_requested=TELLS))

    def test_silent_client_is_asked_when_it_can_hear(self) -> None:
        """A client that reads slowly is asked as soon as it can read the question."""
        self.clock.advance(30)
        self.assertEqual(self.sent(), b"")
        self.stream.resume()
        self.assertEqual(self.sent(), keepalive(self.end, reply_requested=ASKS))


class SilenceTests(OutgoingCase):
    """``wal_sender_timeout``."""

    def test_asked_then_given_up(self) -> None:
        """A client is asked after half of the timeout, and given up after all of it."""
        self.start()
        self.clock.advance(30)
        self.assertEqual(self.sent(), keepalive(self.end, reply_requested=ASKS))
        self.clock.advance(30)
        self.assertEqual(self.events, ["silent"])

    def test_any_message_counts(self) -> None:
        """Status and feedback are signs of life."""
        self.start()
        for _ in range(5):
            self.clock.advance(29)
            self.receive(status(START))
            self.clock.advance(29)
            self.stream.receive(HotStandbyFeedback(1, 2, 3, 4, 5).pack())
        self.assertEqual((self.sent(), self.events), (b"", []))

    def test_broken_message_counts(self) -> None:
        """So is one that is broken: who sent it lives."""
        self.start()
        self.clock.advance(29)
        self.assertRaises(ProtocolViolation, self.stream.receive, b"r")
        self.clock.advance(29)
        self.assertEqual(self.sent(), b"")

    def test_2009(self) -> None:
        """A client of 2009 is never asked."""
        self.payload = WALPayload.DESIGN_2009
        self.stream = self.make()
        self.start()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_off(self) -> None:
        """With a timeout of 0 nobody is."""
        self.timeout = 0
        self.stream = self.make()
        self.start()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AcknowledgementTests(OutgoingCase):
    """`OutgoingStream.await_acknowledgement`."""

    def setUp(self) -> None:
        super().setUp()
        self.start()

    def test_everything_is_acknowledged(self) -> None:
        """If it is already, that is told at once, and nothing asked."""
        self.receive(status(self.end, self.end))
        self.stream.await_acknowledgement()
        self.assertEqual((self.events, self.sent()), (["acknowledged"], b""))

    def test_asks_with_each_message(self) -> None:
        """Each message of the client's is answered by the question, until it is enough."""
        self.stream.await_acknowledgement()
        asks = keepalive(self.end, reply_requested=ASKS)
        self.assertEqual(self.sent(), asks)
        self.receive(status(self.end - 1))
        self.assertEqual(self.sent(), asks)
        self.receive(status(self.end, self.end - 1))
        self.assertEqual(self.sent(), asks)
        self.receive(status(self.end + 5, self.end + 5))
        self.assertEqual(self.sent(), asks)
        self.assertEqual(self.events, [])
        self.receive(status(self.end, self.end))
        self.assertEqual((self.events, self.sent()), (["acknowledged"], b""))

    def test_write_counts_without_flush(self) -> None:
        """Who reports no flush position has it when it is written."""
        self.stream.await_acknowledgement()
        self.receive(status(self.end, 0))
        self.assertEqual(self.events, ["acknowledged"])

    def test_told_once(self) -> None:
        """What was told is not told again."""
        self.stream.await_acknowledgement()
        self.receive(status(self.end, 0))
        self.receive(status(self.end, 0))
        self.assertEqual(self.events, ["acknowledged"])

    def test_not_before_everything_is_sent(self) -> None:
        """While there is more to send, nothing is enough."""
        self.stream.pause()
        end = self.provider.append(wal(self.end, 10))
        self.stream.await_acknowledgement()
        self.receive(status(self.end, self.end))
        self.assertEqual((self.events, self.sent()), ([], b""))
        self.stream.resume()
        self.assertEqual(
            self.sent(),
            wal_message(self.end, wal(self.end, 10), end) + keepalive(end, reply_requested=ASKS),
        )

    def test_one_question_at_a_time(self) -> None:
        """Pauses and new WAL do not have it ask again before the client has said something."""
        self.stream.await_acknowledgement()
        self.sent()
        end = self.provider.append(wal(self.end, 10))
        self.stream.pause()
        self.stream.resume()
        self.assertEqual(self.sent(), wal_message(self.end, wal(self.end, 10), end))
        self.receive(status(self.end))
        self.assertEqual(self.sent(), keepalive(end, reply_requested=ASKS))
