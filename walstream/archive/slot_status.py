"""What has become of the WAL that a slot needs: ``wal_status`` of pg_replication_slots.

The words and what they mean are PostgreSQL's (``GetWALAvailability``, and the documentation of
pg_replication_slots); instead of ``max_wal_size``, what a retention policy keeps anyway counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from walstream.archive.inventory import Inventory
from walstream.archive.slot_limit import is_obsolete, limit_start
from walstream.formats.lsn import INVALID, LSN
from walstream.interfaces import Slot

__all__ = ["WALStatus", "over_limit", "wal_status"]


class WALStatus(Enum):
    """What has become of it."""

    #: It is kept in any case.
    RESERVED = "reserved"
    #: It is kept for the slot, or for a client.
    EXTENDED = "extended"
    #: It is beyond the limit, and goes, and the slot with it, the next time that WAL is removed.
    UNRESERVED = "unreserved"
    #: The slot cannot be used any more, or its WAL is gone.
    LOST = "lost"


def wal_status(
    slot: Slot,
    found: Inventory,
    *,
    limit: int | None = None,
    kept_from: LSN = INVALID,
) -> WALStatus | None:
    """What has become of the WAL that a slot needs; None if it needs none yet.

    :param found: what the archive holds.
    :param limit: ``--max-slot-wal-keep-size`` in bytes, if there is one.
    :param kept_from: from where on a policy keeps WAL without the slots; 0 if it keeps all.
    """
    if slot.invalidation is not None:
        return WALStatus.LOST
    if slot.restart is None:
        return None
    if found.identity is None:
        return WALStatus.RESERVED  # the archive holds nothing, and lacks nothing
    size = found.size
    number = size.number(slot.restart.lsn)
    removed_before = INVALID if found.ledger is None else found.ledger.removed_before
    if number < size.number(removed_before):
        return WALStatus.LOST
    if slot.restart.lsn >= kept_from:
        return WALStatus.RESERVED
    if limit is not None and number < limit_start(_archive_end(found), limit, size):
        return WALStatus.UNRESERVED
    return WALStatus.EXTENDED


def over_limit(
    slots: Iterable[Slot], found: Inventory, wished: int, limit: int | None
) -> tuple[tuple[Slot, ...], LSN]:
    """Which slots hold back more than they may, and before which position that is.

    :param wished: the number of the first segment that is kept anyway.
    """
    if limit is None:
        return (), INVALID
    # What is kept anyway is no slot's doing; readers do not count, as they may be the slots' users.
    first = min(wished, limit_start(_archive_end(found), limit, found.size))
    oldest = found.size.start(first)
    return tuple(slot for slot in slots if is_obsolete(slot, oldest)), oldest


def _archive_end(found: Inventory) -> LSN:
    """The position up to which an archive surely holds WAL."""
    newest = max((held.number for held in found.segments), default=None)
    end = INVALID if newest is None else found.size.start(newest + 1)
    return end if found.mark is None else max(end, found.mark.lsn)
