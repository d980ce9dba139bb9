"""``walstream verify``: whether an archive is good, down to each record's checksum."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import asdict
from os.path import abspath
from typing import Any

from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths
from walstream.archive.verification import Finding, Scope, Summary, Verification
from walstream.cli.progress import progress
from walstream.formats.lsn import LSN
from walstream.formats.segments import parse_segment_file

__all__ = ["FAILURE", "FAULTS", "SCHEMA", "add_arguments", "run"]

#: The archive cannot be looked at, or the command line is wrong.
FAILURE = 2
#: Damage was found, or a gap that nobody has accepted.
FAULTS = 1

#: The version of what ``--json`` prints.
SCHEMA = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("archive", metavar="DIR", help="the archive")
    parser.add_argument(
        "-j", "--jobs", type=_number, metavar="N", help="so many processes; default: all cores"
    )
    parser.add_argument("--timeline", type=_number, metavar="N", help="only segments of this one")
    parser.add_argument(
        "--from", dest="start", metavar="WHERE", help="only WAL from this LSN or segment on"
    )
    parser.add_argument(
        "--to", dest="end", metavar="WHERE", help="only WAL before this LSN, or up to this segment"
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: Namespace) -> int:
    """Verify the archive."""
    begun = time.monotonic()
    verification = Verification(FileSystem(), ArchivePaths(abspath(arguments.archive)))
    verification.scope = Scope(
        arguments.timeline,
        _position(arguments.start, verification, is_end=False),
        _position(arguments.end, verification, is_end=True),
    )
    found: list[Finding] = []
    tell = found.append if arguments.json else _print
    with progress(verification.files, "verified") as advance:
        for finding in verification.findings(arguments.jobs or _cores(), advance):
            tell(finding)
    summary = verification.summary
    seconds = time.monotonic() - begun
    if arguments.json:
        json.dump(_report(arguments.archive, found, summary, seconds), sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(_line(summary, seconds))
    return FAULTS if summary.faults else 0


def _position(text: str | None, verification: Verification, *, is_end: bool) -> int | None:
    """The position that an LSN or a segment's name stands for."""
    if text is None:
        return None
    size = verification.segment_size
    segment = None if size is None else parse_segment_file(text, size)
    if size is None or segment is None:
        return LSN.parse(text)
    return size.start(segment.number + is_end)


def _print(finding: Finding) -> None:
    text = f"{finding.subject}: {finding.what}"
    if finding.remedy:
        text += f": {finding.remedy}"
    sys.stdout.write(f"{finding.kind.upper() if finding.is_fault else finding.kind}  {text}\n")
    sys.stdout.flush()


def _line(summary: Summary, seconds: float) -> str:
    verdict = _counted(summary.faults, "fault") if summary.faults else "good"
    return (
        f"{verdict}: {_counted(summary.segments, 'segment')} in "
        f"{_counted(summary.ranges, 'range')}, {summary.records} records, {summary.bytes} bytes, "
        f"{seconds:.1f} s\n"
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _report(archive: str, found: list[Finding], summary: Summary, seconds: float) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "directory": abspath(archive),
        "findings": [
            {
                "kind": finding.kind,
                "fault": finding.is_fault,
                "subject": finding.subject,
                "position": None if finding.position is None else str(finding.position),
                "what": finding.what,
                "remedy": finding.remedy,
            }
            for finding in found
        ],
        "summary": asdict(summary) | {"seconds": round(seconds, 3)},
    }


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)
