"""The main process's end of a worker's channel: answers out of what all workers share."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.errors import CommandError
from walstream.interfaces import Slot, WALPosition
from walstream.services.worker_channel import (
    AcquireSlot,
    AdvanceSlot,
    Cancel,
    Channel,
    CreateSlot,
    DropSlot,
    EndSession,
    EnterRole,
    LeaveRole,
    ReadSlot,
    ReleaseSlot,
    SentSoFar,
    SessionEnded,
    SettlePassword,
    StandbyLeft,
    StandbysChanged,
)
from walstream.services.worker_sessions import WorkerSessions
from walstream.services.worker_values import Refused

__all__ = ["MainEnd"]

_T = TypeVar("_T")

_log = Logger()
_numbers = count(1)


class MainEnd(Channel):
    """Answers a worker.

    :param lost: called when the worker has closed the channel, or cannot be spoken to any more.
    """

    def __init__(self, sessions: WorkerSessions[Any], lost: Callable[[], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._lost = lost
        self._sessions = sessions
        self._slots = sessions.slots
        # The workers' numbers of who came in, and ours: each worker has its own.
        self._roles: dict[int, int] = {}

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The worker is gone, or will be."""
        super().connectionLost(reason)
        for number in list(self._roles):
            self.leave_role(number)
        self._lost()

    @CreateSlot.responder
    async def create_slot(
        self, name: str, pid: int, temporary: bool, restart: WALPosition | None
    ) -> dict[str, Slot]:
        """See `ISlotStore.create`."""
        create = self._slots.create(name, pid, temporary=temporary, restart=restart)
        return {"slot": await _sent(create)}

    @ReadSlot.responder
    async def read_slot(self, name: str) -> dict[str, Slot | None]:
        """See `ISlotStore.read`."""
        return {"slot": await _sent(self._slots.read(name))}

    @AcquireSlot.responder
    async def acquire_slot(self, name: str, pid: int) -> dict[str, Slot]:
        """See `ISlotStore.acquire`."""
        return {"slot": await _sent(self._slots.acquire(name, pid))}

    @DropSlot.responder
    async def drop_slot(self, name: str, wait: bool, pid: int | None) -> dict[str, object]:
        """See `ISlotStore.drop`."""
        await _sent(self._slots.drop(name, wait=wait, pid=pid))
        return {}

    @AdvanceSlot.responder
    def advance_slot(self, name: str, restart: WALPosition) -> dict[str, object]:
        """See `ISlotStore.advance`."""
        self._slots.advance(name, restart)
        return {}

    @ReleaseSlot.responder
    def release_slot(self, name: str, pid: int) -> dict[str, object]:
        """See `ISlotStore.release`."""
        self._slots.release(name, pid)
        return {}

    @EndSession.responder
    def end_session(self, pid: int) -> dict[str, object]:
        """See `ISlotStore.end_session`."""
        self._slots.end_session(pid)
        return {}

    @StandbysChanged.responder
    def standbys_changed(self, standbys: bytes) -> dict[str, object]:
        """See `StandbysChanged`."""
        self._sessions.changed(standbys.split(b"\n"))
        return {}

    @SentSoFar.responder
    def sent_so_far(self, positions: bytes) -> dict[str, object]:
        """See `SentSoFar`."""
        self._sessions.sent(positions.split(b"\n"))
        return {}

    @StandbyLeft.responder
    def standby_left(self, pid: int) -> dict[str, object]:
        """See `StandbyLeft`."""
        self._sessions.left(pid)
        return {}

    @SessionEnded.responder
    def session_ended(self, pid: int) -> dict[str, object]:
        """See `SessionEnded`."""
        self._sessions.ended(pid)
        return {}

    @EnterRole.responder
    async def enter_role(self, number: int, role: str, limit: int | None) -> dict[str, object]:
        """See `Places.enter`."""
        self.leave_role(number)  # or nobody would know of the place that it had by that number
        ours = next(_numbers)
        await _sent(self._sessions.places.enter(ours, role, limit))
        self._roles[number] = ours
        return {}

    @LeaveRole.responder
    def leave_role(self, number: int) -> dict[str, object]:
        """See `Places.leave`."""
        ours = self._roles.pop(number, None)
        if ours is not None:
            self._sessions.places.leave(ours)
        return {}

    @SettlePassword.responder
    async def settle_password(self, address: str, is_wrong: bool) -> dict[str, float]:
        """See `Lateness.settle`."""
        throttle = self._sessions.throttle
        assert throttle is not None, "passwords are asked for"
        return {"seconds": await throttle.settle(address, is_wrong=is_wrong)}

    @Cancel.responder
    def cancel(self, pid: int, key: bytes) -> dict[str, object]:
        """See `Cancel`."""
        self._sessions.cancel(pid, key)
        return {}


async def _sent(work: Deferred[_T]) -> _T:
    """The result of *work*; an error in the form in which it can be sent."""
    try:
        return await work
    except CommandError as error:
        raise Refused.of(error) from error
    except Exception as error:
        _log.failure("a worker's request failed")
        internal = CommandError("XX000", "internal error; see the log of walstream")
        raise Refused.of(internal) from error
