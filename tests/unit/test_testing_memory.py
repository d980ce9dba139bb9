"""`walstream.testing.memory`: the contracts, and what a test can do beyond them."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from walstream.errors import Discontinuity, EndOfTimeline, SinkFailed, WALUnavailable, WrongSystem
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.interfaces import BackupHistoryFile, IWALCursor, SystemIdentity, WALPosition
from walstream.testing.contracts import provider_contract, sink_contract
from walstream.testing.memory import MemoryProvider, MemorySink
from walstream.testing.wal import SYSTEM_IDENTIFIER

SIZE = SegmentSize(1 << 20)
IDENTITY = SystemIdentity(SYSTEM_IDENTIFIER, SIZE, "18.6")
START = SIZE.start(4)


class MemoryProviderUnderTest:
    """A `MemoryProvider` for the contract."""

    def __init__(self) -> None:
        self.start = WALPosition(1, START)
        self.provider = MemoryProvider(IDENTITY, self.start)

    def append(self, data: bytes) -> None:
        self.provider.append(data)

    def switch_timeline(self) -> None:
        self.provider.end_timeline()

    def settle(self) -> None:
        """Nothing is ever outstanding."""

    def cleanup(self) -> None:
        """Nothing is left."""


class MemorySinkUnderTest:
    """A `MemorySink` for the contract, which makes durable when things settle."""

    auto_flush = False

    def __init__(self) -> None:
        self.sink = MemorySink(auto_flush=self.auto_flush, high_mark=SIZE)
        self._is_broken = False

    def settle(self) -> None:
        # Flushes that follow each other take as many completions.
        while not self._is_broken and self.sink.needs_flush:
            self.sink.complete_flush()

    def stored(self, timeline: int, start: int, size: int) -> bytes:
        return self.sink.stored(timeline, start, size)

    def break_storage(self) -> None:
        self._is_broken = True
        self.sink.fail()

    def cleanup(self) -> None:
        """Nothing is left."""


class PromptSinkUnderTest(MemorySinkUnderTest):
    """A `MemorySink` that makes durable at once."""

    auto_flush = True


MemoryProviderContract = provider_contract(MemoryProviderUnderTest)
MemorySinkContract = sink_contract(MemorySinkUnderTest)
PromptSinkContract = sink_contract(PromptSinkUnderTest)


class MemoryProviderTests(SynchronousTestCase):
    """What a test can make a `MemoryProvider` do."""

    def setUp(self) -> None:
        self.provider = MemoryProvider(IDENTITY, WALPosition(1, START))

    def test_wal_can_wait_to_be_served(self) -> None:
        """What is not visible is not given, and then as far as the end is advanced."""
        self.provider.append(b"abcdef", visible=False)
        cursor = self.successResultOf(self.provider.open(1, START))
        ready = cursor.ready()
        self.assertEqual(bytes(cursor.read(10)), b"")
        self.assertNoResult(ready)
        self.provider.advance_end(START + 2)
        self.successResultOf(ready)
        self.assertEqual(bytes(cursor.read(10)), b"ab")
        self.assertEqual(self.provider.end(), WALPosition(1, LSN(START + 2)))
        self.provider.advance_end()
        self.assertEqual(bytes(cursor.read(10)), b"cdef")

    def test_end_neither_goes_back_nor_ahead_of_what_is_there(self) -> None:
        """Both are the test's own mistakes."""
        self.provider.append(b"abc")
        for end in (START, START + 4):
            self.assertRaises(ValueError, self.provider.advance_end, end)

    def test_readiness_can_be_held_back(self) -> None:
        """As with a slow disk: there is WAL, and it is not at hand."""
        self.provider.append(b"abc")
        cursor = self.successResultOf(self.provider.open(1, START))
        self.provider.hold_back()
        ready = cursor.ready()
        self.assertNoResult(ready)
        self.assertEqual(cursor.available, START + 3)
        self.assertEqual(bytes(cursor.read(10)), b"")
        self.provider.let_go()
        self.successResultOf(ready)
        self.assertEqual(bytes(cursor.read(10)), b"abc")

    def test_old_segments_can_be_dropped(self) -> None:
        """Who waits or asks there is told which segment is missing."""
        self.provider.append(bytes(SIZE + 100))
        cursor = self.successResultOf(self.provider.open(1, LSN(START + 10)))
        view = cursor.read(10)
        self.provider.drop_before(START + SIZE + 50)
        self.assertEqual(bytes(cursor.read(10)), b"")
        error = self.failureResultOf(cursor.ready(), WALUnavailable).value
        self.assertEqual(str(error).split()[3], SIZE.name(1, 4))
        self.failureResultOf(self.provider.open(1, START), WALUnavailable)
        self.successResultOf(self.provider.open(1, LSN(START + SIZE)))
        self.assertEqual(bytes(view), bytes(10))

    def test_timeline_leaves_invisible_wal_behind(self) -> None:
        """What was not served does not come to be, on either timeline."""
        self.provider.append(b"served")
        self.provider.append(b" lost", visible=False)
        self.assertEqual(self.provider.end_timeline(7), WALPosition(7, LSN(START + 6)))
        self.provider.append(b" found")
        for timeline, expected in ((1, b"served"), (7, b"served found")):
            cursor = self.successResultOf(self.provider.open(timeline, START))
            self.assertEqual(drain(cursor), expected)

    def test_timelines_follow_each_other(self) -> None:
        """A cursor goes from one to the next by what EndOfTimeline says."""
        self.provider.append(b"one ")
        self.provider.end_timeline()
        self.provider.append(b"two ")
        self.provider.end_timeline()
        self.provider.append(b"three")
        timeline, position, given = 1, START, b""
        for following in (2, 3):
            cursor = self.successResultOf(self.provider.open(timeline, position))
            given += drain(cursor)
            over = self.failureResultOf(cursor.ready(), EndOfTimeline).value
            self.assertEqual(over.next_timeline, following)
            timeline, position = over.next_timeline, LSN(over.switch_point)
        cursor = self.successResultOf(self.provider.open(timeline, position))
        self.assertEqual(given + drain(cursor), b"one two three")

    def test_keeps_backup_histories(self) -> None:
        """By the start of their base backups."""
        file = BackupHistoryFile("000000010000000000000004.00000028.backup", b"START")
        self.provider.add_backup_history(LSN(START + 0x28), file)
        held = self.provider.backup_history(LSN(START + 0x28))
        self.assertEqual(self.successResultOf(held), file)

    def test_knows_its_open_cursors(self) -> None:
        """A test can see whether all were closed."""
        self.provider.append(b"x")
        cursors = [self.successResultOf(self.provider.open(1, START)) for _ in range(2)]
        self.assertEqual(self.provider.cursors, cursors)
        for cursor in cursors:
            cursor.close()
            cursor.close()
        self.assertEqual(self.provider.cursors, [])

    def test_a_cursor_is_used_as_its_interface_says(self) -> None:
        """Two that wait, waiting on a closed cursor: mistakes, not silence."""
        cursor = self.successResultOf(self.provider.open(1, START))
        ready = cursor.ready()
        self.assertRaises(RuntimeError, cursor.ready)
        cursor.close()
        self.failureResultOf(ready, CancelledError)
        self.failureResultOf(cursor.ready(), RuntimeError)

    def test_needs_no_identity(self) -> None:
        """A provider that has none yet names segments of the usual size."""
        provider = MemoryProvider()
        self.assertIs(provider.identity, None)
        error = self.failureResultOf(provider.open(3, LSN(0)), WALUnavailable).value
        self.assertEqual(error.segment, "000000030000000000000000")


