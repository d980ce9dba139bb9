"""Which commands there are, and how one of them is run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn, Protocol, cast

from walstream import __version__
from walstream.errors import WalstreamError

__all__ = ["COMMANDS", "Command", "main"]


class _CommandModule(Protocol):
    """What a command's module has."""

    #: How it exits when the command line is wrong, or when an error has no status of its own.
    FAILURE: int

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Say what the command takes."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit status."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: the module that knows it, and what it does in one line."""

    module: str
    summary: str

    def load(self) -> _CommandModule:
        """The module."""
        return cast(_CommandModule, import_module(self.module))


COMMANDS: dict[str, Command] = {
    "ls": Command("walstream.cli.ls", "Show what an archive holds, and what it lacks."),
    "prune": Command("walstream.cli.prune", "Remove what nobody needs any more."),
    "status": Command(
        "walstream.cli.status", "Show the processes of an archive, and what each standby has."
    ),
    "verify": Command("walstream.cli.verify", "Check that an archive is good, to each record."),
    "role": Command("walstream.cli.role", "Say who may come in, by which password, and how far."),
    "hba-check": Command(
        "walstream.cli.hba_check", "Show which rule a connection meets, and what it has to prove."
    ),
    "restore-wal": Command("walstream.cli.restore_wal", "For a server's restore_command."),
}

# What the shell says of a command that it does not find: to a server whose restore_command has a
# mistake in it, 2 would mean that there is no more WAL.
_NO_SUCH_COMMAND = 127


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that the words ask for; the exit status.

    :param words: the command line without the program's name; ``sys.argv``'s unless given.
    """
    words = sys.argv[1:] if words is None else words
    parser = _Parser(
        prog="walstream",
        description="Tools for archives of PostgreSQL's write-ahead log. To fill or serve one: "
        "twistd walstream --help.",
        allow_abbrev=False,
        formatter_class=_formatter,
    )
    parser.failure = _NO_SUCH_COMMAND
    parser.add_argument("-V", "--version", action="version", version=f"walstream {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Parser
    )
    wanted = next((word for word in words if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=command.summary,
            description=command.summary,
            allow_abbrev=False,
            formatter_class=_formatter,
        )
        if name == wanted:
            module = command.load()
            # Of arguments that nobody takes it is the first parser that complains.
            parser.failure = subparser.failure = module.FAILURE
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run, failure=module.FAILURE)
    return _run(parser.parse_args(words))


def _run(arguments: argparse.Namespace) -> int:
    run: Callable[[argparse.Namespace], int] = arguments.run
    failure: int = arguments.failure
    try:
        return run(arguments)
    except (WalstreamError, OSError) as error:
        sys.stderr.write(f"walstream: {error}\n")
        return failure
    except KeyboardInterrupt:
        return 130


def _formatter(prog: str) -> argparse.HelpFormatter:
    """For helps as wide as the terminal. argparse would find that out by means that load longer."""
    try:
        width = os.get_terminal_size().columns
    except (OSError, ValueError):
        width = 80
    return argparse.HelpFormatter(prog, width=width - 2)


class _Once(argparse.Action):
    """Keeps the value of an option, once: argparse would let the last one win, in silence."""

    _is_given = False

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if self._is_given:
            raise argparse.ArgumentError(self, "is given twice: leave one of them out")
        self._is_given = True
        setattr(namespace, self.dest, values)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors exit as its command says: 2 means something else to PostgreSQL.

    May parse once.
    """

    failure = 2

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for store in (None, "store"):
            self.register("action", store, _Once)

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(self.failure, f"{self.prog}: {message}\n")
