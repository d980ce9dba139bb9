"""Tests for walstream.protocols.lag: how late a client is, as PostgreSQL's LagTracker tells it."""

from __future__ import annotations

import random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walstream.protocols.lag import EndHistory, Lags, LagTracker


class EndHistoryTests(SynchronousTestCase):
    """When our end was where."""

    def setUp(self) -> None:
        self.ends = EndHistory()

    def test_passed(self) -> None:
        """Since when a position has been behind our end."""
        self.assertIsNone(self.ends.passed(100))
        for end, now in ((100, 1.0), (200, 2.0), (150, 2.5), (200, 2.6), (300, 3.0)):
            self.ends.note(end, now)
        self.assertEqual((len(self.ends), self.ends.last), (3, 300))
        self.assertEqual(
            [self.ends.passed(each) for each in (99, 100, 199, 200, 299, 300)],
            [1.0, 2.0, 2.0, 3.0, 3.0, None],
        )

    def test_it_is_bounded(self) -> None:
        """However long it goes on: what is recent is told exactly, all else to a 64th or so."""
        clock, position, noted = 0.0, 0, []
        chance = random.Random(1)
        for _ in range(60_000):
            clock += chance.choice((0.0005, 0.001, 0.2))
            position += 100
            self.ends.note(position, clock)
            noted.append((position, clock))
            self.assertLess(len(self.ends), 4096)
        self.assertEqual(self.ends.passed(noted[-2][0]), noted[-1][1])
        for end, time in noted[::500]:
            told, age = self.ends.passed(end - 1), clock - time
            assert told is not None
            self.assertTrue(time <= told <= time + age / 32 + 1e-6, (end, time, told, clock))

    def test_it_is_bounded_with_any_clock(self) -> None:
        """A clock that stands still for ever makes all notes equally old."""
        for end in range(1, 20_000):
            self.ends.note(end, -1.0 * end)
            self.assertLess(len(self.ends), 4096)


class LagTrackerTests(SynchronousTestCase):
    """One stream's lags. Clocks in tests count whole seconds, which floats hold exactly."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.ends = EndHistory()
        self.ends.note(50, 0.0)
        self.lag = LagTracker(self.ends, self.clock.seconds)

    def end(self, position: int, seconds: float = 0) -> None:
        """Our WAL ends there; some time passes."""
        self.lag.note_end(position)
        self.sent = position
        self.clock.advance(seconds)

    def test_a_note_that_is_passed(self) -> None:
        """Each position has the age of the last note that it has passed."""
        self.end(100, 2)
        self.end(200, 4)
        self.assertEqual(self.lag.reported(200, 200, 199, 100), Lags(4, 6, 6))
        self.clock.advance(1)
        self.assertEqual(self.lag.reported(200, 200, 200, 200), Lags(4, 5, 5))

    def test_before_the_stream(self) -> None:
        """What came before the stream began counts from there."""
        self.clock.advance(3)
        self.assertEqual(self.lag.reported(50, 50, 50, 50), Lags(3, 3, 3))

    def test_stuck(self) -> None:
        """A position that stands still between two notes shows a growing lag."""
        self.end(100, 4)
        self.end(200, 1)
        self.assertEqual(self.lag.reported(200, 100, 100, 100).apply, 5)
        self.clock.advance(2)
        self.assertEqual(self.lag.reported(200, 200, 150, 100), Lags(3, 5, 7))

    def test_stuck_from_the_start(self) -> None:
        """With no note passed yet, it is as old as what it lacks, or as the stream."""
        self.end(100, 4)
        self.assertEqual(self.lag.reported(100, 20, 60, 20), Lags(4, 4, 4))
        self.clock.advance(1)
        self.assertEqual(self.lag.reported(100, 20, 60, 20), Lags(5, 5, 5))

    def test_a_burst_after_a_rest(self) -> None:
        """Whoever had everything is not late by the time of the rest."""
        self.end(100, 1)
        self.lag.reported(100, 100, 100, 100)
        self.clock.advance(3600)
        self.end(300, 2)
        self.assertEqual(self.lag.reported(300, 200, 200, 100), Lags(2, 2, 2))

    def test_idle(self) -> None:
        """A client that has applied everything and says so again has no lag any more."""
        self.end(100, 1)
        self.assertEqual(self.lag.reported(100, 100, 100, 90).write, 1)
        self.assertEqual(self.lag.reported(100, 100, 100, 100), Lags(1, 1, 1))
        self.clock.advance(10)
        self.assertEqual(self.lag.reported(100, 100, 100, 100), Lags())
        self.end(200, 1)
        self.assertEqual(self.lag.reported(200, 200, 200, 200), Lags(1, 1, 1))

    def test_a_stop_that_is_no_idleness(self) -> None:
        """Who has not applied everything keeps its lags however often it says so."""
        self.end(100, 1)
        self.lag.reported(100, 100, 100, 60)
        self.assertEqual(self.lag.reported(100, 100, 100, 60), Lags(1, 1, 1))

    def test_what_is_not_reported(self) -> None:
        """pg_receivewal reports no apply position: it has no such lag."""
        self.end(100, 1)
        self.assertEqual(self.lag.reported(100, 100, 0, 0), Lags(1, None, None))

    def test_a_position_that_goes_back(self) -> None:
        """As on another timeline: the lag of before stays, and nothing is made up."""
        self.end(100, 1)
        self.lag.reported(100, 100, 100, 100)
        self.end(200, 1)
        self.assertEqual(self.lag.reported(200, 90, 90, 90), Lags(1, 1, 1))
        self.clock.advance(7)
        self.assertEqual(self.lag.reported(200, 90, 90, 90), Lags(1, 1, 1))
