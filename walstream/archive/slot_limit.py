"""A limit to what slots hold back: those that lag more are lost, before their WAL is removed.

As PostgreSQL's ``InvalidateObsoleteReplicationSlots`` (``slot.c``), with its words; but who removes
WAL and who has the slots may be two processes. The first writes down in the slots' directory from
where on WAL is to stay, and waits; the second takes the slots away from whoever needs more, makes
that durable, and removes the note. Whatever ends meanwhile, nothing was removed that a slot needed.

Everything here waits for the disk, or for another process, so it belongs into a lane.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from os.path import join
from typing import Final

from walstream.archive.filesystem import FileSystem
from walstream.archive.lock import LockHeld
from walstream.archive.paths import ArchivePaths
from walstream.archive.slot_possession import SlotPossession
from walstream.errors import FormatError, RetentionRefused
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.interfaces import Slot

__all__ = [
    "Obsolete",
    "clear_request",
    "explain",
    "invalidated",
    "is_obsolete",
    "limit_start",
    "read_request",
    "release_obsolete",
]

# Asked of the process that has the slots; it looks every second.
_PATIENCE: Final = 30.0
_INTERVAL: Final = 0.05

#: A slot that is to be lost, and the position before which it is.
Obsolete = tuple[Slot, LSN]


def limit_start(end: LSN, limit: int, size: SegmentSize) -> int:
    """The number of the first segment that slots may hold back (``KeepLogSeg``).

    :param end: where the archive ends.
    :param limit: bytes.
    """
    return max(size.number(end) - limit // size, 0)


def is_obsolete(slot: Slot, oldest: LSN) -> bool:
    """Whether a slot needs WAL before *oldest*."""
    return slot.invalidation is None and slot.restart is not None and slot.restart.lsn < oldest


def invalidated(slot: Slot, reason: str) -> Slot:
    """A slot as it is once it is lost. For want of WAL, it does not even tell what it needed."""
    restart = None if reason == "wal_removed" else slot.restart
    return replace(slot, restart=restart, invalidation=reason)


def explain(slot: Slot, oldest: LSN) -> str:
    """Why a slot is to be lost, as PostgreSQL's log has it."""
    assert slot.restart is not None, "it needs nothing"
    excess = oldest - slot.restart.lsn
    return (
        f"The slot's restart_lsn {slot.restart.lsn} exceeds the limit by {excess} "
        f'byte{"" if excess == 1 else "s"}. You might need to increase "max_slot_wal_keep_size".'
    )


def release_obsolete(
    files: FileSystem,
    paths: ArchivePaths,
    oldest: LSN,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """See to it that no slot needs WAL before *oldest* any more.

    :param wait: waits so many seconds.
    :raises RetentionRefused: if the process that has the slots does not do it; none of them may
        be taken for lost.
    :raises OSError: if it cannot be made durable.
    """
    waited = 0.0
    while True:
        possession = SlotPossession(files, paths, lambda: None)
        try:
            _release(possession, oldest)
            if waited:
                clear_request(files, paths)
            return
        except LockHeld as held:
            # Each time anew: it may have ended, and left the slots to us.
            if waited == 0.0:
                request = f"{oldest}\n".encode()
                files.store(join(paths.slots, "request.incoming"), _request(paths), request)
            elif files.find_size(_request(paths)) is None:
                return
            if waited >= _PATIENCE:
                files.unlink(_request(paths))
                raise RetentionRefused(
                    f"process {held.holder}, which has the replication slots, did not let go of "
                    f"those that need WAL before {oldest}: nothing was removed"
                ) from None
        finally:
            possession.release()
        wait(_INTERVAL)
        waited += _INTERVAL


def _release(possession: SlotPossession, oldest: LSN) -> None:
    for slot in possession.take(make=False, attempts=1) or ():
        if is_obsolete(slot, oldest):
            possession.files.store(invalidated(slot, "wal_removed"))


def read_request(files: FileSystem, paths: ArchivePaths) -> LSN | None:
    """From where on somebody wants WAL to stay; None if nobody waits for us."""
    try:
        return LSN.parse(files.read(_request(paths)).decode("ascii").strip())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (UnicodeDecodeError, FormatError):
        return None  # not written to its end; it is written again


def clear_request(files: FileSystem, paths: ArchivePaths) -> None:
    """No slot needs WAL from before any more: who waits may go on."""
    files.unlink(_request(paths))


def _request(paths: ArchivePaths) -> str:
    return join(paths.slots, "request")
