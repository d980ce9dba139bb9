"""Tests for `walstream.protocols.silence`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walstream.protocols.silence import SilenceWatch


class SilenceWatchTests(SynchronousTestCase):
    """`SilenceWatch` with a timeout of 60 seconds."""

    timeout = 60.0

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.began = self.clock.seconds()
        self.events: list[tuple[str, float]] = []
        self.watch = SilenceWatch(
            self.clock, self.timeout, lambda: self.note("ask"), lambda: self.note("give up")
        )

    def note(self, event: str) -> None:
        self.events.append((event, self.clock.seconds() - self.began))

    def pass_time(self, seconds: int) -> None:
        """In small steps, so that everything happens when it is due."""
        self.clock.pump([0.5] * 2 * seconds)

    def test_asks_after_half_and_gives_up_after_all(self) -> None:
        """A peer that never says anything is asked once, then given up once."""
        self.watch.start()
        self.pass_time(200)
        self.assertEqual(self.events, [("ask", 30.0), ("give up", 60.0)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_answer_starts_anew(self) -> None:
        """Half of the timeout counts from the last sign of life, and it is asked again."""
        self.watch.start()
        self.pass_time(32)
        self.watch.heard()
        self.pass_time(61)
        self.assertEqual(self.events, [("ask", 30.0), ("ask", 62.0), ("give up", 92.0)])

    def test_time_that_passed_without_us(self) -> None:
        """A process that stood still, or a clock that was set forward, is not the peer's fault."""
        self.watch.start()
        self.clock.advance(3600)
        self.assertEqual(self.events, [("ask", 3600.0)])
        self.pass_time(29)
        self.watch.heard()
        self.pass_time(29)
        self.assertEqual(self.events, [("ask", 3600.0)])
        self.pass_time(40)
        self.assertEqual([event for event, _ in self.events], ["ask", "ask", "give up"])

    def test_clock_set_back(self) -> None:
        """It only takes longer then; and nothing breaks."""
        self.watch.start()
        self.pass_time(10)
        self.clock.rightNow -= 3600
        self.watch.heard()
        self.pass_time(3700)
        self.assertEqual([event for event, _ in self.events], ["ask", "give up"])

    def test_a_late_answer_counts(self) -> None:
        """An answer in the last moment saves the peer."""
        self.watch.start()
        self.clock.advance(59.9)
        self.watch.heard()
        self.clock.advance(29.9)
        self.assertEqual([event for event, _ in self.events], ["ask"])

    def test_peer_that_talks_is_not_asked(self) -> None:
        """Signs of life more often than half of the timeout spare the peer the question."""
        self.watch.start()
        for _ in range(100):
            self.pass_time(29)
            self.watch.heard()
        self.assertEqual(self.events, [])

    def test_does_not_wake_up_for_each_sign(self) -> None:
        """However much the peer says, there is one timer, and it is left alone."""
        self.watch.start()
        (timer,) = self.clock.getDelayedCalls()
        for _ in range(1000):
            self.watch.heard()
        self.assertEqual(self.clock.getDelayedCalls(), [timer])

    def test_stop_leaves_no_timer(self) -> None:
        """After `stop` nothing is left, whatever came before; it may come twice."""
        for seconds in (0, 31, 61):
            watch = SilenceWatch(self.clock, self.timeout, lambda: None, lambda: None)
            watch.start()
            self.pass_time(seconds)
            watch.stop()
            watch.stop()
            self.assertEqual(self.clock.getDelayedCalls(), [], seconds)

    def test_stop_before_start(self) -> None:
        """A watch that never began can be stopped."""
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_from_within(self) -> None:
        """Whoever is told to ask, or to give up, may stop the watch."""
        for event, seconds in ((0, 31), (1, 61)):
            watches: list[SilenceWatch] = []
            calls = [lambda: None, lambda: None]
            calls[event] = lambda watches=watches: watches[0].stop()  # type: ignore[misc]
            watches.append(SilenceWatch(self.clock, self.timeout, *calls))
            watches[0].start()
            self.pass_time(seconds)
            self.assertEqual(self.clock.getDelayedCalls(), [], event)

    def test_heard_while_asked(self) -> None:
        """An answer that comes while it is being asked is an answer."""
        watches: list[SilenceWatch] = []

        def ask() -> None:
            self.note("ask")
            watches[0].heard()

        watches.append(SilenceWatch(self.clock, 60, ask, lambda: self.note("give up")))
        watches[0].start()
        self.pass_time(100)
        self.assertEqual(self.events, [("ask", 30.0), ("ask", 60.0), ("ask", 90.0)])

    def test_silence_does_not_count_while_suspended(self) -> None:
        """While we do not listen nobody is asked, and nobody given up."""
        self.watch.start()
        self.watch.suspend()
        self.pass_time(500)
        self.assertEqual(self.events, [])

    def test_resume_starts_anew(self) -> None:
        """Once we listen again, the peer has the whole time."""
        self.watch.start()
        self.pass_time(31)
        self.watch.suspend()
        self.pass_time(99)
        self.watch.resume()
        self.pass_time(90)
        self.assertEqual(self.events, [("ask", 30.0), ("ask", 160.0), ("give up", 190.0)])

    def test_suspended_before_start(self) -> None:
        """A watch that begins while we do not listen waits with its questions too."""
        self.watch.suspend()
        self.watch.start()
        self.pass_time(100)
        self.assertEqual(self.events, [])

    def test_no_timeout(self) -> None:
        """A timeout of 0 never asks, never gives up, and has no timer."""
        watch = SilenceWatch(self.clock, 0, lambda: self.note("ask"), lambda: self.note("give up"))
        watch.start()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        watch.suspend()
        watch.resume()
        watch.heard()
        self.pass_time(500)
        self.assertEqual(self.events, [])
