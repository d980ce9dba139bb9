"""``walstream restore-wal``: what a server's ``restore_command`` runs, once for each file.

How it exits is PostgreSQL's contract (documentation, "restore_command"; ``RestoreArchivedFile``):
0 is a file that was given; up to 125 means that there is none, which ends recovery or has a
standby wait; above that, or by a signal, the server stops. So nothing that is wrong, whatever it
is, may come out as 1.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from os.path import abspath

from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths
from walstream.archive.restoring import restore

__all__ = ["FAILURE", "NOT_THERE", "add_arguments", "run"]

#: The server is to stop, and somebody to look. Neither a signal's status nor the shell's.
FAILURE = 200
#: There is no such file, and that is in order.
NOT_THERE = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("archive", metavar="DIR", help="the archive")
    parser.add_argument("name", metavar="FILE", help="the file that is wanted: %%f")
    parser.add_argument("target", metavar="PATH", help="where it goes: %%p")
    parser.add_argument(
        "--partial",
        action="store_true",
        help="give the segment that was not finished too, for the last recovery from an archive "
        "that nobody fills any more",
    )
    parser.add_argument(
        "--verify",
        metavar="WHAT",
        choices=("headers", "records"),
        default="headers",
        help="what is checked: page headers, or records too",
    )


def run(arguments: Namespace) -> int:
    """Give the file."""
    try:
        paths = ArchivePaths(abspath(arguments.archive))
        given = restore(
            FileSystem(),
            paths,
            arguments.name,
            arguments.target,
            partial=arguments.partial,
            records=arguments.verify == "records",
        )
    except Exception as error:
        # Python would exit with 1 for one that nobody expected, and the server open too early.
        with suppress(OSError):
            sys.stderr.write(f"walstream restore-wal {arguments.name}: {_words(error)}\n")
        return FAILURE
    return 0 if given else NOT_THERE


def _words(error: Exception) -> str:
    return str(error) if str(error) else repr(error)
