"""Tests for walstream.demo.logs."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from walstream.demo.logs import DemoLog, HeldOutput


class HeldOutputTests(SynchronousTestCase):
    """What twistd logs by its own means."""

    def setUp(self) -> None:
        self.stream = io.StringIO()
        self.at_exit: list[Callable[[], None]] = []
        self.held = HeldOutput(self.stream, self.at_exit.append)

    def test_shows_what_it_held_if_the_demo_never_began(self) -> None:
        """Such as the reason for that."""
        self.held.write("cannot write the pidfile\n")
        self.held.flush()
        self.assertEqual(self.stream.getvalue(), "")
        for call in self.at_exit:
            call()
        self.assertEqual(self.stream.getvalue(), "cannot write the pidfile\n")

    def test_shows_nothing_once_the_demo_has_the_log(self) -> None:
        """Neither what came before nor what comes after."""
        self.held.write("Log opened.\n")
        self.held.drop()
        self.held.write("Server Shut Down.\n")
        for call in self.at_exit:
            call()
        self.assertEqual(self.stream.getvalue(), "")


class DemoLogTests(SynchronousTestCase):
    """The log of the demo."""

    def setUp(self) -> None:
        self.publisher = LogPublisher()
        self.logger = Logger("demo", observer=self.publisher)
        self.said: list[str] = []
        self.log = DemoLog(self.publisher, HeldOutput(io.StringIO(), lambda _: None))
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.path = Path(temporary.name) / "log"

    def test_says_warnings_and_errors_only(self) -> None:
        """Without the time and the place: the file has them."""
        self.log.begin(self.said.append)
        self.logger.info("listening on {port}", port=5433)
        self.logger.warn("trying again in {seconds} s", seconds=2)
        self.assertEqual(self.said, ["trying again in 2 s"])
        self.log.end()

    def test_writes_everything_to_the_file(self) -> None:
        """From the time on that there is one."""
        self.log.begin(self.said.append)
        self.logger.info("before")
        self.log.write_to(self.path)
        self.logger.info("listening on {port}", port=5433)
        self.logger.error("lost")
        self.log.end()
        lines = self.path.read_text().splitlines()
        self.assertEqual(len(lines), 2)
        self.assertIn("listening on 5433", lines[0])
        self.assertIn("lost", lines[1])

    def test_ends(self) -> None:
        """Nothing is said any more, and nothing written."""
        self.log.begin(self.said.append)
        self.log.write_to(self.path)
        self.log.end()
        self.logger.error("too late")
        self.assertEqual(self.said, [])
        self.assertEqual(self.path.read_text(), "")
