"""The manual's page of tools has every command, argument and exit status that there is."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walstream.archive.listing import SCHEMA
from walstream.cli.main import COMMANDS

_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "tools.md"


def section(command: str) -> str:
    """What the page says of a command."""
    text = _PAGE.read_text("utf-8")
    return text.partition(f"\n## walstream {command}\n")[2].partition("\n## ")[0]


def table(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose first column is called *head*."""
    lines = text.partition(f"\n| {head} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def documented_arguments(command: str) -> set[str]:
    """As they are written, with what they take."""
    rows = table(section(command), "argument")
    return {name for cell, *_ in rows for name in re.findall(r"`([^`]+)`", cell)}


def actual_arguments(command: str) -> set[str]:
    """The same of the parser."""
    parser = ArgumentParser(add_help=False)
    COMMANDS[command].load().add_arguments(parser)
    found = set()
    for action in parser._actions:
        takes = "" if action.nargs == 0 else f" {action.metavar}"
        names = [f"{name}{takes}" for name in action.option_strings] or [takes.strip()]
        found.update(names)
    return found


class ToolsPageTests(SynchronousTestCase):
    """docs/reference/tools.md against the parsers of walstream.cli."""

    def test_every_argument_is_documented_and_no_other(self) -> None:
        """Of every command."""
        for command in COMMANDS:
            self.assertEqual(documented_arguments(command), actual_arguments(command), command)

    def test_every_exit_status_is_documented_and_no_other(self) -> None:
        """Those that the command's module names, and 0."""
        for command, each in COMMANDS.items():
            module = vars(each.load())
            names = {name for name in module["__all__"] if name.isupper()} - {"SCHEMA"}
            actual = {module[name] for name in names}
            documented = {int(status) for status, *_ in table(section(command), "status")}
            self.assertEqual(documented, {0} | actual, command)

    def test_every_command_is_in_the_list(self) -> None:
        """At the beginning of the page."""
        text = _PAGE.read_text("utf-8").partition("\n## ")[0]
        for command in COMMANDS:
            self.assertIn(f"[`walstream {command}`](#walstream-{command})", text)

    def test_the_form_has_its_version(self) -> None:
        """A new one needs a new description."""
        self.assertIn(f"| `schema` | {SCHEMA} |", _PAGE.read_text("utf-8"))
