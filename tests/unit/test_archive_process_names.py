"""Tests for walstream.archive.process_names: the names of files that belong to one process."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from walstream.archive.process_names import new_name, process_of


class ProcessNameTests(SynchronousTestCase):
    """They say whose they are, and no two are the same."""

    def test_ours(self) -> None:
        """This process's."""
        self.assertNotEqual(new_name(), new_name())
        self.assertTrue(new_name().startswith(f"{os.getpid()}-"))
        self.assertEqual(process_of(new_name()), os.getpid())

    def test_others(self) -> None:
        """Whatever else there is, is nobody's."""
        self.assertEqual(process_of("12-0123456789abcdef"), 12)
        for name in (
            "12",
            "lock",
            "12-0123456789ABCDEF",
            "12-0123456789abcdef.new",
            "-0123456789abcdef",
        ):
            self.assertIsNone(process_of(name), name)
