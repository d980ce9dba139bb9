"""Tests for walstream.cli.main: which command is run, and what becomes of its errors."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from io import StringIO
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from walstream import __version__
from walstream.cli import main
from walstream.cli.main import COMMANDS, Command
from walstream.errors import ArchiveError


class MainTests(SynchronousTestCase):
    """With one command of the test's own."""

    def setUp(self) -> None:
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)
        self.module = ModuleType("tests.unit.echo_command")
        self.module.__dict__.update(FAILURE=99, add_arguments=add_arguments, run=self.run_command)
        self.patch(sys, "modules", {**sys.modules, self.module.__name__: self.module})
        COMMANDS["echo"] = Command(self.module.__name__, "Say it again.")
        self.addCleanup(COMMANDS.pop, "echo")
        self.error: Exception | None = None

    def run_command(self, arguments: Namespace) -> int:
        """What the command does."""
        if self.error is not None:
            raise self.error
        self.out.write(arguments.word)
        return 7

    def status(self, *words: str) -> int | str | None:
        """How the command line exits."""
        try:
            return main(words)
        except SystemExit as stop:
            return stop.code

    def test_runs_the_command(self) -> None:
        """With its arguments, and its status is ours."""
        self.assertEqual(self.status("echo", "hello"), 7)
        self.assertEqual(self.out.getvalue(), "hello")

    def test_an_error_on_purpose_is_one_line(self) -> None:
        """Without a traceback, and with the command's own status."""
        self.error = ArchiveError("no such archive")
        self.assertEqual(self.status("echo", "hello"), 99)
        self.assertEqual(self.err.getvalue(), "walstream: no such archive\n")

    def test_a_wrong_command_line_exits_as_the_command_says(self) -> None:
        """To PostgreSQL's restore_command, 2 would mean that there is no such file."""
        self.assertEqual(self.status("echo"), 99)
        self.assertIn("word", self.err.getvalue())

    def test_an_option_given_twice(self) -> None:
        """Of two values none wins in silence, unless they are a list."""
        for words, name in (
            (("-n1", "--number", "1"), "--number/-n"),
            (("--name=a", "--name=b"), "--name"),
        ):
            self.assertEqual(self.status("echo", "hello", *words), 99)
            said = self.err.getvalue().splitlines()[-1]
            self.assertIn(f"argument {name}: is given twice", said)
        for words in (("-n1", "--name=a"), ("--flag", "--flag"), ("--each=a", "--each=b")):
            self.assertEqual(self.status("echo", "hello", *words), 7)

    def test_help_and_version(self) -> None:
        """Neither needs a command."""
        self.assertEqual(self.status("--help"), 0)
        self.assertIn("Say it again.", self.out.getvalue())
        self.assertEqual(self.status("--version"), 0)
        self.assertIn(f"walstream {__version__}", self.out.getvalue())

    def test_unknown_command(self) -> None:
        """It names those that there are. To PostgreSQL, 2 would mean that there is no file."""
        self.assertEqual(self.status("nosuch"), 127)
        self.assertIn("echo", self.err.getvalue())


def add_arguments(parser: ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("word")
    parser.add_argument("--number", "-n", type=int, default=1)
    parser.add_argument("--name", action="store")
    parser.add_argument("--flag", action="store_true")
    parser.add_argument("--each", action="append")
