"""Tests for walstream.services.segment_log."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import IDENTITY, SIZE, START
from tests.unit.log_capture import capture_log
from walstream.formats.lsn import LSN
from walstream.services.segment_log import SegmentLog
from walstream.testing.memory_sink import MemorySink


class SegmentLogTests(SynchronousTestCase):
    """Which segments are logged, and when."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sink = MemorySink(IDENTITY)
        self.log = capture_log(self)
        self.segments = SegmentLog(self.sink, self.clock)
        self.addCleanup(lambda: self.assertEqual(self.clock.getDelayedCalls(), []))
        self.addCleanup(self.segments.stop)

    def take(self, size: int, timeline: int = 1) -> None:
        """WAL of this size becomes durable."""
        if not self.sink.begun or self.sink.begun[-1].timeline != timeline:
            held = self.sink.resume_position()
            self.sink.begin(timeline, LSN(START) if held is None else held.lsn)
        self.sink.write(self.sink.written, memoryview(bytes(size)))
        self.sink.flush()

    def test_finished_segments(self) -> None:
        """A segment is logged, by its end, within a second after all of it is durable."""
        self.segments.start()
        self.take(100)
        self.clock.advance(1)
        self.take(SIZE - 101)
        self.clock.advance(1)
        self.assertEqual(self.log, [])
        self.take(1)
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.log, ["finished segment at 0/400000 (timeline 1)"])

    def test_several_at_once(self) -> None:
        """Segments that were finished within one second are logged each."""
        self.take(100)
        self.segments.start()
        self.take(2 * SIZE)
        self.clock.advance(1)
        self.assertEqual(
            self.log,
            [
                "finished segment at 0/400000 (timeline 1)",
                "finished segment at 0/500000 (timeline 1)",
            ],
        )

    def test_what_was_there(self) -> None:
        """What was durable before is no news."""
        self.take(2 * SIZE)
        self.segments.start()
        self.clock.advance(5)
        self.assertEqual(self.log, [])

    def test_new_timeline(self) -> None:
        """A new timeline begins within a segment: only what is finished on it is logged."""
        self.take(SIZE + 100)
        self.segments.start()
        self.take(SIZE // 2, timeline=2)
        self.clock.advance(1)
        self.assertEqual(self.log, [])
        self.take(SIZE // 2, timeline=2)
        self.clock.advance(1)
        self.assertEqual(self.log, ["finished segment at 0/500000 (timeline 2)"])

    def test_last_look(self) -> None:
        """What was finished right before the end is logged too; stopping twice is no harm."""
        self.segments.start()
        self.take(100)
        self.clock.advance(1)
        self.take(SIZE)
        self.segments.stop()
        self.segments.stop()
        self.assertEqual(self.log, ["finished segment at 0/400000 (timeline 1)"])

    def test_empty_sink(self) -> None:
        """A sink that holds nothing has no segments."""
        self.segments.start()
        self.clock.advance(3)
        self.assertEqual(self.log, [])
