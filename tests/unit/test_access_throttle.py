"""Tests for walstream.access.throttle."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walstream.access.throttle import Throttle


class ThrottleTests(SynchronousTestCase):
    """Failures, and what they cost."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.throttle = Throttle(self.clock.seconds, first=0.5, longest=5.0, forgiven=30.0)

    def fail_times(self, count: int, address: str = "a") -> list[float]:
        """How late answers are after each of so many failures."""
        delays = []
        for _ in range(count):
            self.throttle.failed(address)
            delays.append(self.throttle.delay(address))
        return delays

    def test_each_costs_twice_as_much(self) -> None:
        """Up to a limit, and for nobody else."""
        self.assertEqual(self.throttle.delay("a"), 0)
        self.assertEqual(self.fail_times(8), [0.5, 1, 2, 4, 5, 5, 5, 5])
        self.assertEqual(self.throttle.delay("b"), 0)

    def test_forgiven(self) -> None:
        """One after the other; in the end nothing is left of them, however many there were."""
        self.fail_times(100)
        delays = []
        while len(self.throttle):
            self.clock.advance(30)
            delays.append(self.throttle.delay("a"))
        self.assertEqual(delays, [4, 2, 1, 0.5, 0])

    def test_forgiven_but_not_for_those_who_go_on(self) -> None:
        self.fail_times(3)
        for _ in range(20):
            self.clock.advance(29)
            self.throttle.failed("a")
        self.assertEqual(self.throttle.delay("a"), 5)

    def test_off(self) -> None:
        """Nothing is counted."""
        throttle = Throttle(self.clock.seconds, first=0)
        throttle.failed("a")
        self.assertEqual(throttle.delay("a"), 0)
        self.assertEqual(len(throttle), 0)

    def test_one_that_is_as_long_as_any(self) -> None:
        """The first may cost as much as can be."""
        throttle = Throttle(self.clock.seconds, first=9, longest=5)
        throttle.failed("a")
        self.assertEqual(throttle.delay("a"), 5)
        self.clock.advance(30)
        self.assertEqual(throttle.delay("a"), 0)

    def test_bounded(self) -> None:
        """Of so many addresses only the last are remembered."""
        self.fail_times(3, "first")
        for number in range(10_050):
            if number % 1000 == 0:
                self.throttle.failed("busy")
            self.throttle.failed(str(number))
        self.assertEqual(len(self.throttle), 10_000)
        self.assertEqual(self.throttle.delay("first"), 0)
        self.assertEqual(self.throttle.delay("busy"), 5)

    def test_a_clock_that_is_set_back(self) -> None:
        """Nothing is forgiven for that, and nothing is added."""
        self.clock.advance(1000)
        self.fail_times(2)
        self.clock.rightNow = 100.0
        self.assertEqual(self.throttle.delay("a"), 1)
        self.clock.advance(30)
        self.assertEqual(self.throttle.delay("a"), 0.5)
