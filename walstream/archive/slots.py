"""Replication slots that outlive the process that serves them, in a directory of small files.

What a slot may do, and the words and SQLSTATEs for what it may not, are PostgreSQL's (``slot.c``).
What is in the files is `slot_files`' business, and when they are written `slot_saver`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.archive.ledger import Ledger, load_ledger
from walstream.archive.lock import LockHeld
from walstream.archive.paths import ArchivePaths
from walstream.archive.readers import retention_lock
from walstream.archive.slot_errors import could_not_write, in_use, refuse
from walstream.archive.slot_files import check_slot_name
from walstream.archive.slot_limit import invalidated
from walstream.archive.slot_possession import SlotPossession
from walstream.archive.slot_saver import SlotSaver
from walstream.archive.tenure import is_root_unchanged
from walstream.errors import CommandError, SinkFailed
from walstream.interfaces import ISlotStore, Slot, WALPosition

__all__ = ["MOST_SLOTS", "DirectorySlots"]

#: As max_replication_slots, whose default of 10 is for a server that has not hundreds of standbys.
MOST_SLOTS: Final = 1000


@implementer(ISlotStore)
class DirectorySlots:
    """The physical slots of one walsender, which alone has those of its archive.

    A slot is durable before `create` fires, and gone for good before `drop` does. Where it stands
    is written at most a second later, at once if it held nothing back before, and when its user
    leaves: after a crash a slot stands where its user once was, never further on, so it holds back
    too much WAL rather than too little. Temporary slots have files too, for as long as they are
    there, so that whoever removes WAL knows of them.

    :ivar is_taken: whether the archive's slots are this process's.
    :param paths: where the archive's files are; a place for slots is made with the first one.
    :param lane: a thread that reads and writes the files; closed with the store.
    :param assure: proves that the archive is where it was, or raises `ArchiveLost`; unless told
        otherwise, by its directory.
    :param most: how many slots there can be.
    """

    _log = Logger()

    def __init__(
        self,
        paths: ArchivePaths,
        files: FileSystem,
        lane: Lane,
        clock: IReactorTime,
        *,
        assure: Callable[[], None] | None = None,
        most: int = MOST_SLOTS,
    ) -> None:
        self.is_taken = False
        self._paths = paths
        self._system = files
        self._possession = SlotPossession(files, paths, assure or is_root_unchanged(files, paths))
        self._lane = lane
        self._clock = clock
        self._most = most
        self._saver = SlotSaver(self._snapshot, lane.run, clock)
        self._slots: dict[str, Slot] = {}
        self._idle_since: dict[str, float] = {}
        self._unwritten: set[str] = set()
        self._waiting: dict[str, list[Deferred[None]]] = {}
        self._terminate: Callable[[int], None] = lambda pid: None

    # Storage: opened before, and closed after, it is used.

    def open(self) -> Deferred[None]:
        """Take the slots that there are, unless another process has them, which is logged.

        :raises ArchiveError: (in the Deferred) if a file is damaged.
        """
        return self._take(make=False).addErrback(self._not_ours)

    def close(self) -> Deferred[None]:
        """Write where the slots stand, and let go of them; fires when that is done."""
        return self._saver.close().addCallback(self._close)

    # ISlotStore

    def create(
        self, name: str, pid: int, *, temporary: bool, restart: WALPosition | None
    ) -> Deferred[Slot]:
        """See `ISlotStore.create`. A temporary slot is its session's until that ends."""
        return Deferred.fromCoroutine(self._create(Slot(name, temporary, restart, pid), pid))

    def read(self, name: str) -> Deferred[Slot | None]:
        """See `ISlotStore.read`."""
        return self._taken().addCallback(lambda _: self._slots.get(name))

    def slots(self) -> Collection[Slot]:
        """All slots of this moment."""
        return list(self._slots.values())

    def acquire(self, name: str, pid: int) -> Deferred[Slot]:
        """See `ISlotStore.acquire`."""
        return self._taken().addCallback(lambda _: self._acquire(name, pid))

    def advance(self, name: str, restart: WALPosition) -> None:
        """See `ISlotStore.advance`. A slot that was lost is as good as new then."""
        slot = self._slots.get(name)
        if slot is None or (slot.restart == restart and slot.invalidation is None):
            return
        self._slots[name] = replace(slot, restart=restart, invalidation=None)
        self._saver.save_soon(name)
        if slot.restart is None or restart.lsn < slot.restart.lsn:
            self._saver.save_if_changed(name)
        if slot.invalidation is not None:
            self._log.warn(
                'replication slot "{slot}", which was lost, holds WAL back again, from {lsn} on',
                slot=name,
                lsn=str(restart.lsn),
            )

    def release(self, name: str, pid: int) -> None:
        """See `ISlotStore.release`. A temporary slot stays its session's."""
        slot = self._slots.get(name)
        if slot is None or slot.temporary or slot.active_pid != pid:
            return
        self._slots[name] = replace(slot, active_pid=None)
        self._idle_since[name] = self._clock.seconds()
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
                self._saver.save(slot.name).addErrback(lambda _: None)  # which says so itself
            else:
                self.release(slot.name, pid)

    def watch_terminations(self, terminate: Callable[[int], None]) -> None:
        """See `ISlotStore.watch_terminations`."""
        self._terminate = terminate

    # For whoever limits what slots hold back.

    def idle(self, seconds: float) -> Collection[tuple[Slot, float]]:
        """The slots that hold WAL back and were not used for so long, and for how long exactly."""
        now = self._clock.seconds()
        return [
            (slot, now - self._idle_since[slot.name])
            for slot in self.slots()
            if slot.active_pid is None
            and slot.restart is not None
            and slot.invalidation is None
            and now - self._idle_since[slot.name] > seconds
        ]

    def terminate(self, name: str) -> None:
        """End the session that uses a slot, if one does."""
        slot = self._slots.get(name)
        if slot is not None and slot.active_pid is not None:
            self._terminate(slot.active_pid)

    def invalidate(self, name: str, reason: str) -> Deferred[bool]:
        """Take a slot that nobody uses out of service for good; fires when that is durable.

        It tells whether it was: not if the slot is in use, or gone.

        :raises CommandError: (in the Deferred) if it cannot be made durable.
        """
        return Deferred.fromCoroutine(self._invalidate(name, reason))

    # Using, making and dropping

    def _acquire(self, name: str, pid: int) -> Slot:
        slot = self._existing(name)
        if slot.active_pid not in (None, pid):
            raise in_use(slot)
        slot = self._slots[name] = replace(slot, active_pid=pid)
        return slot

    async def _invalidate(self, name: str, reason: str) -> bool:
        slot = self._slots.get(name)
        if slot is None or slot.active_pid is not None:
            return False
        self._slots[name] = invalidated(slot, reason)
        await self._save(name)
        return True

    async def _create(self, slot: Slot, pid: int) -> Slot:
        check_slot_name(slot.name)
        await self._make_place(slot)
        if slot.name in self._slots:
            raise CommandError("42710", f'replication slot "{slot.name}" already exists')
        if len(self._slots) >= self._most:
            raise CommandError(
                "53400",
                "all replication slots are in use",
                hint='Free one or increase "max_replication_slots".',
            )
        # The name is taken from now on, and nobody else can use or drop the slot before it is made.
        self._slots[slot.name] = slot
        try:
            await self._save(slot.name)
            await self._check_held(slot)
        except CommandError:
            self._unmake(slot)
            raise
        if slot.temporary:
            return slot
        self.release(slot.name, pid)
        return replace(slot, active_pid=None)

    async def _make_place(self, slot: Slot) -> None:
        try:
            await self._taken(make=True, name=slot.name)
            self._unwritten.discard(slot.name)
        except CommandError:
            # Where nothing can be written, nobody removes WAL that a temporary slot needs either.
            if not (slot.temporary and self._possession.is_read_only):
                raise
            self._unwritten.add(slot.name)

    def _unmake(self, slot: Slot) -> None:
        # If the session has ended meanwhile, others may use the slot: it stays, as if the answer
        # to its maker had been lost.
        if self._slots.get(slot.name) is slot:
            self._forget(slot.name)
            self._saver.save_soon(slot.name)

    async def _check_held(self, slot: Slot) -> None:
        """Whether the WAL was there when its slot became known to those who remove WAL."""
        restart = slot.restart
        if restart is None or slot.name in self._unwritten:
            return
        try:
            ledger = await self._lane.run(self._read_ledger)
        except OSError as error:
            raise could_not_write(slot.name, error) from error
        if ledger is not None and restart.lsn < ledger.removed_before:
            size = ledger.segment_size
            segment = size.name(restart.timeline, size.number(restart.lsn))
            raise CommandError("58P01", f"requested WAL segment {segment} has already been removed")

    def _read_ledger(self) -> Ledger | None:
        # Who is about to remove WAL is waited for, and looks at the slots again afterwards.
        with retention_lock(self._system, self._paths, shared=True):
            return load_ledger(self._system, self._paths)

    async def _drop(self, name: str, wait: bool, pid: int | None) -> None:
        await self._taken()
        slot = self._existing(name)
        while slot.active_pid is not None and not (slot.temporary and slot.active_pid == pid):
            if not wait:
                raise in_use(slot)
            await self._free(name)
            slot = self._existing(name)
        self._forget(name)
        try:
            await self._save(name)
        except CommandError:
            # It would be there again after a restart, so it is there now.
            self._slots.setdefault(name, slot)
            self._idle_since.setdefault(name, self._clock.seconds())
            raise

    def _free(self, name: str) -> Deferred[None]:
        waiting = self._waiting.setdefault(name, [])
        free: Deferred[None] = Deferred(waiting.remove)
        waiting.append(free)
        return free

    def _forget(self, name: str) -> None:
        del self._slots[name]
        self._idle_since.pop(name, None)
        self._wake(name)

    def _wake(self, name: str) -> None:
        waiting = self._waiting.pop(name, [])
        while waiting:
            waiting.pop(0).callback(None)

    def _existing(self, name: str) -> Slot:
        slot = self._slots.get(name)
        if slot is None:
            raise CommandError("42704", f'replication slot "{name}" does not exist')
        return slot

    # Files

    async def _save(self, name: str) -> None:
        try:
            await self._saver.save(name)
        except (OSError, SinkFailed, LockHeld) as error:
            raise could_not_write(name, error) from error

    def _snapshot(self, name: str) -> Callable[[], None]:
        slot = self._slots.get(name)
        if name in self._unwritten:
            if slot is None:
                self._unwritten.remove(name)
            return lambda: None

        def write() -> None:
            self._possession.assure()
            if slot is None:
                self._possession.files.remove(name)
            else:
                self._possession.files.store(slot)

        return write

    # Whose the slots are

    def _taken(self, *, make: bool = False, name: str = "") -> Deferred[None]:
        """Fires when the slots are ours.

        :param make: whether there has to be a place for slots then.
        :param name: the slot that it is for.
        :raises CommandError: (in the Deferred) if they cannot be.
        """
        if self.is_taken:
            return succeed(None)
        return self._take(make=make).addErrback(refuse, name)

    def _take(self, *, make: bool) -> Deferred[None]:
        taken: Deferred[None] = Deferred()  # who gives up waiting does not stop it
        taking = self._lane.run(partial(self._possession.take, make=make))
        taking.addCallback(self._loaded).chainDeferred(taken)
        return taken

    def _loaded(self, slots: list[Slot] | None) -> None:
        self.is_taken = slots is not None
        for slot in slots or ():
            self._slots[slot.name] = slot
            self._idle_since[slot.name] = self._clock.seconds()

    def _not_ours(self, failure: Failure) -> None:
        failure.trap(LockHeld)
        self._log.warn(
            "the replication slots of {archive} are in use elsewhere, so that clients cannot use "
            "any here: {reason}",
            reason=failure.getErrorMessage(),
            archive=self._paths.root,
        )

    def _close(self, _: None) -> Deferred[None]:
        return self._lane.run(self._possession.release).addBoth(lambda _: self._lane.close())
