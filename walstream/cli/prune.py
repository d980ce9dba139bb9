"""``walstream prune``: remove WAL that is older than anybody needs."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from os.path import abspath

from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths
from walstream.archive.retention import Plan, RetentionPolicy, make_plan, prune
from walstream.archive.slot_limit import explain
from walstream.cli.progress import progress
from walstream.errors import FormatError, RetentionRefused
from walstream.formats.amounts import in_bytes
from walstream.formats.quantities import parse_count, parse_duration, parse_size

__all__ = ["FAILURE", "REFUSED", "add_arguments", "run"]

#: The archive cannot be read or written, or the command line is wrong.
FAILURE = 2
#: It is not sure what may go; nothing was removed.
REFUSED = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("archive", metavar="DIR", help="the archive")
    parser.add_argument(
        "--keep-age",
        metavar="TIME",
        type=_value(parse_duration),
        help="keep what was received in this time, such as 30d",
    )
    parser.add_argument(
        "--keep-size",
        metavar="SIZE",
        type=_value(parse_size),
        help="keep the newest segments of so many bytes, such as 500GB",
    )
    parser.add_argument(
        "--keep-from",
        metavar="WHAT",
        help="keep everything from there on: a segment's name, an LSN, slot:NAME, readers, a "
        "backup history file, or a backup's path",
    )
    parser.add_argument(
        "--keep-backups",
        metavar="N",
        type=_value(parse_count),
        help="keep what the newest N backups need whose history files are in the archive",
    )
    parser.add_argument(
        "--keep-backup",
        metavar="PATH",
        action="append",
        default=[],
        help="keep what this backup needs; may be repeated",
    )
    parser.add_argument(
        "--max-slot-wal-keep-size",
        metavar="SIZE",
        type=_value(parse_size),
        help="the most that slots hold back, such as 100GB: those that need more are lost",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show what would go, and why not more"
    )


def run(arguments: Namespace) -> int:
    """Remove, or show, what may go."""
    policy = RetentionPolicy(
        keep_age=arguments.keep_age,
        keep_size=arguments.keep_size,
        keep_from=arguments.keep_from,
        keep_backups=arguments.keep_backups,
        keep_backup=tuple(arguments.keep_backup),
        max_slot_wal_keep_size=arguments.max_slot_wal_keep_size,
    )
    if not policy:
        sys.stderr.write("walstream prune: say what to keep, such as --keep-age=30d\n")
        return FAILURE
    files, paths = FileSystem(), ArchivePaths(abspath(arguments.archive))
    try:
        if arguments.dry_run:
            plan = make_plan(files, paths, policy, time.time())
            for held in plan.removed:
                sys.stdout.write(f"{held.name}  {held.on_disk}\n")
        else:
            with progress(None, "prune") as advance:
                plan = prune(files, paths, policy, time.time(), advance)
    except RetentionRefused as error:
        sys.stderr.write(f"walstream prune: {error}\n")
        return REFUSED
    for slot in plan.lost:
        what = "would invalidate" if arguments.dry_run else "invalidated"
        why = explain(slot, plan.oldest)
        sys.stdout.write(f'{what} obsolete replication slot "{slot.name}": {why}\n')
    sys.stdout.write(_summary(plan, is_over=not arguments.dry_run) + "\n")
    return 0


def _summary(plan: Plan, *, is_over: bool) -> str:
    what = "removed" if is_over else "would remove"
    text = f"{what} {len(plan.removed)} files, {in_bytes(plan.bytes)}"
    return f"{text}; {plan.next_kept} stays: {plan.reason}" if plan.next_kept else text


def _value(parse: Callable[[str], int]) -> Callable[[str], int]:
    """An argument's type for argparse, which shows the words of its own errors only."""

    def read(text: str) -> int:
        try:
            return parse(text)
        except FormatError as error:
            raise ArgumentTypeError(str(error)) from error

    return read