class MemorySinkTests(SynchronousTestCase):
    """What a test can make a `MemorySink` do."""

    def begin(self, sink: MemorySink) -> MemorySink:
        """A sink in the middle of a stream, with a producer."""
        self.calls: list[str] = []
        self.successResultOf(sink.adopt(IDENTITY))
        self.successResultOf(sink.begin(1, START))
        sink.registerProducer(Producer(self.calls), True)
        return sink

    def test_records_what_is_written(self) -> None:
        """Piece by piece, stream by stream, and as a whole."""
        sink = self.begin(MemorySink())
        sink.write(START, memoryview(b"abc"))
        sink.write(START + 3, memoryview(b"de"))
        self.assertEqual(sink.writes, [(START, b"abc"), (START + 3, b"de")])
        self.assertEqual(sink.begun, [WALPosition(1, START)])
        self.assertEqual(sink.stored(1, START + 1, 3), b"bcd")

    def test_flushes_wait_for_the_test(self) -> None:
        """A flush covers what was written before it; those that come meanwhile share the next."""
        sink = self.begin(MemorySink(auto_flush=False))
        sink.write(START, memoryview(b"abc"))
        first = sink.flush()
        sink.write(START + 3, memoryview(b"de"))
        second, third = sink.flush(), sink.flush()
        self.assertNoResult(first)
        sink.complete_flush()
        self.assertEqual(self.successResultOf(first), START + 3)
        self.assertNoResult(second)
        sink.complete_flush()
        self.assertEqual(self.successResultOf(second), START + 5)
        self.assertEqual(self.successResultOf(third), START + 5)

    def test_disk_may_be_faster_than_who_asks(self) -> None:
        """Everything can become durable without a flush."""
        sink = self.begin(MemorySink(auto_flush=False))
        sink.write(START, memoryview(b"abc"))
        sink.complete_flush()
        self.assertEqual(sink.flushed, START + 3)

    def test_finish_waits_for_the_disk(self) -> None:
        """The stream is over when all of it is durable; then there is none to write to."""
        sink = self.begin(MemorySink(auto_flush=False))
        sink.write(START, memoryview(b"abc"))
        finished = sink.finish()
        self.assertNoResult(finished)
        sink.complete_flush()
        self.successResultOf(finished)
        self.assertRaises(SinkFailed, sink.write, START + 3, memoryview(b"d"))

    def test_high_mark_pauses(self) -> None:
        """Once, until all is durable."""
        sink = self.begin(MemorySink(auto_flush=False, high_mark=4))
        for position in range(START, START + 8, 2):
            sink.write(position, memoryview(b"xx"))
        self.assertEqual(self.calls, ["pause"])
        sink.complete_flush()
        self.assertEqual(self.calls, ["pause", "resume"])

    def test_can_be_paused_by_hand(self) -> None:
        """As often as the test likes; the producer is told of changes."""
        sink = self.begin(MemorySink())
        for action in (sink.pause, sink.pause, sink.resume, sink.resume):
            action()
        self.assertEqual(self.calls, ["pause", "resume"])

    def test_failure_is_told_to_everyone(self) -> None:
        """To who waits for a flush, to the producer, to every later call."""
        sink = self.begin(MemorySink(auto_flush=False))
        sink.write(START, memoryview(b"abc"))
        flushes = [sink.flush(), sink.flush()]
        sink.fail("disk on fire")
        for attempt in (
            *flushes,
            sink.flush(),
            sink.finish(),
            sink.begin(1, START),
            sink.store_history(2, b""),
            sink.store_backup_history(BackupHistoryFile("x", b"")),
        ):
            self.assertIn("disk on fire", str(self.failureResultOf(attempt, SinkFailed).value))
        self.assertRaises(SinkFailed, sink.write, START + 3, memoryview(b"d"))
        self.assertEqual(self.calls, ["stop"])
        sink.registerProducer(Producer(self.calls), True)
        self.assertEqual(self.calls, ["stop", "stop"])

    def test_recovers(self) -> None:
        """With another stream, from what was durable on."""
        sink = self.begin(MemorySink())
        sink.fail()
        sink.recover()
        self.assertRaises(SinkFailed, sink.write, START, memoryview(b"abc"))
        self.successResultOf(sink.begin(1, START))
        sink.write(START, memoryview(b"abc"))
        self.assertEqual(self.successResultOf(sink.flush()), START + 3)

    def test_a_stream_leaves_no_gap(self) -> None:
        """It begins with a segment, and not behind what is durable."""
        sink = self.begin(MemorySink())
        sink.write(START, memoryview(bytes(SIZE + 10)))
        self.successResultOf(sink.finish())
        self.successResultOf(sink.begin(1, LSN(START + SIZE)))
        for start in (START + SIZE + 10, START + 2 * SIZE, START + 10, START):
            self.failureResultOf(sink.begin(1, LSN(start)), Discontinuity)

    def test_wal_comes_again(self) -> None:
        """A stream that begins further back takes the place of what was there."""
        sink = self.begin(MemorySink())
        sink.write(START, memoryview(b"once"))
        self.successResultOf(sink.finish())
        self.successResultOf(sink.begin(1, START))
        sink.write(START, memoryview(b"twice"))
        self.assertEqual(sink.stored(1, START, 10), b"twice")
        self.assertEqual((sink.written, sink.flushed), (START + 5, START + 4))

    def test_whose_wal_it_takes(self) -> None:
        """That of whoever is first to send any; or, told so, of one cluster from the start."""
        other = replace(IDENTITY, system_identifier=IDENTITY.system_identifier + 1)
        self.failureResultOf(MemorySink(other).adopt(IDENTITY), WrongSystem)
        sink = MemorySink()
        self.successResultOf(sink.adopt(other))
        self.successResultOf(sink.store_history(2, b"1\t0/100\tx\n"))
        self.begin(sink)
        self.assertEqual((sink.identity, list(sink.histories())), (IDENTITY, []))
        sink.write(START, memoryview(b"abc"))
        self.successResultOf(sink.finish())
        self.failureResultOf(sink.adopt(other), WrongSystem)

    def test_backup_histories_are_shown(self) -> None:
        """By name."""
        sink = MemorySink(IDENTITY)
        self.successResultOf(sink.store_backup_history(BackupHistoryFile("name", b"content")))
        self.assertEqual(sink.backup_histories, {"name": b"content"})


@implementer(IPushProducer)
class Producer:
    """Keeps what it is told."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


def drain(cursor: IWALCursor) -> bytes:
    """All that is at hand."""
    given = b""
    while view := cursor.read(100):
        given += view
    return given
