"""Takes slots away: from those that hold back more than they may, and those that nobody uses.

Looks every second whether somebody who removes WAL waits for a slot to let go of it, and ends the
session that uses it in PostgreSQL's way. The lines in the log are PostgreSQL 18's.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.archive.paths import ArchivePaths
from walstream.archive.slot_limit import clear_request, explain, is_obsolete, read_request
from walstream.archive.slots import DirectorySlots
from walstream.errors import CommandError
from walstream.interfaces import Slot

__all__ = ["INTERVAL", "SlotKeeper"]

#: Seconds between two looks.
INTERVAL: Final = 1.0


class SlotKeeper:
    """Sees to the limits of a process's slots, from `open` to `close`.

    :param slots: opened before and closed after it.
    :param lane: a thread of its own; closed with it.
    :param idle_timeout: seconds after which a slot that nobody uses is lost; 0: never.
    """

    _log = Logger()

    def __init__(
        self,
        slots: DirectorySlots,
        paths: ArchivePaths,
        files: FileSystem,
        lane: Lane,
        clock: IReactorTime,
        *,
        idle_timeout: float = 0.0,
    ) -> None:
        self._slots = slots
        self._paths = paths
        self._files = files
        self._lane = lane
        self._idle_timeout = idle_timeout
        self._has_failed = False
        self._look_again = LoopingCall(self._look)
        self._look_again.clock = clock

    def open(self) -> Deferred[None]:
        """Begin; see `walstream.services.hub.Storage`."""
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        if self._slots.is_taken:
            # Whoever waited for the process before us has given up, or begins again.
            await self._lane.run(partial(clear_request, self._files, self._paths)).addErrback(
                self._failed
            )
        self._look_again.start(INTERVAL, now=False)

    def close(self) -> Deferred[None]:
        """End; fires when nothing is under way any more."""
        if self._look_again.running:
            self._look_again.stop()
        return self._lane.close()

    def _look(self) -> Deferred[None]:
        # A LoopingCall waits for it, so there is never a second one.
        return Deferred.fromCoroutine(self._see_to_limits()).addErrback(self._failed)

    async def _see_to_limits(self) -> None:
        if not self._slots.is_taken:
            return  # there are none, or they are another process's
        await self._see_to_request()
        if self._idle_timeout:
            for slot, seconds in self._slots.idle(self._idle_timeout):
                why = (
                    f"The slot's idle time of {seconds:.0f}s exceeds the configured "
                    f'"idle_replication_slot_timeout" duration of {self._idle_timeout:.0f}s. '
                    'You might need to increase "idle_replication_slot_timeout".'
                )
                await self._invalidate(slot, "idle_timeout", why)
        self._has_failed = False

    async def _see_to_request(self) -> None:
        oldest = await self._lane.run(partial(read_request, self._files, self._paths))
        if oldest is None:
            return
        obsolete = [slot for slot in self._slots.slots() if is_obsolete(slot, oldest)]
        if not obsolete:
            # Only now, so that what their sessions still read has been given up as well.
            await self._lane.run(partial(clear_request, self._files, self._paths))
        for slot in obsolete:
            why = explain(slot, oldest)
            if slot.active_pid is not None:
                self._log.warn(
                    'terminating process {pid} to release replication slot "{slot}": {why}',
                    pid=slot.active_pid,
                    slot=slot.name,
                    why=why,
                )
                self._slots.terminate(slot.name)
            await self._invalidate(slot, "wal_removed", why)

    async def _invalidate(self, slot: Slot, reason: str, why: str) -> None:
        if await self._slots.invalidate(slot.name, reason):
            self._log.warn(
                'invalidating obsolete replication slot "{slot}": {why}', slot=slot.name, why=why
            )

    def _failed(self, failure: Failure) -> None:
        if failure.check(CommandError, OSError) is None:
            self._log.failure("the limits of replication slots could not be seen to", failure)
        elif not self._has_failed:
            self._log.error(
                "replication slots are not taken away, since that cannot be made durable: {reason}",
                reason=failure.getErrorMessage(),
            )
        self._has_failed = True
