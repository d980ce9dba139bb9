"""What holds WAL back: slots, readers and base backups, each with the reason in words.

Everything here reads files, so it belongs into a lane.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from walstream.archive.filesystem import FileSystem
from walstream.archive.inventory import Inventory
from walstream.archive.paths import ArchivePaths
from walstream.archive.readers import active_readers
from walstream.archive.slot_files import SlotFiles
from walstream.errors import ArchiveError, RetentionRefused
from walstream.formats.positions import WALPosition
from walstream.formats.segments import SegmentSize

__all__ = ["Hold", "claims", "newest", "slot_holds"]


@dataclass(frozen=True, slots=True)
class Hold:
    """WAL that somebody needs.

    :ivar number: of the first segment that is needed; so are all that follow, on any timeline.
    :ivar reason: who needs it, for people.
    """

    number: int
    reason: str


def slot_holds(files: FileSystem, paths: ArchivePaths) -> list[tuple[str, WALPosition | None]]:
    """The slots, and from where on each needs WAL.

    :raises ArchiveError: for a slot whose file is damaged.
    """
    return [(slot.name, slot.restart) for slot in SlotFiles(files, paths.slots).load()]


def claims(files: FileSystem, paths: ArchivePaths, size: SegmentSize) -> Iterator[Hold]:
    """What slots and readers need, whatever a policy says.

    :raises RetentionRefused: if what somebody needs cannot be told.
    """
    try:
        slots = slot_holds(files, paths)
    except ArchiveError as error:
        raise RetentionRefused(str(error)) from error
    for name, restart in slots:
        if restart is not None:
            yield Hold(
                size.number(restart.lsn),
                f"slot {name} needs WAL from {restart.lsn} on timeline {restart.timeline} on",
            )
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


def newest(found: Inventory) -> Hold | None:
    """The newest finished segment, which tells where a stream goes on; None if there is none."""
    held = max(found.segments, key=lambda held: (held.number, held.timeline), default=None)
    if held is None:
        return None
    return Hold(held.number, "it is the newest finished segment, behind which a stream goes on")
