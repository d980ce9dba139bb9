"""When slots are written: at once where somebody waits for it, and soon where nobody does.

A slot that is to be written is only named here; what is written is what it is when its turn comes.
So no write can overtake another, and however often a slot changes, few of them are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["SAVE_INTERVAL", "InThread", "SlotSaver"]

#: How long a change that nobody waits for may stay unwritten, in seconds.
SAVE_INTERVAL: Final = 1.0


class InThread(Protocol):
    """Runs a job elsewhere; `walstream.archive.lane.Lane.run` does."""

    def __call__(self, job: Callable[[], None], /) -> Deferred[None]:
        """Run *job*; the Deferred has its end, or its error."""


class SlotSaver:
    """Writes slots, one after the other.

    :param snapshot: gives the job that makes the file of a slot what the slot is at this moment.
    """

    _log = Logger()

    def __init__(
        self,
        snapshot: Callable[[str], Callable[[], None]],
        in_thread: InThread,
        clock: IReactorTime,
    ) -> None:
        self._snapshot = snapshot
        self._in_thread = in_thread
        self._clock = clock
        self._changed: set[str] = set()  # to be written, and nobody waits for it
        self._timer: IDelayedCall | None = None
        self._queue: dict[str, list[Deferred[None]]] = {}  # to be written now, and who waits
        self._is_writing = False
        self._is_failing = False
        self._closing: Deferred[None] | None = None

    def save(self, name: str) -> Deferred[None]:
        """Write a slot now.

        :raises OSError: (in the Deferred) if that fails; what is in the file is then unknown.

        Cancelling the Deferred does not stop the write.
        """
        # Without a canceller of its own, a cancelled Deferred ignores the result that comes later.
        waiting: Deferred[None] = Deferred()
        self._changed.discard(name)
        self._queue.setdefault(name, []).append(waiting)
        self._write()
        return waiting

    def save_soon(self, name: str) -> None:
        """Write a slot within `SAVE_INTERVAL`; if it fails, again and again, and it is logged."""
        self._changed.add(name)
        if self._timer is None and self._closing is None:
            self._timer = self._clock.callLater(SAVE_INTERVAL, self._save_changed)

    def save_if_changed(self, name: str) -> None:
        """Write a slot now if it is to be written soon."""
        if name in self._changed:
            self._save_unattended([name])

    def close(self) -> Deferred[None]:
        """Write everything that is still to be written; fires when that was done, or tried.

        To be called once.
        """
        self._closing = Deferred()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        closed = self._closing
        self._save_unattended(sorted(self._changed))
        self._write()
        return closed

    def _save_changed(self) -> None:
        self._timer = None
        self._save_unattended(sorted(self._changed))

    def _save_unattended(self, names: Iterable[str]) -> None:
        for name in names:
            self.save(name).addCallbacks(self._saved, self._not_saved, errbackArgs=(name,))

    def _saved(self, _: None) -> None:
        if self._is_failing:
            self._is_failing = False
            self._log.info("replication slots can be saved again")

    def _not_saved(self, failure: Failure, name: str) -> None:
        # Said once, since it is tried each second. What the file then lacks is not lost WAL: after
        # a restart the slot holds back more of it than it has to.
        if not self._is_failing:
            self._is_failing = True
            self._log.error(
                "could not save replication slot {slot}, will try again: {error}",
                slot=name,
                error=failure.getErrorMessage(),
            )
        self.save_soon(name)

    def _write(self) -> None:
        # One write at a time; the next one begins when the last has ended.
        if self._is_writing:
            return
        if not self._queue:
            self._idle()
            return
        self._is_writing = True
        name = next(iter(self._queue))
        waiting = self._queue.pop(name)
        self._in_thread(self._snapshot(name)).addBoth(self._written, waiting)

    def _written(self, result: Failure | None, waiting: list[Deferred[None]]) -> None:
        self._is_writing = False
        for waiter in waiting:
            waiter.callback(result)
        self._write()

    def _idle(self) -> None:
        if self._closing is not None:
            closing, self._closing = self._closing, Deferred()
            closing.callback(None)
