"""A worker's slot store: the main process has the slots, and is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from twisted.internet.defer import Deferred
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.interfaces import ISlotStore, Slot, WALPosition
from walstream.services.worker_channel import (
    AcquireSlot,
    Channel,
    CreateSlot,
    DropSlot,
    EndSession,
    ReadSlot,
    ReleaseSlot,
)
from walstream.services.worker_reports import Reports
from walstream.services.worker_values import Refused

__all__ = ["RemoteSlots"]


@implementer(ISlotStore)
class RemoteSlots:
    """Asks over a channel; the main process answers out of an `ISlotStore` of its own.

    :ivar terminate: ends the session of that number.
    :param reports: takes what need not be told at once, and is told first of what may not overtake
        it.
    """

    def __init__(self, channel: Channel, reports: Reports) -> None:
        self.terminate: Callable[[int], None] = lambda pid: None
        self._channel = channel
        self._reports = reports

    def create(
        self, name: str, pid: int, *, temporary: bool, restart: WALPosition | None
    ) -> Deferred[Slot]:
        """See `ISlotStore.create`."""
        return self._ask(CreateSlot, name=name, pid=pid, temporary=temporary, restart=restart)

    def read(self, name: str) -> Deferred[Slot | None]:
        """See `ISlotStore.read`."""
        return self._ask(ReadSlot, name=name)

    def acquire(self, name: str, pid: int) -> Deferred[Slot]:
        """See `ISlotStore.acquire`."""
        return self._ask(AcquireSlot, name=name, pid=pid)

    def advance(self, name: str, restart: WALPosition) -> None:
        """See `ISlotStore.advance`."""
        self._reports.slot_advanced(name, restart)

    def release(self, name: str, pid: int) -> None:
        """See `ISlotStore.release`."""
        self._reports.send()
        self._channel.tell(ReleaseSlot, name=name, pid=pid)

    def drop(self, name: str, *, wait: bool, pid: int | None = None) -> Deferred[None]:
        """See `ISlotStore.drop`."""
        return self._ask(DropSlot, name=name, wait=wait, pid=pid)

    def end_session(self, pid: int) -> None:
        """See `ISlotStore.end_session`."""
        self._reports.send()
        self._channel.tell(EndSession, pid=pid)

    def watch_terminations(self, terminate: Callable[[int], None]) -> None:
        """See `ISlotStore.watch_terminations`."""
        self.terminate = terminate

    def _ask(self, command: type[amp.Command], **arguments: Any) -> Deferred[Any]:
        self._reports.send()
        answer = self._channel.ask(command, **arguments)
        return answer.addCallbacks(lambda values: values.get("slot"), _refused)


def _refused(failure: Failure) -> NoReturn:
    if isinstance(failure.value, Refused):
        raise failure.value.error()
    failure.raiseException()
