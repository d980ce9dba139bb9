"""A listing of an archive: what it holds and what it lacks, as data for people and programs.

The form is that of ``walstream ls --json``, which docs/reference/tools.md describes: keys may be
added to it, and none changes its meaning while `SCHEMA` is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

from walstream.archive.coverage import Gap, Run, look_twice, missing_histories, runs_of
from walstream.archive.filesystem import FileSystem
from walstream.archive.inventory import Held, Inventory
from walstream.archive.paths import ArchivePaths
from walstream.archive.readers import active_readers
from walstream.archive.slot_possession import stored_slots
from walstream.archive.slot_status import wal_status
from walstream.errors import FormatError
from walstream.formats.backup_history import BackupHistory
from walstream.formats.positions import WALPosition
from walstream.formats.segments import SegmentSize, history_file_name
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import Slot

__all__ = ["SCHEMA", "Listing", "list_archive", "list_segments"]

#: The version of the form.
SCHEMA: Final = 1

Listing = dict[str, Any]


def list_archive(files: FileSystem, paths: ArchivePaths) -> tuple[Listing, Inventory]:
    """List an archive; with the inventory that it was made of.

    :raises ArchiveError: if it cannot be one archive.
    :raises OSError: if it cannot be read.
    """
    found, gaps = look_twice(files, paths)
    return {
        "schema": SCHEMA,
        "directory": paths.root,
        "system": _system(found),
        "durable": _position(found.mark),
        "removed_before": _removed_before(found),
        "timelines": _timelines(found),
        "gaps": [_gap(gap, found.size) for gap in gaps],
        "partials": [_partial(held, found) for held in found.partials],
        "histories": [_history(found.histories[each]) for each in sorted(found.histories)],
        "missing_histories": [history_file_name(each) for each in missing_histories(found)],
        "backups": [_backup(files, paths, *backup) for backup in sorted(found.backups.items())],
        "slots": [_slot(slot, found) for slot in stored_slots(files, paths)],
        "readers": [
            {"pid": reader.pid, **_fields(reader.position)}
            for reader in active_readers(files, paths)
        ],
        "skipped": found.skipped,
        "foreign": found.foreign,
    }, found


def list_segments(found: Inventory) -> Iterable[Listing]:
    """Every finished segment's file, by timeline and number."""
    for held in found.segments:
        yield {
            "file": held.name,
            "timeline": held.timeline,
            "start": str(found.size.start(held.number)),
            "form": held.compression or "plain",
            "bytes_on_disk": held.on_disk,
            "modified": _time(held.modified),
        }


def _system(found: Inventory) -> Listing | None:
    if found.identity is None:
        return None
    return {
        # Text, for JSON's numbers have 53 bits.
        "system_identifier": str(found.identity.system_identifier),
        "segment_size": int(found.identity.segment_size),
        "server_version": found.identity.server_version,
    }


def _removed_before(found: Inventory) -> str | None:
    if found.ledger is None or not found.ledger.removed_before:
        return None
    return str(found.ledger.removed_before)


def _timelines(found: Inventory) -> list[Listing]:
    listed = []
    for timeline, group in groupby(found.segments, key=lambda held: held.timeline):
        segments = list(group)
        ranges, at = [], 0
        for run in runs_of(segments):
            upto = at
            while upto < len(segments) and segments[upto].number <= run.last:
                upto += 1
            ranges.append(_range(run, segments[at:upto], found.size))
            at = upto
        listed.append({"timeline": timeline, "ranges": ranges})
    return listed


def _range(run: Run, segments: Sequence[Held], size: SegmentSize) -> Listing:
    times = [held.modified for held in segments]
    return {
        **_extent(run, size),
        "bytes": (run.last - run.first + 1) * size,
        "bytes_on_disk": sum(held.on_disk for held in segments),
        "forms": dict(Counter(held.compression or "plain" for held in segments)),
        "oldest": _time(min(times)),
        "newest": _time(max(times)),
    }


def _extent(run: Run | Gap, size: SegmentSize) -> Listing:
    return {
        "first": size.name(run.timeline, run.first),
        "last": size.name(run.timeline, run.last),
        "start": str(size.start(run.first)),
        "end": str(size.start(run.last + 1)),
        "segments": run.last - run.first + 1,
    }


def _gap(gap: Gap, size: SegmentSize) -> Listing:
    return {"timeline": gap.timeline, **_extent(gap, size), "accepted": gap.accepted}


def _partial(held: Held, found: Inventory) -> Listing:
    mark, start = found.mark, found.size.start(held.number)
    durable = None
    if mark is not None and mark.timeline == held.timeline and mark.lsn >= start:
        durable = str(min(mark, WALPosition(mark.timeline, found.size.start(held.number + 1))).lsn)
    return {
        "file": held.name,
        "timeline": held.timeline,
        "start": str(start),
        "durable": durable,
        "bytes_on_disk": held.on_disk,
        "modified": _time(held.modified),
    }


def _history(history: TimelineHistory) -> Listing:
    last = history.ancestors[-1] if history.ancestors else None
    return {
        "file": history_file_name(history.timeline),
        "timeline": history.timeline,
        "parent": last.timeline if last else None,
        "switch_point": str(last.switch_point) if last else None,
    }


def _backup(files: FileSystem, paths: ArchivePaths, name: str, start: WALPosition) -> Listing:
    try:
        content = BackupHistory.parse(files.read(paths.of(name)))
    except (OSError, FormatError):
        told: Mapping[str, Any] = {"stop": None, "start_time": None, "label": None}
    else:
        told = {
            "stop": str(content.stop),
            "start_time": content.start_time,
            "label": content.label,
        }
    return {"file": name, "timeline": start.timeline, "start": str(start.lsn), **told}


def _slot(slot: Slot, found: Inventory) -> Listing:
    status = wal_status(slot, found)
    return {
        "name": slot.name,
        **_fields(slot.restart),
        "temporary": slot.temporary,
        "wal_status": None if status is None else status.value,
        "invalidation_reason": slot.invalidation,
    }


def _position(position: WALPosition | None) -> Listing | None:
    if position is None:
        return None
    return {"timeline": position.timeline, "lsn": str(position.lsn)}


def _fields(position: WALPosition | None) -> Listing:
    if position is None:
        return {"timeline": None, "restart_lsn": None}
    return {"timeline": position.timeline, "restart_lsn": str(position.lsn)}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
