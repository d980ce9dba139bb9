"""When slots are written: at once where somebody waits for it, and soon where nobody does.

A slot that is to be written is only named here; what is written is what it is when its turn comes.
So no write can overtake another, and however often a slot changes, few of them are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["SAVE_INTERVAL", "SlotSaver"]

#: How long a change that nobody waits for may stay unwritten, in seconds.
SAVE_INTERVAL: Final = 1.0

_Job: TypeAlias = Callable[[], None]


class SlotSaver:
    """Writes slots, one at a time.

    :param snapshot: gives the job that makes the file of a slot what the slot is at this moment.
    :param in_thread: runs a job elsewhere; the Deferred has its end, or its error.
    """

    _log = Logger()

    def __init__(
        self,
        snapshot: Callable[[str], _Job],
        in_thread: Callable[[_Job], Deferred[None]],
        clock: IReactorTime,
    ) -> None:
        self._snapshot = snapshot
        self._in_thread = in_thread
        self._clock = clock
        self._changed: set[str] = set()  # to be written soon
        self._timer: IDelayedCall | None = None
        self._queue: dict[str, list[Deferred[None]]] = {}  # to be written now, and who waits
        self._is_writing = False
        self._is_failing = False
        self._is_closed = False
        self._idle: Deferred[None] | None = None

    def save(self, name: str) -> Deferred[None]:
        """Write a slot now.

        :raises OSError: (in the Deferred) if that fails. What its file holds is not known then,
            so the slot, as it is then, is written again soon.

        To cancel the Deferred does not stop the write.
        """
        written: Deferred[None] = Deferred()
        self._enqueue(name).append(written)
        self._write_next()
        return written

    def save_soon(self, name: str) -> None:
        """Write a slot within `SAVE_INTERVAL`, and again as long as it fails, which is logged."""
        self._changed.add(name)
        if self._timer is None and not self._is_closed:
            self._timer = self._clock.callLater(SAVE_INTERVAL, self._save_changed)

    def save_if_changed(self, name: str) -> None:
        """Write a slot now if it was to be written soon."""
        if name in self._changed:
            self._enqueue(name)
            self._write_next()

    def close(self) -> Deferred[None]:
        """Write what is still to be written; fires when that was done, or tried for once."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._save_changed()
        if not self._is_writing:
            return succeed(None)
        self._idle = Deferred()
        return self._idle

    def _save_changed(self) -> None:
        self._timer = None
        for name in sorted(self._changed):
            self._enqueue(name)
        self._write_next()

    def _enqueue(self, name: str) -> list[Deferred[None]]:
        self._changed.discard(name)
        return self._queue.setdefault(name, [])

    def _write_next(self) -> None:
        if self._is_writing or not self._queue:
            return
        self._is_writing = True
        name = next(iter(self._queue))
        waiting = self._queue.pop(name)
        self._in_thread(self._snapshot(name)).addBoth(self._written, name, waiting)

    def _written(self, result: Failure | None, name: str, waiting: list[Deferred[None]]) -> None:
        self._is_writing = False
        if isinstance(result, Failure):
            self._failed(result, name)
        elif self._is_failing:
            self._is_failing = False
            self._log.info("replication slots can be written again")
        for written in waiting:
            written.callback(result)
        self._write_next()
        if self._idle is not None and not self._is_writing:
            idle, self._idle = self._idle, None
            idle.callback(None)

    def _failed(self, failure: Failure, name: str) -> None:
        # Said once, as it is tried again each second. What the file lacks then is not lost WAL:
        # after a restart the slot stands further back, and holds back more than it has to.
        if not self._is_failing:
            self._is_failing = True
            self._log.error(
                "could not write replication slot {slot}: {error}",
                slot=name,
                error=failure.getErrorMessage(),
            )
        self.save_soon(name)
