"""Replication slots that are kept in a directory, one small file for each.

A slot's file is replaced whole, so a crash leaves the old contents or the new ones. Where a slot
stands is written at most once a second: after a crash it stands a little further back than its
user said, which holds back more WAL, never less. Words and SQLSTATEs are PostgreSQL's (slot.c).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from os.path import dirname, join

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.errors import ArchiveError, CommandError
from walstream.formats.lsn import LSN
from walstream.interfaces import ISlotStore, Slot, WALPosition

__all__ = ["DirectorySlots"]

# Seconds between two writes of where slots stand.
_WRITE_INTERVAL = 1.0
# max_replication_slots; PostgreSQL's default is 10, for a server that has not hundreds of standbys.
_MOST_SLOTS = 1000

_NAME = re.compile(r"[a-z0-9_]{1,63}")
_NAME_HINT = (
    "Replication slot names may only contain lower case letters, numbers, and the underscore "
    "character."
)
_SUFFIX = ".json"


@implementer(ISlotStore)
class DirectorySlots:
    """The physical slots of one walsender.

    :param directory: where their files are; made with the first slot.
    :param lane: one thread, which reads and writes the files.
    """

    _log = Logger()

    def __init__(self, directory: str, files: FileSystem, lane: Lane, clock: IReactorTime) -> None:
        self._directory = directory
        self._files = files
        self._lane = lane
        self._clock = clock
        self._slots: dict[str, Slot] = {}
        # The session that made a temporary slot: the slot ends with it.
        self._owners: dict[str, int] = {}
        self._unwritten: set[str] = set()
        self._write: IDelayedCall | None = None
        self._waiting: dict[str, list[Deferred[None]]] = {}

    # Storage: opened before, and closed after, it is used.

    def open(self) -> Deferred[None]:
        """Read the slots that there are.

        :raises ArchiveError: (in the Deferred) if a file is damaged.
        """
        return self._lane.run(self._read_all).addCallback(self._slots.update)

    def close(self) -> Deferred[None]:
        """Write where the slots stand; fires when that is done."""
        if self._write is not None and self._write.active():
            self._write.cancel()
        self._write_positions()
        return self._lane.close()

    # ISlotStore

    def create(
        self, name: str, pid: int, *, temporary: bool, restart: WALPosition | None
    ) -> Deferred[Slot]:
        """See `ISlotStore.create`."""
        return Deferred.fromCoroutine(self._create(Slot(name, temporary, restart, None), pid))

    def read(self, name: str) -> Slot | None:
        """See `ISlotStore.read`."""
        return self._slots.get(name)

    def slots(self) -> Collection[Slot]:
        """See `ISlotStore.slots`."""
        return self._slots.values()

    def acquire(self, name: str, pid: int) -> Slot:
        """See `ISlotStore.acquire`."""
        slot = self._existing(name)
        if slot.active_pid not in (None, pid):
            raise _busy(slot)
        slot = self._slots[name] = replace(slot, active_pid=pid)
        return slot

    def advance(self, name: str, restart: WALPosition) -> None:
        """See `ISlotStore.advance`."""
        slot = self._existing(name)
        if slot.restart == restart:
            return
        self._slots[name] = replace(slot, restart=restart)
        if not slot.temporary:
            self._unwritten.add(name)
            if self._write is None or not self._write.active():
                self._write = self._clock.callLater(_WRITE_INTERVAL, self._write_positions)

    def release(self, name: str, pid: int) -> None:
        """See `ISlotStore.release`."""
        slot = self._slots.get(name)
        if slot is not None and slot.active_pid == pid:
            self._slots[name] = replace(slot, active_pid=None)
            self._wake(name)

    def drop(self, name: str, *, wait: bool) -> Deferred[None]:
        """See `ISlotStore.drop`."""
        return Deferred.fromCoroutine(self._drop(name, wait))

    def end_session(self, pid: int) -> None:
        """See `ISlotStore.end_session`."""
        for name, owner in list(self._owners.items()):
            if owner == pid:
                del self._owners[name]
                self._slots.pop(name, None)
                self._wake(name)
        for slot in list(self._slots.values()):
            self.release(slot.name, pid)

    # Making and dropping.

    async def _create(self, slot: Slot, pid: int) -> Slot:
        _check_name(slot.name)
        if slot.name in self._slots:
            raise CommandError("42710", f'replication slot "{slot.name}" already exists')
        if len(self._slots) >= _MOST_SLOTS:
            raise CommandError(
                "53400",
                "all replication slots are in use",
                hint=f"Free one: there can be {_MOST_SLOTS}.",
            )
        self._slots[slot.name] = slot  # the name is taken from now on
        if slot.temporary:
            self._owners[slot.name] = pid
            return slot
        try:
            await self._lane.run(partial(self._store, slot))
        except OSError as error:
            del self._slots[slot.name]
            raise _failed(slot.name, error) from error
        return slot

    async def _drop(self, name: str, wait: bool) -> None:
        slot = self._existing(name)
        while slot.active_pid is not None:
            if not wait:
                raise _busy(slot)
            released: Deferred[None] = Deferred()
            self._waiting.setdefault(name, []).append(released)
            await released
            slot = self._existing(name)
        del self._slots[name]
        self._owners.pop(name, None)
        self._unwritten.discard(name)
        try:
            await self._lane.run(partial(self._remove, name))
        except OSError as error:
            raise _failed(name, error) from error

    def _wake(self, name: str) -> None:
        for released in self._waiting.pop(name, []):
            released.callback(None)

    def _existing(self, name: str) -> Slot:
        slot = self._slots.get(name)
        if slot is None:
            raise CommandError("42704", f'replication slot "{name}" does not exist')
        return slot

    # Files. What the lane runs does not touch the attributes above.

    def _write_positions(self) -> None:
        names, self._unwritten = self._unwritten, set()
        for name in sorted(names):
            write = self._lane.run(partial(self._store, self._slots[name]))
            write.addErrback(self._not_written, name)

    def _not_written(self, failure: Failure, name: str) -> None:
        # It will be tried again when the slot moves on; until then more WAL is held back.
        self._log.error(
            "cannot write the position of replication slot {name}: {reason}",
            name=name,
            reason=failure.getErrorMessage(),
        )

    def _store(self, slot: Slot) -> None:
        fields: dict[str, object] = {"name": slot.name}
        if slot.restart is not None:
            fields["restart_lsn"] = str(slot.restart.lsn)
            fields["restart_tli"] = slot.restart.timeline
        content = json.dumps(fields, indent=1) + "\n"
        self._make_directories()
        path = self._path(slot.name)
        self._files.store(f"{path}.tmp", path, content.encode())

    def _make_directories(self) -> None:
        self._files.make_directory(dirname(self._directory))
        self._files.make_directory(self._directory)

    def _remove(self, name: str) -> None:
        self._make_directories()  # a temporary slot's drop may come first
        self._files.unlink(self._path(name))
        self._files.fsync_directory(self._directory)

    def _read_all(self) -> dict[str, Slot]:
        try:
            names = self._files.names(self._directory)
        except FileNotFoundError:
            return {}
        slots = {}
        for file in names:
            name = file.removesuffix(_SUFFIX)
            if file.endswith(_SUFFIX) and _NAME.fullmatch(name):
                slots[name] = self._read(name)
        return slots

    def _read(self, name: str) -> Slot:
        path = self._path(name)
        try:
            fields = json.loads(self._files.read(path))
            restart = None
            if "restart_lsn" in fields:
                lsn = LSN.parse(fields["restart_lsn"])
                restart = WALPosition(int(fields["restart_tli"]), lsn)
        except (ValueError, KeyError, TypeError) as error:
            raise ArchiveError(
                f"{path} is damaged ({error}): remove it, and create the slot again"
            ) from error
        return Slot(name, False, restart, None)

    def _path(self, name: str) -> str:
        return join(self._directory, name + _SUFFIX)


def _check_name(name: str) -> None:
    if not name:
        raise CommandError("42602", f'replication slot name "{name}" is too short')
    if len(name) > 63:
        raise CommandError("42622", f'replication slot name "{name}" is too long')
    if not _NAME.fullmatch(name):
        raise CommandError(
            "42602",
            f'replication slot name "{name}" contains invalid character',
            hint=_NAME_HINT,
        )


def _busy(slot: Slot) -> CommandError:
    return CommandError(
        "55006", f'replication slot "{slot.name}" is active for PID {slot.active_pid}'
    )


def _failed(name: str, error: OSError) -> CommandError:
    return CommandError("58030", f'could not write replication slot "{name}": {error.strerror}')
