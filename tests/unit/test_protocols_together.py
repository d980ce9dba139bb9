"""Our receiver fed by our sender: two connections in memory, joined byte by byte."""

from __future__ import annotations

from itertools import cycle
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import IDENTITY, NOW, SIZE, START, MemorySlots, records, wal
from walstream.errors import Disconnected, ServerError, TimelineMismatch, UpstreamBehind
from walstream.formats.lsn import LSN
from walstream.interfaces import BackupHistoryFile, WALPosition
from walstream.protocols.login import Login
from walstream.protocols.receiver import Dialect, ReceiverSettings, StreamEnd, WALReceiver
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.settings import SenderSettings
from walstream.testing.memory import MemoryProvider, MemorySink
from walstream.testing.transport import FlowTransport

MODERN, DESIGN_2009 = Dialect.MODERN, Dialect.DESIGN_2009


class TogetherCase(SynchronousTestCase):
    """A provider, a sender, a receiver and a sink; `settle` lets bytes travel."""

    direct = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.provider = MemoryProvider(IDENTITY, WALPosition(1, START))
        self.slots = MemorySlots()
        self.sink = MemorySink()
        self.factory = WALSenderFactory(
            self.provider, self.slots, SenderSettings(wall_clock=self.clock.seconds), self.clock
        )
        self.sizes = cycle([1 << 30])

    def connect(self, dialect: Dialect = MODERN, **settings: Any) -> WALReceiver:
        """A receiver connects, and gets as far as it gets."""
        if dialect is DESIGN_2009:
            settings = {"start_position": START, "segment_size": SIZE, **settings}
        session = self.factory.buildProtocol(None)
        assert session is not None
        self.sender_side = FlowTransport(clock=self.clock)
        self.sender_side.connect(session, direct=self.direct)
        self.receiver = WALReceiver(
            self.sink,
            Login("alice"),
            ReceiverSettings(dialect=dialect, **settings),
            self.clock,
        )
        self.receiver_side = FlowTransport(clock=self.clock)
        self.receiver_side.connect(self.receiver, direct=self.direct)
        self.settle()
        return self.receiver

    def step(self) -> bool:
        """One piece travels each way, unless its reader rests; whether anything did."""
        moved = False
        for source, target in (
            (self.receiver_side, self.sender_side),
            (self.sender_side, self.receiver_side),
        ):
            if target.unreceived == 0 and (data := source.take(next(self.sizes))):
                target.deliver(data)
                moved = True
            if source.peer_saw != "open" and target.peer_saw == "open":
                target.peer_closed()
                moved = True
        return moved

    def settle(self) -> None:
        """Everything travels that can."""
        while self.step():
            pass

    def settle_with_disk(self) -> None:
        """Everything travels that can, and the sink's disk gets done with all of it."""
        while self.step() or self.sink.needs_flush:
            if self.sink.needs_flush:
                self.sink.complete_flush()

    def append(self, size: int) -> int:
        """WAL appears at the provider."""
        return self.provider.append(wal(self.provider.end().lsn, size))

    def stored(self, timeline: int = 1) -> bytes:
        return self.sink.stored(timeline, START, 1 << 30)

    def check_nothing_is_left(self) -> None:
        """The connection is over on both sides."""
        self.settle()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.provider.cursors, [])
        self.assertEqual(list(self.factory.sessions), [])


