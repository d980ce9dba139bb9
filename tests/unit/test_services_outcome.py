"""Tests for walstream.services.outcome."""

from __future__ import annotations

import gc

from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from walstream.services.outcome import Outcome


class OutcomeTests(SynchronousTestCase):
    """A result that any number may wait for."""

    def setUp(self) -> None:
        self.outcome: Outcome[int] = Outcome()

    def test_before_and_after(self) -> None:
        """Who asked before it ended learns the same as who asks afterwards."""
        early = [self.outcome.wait(), self.outcome.wait()]
        for waiter in early:
            self.assertNoResult(waiter)
        self.outcome.set(7)
        for waiter in (*early, self.outcome.wait()):
            self.assertEqual(self.successResultOf(waiter), 7)

    def test_first_result_counts(self) -> None:
        """Whatever is set later is ignored."""
        self.outcome.set(7)
        self.outcome.set(Failure(ValueError()))
        self.assertEqual(self.successResultOf(self.outcome.wait()), 7)

    def test_chains_are_separate(self) -> None:
        """What one makes of the result is nothing to the others."""
        waiter, other = self.outcome.wait(), self.outcome.wait()
        waiter.addCallback(lambda _: None)
        self.outcome.set(7)
        self.assertEqual(self.successResultOf(other), 7)

    def test_failure(self) -> None:
        """A failure reaches everyone who waits, and each deals with it."""
        waiter = self.outcome.wait()
        self.outcome.set(Failure(ValueError("x")))
        self.failureResultOf(waiter, ValueError)
        self.failureResultOf(self.outcome.wait(), ValueError)

    def test_failure_that_nobody_asked_for(self) -> None:
        """A failure that nobody waits for is not reported as an error without a handler."""
        self.outcome.set(Failure(ValueError("x")))
        del self.outcome
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cancelled(self) -> None:
        """Who no longer waits is left alone; the others are not."""
        waiter, other = self.outcome.wait(), self.outcome.wait()
        waiter.cancel()
        self.failureResultOf(waiter, CancelledError)
        self.outcome.set(7)
        self.assertEqual(self.successResultOf(other), 7)

    def test_asking_meanwhile(self) -> None:
        """Who asks out of another's callback is told as well."""
        late = []
        self.outcome.wait().addCallback(lambda _: late.append(self.outcome.wait()))
        self.outcome.set(7)
        self.assertEqual([self.successResultOf(waiter) for waiter in late], [7])
