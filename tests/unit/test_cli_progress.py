"""Tests for walstream.cli.progress: who gets to see a bar."""

from __future__ import annotations

import sys
from io import StringIO
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from walstream.cli.progress import progress


class Terminal(StringIO):
    """What standard error is when somebody looks."""

    def isatty(self) -> bool:
        """It is one."""
        return True


class ProgressTests(SynchronousTestCase):
    """On a terminal, into a file, and without tqdm."""

    def shown(self, error: StringIO) -> str:
        """What is on standard error when 3 of 4 segments are done."""
        self.patch(sys, "stderr", error)
        with progress(4, "verify") as advance:
            advance(1)
            advance(2)
        return error.getvalue()

    def test_a_terminal_shows_a_bar(self) -> None:
        """With what is done, and how much there is."""
        shown = self.shown(Terminal())
        self.assertIn("verify", shown)
        self.assertIn("/4", shown)

    def test_a_file_stays_empty(self) -> None:
        """Nobody wants a bar in a log."""
        self.assertEqual(self.shown(StringIO()), "")

    def test_without_tqdm_nothing_is_shown(self) -> None:
        """It is an extra."""
        with patch.dict(sys.modules, {"tqdm": None}):
            self.assertEqual(self.shown(Terminal()), "")
