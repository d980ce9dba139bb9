"""What clients are told when a slot cannot be used or made, in PostgreSQL's words if it has any."""

from __future__ import annotations

import errno

from twisted.python.failure import Failure

from walstream.archive.lock import LockHeld
from walstream.errors import ArchiveError, CommandError, SinkFailed
from walstream.interfaces import Slot

__all__ = ["could_not_write", "in_use", "refuse"]


def in_use(slot: Slot) -> CommandError:
    """Another session has the slot (``ReplicationSlotAcquire``)."""
    return CommandError(
        "55006", f'replication slot "{slot.name}" is active for PID {slot.active_pid}'
    )


def refuse(failure: Failure, name: str) -> None:
    """An errback: the archive's slots could not be taken.

    :param name: the slot that it was for.
    :raises CommandError: saying why.
    """
    error = failure.value
    if isinstance(error, LockHeld):
        raise CommandError(
            "55006",
            f"the replication slots of this archive are in use by process {error.holder}",
            hint="Use them where that process listens, or stop it: one process has all slots.",
        ) from error
    if isinstance(error, ArchiveError):
        raise CommandError("58030", str(error)) from error
    if isinstance(error, OSError | SinkFailed):
        raise could_not_write(name, error) from error
    failure.raiseException()


def could_not_write(name: str, error: Exception) -> CommandError:
    """The slot's file could not be made durable."""
    number = error.errno if isinstance(error, OSError) else None
    return CommandError(
        "53100" if number in (errno.ENOSPC, errno.EDQUOT) else "58030",
        f'could not write replication slot "{name}": '
        f"{error.strerror if isinstance(error, OSError) else error}",
    )
