"""``walstream status``: how an archive and its processes are, and what each standby has."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, Namespace

from walstream.archive.compression import WholenessCheck
from walstream.cli.status_report import Report, Verdict, make_report, verdicts
from walstream.cli.status_screen import screen
from walstream.errors import StatusUnknown

__all__ = ["FAILURE", "INCOMPLETE", "NOT_RUNNING", "add_arguments", "run"]

#: The archive cannot be read, a process does not answer, or the command line is wrong.
FAILURE = 2
#: A standby that is required to have everything has not.
INCOMPLETE = 1
#: No process fills or serves the archive; as ``pg_ctl status`` has it.
NOT_RUNNING = 3

# Seconds between two looks while it waits.
_INTERVAL = 0.25


def add_arguments(parser: ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("archive", metavar="DIR", help="the archive")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--require-complete",
        metavar="NAME",
        action="append",
        default=[],
        help="exit with 1 unless this standby has all that the archive holds durably; may be "
        "repeated",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="wait so long for what is required",
    )
    parser.add_argument(
        "--control",
        metavar="PATH",
        action="append",
        default=[],
        help="a control socket that is not in the archive; may be repeated",
    )


def run(arguments: Namespace) -> int:
    """Tell how it is."""
    report, judged = _look(arguments)
    if arguments.json:
        json.dump(report, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        for line in screen(report, judged):
            sys.stdout.write(line + "\n")
    if not report["processes"]:
        return NOT_RUNNING
    return 0 if all(judged) else INCOMPLETE


def _look(arguments: Namespace) -> tuple[Report, list[Verdict]]:
    """Look until it is as it is required to be, or the time is over."""
    deadline = time.monotonic() + arguments.wait
    check = WholenessCheck()
    while True:
        is_last = time.monotonic() >= deadline
        try:
            report = make_report(arguments.archive, arguments.control, check)
        except StatusUnknown:
            # Processes may be about to start, or to end.
            if is_last:
                raise
        else:
            judged = verdicts(report, arguments.require_complete)
            if is_last or (report["processes"] and all(judged)):
                return report, judged
        time.sleep(_INTERVAL)
