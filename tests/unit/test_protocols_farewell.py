"""Tests for walstream.protocols.farewell: whether a server waits for us to shut down."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.protocols.farewell import Farewell

SECOND = 1_000_000


class FarewellTests(SynchronousTestCase):
    """A server's questions and answers, by its own clock."""

    def test_it_waits(self) -> None:
        """Asked again in the moment of its answer, twice in a row."""
        farewell, found = Farewell(), []
        found.append(farewell.asks(5 * SECOND))
        for time in range(6 * SECOND, 9 * SECOND, SECOND):
            farewell.answers(time)
            found.append(farewell.asks(time + 30))
        self.assertEqual(found, [False, False, True, True])

    def test_it_wants_a_sign_of_life(self) -> None:
        """After half of its timeout, however short that is; however often."""
        farewell = Farewell()
        for time in range(0, 100 * SECOND, SECOND // 2):
            self.assertFalse(farewell.asks(time))
            farewell.answers(time + 100)

    def test_unasked(self) -> None:
        """A question that follows no answer tells nothing, and what was before is forgotten."""
        farewell = Farewell()
        for time in range(10):
            farewell.answers(time)
            self.assertFalse(farewell.asks(time))
            self.assertFalse(farewell.asks(time))

    def test_its_clock_is_set_back(self) -> None:
        """Then nothing can be told from it."""
        farewell = Farewell()
        for time in range(10 * SECOND, 0, -SECOND):
            farewell.answers(time)
            self.assertFalse(farewell.asks(time - SECOND))
