"""An inventory of an archive: every file in it by its name and size, and none of them opened.

For tools, which look once, at archives of any length. Takes no lock and writes nothing; what
another process does meanwhile shows, or does not yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from walstream.archive.end_mark import read_end_mark
from walstream.archive.filesystem import FileSystem
from walstream.archive.identity import find_identity
from walstream.archive.ledger import Ledger, load_ledger
from walstream.archive.paths import ArchivePaths, foreign_names, rank_segments
from walstream.archive.survey import read_history
from walstream.errors import ArchiveError
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.segments import (
    SegmentSize,
    parse_backup_history_name,
    parse_history_file_name,
    parse_segment_file,
)
from walstream.formats.timelines import TimelineHistory

__all__ = ["Held", "Inventory", "take_inventory"]


class Held(NamedTuple):
    """The file of a segment.

    :ivar compression: as `SegmentFile.compression`.
    :ivar on_disk: its size, in bytes.
    :ivar modified: when it was written last, in seconds since 1970.
    """

    timeline: int
    number: int
    name: str
    compression: str | None
    on_disk: int
    modified: float


@dataclass(slots=True)
class Inventory:
    """What is in an archive.

    :ivar identity: whose WAL it is; None if nothing in it tells. There are no segments then.
    :ivar ledger: what the archive's ledger says, if there is one.
    :ivar mark: how far it is durable, if walstream wrote it.
    :ivar segments: the finished ones, by timeline and number; one may be there in two forms.
    :ivar partials: the unfinished ones, so too.
    :ivar histories: of each timeline whose history file is held.
    :ivar backups: where each backup began whose history file is held, by the file's name.
    :ivar skipped: names of segments that have a wrong size, or are none at this segment size.
    :ivar foreign: names of what does not belong into an archive.
    """

    identity: SystemIdentity | None = None
    ledger: Ledger | None = None
    mark: WALPosition | None = None
    segments: list[Held] = field(default_factory=list)
    partials: list[Held] = field(default_factory=list)
    histories: dict[int, TimelineHistory] = field(default_factory=dict)
    backups: dict[str, WALPosition] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    @property
    def size(self) -> SegmentSize:
        """The size of a segment; there has to be an `identity`."""
        assert self.identity is not None, "no segments, so no size of theirs"
        return self.identity.segment_size


def take_inventory(
    files: FileSystem, paths: ArchivePaths, pass_over: Callable[[ArchiveError], None] | None = None
) -> Inventory:
    """Look at every name in an archive directory.

    :param pass_over: told of damaged files, which then are as good as missing.
    :raises ArchiveError: if it cannot be one archive; without *pass_over* also for damaged files.
    :raises OSError: if it cannot be read.
    """
    # Before the names are read: what it counts as durable has one by then.
    mark = read_end_mark(files, paths)
    entries = files.entries(paths.root)
    if "archive_status" in entries:
        raise ArchiveError(
            f"{paths.root} is a server's own pg_wal, which is not an archive: choose another "
            "directory"
        )
    ranked = rank_segments(entries)
    found = Inventory(
        identity=find_identity(files, paths, ranked, pass_over),
        ledger=load_ledger(files, paths),
        mark=mark,
        foreign=foreign_names(entries),
    )
    for timeline in filter(None, map(parse_history_file_name, entries)):
        try:
            history = read_history(files, paths, timeline)
        except ArchiveError as error:
            if pass_over is None:
                raise
            pass_over(error)
            continue
        if history is not None:
            found.histories[timeline] = history
    if found.identity is not None:
        _sort_in(found, ranked, entries)
        _note_backups(found, entries)
    return found


def _sort_in(found: Inventory, ranked: list[str], entries: Mapping[str, os.stat_result]) -> None:
    size = found.size
    for name in ranked:
        segment = parse_segment_file(name, size)
        status = entries[name]
        is_plain = segment is not None and not segment.partial and segment.compression is None
        if segment is None or not segment.number or (is_plain and status.st_size != size):
            found.skipped.append(name)
            continue
        held = Held(
            segment.timeline,
            segment.number,
            name,
            segment.compression,
            status.st_size,
            status.st_mtime,
        )
        (found.partials if segment.partial else found.segments).append(held)
    found.segments.sort()
    found.partials.sort()
    found.skipped.sort()


def _note_backups(found: Inventory, entries: Mapping[str, os.stat_result]) -> None:
    for name in sorted(entries):
        backup = parse_backup_history_name(name, found.size)
        if backup is not None:
            found.backups[name] = WALPosition(*backup)
