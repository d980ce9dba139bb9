"""The replication slot that a session's stream uses."""

from __future__ import annotations

from walstream.interfaces import ISlotStore, WALPosition

__all__ = ["SessionSlot"]


class SessionSlot:
    """What becomes of the slots of one session.

    :ivar name: the slot that its stream uses; None if it uses none.
    :param pid: the session's number, under which it has them.
    """

    def __init__(self, slots: ISlotStore, pid: int) -> None:
        self.name: str | None = None
        self._slots = slots
        self._pid = pid

    def advance(self, position: WALPosition) -> None:
        """The client needs nothing before *position* any more."""
        if self.name is not None:
            self._slots.advance(self.name, position)

    def release(self) -> None:
        """The stream is over in order: others may use the slot, a temporary one stays."""
        if self.name is not None:
            self._slots.release(self.name, self._pid)
            self.name = None

    def give_up(self) -> None:
        """Give up whatever slots the session has, temporary ones for good."""
        self.name = None
        self._slots.end_session(self._pid)
