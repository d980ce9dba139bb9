"""Tests for `walstream.services.steady_time`."""

from __future__ import annotations

import time

from twisted.internet.base import ReactorBase
from twisted.trial.unittest import SynchronousTestCase

from walstream.services.steady_time import use_steady_time


class _Reactor(ReactorBase):
    """Twisted's own timers, with nothing to wait for."""

    def installWaker(self) -> None:
        pass


class SteadyTimeTests(SynchronousTestCase):
    """A reactor whose clock is set while it runs."""

    def setUp(self) -> None:
        self.wall, self.steady = 1_800_000_000.0, 5000.0
        self.patch(time, "time", lambda: self.wall)
        self.patch(time, "monotonic", lambda: self.steady)
        self.reactor = _Reactor()
        self.calls: list[str] = []
        use_steady_time(self.reactor)

    def check(self, step: float) -> None:
        """A call in ten seconds comes in ten seconds, by whatever the clock is set meanwhile."""
        self.reactor.callLater(10, self.calls.append, "called")
        self.wall += step
        self.steady += 9.9
        self.reactor.runUntilCurrent()
        self.assertEqual(self.calls, [])
        self.steady += 0.2
        self.reactor.runUntilCurrent()
        self.assertEqual(self.calls, ["called"])

    def test_set_forward(self) -> None:
        """It does not come early."""
        self.check(3600)

    def test_set_back(self) -> None:
        """It does not come late."""
        self.check(-3600)

    def test_begins_at_the_time_of_day(self) -> None:
        """Whatever takes it for that is right at first."""
        self.assertEqual(self.reactor.seconds(), self.wall)
