"""Replication slots that outlive the process that serves them, in a directory of small files.

What a slot may do, and the words and SQLSTATEs for what it may not, are PostgreSQL's (``slot.c``).
What is in the files is `slot_files`' business, and when they are written `slot_saver`'s.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.archive.slot_files import SlotFiles, check_slot_name
from walstream.archive.slot_saver import SlotSaver
from walstream.errors import CommandError
from walstream.interfaces import ISlotStore, Slot, WALPosition

__all__ = ["DirectorySlots"]

# As max_replication_slots, whose default of 10 is for a server that has not hundreds of standbys.
_MOST_SLOTS: Final = 1000


@implementer(ISlotStore)
class DirectorySlots:
    """The physical slots of one walsender. Temporary ones are in memory only.

    A slot is durable before `create` fires, and gone for good before `drop` does. Where it stands
    is written at most a second later, and when its user leaves: after a crash a slot stands where
    its user once was, never further on, so it holds back too much WAL rather than too little.

    :param directory: where the files are; made with the first slot.
    :param lane: a thread that reads and writes the files; closed with the store.
    """

    def __init__(self, directory: str, files: FileSystem, lane: Lane, clock: IReactorTime) -> None:
        self._files = SlotFiles(files, directory)
        self._lane = lane
        self._saver = SlotSaver(self._snapshot, lane.run, clock)
        self._slots: dict[str, Slot] = {}
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._terminate: Callable[[int], None] = lambda pid: None

    # Storage: opened before, and closed after, it is used.

    def open(self) -> Deferred[None]:
        """Read the slots that there are.

        :raises ArchiveError: (in the Deferred) if a file is damaged.
        """
        return self._lane.run(lambda: list(self._files.load())).addCallback(self._loaded)

    def close(self) -> Deferred[None]:
        """Write where the slots stand; fires when that is done."""
        return self._saver.close().addCallback(lambda _: self._lane.close())

    # ISlotStore

    def create(
        self, name: str, pid: int, *, temporary: bool, restart: WALPosition | None
    ) -> Deferred[Slot]:
        """See `ISlotStore.create`. A temporary slot is its session's until that ends."""
        return Deferred.fromCoroutine(self._create(Slot(name, temporary, restart, pid), pid))

    def read(self, name: str) -> Deferred[Slot | None]:
        """See `ISlotStore.read`."""
        return succeed(self._slots.get(name))

    def slots(self) -> Collection[Slot]:
        """All slots of this moment."""
        return list(self._slots.values())

    def acquire(self, name: str, pid: int) -> Deferred[Slot]:
        """See `ISlotStore.acquire`."""
        return maybeDeferred(self._acquire, name, pid)

    def advance(self, name: str, restart: WALPosition) -> None:
        """See `ISlotStore.advance`."""
        slot = self._slots.get(name)
        if slot is None or slot.restart == restart:
            return
        self._slots[name] = replace(slot, restart=restart)
        if not slot.temporary:
            self._saver.save_soon(name)

    def release(self, name: str, pid: int) -> None:
        """See `ISlotStore.release`. A temporary slot stays its session's."""
        slot = self._slots.get(name)
        if slot is None or slot.temporary or slot.active_pid != pid:
            return
        self._slots[name] = replace(slot, active_pid=None)
        self._saver.save_if_changed(name)
        self._wake(name)

    def drop(self, name: str, *, wait: bool, pid: int | None = None) -> Deferred[None]:
        """See `ISlotStore.drop`.

        :param pid: the session that asks, if it is known: its own temporary slots it may drop.
        """
        return Deferred.fromCoroutine(self._drop(name, wait, pid))

    def end_session(self, pid: int) -> None:
        """See `ISlotStore.end_session`."""
        for slot in self.slots():
            if slot.active_pid != pid:
                continue
            if slot.temporary:
                self._forget(slot.name)
            else:
                self.release(slot.name, pid)

    def watch_terminations(self, terminate: Callable[[int], None]) -> None:
        """See `ISlotStore.watch_terminations`."""
        self._terminate = terminate

    # Using, making and dropping

    def _acquire(self, name: str, pid: int) -> Slot:
        slot = self._existing(name)
        if slot.active_pid not in (None, pid):
            raise _in_use(slot)
        slot = self._slots[name] = replace(slot, active_pid=pid)
        return slot

    async def _create(self, slot: Slot, pid: int) -> Slot:
        check_slot_name(slot.name)
        if slot.name in self._slots:
            raise CommandError("42710", f'replication slot "{slot.name}" already exists')
        if len(self._slots) >= _MOST_SLOTS:
            raise CommandError(
                "53400",
                "all replication slots are in use",
                hint=f"Free one: there can be {_MOST_SLOTS}.",
            )
        # The name is taken from now on, and nobody else can use or drop the slot before it is made.
        self._slots[slot.name] = slot
        if slot.temporary:
            return slot
        try:
            await self._saver.save(slot.name)
        except OSError as error:
            self._unmake(slot)
            raise _failed(slot.name, error) from error
        self.release(slot.name, pid)
        return replace(slot, active_pid=None)

    def _unmake(self, slot: Slot) -> None:
        # If the session has ended meanwhile, others may use the slot: it stays, as if the answer
        # to its maker had been lost.
        if self._slots.get(slot.name) is slot:
            self._forget(slot.name)

    async def _drop(self, name: str, wait: bool, pid: int | None) -> None:
        slot = self._existing(name)
        while slot.active_pid is not None and not (slot.temporary and slot.active_pid == pid):
            if not wait:
                raise _in_use(slot)
            await self._free(name)
            slot = self._existing(name)
        self._forget(name)
        if slot.temporary:
            return
        try:
            await self._saver.save(name)
        except OSError as error:
            # It would be there again after a restart, so it is there now.
            self._slots.setdefault(name, slot)
            raise _failed(name, error) from error

    def _free(self, name: str) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._waiting.setdefault(name, []).append(waiting)
        return waiting

    def _forget(self, name: str) -> None:
        del self._slots[name]
        self._wake(name)

    def _wake(self, name: str) -> None:
        for waiting in self._waiting.pop(name, []):
            waiting.callback(None)

    def _existing(self, name: str) -> Slot:
        slot = self._slots.get(name)
        if slot is None:
            raise CommandError("42704", f'replication slot "{name}" does not exist')
        return slot

    # Files

    def _loaded(self, slots: list[Slot]) -> None:
        self._slots.update((slot.name, slot) for slot in slots)

    def _snapshot(self, name: str) -> Callable[[], None]:
        slot = self._slots.get(name)
        if slot is None or slot.temporary:
            return partial(self._files.remove, name)
        return partial(self._files.store, slot)


def _in_use(slot: Slot) -> CommandError:
    return CommandError(
        "55006", f'replication slot "{slot.name}" is active for PID {slot.active_pid}'
    )


def _failed(name: str, error: OSError) -> CommandError:
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return CommandError(
        "53100" if is_full else "58030",
        f'could not write replication slot "{name}": {error.strerror}',
    )
