"""What holds WAL back: slots, readers and base backups, each with the reason in words.

Everything here reads files, so it belongs into a lane.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from walstream.archive.filesystem import FileSystem
from walstream.archive.inventory import Inventory
from walstream.archive.paths import ArchivePaths
from walstream.archive.readers import active_readers
from walstream.archive.slot_possession import stored_slots
from walstream.errors import ArchiveError, RetentionRefused
from walstream.formats.segments import SegmentSize
from walstream.interfaces import Slot

__all__ = ["Hold", "claims", "holding_slots", "newest", "reader_holds", "slot_holds"]


@dataclass(frozen=True, slots=True)
class Hold:
    """WAL that somebody needs.

    :ivar number: of the first segment that is needed; so are all that follow, on any timeline.
    :ivar reason: who needs it, for people.
    """

    number: int
    reason: str


def holding_slots(files: FileSystem, paths: ArchivePaths) -> list[Slot]:
    """The slots that hold WAL back.

    :raises RetentionRefused: if it cannot be told from where on one of them does.
    """
    try:
        slots = stored_slots(files, paths)
    except ArchiveError as error:
        raise RetentionRefused(str(error)) from error
    return [slot for slot in slots if slot.restart is not None and slot.invalidation is None]


def slot_holds(slots: Iterable[Slot], size: SegmentSize) -> Iterator[Hold]:
    """What these slots need, whatever a policy says."""
    for slot in slots:
        restart = slot.restart
        if restart is not None:
            yield Hold(
                size.number(restart.lsn),
                f"slot {slot.name} needs WAL from {restart.lsn} on timeline {restart.timeline} on",
            )


def claims(
    files: FileSystem, paths: ArchivePaths, size: SegmentSize, *, lately: bool = True
) -> Iterator[Hold]:
    """What slots and readers need, whatever a policy says; see `reader_holds`."""
    yield from slot_holds(holding_slots(files, paths), size)
    yield from reader_holds(files, paths, size, lately=lately)


def reader_holds(
    files: FileSystem, paths: ArchivePaths, size: SegmentSize, *, lately: bool = True
) -> Iterator[Hold]:
    """What readers need, whatever a policy says.

    :param lately: whether what they needed a moment ago counts.
    :raises RetentionRefused: if what somebody needs cannot be told.
    """
    for reader in active_readers(files, paths):
        if not reader.is_clear:
            raise RetentionRefused(
                f"process {reader.pid} reads the archive, and {paths.readers} does not tell from "
                "where on: try again; if that does not help, end the process"
            )
        if reader.position is not None:
            yield Hold(
                size.number(reader.position.lsn),
                f"process {reader.pid} serves WAL from {reader.position.lsn} on timeline "
                f"{reader.position.timeline} on to a client",
            )
        if lately and reader.lately is not None:
            yield Hold(
                size.number(reader.lately.lsn),
                f"process {reader.pid} served WAL from {reader.lately.lsn} on a moment ago, and "
                "the client may ask for it again",
            )


def newest(found: Inventory) -> Hold | None:
    """The newest finished segment, which tells where a stream goes on; None if there is none."""
    held = max(found.segments, key=attrgetter("number", "timeline"), default=None)
    if held is None:
        return None
    return Hold(held.number, "it is the newest finished segment, behind which a stream goes on")
