"""Tests for `walstream.protocols.arrivals` and `walstream.protocols.delayed`."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.unit.conversation import IDENTITY, NOW, SIZE, START, wal
from walstream.errors import EndOfTimeline, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.formats.timelines import TimelineHistory, TimelineSwitch
from walstream.interfaces import IDatedProvider, IWALCursor, WALPosition
from walstream.protocols.arrivals import Arrivals
from walstream.protocols.delayed import DelayedCursor, open_delayed
from walstream.testing.memory import MemoryProvider

DELAY = 60.0


@implementer(IDatedProvider)
class DatedProvider(MemoryProvider):
    """A provider whose segments have files.

    :ivar written: by timeline and segment number, when each was last written to.
    """

    def __init__(self) -> None:
        super().__init__(IDENTITY, WALPosition(1, START))
        self.written: dict[tuple[int, int], float] = {}

    def last_written(self, timeline: int, position: LSN) -> Deferred[float | None]:
        return succeed(self.written.get((timeline, SIZE.number(position))))


class DelayedCase(SynchronousTestCase):
    """A provider, and a client that is to have its WAL after a minute."""

    delay = DELAY

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.wall = NOW
        self.provider = DatedProvider()
        self.arrivals = Arrivals(
            self.provider, self.delay, self.clock, self.clock.seconds, lambda: self.wall
        )
        self.addCleanup(self.check_nothing_is_left)

    def check_nothing_is_left(self) -> None:
        self.arrivals.stop()
        for cursor in list(self.provider.cursors):
            cursor.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def append(self, size: int) -> int:
        return self.provider.append(wal(self.provider.end().lsn, size))

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.clock.pump([0.25] * round(seconds * 4))

    def open(self, start: int = START, timeline: int = 1) -> DelayedCursor:
        inner = self.successResultOf(self.provider.open(timeline, LSN(start)))
        cursor = self.successResultOf(
            Deferred.fromCoroutine(
                open_delayed(inner, timeline, self.provider, self.arrivals, self.clock)
            )
        )
        self.addCleanup(cursor.close)
        return cast(DelayedCursor, cursor)

    def read_all(self, cursor: DelayedCursor) -> int:
        """Read what there is; where the cursor is then."""
        while cursor.read(300_000):
            pass
        self.assertEqual(cursor.position, max(cursor.available, cursor.position))
        return cursor.position

    def assert_given(
        self, cursor: DelayedCursor, end: int, *, not_in: float, but_in: float
    ) -> None:
        """Of what comes next nothing is given for so many seconds, and all in so many more."""
        ready = cursor.ready()
        self.pass_time(not_in)
        self.assertNoResult(ready)
        self.pass_time(but_in)
        self.successResultOf(ready)
        self.assertEqual(self.read_all(cursor), end)


class WhileWeRunTests(DelayedCase):
    """WAL that comes while we look."""

    def setUp(self) -> None:
        super().setUp()
        self.arrivals.start()

    def test_interface(self) -> None:
        """It is a cursor."""
        verifyObject(IWALCursor, self.open())

    def test_later(self) -> None:
        """A byte is given when it has been here for a minute, at most a second later."""
        cursor = self.open()
        end = self.append(100)
        ready = cursor.ready()
        self.pass_time(DELAY - 0.25)
        self.assertNoResult(ready)
        self.assertEqual((cursor.available, cursor.read(100)), (0, b""))
        self.pass_time(1.5)
        self.successResultOf(ready)
        self.assertEqual(bytes(cursor.read(1000)), wal(START, 100))
        self.assertEqual(cursor.position, end)

    def test_never_early(self) -> None:
        """Whatever comes when, nothing is given that is younger, nor kept that is much older."""
        cursor = self.open()
        came: list[tuple[float, int]] = []
        ready = cursor.ready()
        for step in range(400):
            if step % 3 == 0 and step < 200:
                came.append((self.clock.seconds(), self.append(1000 * (step % 5) + 8)))
            self.pass_time(0.5)
            if ready.called:
                self.successResultOf(ready)
                position, now = self.read_all(cursor), self.clock.seconds()
                given = [end for when, end in came if when <= now - DELAY]
                due = [end for when, end in came if when <= now - DELAY - 2]
                self.assertLessEqual(position, max(given))
                self.assertGreaterEqual(position, max(due, default=0))
                ready = cursor.ready()
        self.assertEqual(cursor.position, self.provider.end().lsn)
        cursor.close()
        self.failureResultOf(ready, CancelledError)

    def test_bounded(self) -> None:
        """What is remembered does not grow with what comes."""
        for _ in range(1000):
            self.append(8)
            self.pass_time(0.5)
        self.assertLessEqual(len(self.arrivals), DELAY + 3)

    def test_the_clock_of_the_day_is_set(self) -> None:
        """Set forward by a year, it releases nothing."""
        cursor = self.open()
        self.append(100)
        ready = cursor.ready()
        self.wall += 365 * 86400
        self.pass_time(DELAY / 2)
        self.assertNoResult(ready)
        cursor.close()
        self.failureResultOf(ready, CancelledError)

    def test_no_timers_while_nothing_comes(self) -> None:
        """A cursor that has everything waits for what comes, and for nothing else."""
        cursor = self.open()
        ready = cursor.ready()
        self.pass_time(600)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)  # the look for what comes
        self.assertNoResult(ready)
        cursor.close()
        self.failureResultOf(ready, CancelledError)

    def test_end_of_a_timeline(self) -> None:
        """A promotion lets nothing through: not the WAL before it, nor that it happened."""
        cursor = self.open()
        self.append(100)
        self.pass_time(30)
        self.provider.end_timeline()
        self.append(50)
        self.assert_given(cursor, START + 100, not_in=29, but_in=2)
        ready = cursor.ready()
        self.pass_time(28)
        self.assertNoResult(ready)
        self.pass_time(2)
        self.assertEqual(self.failureResultOf(ready, EndOfTimeline).value.next_timeline, 2)

    def test_on_the_next_timeline(self) -> None:
        """What is on it from before the switch is as old as it was on the one before."""
        self.append(100)
        self.pass_time(10)
        self.provider.end_timeline()
        self.pass_time(10)
        end = self.append(50)
        cursor = self.open(timeline=2)
        self.assert_given(cursor, START + 100, not_in=39.5, but_in=1.5)
        self.assert_given(cursor, end, not_in=18, but_in=2)

    def test_a_start_that_is_younger(self) -> None:
        """Who begins at the end has it as late as all others."""
        end = self.append(100)
        cursor = self.open(end)
        self.append(10)
        self.assert_given(cursor, end + 10, not_in=DELAY - 1, but_in=3)

    def test_one_ready_at_a_time(self) -> None:
        """As every cursor."""
        cursor = self.open()
        ready = cursor.ready()
        self.assertRaises(RuntimeError, cursor.ready)
        ready.cancel()
        self.failureResultOf(ready, CancelledError)
        cursor.ready().addErrback(lambda _: None)

    def test_what_is_not_held(self) -> None:
        """Is told at once."""
        self.append(3 * SIZE)
        cursor = self.open()
        self.provider.drop_before(START + SIZE)
        self.failureResultOf(cursor.ready(), WALUnavailable)


class RewoundTests(DelayedCase):
    """A primary dies in the middle of a record, and its successor writes something else there."""

    def test_old_bytes_do_not_count_for_new_ones(self) -> None:
        """What was there on the timeline before, beyond the switch point, makes nothing old."""
        end = WALPosition(1, LSN(START + 500))
        self.patch(self.provider, "end", lambda: end)
        self.arrivals.start()
        self.pass_time(30)
        end = WALPosition(2, LSN(START + 500))
        self.pass_time(31)
        history = TimelineHistory(2, (TimelineSwitch(1, LSN(START + 480), "a test"),))
        self.assertEqual(self.arrivals.old_until(history), START + 480)
        self.pass_time(30)
        self.assertEqual(self.arrivals.old_until(history), START + 500)
        stranger = TimelineHistory(3, ())
        self.assertEqual(self.arrivals.old_until(stranger), 0)


class BeforeTests(DelayedCase):
    """WAL that was here when we began to look: two finished segments, and a part of the third."""

    def setUp(self) -> None:
        super().setUp()
        for _ in range(2):
            self.append(SIZE)
        self.end = self.append(1000)
        self.first = SIZE.number(START)

    def written(self, *ages: float) -> None:
        """The segments were last written to so many seconds ago."""
        for number, age in enumerate(ages, self.first):
            self.provider.written[1, number] = NOW - age

    def test_old(self) -> None:
        """Old segments are given at once, after a start too."""
        self.written(500, 70, 61)
        self.arrivals.start()
        cursor = self.open()
        for end in (START + SIZE, START + 2 * SIZE, self.end):
            self.successResultOf(cursor.ready())
            self.assertEqual(self.read_all(cursor), end)

    def test_younger(self) -> None:
        """What was written to later is given later, by the clock that nobody sets."""
        self.written(100, 20, 5)
        self.arrivals.start()
        cursor = self.open()
        self.assertEqual(self.read_all(cursor), START + SIZE)
        ready = cursor.ready()
        self.wall += 86400
        self.pass_time(39)
        self.assertNoResult(ready)
        self.pass_time(2)
        self.successResultOf(ready)
        self.assertEqual(self.read_all(cursor), START + 2 * SIZE)
        self.assert_given(cursor, self.end, not_in=13, but_in=2)

    def test_what_comes_is_dated_by_us(self) -> None:
        """What comes into a segment that was begun before is no older for that."""
        self.written(100, 100, 100)
        self.arrivals.start()
        self.append(500)
        cursor = self.open(START + 2 * SIZE)
        self.successResultOf(cursor.ready())
        self.assertEqual(self.read_all(cursor), self.end)
        self.assert_given(cursor, self.end + 500, not_in=DELAY - 1, but_in=3)

    def test_written_in_the_future(self) -> None:
        """A date that cannot be counts as our start."""
        self.written(-86400, -86400, -86400)
        self.arrivals.start()
        self.assert_given(self.open(), self.end, not_in=DELAY - 1, but_in=2)

    def test_unknown(self) -> None:
        """So does a segment of which nobody knows."""
        self.arrivals.start()
        self.assert_given(self.open(), self.end, not_in=DELAY - 1, but_in=2)

    def test_a_timeline_that_ended_before(self) -> None:
        """Its end is as old as the segment in which the next one begins."""
        self.provider.end_timeline()
        self.append(10)
        self.written(100, 100, 100)
        self.provider.written[2, self.first + 2] = NOW - 10
        self.arrivals.start()
        cursor = self.open(self.end)
        ready = cursor.ready()
        self.pass_time(49)
        self.assertNoResult(ready)
        self.pass_time(2)
        self.failureResultOf(ready, EndOfTimeline)

    def test_history_that_is_missing(self) -> None:
        """Without the history of the timeline nothing is given, and nothing left open."""
        self.provider.end_timeline()
        self.append(10)
        self.provider.add_history(2, b"")
        del self.provider._history_files[2]
        inner = self.successResultOf(self.provider.open(2, LSN(self.end)))
        opening = open_delayed(inner, 2, self.provider, self.arrivals, self.clock)
        self.failureResultOf(Deferred.fromCoroutine(opening), WALUnavailable)
        self.assertEqual(self.provider.cursors, [])


class LongDelayTests(DelayedCase):
    """A delay of a week."""

    delay = 7 * 86400.0

    def test_bounded(self) -> None:
        """It is dated in thousandths of a week, which bounds what is remembered."""
        self.arrivals.start()
        cursor = self.open()
        ready = cursor.ready()
        for hour in range(8 * 24):
            self.append(8)
            self.clock.pump([600] * 6)
            if hour < 7 * 24 - 1:
                self.assertNoResult(ready)
        self.successResultOf(ready)
        self.assertLessEqual(len(self.arrivals), 1003)
        self.read_all(cursor)
        self.assertGreater(cursor.position, START)