class TogetherTests(TogetherCase):
    """A receiver and a sender."""

    def test_both_dialects(self) -> None:
        """All the WAL arrives, and what comes later as well; then the receiver stops."""
        for dialect in Dialect:
            self.setUp()
            self.append(3 * SIZE + 1000)
            self.connect(dialect, start_position=START)
            for size in (8, 200_000, 1):
                self.append(size)
                self.settle()
            self.assertEqual(self.stored(), wal(START, 3 * SIZE + 201_009), dialect)
            stopped = self.receiver.stop()
            self.settle()
            self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)
            self.successResultOf(stopped)
            self.check_nothing_is_left()

    def test_slow_sink_slows_the_sender(self) -> None:
        """While the sink rests, neither side holds more than a constant."""
        self.sink = MemorySink(high_mark=100_000, auto_flush=False)
        self.append(30 * SIZE)
        self.connect(start_position=START)
        self.assertTrue(self.receiver_side.paused)
        self.assertLess(self.sink.written - START, 1 << 20)
        self.assertLess(len(self.sender_side.unread), 1 << 20)
        self.settle_with_disk()
        self.assertEqual(self.stored(), wal(START, 30 * SIZE))
        self.receiver.stop()
        self.settle_with_disk()
        self.check_nothing_is_left()

    def test_slow_sink_does_not_cost_the_connection(self) -> None:
        """However long the sink rests, the sender hears that its client lives."""
        self.sink = MemorySink(high_mark=100_000, auto_flush=False)
        self.append(3 * SIZE)
        self.connect(start_position=START, status_interval=0)
        for _ in range(600):
            self.clock.advance(1)
            self.settle()
        self.assertFalse(self.receiver.finished.called)
        self.settle_with_disk()
        self.assertEqual(self.stored(), wal(START, 3 * SIZE))
        self.receiver.stop()
        self.settle_with_disk()

    def test_idle_connection_lives(self) -> None:
        """With nothing to send for hours, both sides know that the other is there."""
        for interval in (0, 10, 1000):
            self.setUp()
            self.append(100)
            self.connect(start_position=START, status_interval=interval)
            for _ in range(720):
                self.clock.advance(10)
                self.settle()
            self.assertFalse(self.receiver.finished.called, interval)
            self.receiver.stop()
            self.settle()
            self.check_nothing_is_left()

    def test_sender_is_shut_down(self) -> None:
        """A sender that stops sends all there is, and goes when it is acknowledged."""
        for synchronous in (False, True):
            self.setUp()
            self.connect(start_position=START, synchronous=synchronous)
            self.append(300_000)
            drained = self.factory.drain(10)
            self.settle()
            self.successResultOf(drained)
            failure = self.failureResultOf(self.receiver.finished, Disconnected)
            self.assertIn("terminated by the server", failure.getErrorMessage())
            self.assertEqual(self.stored(), wal(START, 300_000))
            self.assertEqual(self.sink.flushed, START + 300_000)
            self.check_nothing_is_left()

    def test_sender_is_shut_down_while_the_disk_is_slow(self) -> None:
        """It waits until what it sent is durable, if the receiver reports that, and no longer."""
        self.append(100)
        self.connect(start_position=START, synchronous=True)
        self.sink.auto_flush = False
        self.append(300_000)
        drained = self.factory.drain(10)
        for _ in range(200):
            self.step()
        self.assertNoResult(drained)
        self.settle_with_disk()
        self.successResultOf(drained)
        self.failureResultOf(self.receiver.finished, Disconnected)

    def test_sender_of_2009_is_shut_down(self) -> None:
        """In 2009 the stream just ends."""
        self.append(1000)
        self.connect(DESIGN_2009)
        drained = self.factory.drain(10)
        self.settle()
        self.successResultOf(drained)
        self.failureResultOf(self.receiver.finished, Disconnected)
        self.assertEqual(self.stored(), wal(START, 1000))
        self.check_nothing_is_left()

    def test_timelines(self) -> None:
        """The receiver follows the sender from timeline to timeline, on one connection."""
        self.append(SIZE + 1000)
        self.connect(start_position=START)
        first_end = self.provider.end_timeline().lsn
        self.settle()
        self.append(1000)
        second_end = self.provider.end_timeline(7).lsn
        self.append(500)
        self.settle()
        self.assertEqual(set(self.sink.history_files), {2, 7})
        self.assertEqual(
            [position.timeline for position in self.sink.begun],
            [1, 2, 7],
        )
        self.assertEqual((first_end, second_end), (START + SIZE + 1000, START + SIZE + 2000))
        self.assertEqual(self.sink.durable_position(), WALPosition(2, LSN(second_end)))
        self.assertEqual(self.sink.written, START + SIZE + 2500)
        self.receiver.stop()
        self.settle()
        self.check_nothing_is_left()

    def test_timelines_after_a_reconnect(self) -> None:
        """A receiver that comes back catches up over all timelines that there were meanwhile."""
        self.append(SIZE)
        self.connect(start_position=START)
        self.receiver.stop()
        self.settle()
        for _ in range(3):
            self.provider.end_timeline()
            self.append(SIZE // 2)
        self.connect()
        self.assertEqual(set(self.sink.history_files), {2, 3, 4})
        self.assertEqual(self.sink.written, START + SIZE + 3 * SIZE // 2)
        self.receiver.stop()
        self.settle()
        self.assertEqual(self.sink.durable_position(), self.provider.end())
        self.check_nothing_is_left()

    def test_reconnect(self) -> None:
        """After a lost connection the segment comes again, and nothing is missing."""
        for dialect in Dialect:
            self.setUp()
            self.append(SIZE + 1000)
            self.connect(dialect, start_position=START)
            self.receiver_side.peer_closed()
            self.sender_side.peer_closed()
            self.failureResultOf(self.receiver.finished, Disconnected)
            self.append(SIZE)
            self.connect(dialect)
            self.assertEqual(self.stored(), wal(START, 2 * SIZE + 1000))
            self.receiver.stop()
            self.settle()
            self.check_nothing_is_left()

    def test_slot(self) -> None:
        """A slot moves with what is durable, and is free again afterwards."""
        self.successResultOf(self.slots.create("s", 99, temporary=False, restart=None))
        self.append(1000)
        self.connect(slot="s", start_position=START)
        self.sink.flush()
        self.clock.advance(10)
        self.settle()
        slot = self.successResultOf(self.slots.read("s"))
        assert slot is not None
        self.assertEqual(slot.restart, WALPosition(1, LSN(START + 1000)))
        self.receiver.stop()
        self.settle()
        slot = self.successResultOf(self.slots.read("s"))
        assert slot is not None
        self.assertIsNone(slot.active_pid)

    def test_backup_history(self) -> None:
        """In 2009 the backup history file comes with the stream."""
        self.append(1000)
        file = BackupHistoryFile("000000010000000000000003.00000000.backup", b"\xff contents")
        self.provider.add_backup_history(START, file)
        self.connect(DESIGN_2009)
        self.assertEqual(self.sink.backup_histories, {file.name: file.content})
        self.receiver.stop()
        self.settle()

    def test_removed_wal(self) -> None:
        """WAL that the sender does not hold any more is told as PostgreSQL does."""
        for dialect in Dialect:
            self.setUp()
            self.append(3 * SIZE)
            self.provider.drop_before(START + 2 * SIZE)
            self.connect(dialect, start_position=START)
            failure = self.failureResultOf(self.receiver.finished, ServerError).value
            assert isinstance(failure, ServerError)
            self.assertEqual(failure.sqlstate, "58P01")
            self.assertIn("000000010000000000000003", failure.message)
            self.check_nothing_is_left()

    def test_cancelled(self) -> None:
        """A stream that is cancelled ends with that error."""
        self.connect(start_position=START)
        (session,) = self.factory.sessions
        session.cancel_stream()
        self.settle()
        failure = self.failureResultOf(self.receiver.finished, ServerError).value
        assert isinstance(failure, ServerError)
        self.assertEqual(failure.sqlstate, "57014")
        self.check_nothing_is_left()

    def test_end_position(self) -> None:
        """A receiver with an end position goes of its own accord."""
        self.append(SIZE)
        self.connect(start_position=START, end_position=LSN(START + 100))
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.END_POSITION)
        self.assertEqual(self.stored()[:101], wal(START, 101))
        self.check_nothing_is_left()

    def test_sender_that_does_not_fit(self) -> None:
        """A sender that is behind, or of another branch, is refused, and nothing is changed."""
        whole = records(START, 2000)  # the sink looks into it, to see what it would lose
        self.provider.append(whole)
        self.connect(start_position=START)
        self.receiver.stop()
        self.settle()
        held = self.stored()
        for branch, error in ((False, UpstreamBehind), (True, TimelineMismatch)):
            self.provider = MemoryProvider(IDENTITY, WALPosition(1, START))
            self.provider.append(whole[:1000])
            if branch:
                self.provider.end_timeline()
                self.append(2000)
            self.factory = WALSenderFactory(self.provider, self.slots, SenderSettings(), self.clock)
            self.connect()
            self.failureResultOf(self.receiver.finished, error)
            self.assertEqual((self.stored(), self.sink.history_files), (held, {}))
            self.check_nothing_is_left()


class DirectTogetherTests(TogetherTests):
    """The same past both transports."""

    direct = True


class AnyPiecesTests(TogetherCase):
    """Bytes that travel in any pieces, into a sink that rests at any time."""

    @settings(max_examples=60, deadline=None)
    @given(
        sizes=st.lists(st.integers(1, 200_000), min_size=1, max_size=8),
        appended=st.lists(st.integers(1, 300_000), max_size=6),
        dialect=st.sampled_from(Dialect),
        direct=st.booleans(),
    )
    def test_any_pieces(
        self, sizes: list[int], appended: list[int], dialect: Dialect, direct: bool
    ) -> None:
        """All arrives, and the stop is clean."""
        self.setUp()
        self.direct = direct
        self.sink = MemorySink(high_mark=100_000, auto_flush=False)
        self.sizes = cycle(max(size, 50) for size in sizes)
        self.append(100)
        self.connect(dialect, start_position=START)
        for size in appended:
            self.append(size)
            self.step()
            if self.sink.needs_flush:
                self.sink.complete_flush()
        self.settle_with_disk()
        self.assertEqual(self.stored(), wal(START, 100 + sum(appended)))
        self.receiver.stop()
        self.settle_with_disk()
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)
        self.check_nothing_is_left()
