"""Whose an archive's slots are: one process's at a time, which alone writes their files.

Two processes that serve one archive would each give a slot to a client of its own, and undo what
the other writes. So the one that comes second has no slots, and says where they are. Who only
wants to know where slots stand reads their files; who wants to take WAL from slots that hold back
too much asks their process to let go of it: see `slot_limit`.

Everything here waits for the disk, so it belongs into a lane.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from os.path import join
from typing import Final

from walstream.archive.filesystem import FileSystem
from walstream.archive.lock import LockHeld, ProcessLock, is_locked
from walstream.archive.paths import ArchivePaths
from walstream.archive.slot_files import SlotFiles
from walstream.errors import ArchiveLost
from walstream.interfaces import Slot

__all__ = ["LOCK", "SlotPossession", "stored_slots"]

#: The name of the lock file, in the directory of the slots.
LOCK: Final = "lock"
_MOMENT: Final = 0.02  # seconds
_READ_ONLY: Final = (errno.EROFS, errno.EACCES, errno.EPERM)


class SlotPossession:
    """This process's hold on the slots of an archive, or that it has none.

    :ivar files: the slots' files.
    :ivar is_read_only: whether nothing could be written, the last time that it was tried.
    :param assure: proves that the archive is where it was, or raises `ArchiveLost`.
    """

    def __init__(self, files: FileSystem, paths: ArchivePaths, assure: Callable[[], None]) -> None:
        self.files = SlotFiles(files, paths.slots)
        self._is_taken = False
        self._system = files
        self._paths = paths
        self._assure_archive = assure
        self._lock: ProcessLock | None = None
        self.is_read_only = False

    def take(self, *, make: bool, attempts: int = 3) -> list[Slot] | None:
        """Take the slots; those that there are, unless they have been taken. None if none were.

        Temporary ones of a process that has ended are removed. On a disk that cannot be written
        to, the slots are as ours as can be.

        :param make: whether to make a place for slots, if there is none yet. Without one there is
            nothing to take.
        :param attempts: how often it is tried: whoever looks whether the slots are in use has them
            locked for that moment.
        :raises LockHeld: if they are another process's.
        :raises ArchiveLost: if the archive is not where it was; nothing was made.
        :raises ArchiveError: if a slot's file is damaged.
        :raises OSError: if there can be no place for slots.
        """
        if self._is_taken:
            return []
        if not (make or os.path.isdir(self._paths.slots)):
            return None
        self._lock_slots(make, attempts)
        try:
            found = list(self.files.load())
            if not self.is_read_only:
                for slot in found:
                    if slot.temporary:
                        self.files.remove(slot.name)
        except BaseException:
            self.release()
            raise
        self._is_taken = True
        return [slot for slot in found if not slot.temporary]

    def assure(self) -> None:
        """Prove that the slots still are ours, and where they were, before they are written.

        :raises ArchiveLost: if they are not; what we had is let go of, and taken again by the next
            call once it is back.
        :raises LockHeld: if they are another process's by then.
        :raises OSError: if it cannot be told, or nothing can be written.
        """
        try:
            self._assure_archive()
        except ArchiveLost:
            self._unlock()
            raise
        lock, path = self._lock, join(self._paths.slots, LOCK)
        if lock is None or self._system.find_identity(path) != lock.identity:
            self._unlock()
            self.files = SlotFiles(self._system, self._paths.slots)
            self._lock_slots(make=True, attempts=3)

    def release(self) -> None:
        """Have no slots any more."""
        self._is_taken = False
        self._unlock()

    def _lock_slots(self, make: bool, attempts: int) -> None:
        try:
            if make:
                self._assure_archive()
                self.files.make_directory()
            self._lock = _take_patiently(join(self._paths.slots, LOCK), attempts)
            self.is_read_only = False
        except OSError as error:
            self.is_read_only = error.errno in _READ_ONLY
            if make or not self.is_read_only:
                raise

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def stored_slots(files: FileSystem, paths: ArchivePaths) -> list[Slot]:
    """The slots that there are, for whoever does not have them.

    :raises ArchiveError: for a slot whose file is damaged.
    """
    slots = list(SlotFiles(files, paths.slots).load())
    if any(slot.temporary for slot in slots) and not is_locked(files, join(paths.slots, LOCK)):
        return [slot for slot in slots if not slot.temporary]
    return slots


def _take_patiently(path: str, attempts: int) -> ProcessLock:
    for _ in range(attempts - 1):
        with suppress(LockHeld):
            return ProcessLock.take(path)
        time.sleep(_MOMENT)
    return ProcessLock.take(path)
