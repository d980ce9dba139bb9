"""What every `IWALSink` must do: see `walstream.testing.contracts`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import groupby
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from walstream.errors import (
    Discontinuity,
    SinkFailed,
    TimelineMismatch,
    WALUnavailable,
    WrongSystem,
)
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory, TimelineSwitch
from walstream.interfaces import BackupHistoryFile, IWALSink, SystemIdentity, WALPosition
from walstream.testing.wal import SYSTEM_IDENTIFIER, WALBuilder, wal_bytes

__all__ = ["SinkUnderTest", "sink_contract"]

T = TypeVar("T")

SIZE = SegmentSize(1 << 20)
IDENTITY = SystemIdentity(SYSTEM_IDENTIFIER, SIZE, "18.6")
START = SIZE.start(5)


class SinkUnderTest(Protocol):
    """A sink, and what the contract needs to see and to make happen in it."""

    @property
    def sink(self) -> IWALSink:
        """The sink, which holds nothing."""

    def settle(self) -> None:
        """Let everything happen that is outstanding, in threads and on clocks."""

    def stored(self, timeline: int, start: int, size: int) -> bytes:
        """What the sink holds there; asked for only when it is durable and the stream over."""

    def break_storage(self) -> None:
        """From now on nothing can be made durable, as when the disk is full."""

    def cleanup(self) -> None:
        """The test is over."""


def sink_contract(make: Callable[[], SinkUnderTest]) -> type[SynchronousTestCase]:
    """Give the test case that the sinks which *make* makes have to pass."""
    # A failure is reported under the name of what was made, and of its module. Trial's workers
    # (-j) look for it by that name.
    attributes = {"make": staticmethod(make), "__module__": getattr(make, "__module__", __name__)}
    name = getattr(make, "__name__", "Sink").removesuffix("UnderTest")
    return type(f"{name}Contract", (_SinkContract,), attributes)


@implementer(IPushProducer)
class _Producer:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


class _SinkContract(SynchronousTestCase):
    make: Callable[[], SinkUnderTest]

    def setUp(self) -> None:
        self.under_test = self.make()
        self.addCleanup(self.under_test.cleanup)
        self.sink = self.under_test.sink
        self.timeline, self.history = 1, TimelineHistory(1, ())
        self.buffer = bytearray()

    # What the tests are made of.

    def settled(self, result: Deferred[T]) -> T:
        """What a Deferred fires with when everything outstanding has happened."""
        self.under_test.settle()
        return self.successResultOf(result)

    def begin(self, start: int = START) -> None:
        """Start a stream."""
        self.settled(self.sink.adopt(IDENTITY))
        self.settled(self.sink.begin(self.timeline, LSN(start)))
        self.assertEqual(self.sink.written, start)

    def write(self, size: int) -> None:
        """Write so many bytes, from a buffer that is overwritten afterwards."""
        start = self.sink.written
        self.buffer[:] = self.wal(start, size)
        self.sink.write(start, memoryview(self.buffer))
        for offset in range(0, size, 512):
            self.buffer[offset] ^= 0xFF
        self.assertEqual(self.sink.written, start + size)
        self.assertLessEqual(self.sink.flushed, self.sink.written)

    def wal(self, start: int, size: int) -> bytes:
        """The WAL of the contract's cluster."""
        return wal_bytes(
            start, size, segment_size=SIZE, timeline=self.timeline, history=self.history
        )

    def finish(self) -> None:
        """End the stream, and see that what it brought is what is held."""
        self.settled(self.sink.finish())
        self.assertEqual(self.sink.flushed, self.sink.written)
        self.assertEqual(
            self.sink.durable_position(), WALPosition(self.timeline, LSN(self.sink.written))
        )

    def assert_stored(self, start: int, size: int) -> None:
        """The WAL there is as it was written."""
        stored = self.under_test.stored(self.timeline, start, size)
        self.assertTrue(stored == self.wal(start, size), f"wrong between {LSN(start)} and + {size}")

    # Whose WAL.

    def test_provides_the_interface(self) -> None:
        """The sink has the methods and attributes."""
        verifyObject(IWALSink, self.sink)

    def test_begins_with_nothing(self) -> None:
        """Nothing is held, and nothing is said to be."""
        self.assertIs(self.sink.identity, None)
        self.assertIs(self.sink.resume_position(), None)
        self.assertIs(self.sink.durable_position(), None)
        self.assertEqual(self.sink.flushed, 0)
        self.assertEqual(list(self.sink.histories()), [])

    def test_adopts_a_system(self) -> None:
        """It keeps the identity; the same one may be adopted again, on every connect."""
        self.settled(self.sink.adopt(IDENTITY))
        self.assertEqual(self.sink.identity, IDENTITY)
        self.begin()
        self.write(1000)
        self.finish()
        self.settled(self.sink.adopt(IDENTITY))

    def test_refuses_another_system(self) -> None:
        """Neither another cluster nor another segment size; and nothing is changed."""
        self.begin()
        self.write(1000)
        self.finish()
        held = self.sink.durable_position()
        for other in (
            SystemIdentity(SYSTEM_IDENTIFIER + 1, SIZE, "18.6"),
            SystemIdentity(SYSTEM_IDENTIFIER, SegmentSize(1 << 21), "18.6"),
        ):
            adopting = self.sink.adopt(other)
            self.under_test.settle()
            self.failureResultOf(adopting, WrongSystem)
            self.assertEqual(self.sink.identity, IDENTITY)
            self.assertEqual(self.sink.durable_position(), held)

    # Taking WAL.

    def test_takes_pieces_of_any_size(self) -> None:
        """Over segment boundaries too, from a buffer that changes after the call."""
        self.begin()
        sizes = (1, 8191, 100_000, SIZE, 3, SIZE * 2 + 77)
        for size in sizes:
            self.write(size)
        self.finish()
        self.assert_stored(START, sum(sizes))

    def test_takes_whole_segments(self) -> None:
        """A stream may end between two segments."""
        self.begin()
        self.write(SIZE)
        self.write(SIZE)
        self.finish()
        self.assert_stored(START, SIZE * 2)
        self.assertEqual(self.sink.resume_position(), WALPosition(1, LSN(START + SIZE * 2)))

    def test_refuses_what_does_not_continue(self) -> None:
        """A gap or a repetition is a Discontinuity that takes nothing; the stream can go on."""
        self.begin()
        self.write(1000)
        for wrong in (START, START + 999, START + 1001, START + SIZE):
            error = self.assertRaises(
                Discontinuity, self.sink.write, wrong, memoryview(self.wal(wrong, 10))
            )
            self.assertEqual((error.expected, error.received), (START + 1000, wrong))
            self.assertEqual(self.sink.written, START + 1000)
        self.write(1000)
        self.finish()
        self.assert_stored(START, 2000)

    # What will never come, and what is given up.

    def test_goes_on_behind_an_accepted_gap(self) -> None:
        """At its end and nowhere else; where the sink ended stays its end until then."""
        self.begin()
        self.write(5000)
        self.finish()
        end, behind = LSN(START + 5000), WALPosition(1, LSN(START + SIZE * 3))
        for start, wrong in (
            (LSN(end - 1), behind),
            (end, WALPosition(1, end)),
            (end, WALPosition(1, LSN(behind.lsn + 1))),
        ):
            accepting = self.sink.accept_gap(start, wrong)
            self.under_test.settle()
            self.failureResultOf(accepting, Discontinuity)
        self.settled(self.sink.accept_gap(end, WALPosition(1, LSN(START + SIZE * 2))))
        self.settled(self.sink.accept_gap(end, behind))
        self.assertEqual(self.sink.durable_position(), WALPosition(1, end))
        self.assertEqual(self.sink.resume_position(), behind)
        beginning = self.sink.begin(1, LSN(START))
        self.under_test.settle()
        self.failureResultOf(beginning, Discontinuity)
        self.begin(behind.lsn)
        self.write(SIZE + 10)
        self.finish()
        self.assert_stored(behind.lsn, SIZE + 10)

    def test_gives_up_an_unfinished_record(self) -> None:
        """One that lies beyond the point where the upstream left; the stream goes on there."""
        builder = WALBuilder(SYSTEM_IDENTIFIER, SIZE, start=START)
        builder.fill_to(START + 100_000)
        left = builder.end
        builder.noop(50_000)
        self.begin()
        self.sink.write(START, memoryview(builder.bytes(START, left + 30_000)))
        self.finish()
        self.settled(self.sink.rewind(LSN(left + 30_000)))
        self.assertEqual(self.sink.durable_position(), WALPosition(1, LSN(left + 30_000)))
        self.settled(self.sink.rewind(left))
        self.assertEqual(self.sink.durable_position(), WALPosition(1, left))
        self.assertEqual(self.sink.flushed, left)
        self.begin()
        self.sink.write(START, memoryview(builder.bytes(START, left)))
        self.finish()

    def test_keeps_a_whole_record(self) -> None:
        """It may be a commit: whoever does not have it is of another history."""
        builder = WALBuilder(SYSTEM_IDENTIFIER, SIZE, start=START)
        builder.fill_to(START + 100_000)
        left = builder.end
        whole = builder.noop(50_000)
        builder.noop(50_000)
        self.begin()
        self.sink.write(START, memoryview(builder.bytes(START, whole.end + 1000)))
        self.finish()
        rewinding = self.sink.rewind(left)
        self.under_test.settle()
        said = str(self.failureResultOf(rewinding, TimelineMismatch).value)
        self.assertIn(str(whole.end), said)
        self.assertEqual(self.sink.durable_position(), WALPosition(1, LSN(whole.end + 1000)))

    # Durability.

    def test_flush_makes_durable_what_was_taken(self) -> None:
        """It fires with the new flushed, which covers all that was written before the call."""
        self.begin()
        for size in (1000, 7192, SIZE):
            self.write(size)
            flushed = self.settled(self.sink.flush())
            self.assertIsInstance(flushed, LSN)
            self.assertEqual(flushed, self.sink.written)
            self.assertEqual(self.sink.flushed, flushed)
            self.assertEqual(self.sink.durable_position(), WALPosition(1, flushed))

    def test_flush_of_nothing_fires(self) -> None:
        """Nobody waits for nothing."""
        self.begin()
        self.settled(self.sink.flush())
        self.write(10)
        self.assertEqual(self.settled(self.sink.flush()), self.settled(self.sink.flush()))

    def test_flushes_can_be_called_while_one_is_under_way(self) -> None:
        """Each fires, in order, with a position that covers what was written before its call."""
        self.begin()
        outcomes: list[tuple[int, int]] = []
        calls: list[Deferred[LSN]] = []

        def done(flushed: LSN, written: int) -> LSN:
            outcomes.append((written, flushed))
            return flushed

        for size in (1000, 2000, SIZE, 10):
            self.write(size)
            for _ in range(2):
                calls.append(self.sink.flush().addCallback(done, self.sink.written))
        for call in calls:
            self.settled(call)
        self.assertEqual(outcomes, sorted(outcomes))
        self.assertEqual(len(outcomes), len(calls))
        for written, flushed in outcomes:
            self.assertLessEqual(written, flushed)

    def test_flushed_only_grows(self) -> None:
        """It is never ahead of written, and never goes back, whoever asks for a flush."""
        self.begin()
        seen = [self.sink.flushed]
        for step in range(12):
            self.write(SIZE // 4 - 13)
            seen.append(self.sink.flushed)
            if step % 3 == 0:
                self.sink.flush()
            if step % 2 == 0:
                self.under_test.settle()
            self.assertLessEqual(self.sink.flushed, self.sink.written)
            seen.append(self.sink.flushed)
        self.finish()
        self.assertEqual(seen, sorted(seen))

    def test_goes_on_where_it_ended(self) -> None:
        """The segment that was not complete comes again, and nothing durable is taken back."""
        self.begin()
        self.write(SIZE + 5000)
        self.finish()
        durable = self.sink.durable_position()
        self.assertEqual(durable, WALPosition(1, LSN(START + SIZE + 5000)))
        resume = self.sink.resume_position()
        self.assertEqual(resume, WALPosition(1, LSN(START + SIZE)))
        self.begin(START + SIZE)
        self.assertEqual(self.sink.flushed, START + SIZE + 5000)
        self.sink.write(self.sink.written, memoryview(self.wal(self.sink.written, 100)))
        self.settled(self.sink.flush())
        self.assertEqual(self.sink.durable_position(), durable)
        self.write(9000)
        self.finish()
        self.assert_stored(START, SIZE + 9100)

    # Timelines.

    def test_keeps_histories(self) -> None:
        """A history that was stored is held; that of timeline 1 is empty and always known."""
        self.settled(self.sink.adopt(IDENTITY))
        history = TimelineHistory(2, (TimelineSwitch(1, LSN(START + 5000), "by a test"),))
        self.settled(self.sink.store_history(2, history.format()))
        self.assertIn(2, self.sink.histories())
        self.assertEqual(self.settled(self.sink.history(2)), history)
        self.assertEqual(self.settled(self.sink.history(1)), TimelineHistory(1, ()))
        asking = self.sink.history(3)
        self.under_test.settle()
        self.failureResultOf(asking, WALUnavailable)

    def test_keeps_backup_histories(self) -> None:
        """They are stored as they are."""
        self.begin()
        name = f"{SIZE.name(1, SIZE.number(START))}.00000028.backup"
        self.settled(self.sink.store_backup_history(BackupHistoryFile(name, b"START WAL LOCATION")))

    def test_goes_over_to_another_timeline(self) -> None:
        """A stream of the next timeline begins with the segment of the switch point."""
        self.begin()
        self.write(SIZE + 5000)
        self.finish()
        history = TimelineHistory(2, (TimelineSwitch(1, LSN(self.sink.written), "by a test"),))
        self.settled(self.sink.store_history(2, history.format()))
        self.timeline, self.history = 2, history
        self.begin(START + SIZE)
        self.write(SIZE + 100)
        self.settled(self.sink.flush())
        self.finish()
        self.assert_stored(START + SIZE, SIZE + 100)
        self.assertEqual(self.sink.resume_position(), WALPosition(2, LSN(START + 2 * SIZE)))

    # Flow control.

    def test_a_paused_producer_is_resumed(self) -> None:
        """Whoever is paused is resumed when the work is done, and nobody else is."""
        self.begin()
        producer = _Producer()
        self.sink.registerProducer(producer, True)
        for _ in range(24):
            self.write(SIZE // 2)
            if producer.calls[-1:] == ["pause"]:
                self.under_test.settle()
                self.assertEqual(producer.calls[-1], "resume")
        self.under_test.settle()
        changes = [call for call, _ in groupby(producer.calls)]  # a pause may be repeated
        self.assertEqual(changes, ["pause", "resume"] * (len(changes) // 2))
        self.sink.unregisterProducer()
        del producer.calls[:]
        self.write(SIZE * 4)
        self.finish()
        self.assertEqual(producer.calls, [])

    def test_has_one_producer(self) -> None:
        """A second one is a RuntimeError, until the first is unregistered."""
        self.begin()
        self.sink.registerProducer(_Producer(), True)
        self.assertRaises(RuntimeError, self.sink.registerProducer, _Producer(), True)
        self.sink.unregisterProducer()
        self.sink.registerProducer(_Producer(), True)
        self.sink.unregisterProducer()

    # Failure.

    def test_fails_for_good(self) -> None:
        """Nothing more becomes durable: the producer is stopped, and every call says SinkFailed."""
        self.begin()
        self.write(5000)
        durable = self.settled(self.sink.flush())
        producer = _Producer()
        self.sink.registerProducer(producer, True)
        self.under_test.break_storage()
        with contextlib.suppress(SinkFailed):
            self.write(SIZE)
        for attempt in (self.sink.flush(), self.sink.finish()):
            self.under_test.settle()
            self.failureResultOf(attempt, SinkFailed)
        self.assertEqual(producer.calls[-1:], ["stop"])
        self.assertEqual(producer.calls.count("stop"), 1)
        self.assertEqual(self.sink.flushed, durable)
        self.assertEqual(self.sink.durable_position(), WALPosition(1, durable))
