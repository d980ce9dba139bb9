"""Tests for tests.servers.versions: what is said when servers cannot be had."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.versions import PINS, PROBES, ServersUnavailable, fetch, selected_majors
from walstream.embedded import Account
from walstream.embedded.processes import run


class SelectedMajorsTests(SynchronousTestCase):
    """WALSTREAM_TEST_VERSIONS chooses among the versions."""

    def selected(self, text: str) -> tuple[int, ...]:
        """What is chosen by this value."""
        self.patch(os, "environ", {"WALSTREAM_TEST_VERSIONS": text})
        return selected_majors()

    def test_without_a_choice_there_are_four(self) -> None:
        """The versions that walstream promises to work with; 14 is there on request."""
        self.assertEqual(self.selected(""), (15, 16, 17, 18))
        self.assertEqual(self.selected("14"), (14,))

    def test_a_choice_is_sorted(self) -> None:
        """The newest comes last, however they are written."""
        self.assertEqual(self.selected("18, 15 16"), (15, 16, 18))

    def test_an_unknown_version_is_refused(self) -> None:
        """The error names the variable and what there is."""
        error = self.assertRaises(ServersUnavailable, self.selected, "18,9")
        self.assertIn("WALSTREAM_TEST_VERSIONS=18,9", str(error))
        self.assertIn("14, 15, 16, 17, 18", str(error))


class CacheTests(SynchronousTestCase):
    """Programs are run only from a directory that nobody else could have filled."""

    def setUp(self) -> None:
        """Have a cache with programs that do not run."""
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.cache = Path(scratch.name) / "cache"
        bindir = self.cache / PINS[18] / "bin"
        bindir.mkdir(parents=True)
        self.cache.chmod(0o755)
        for name in PROBES:
            (bindir / name).write_text("#!/bin/sh\necho libreadline.so.8: not found; exit 127\n")
            (bindir / name).chmod(0o755)
        run(["true"], Account.ourselves())  # finds, once for all, what needs a PATH to be found
        self.patch(os, "environ", {"WALSTREAM_TEST_POSTGRES": str(self.cache), "PATH": ""})

    def test_programs_that_do_not_run_are_reported_with_the_way_out(self) -> None:
        """Without apt-get the error says what is missing, and the command that brings it."""
        error = self.assertRaises(ServersUnavailable, fetch, [18])
        self.assertIn("libreadline.so.8: not found", str(error))
        self.assertIn("sudo apt-get install", str(error))

    def test_a_directory_that_others_can_write_to_is_refused(self) -> None:
        """Nothing is run from there."""
        self.cache.chmod(0o777)
        error = self.assertRaises(ServersUnavailable, fetch, [18])
        self.assertIn("only we can write to", str(error))

    def test_a_link_is_refused(self) -> None:
        """It may be someone else's, and lead anywhere."""
        link = self.cache.with_name("link")
        link.symlink_to(self.cache)
        self.patch(os, "environ", {"WALSTREAM_TEST_POSTGRES": str(link)})
        self.assertRaises(ServersUnavailable, fetch, [18])
