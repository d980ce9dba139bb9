"""Tests for walstream.services.retry."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream import errors
from walstream.errors import (
    ArchiveError,
    ArchiveLost,
    Disconnected,
    Discontinuity,
    FormatError,
    ProtocolViolation,
    ServerError,
    SinkFailed,
    TimelineMismatch,
    UpstreamBehind,
    UpstreamRefused,
    WalstreamError,
    WrongSystem,
)
from walstream.services.retry import VERDICTS, Backoff, Verdict, verdict


class VerdictTests(SynchronousTestCase):
    """What becomes of each error."""

    def test_table(self) -> None:
        """Errors that would only happen again are given up on, all others are not. (L18)"""
        for error, expected in (
            (WrongSystem("x"), Verdict.GIVE_UP),
            (ArchiveError("x"), Verdict.GIVE_UP),
            (FormatError("x"), Verdict.GIVE_UP),
            (UpstreamRefused("x"), Verdict.RETRY),
            (UpstreamBehind("x"), Verdict.RETRY),
            (TimelineMismatch("x"), Verdict.RETRY),
            (ServerError("FATAL", "28P01", "x"), Verdict.RETRY),
            (Disconnected("x"), Verdict.RETRY),
            (ProtocolViolation("x"), Verdict.RETRY),
            (Discontinuity(1, 2), Verdict.RETRY),
            (SinkFailed("x"), Verdict.RETRY),
            (ArchiveLost("x"), Verdict.RETRY),
            (WalstreamError("x"), Verdict.RETRY),
            (RuntimeError("x"), Verdict.RETRY),
        ):
            self.assertIs(verdict(error), expected, repr(error))

    def test_subclass(self) -> None:
        """An error that is not in the table is judged by the nearest class that is."""

        class WrongTenant(WrongSystem):
            pass

        self.assertIs(verdict(WrongTenant("x")), Verdict.GIVE_UP)

    def test_only_our_errors(self) -> None:
        """The table has no class but walstream's own."""
        for kind in VERDICTS:
            self.assertIs(getattr(errors, kind.__name__), kind)


class BackoffTests(SynchronousTestCase):
    """How long to wait."""

    def delays(self, chance: float) -> list[float]:
        """What there is to wait after 0 to 9 failures."""
        backoff = Backoff(first=0.1, longest=5.0)
        return [round(backoff.delay(failures, lambda: chance), 6) for failures in range(10)]

    def test_doubles(self) -> None:
        """The wait doubles up to its limit, and at most half of it is up to chance."""
        full = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0]
        self.assertEqual(self.delays(1.0), full)
        self.assertEqual(self.delays(0.0), [round(seconds / 2, 6) for seconds in full])

    def test_first_by_default(self) -> None:
        """By default the first retry comes well within a second, and none takes above five."""
        self.assertLessEqual(Backoff().delay(0, lambda: 1.0), 0.2)
        self.assertEqual(Backoff().delay(100, lambda: 1.0), 5.0)

    def test_chance(self) -> None:
        """Left to itself, chance makes the waits of many receivers different."""
        self.assertGreater(len({Backoff().delay(5) for _ in range(10)}), 1)

    def test_for_ever(self) -> None:
        """A server that has been away for years has no effect on arithmetic."""
        self.assertEqual(Backoff().delay(10**9, lambda: 1.0), 5.0)
