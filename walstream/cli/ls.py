"""``walstream ls``: what an archive holds, and what it lacks."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from os.path import abspath

from walstream.archive.filesystem import FileSystem
from walstream.archive.listing import Listing, list_archive, list_segments
from walstream.archive.paths import ArchivePaths
from walstream.cli.tables import table
from walstream.formats.amounts import in_bytes

__all__ = ["FAILURE", "GAPS", "add_arguments", "run"]

#: The archive cannot be read, or the command line is wrong.
FAILURE = 2
#: WAL is missing, and nobody has accepted that.
GAPS = 1


def add_arguments(parser: ArgumentParser) -> None:
    """Say what the command takes."""
    parser.add_argument("archive", metavar="DIR", help="the archive")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--segments", action="store_true", help="each segment's file too")


def run(arguments: Namespace) -> int:
    """List the archive."""
    listing, found = list_archive(FileSystem(), ArchivePaths(abspath(arguments.archive)))
    if arguments.json:
        if arguments.segments:
            listing["segments"] = list(list_segments(found))
        json.dump(listing, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        for line in _lines(listing):
            sys.stdout.write(line + "\n")
        if arguments.segments:
            for each in list_segments(found):
                sys.stdout.write(_segment_line(each) + "\n")
    unaccepted = [gap for gap in listing["gaps"] if gap["accepted"] is None]
    return GAPS if unaccepted or listing["missing_histories"] else 0


def _lines(listing: Listing) -> Iterator[str]:
    yield from _head(listing)
    yield from table(
        ["timeline", "first segment", "last segment", "number", "from", "to", "on disk", "forms",
         "oldest", "newest"],
        [
            [
                str(timeline["timeline"]), each["first"], each["last"], str(each["segments"]),
                each["start"], each["end"], in_bytes(each["bytes_on_disk"]), _forms(each["forms"]),
                _time(each["oldest"]), _time(each["newest"]),
            ]
            for timeline in listing["timelines"]
            for each in timeline["ranges"]
        ],
    )  # fmt: skip
    for partial in listing["partials"]:
        durable = partial["durable"]
        known = f"durable up to {durable}" if durable else "how much of it is durable is not known"
        yield f"unfinished  {partial['file']}, from {partial['start']}, {known}"
    for gap in listing["gaps"]:
        accepted = gap["accepted"]
        what = f"gap, accepted on {accepted}" if accepted else "GAP"
        yield f"{what}  {gap['first']} to {gap['last']}: {gap['segments']} segments, " + (
            f"from {gap['start']} to {gap['end']} on timeline {gap['timeline']}"
        )
    for name in listing["missing_histories"]:
        yield f"MISSING  {name}"
    yield from _companions(listing)


def _head(listing: Listing) -> Iterator[str]:
    system, durable = listing["system"], listing["durable"]
    if system is None:
        yield f"{listing['directory']}: no WAL"
        return
    yield (
        f"{listing['directory']}: system {system['system_identifier']}, PostgreSQL "
        f"{system['server_version']}, segments of {in_bytes(system['segment_size'])}"
    )
    if durable is not None:
        yield f"durable up to {durable['lsn']} on timeline {durable['timeline']}"
    if listing["removed_before"] is not None:
        yield f"older WAL, before {listing['removed_before']}, was removed"


def _companions(listing: Listing) -> Iterator[str]:
    for history in listing["histories"]:
        yield (
            f"history  {history['file']}: left timeline {history['parent']} at "
            f"{history['switch_point']}"
        )
    for backup in listing["backups"]:
        label = f" ({backup['label']})" if backup["label"] else ""
        yield f"backup  {backup['file']}: needs WAL from {backup['start']} on{label}"
    for slot in listing["slots"]:
        yield f"slot  {slot['name']}: {_slot(slot)}"
    for reader in listing["readers"]:
        held = reader["restart_lsn"]
        yield f"reader  process {reader['pid']}: " + (f"reads from {held} on" if held else "idle")
    for name in listing["skipped"]:
        yield f"skipped  {name}: its size is not a segment's"
    for name in listing["foreign"]:
        yield f"foreign  {name}"


def _slot(slot: Listing) -> str:
    held, reason = slot["restart_lsn"], slot["invalidation_reason"]
    if slot["wal_status"] == "lost":
        return f"LOST ({reason})" if reason else f"LOST, needs WAL from {held} on"
    what = f"needs WAL from {held} on" if held else "holds nothing"
    return f"{what}, temporary" if slot["temporary"] else what


def _segment_line(segment: Listing) -> str:
    return (
        f"{segment['file']}  {segment['start']}  {segment['bytes_on_disk']}  "
        f"{_time(segment['modified'])}"
    )


def _forms(forms: dict[str, int]) -> str:
    return " ".join(name if len(forms) == 1 else f"{name}:{n}" for name, n in forms.items())


def _time(text: str) -> str:
    return text.removesuffix("+00:00").replace("T", " ")
