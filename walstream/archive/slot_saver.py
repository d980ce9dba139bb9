"""When slots are written: at once where somebody waits for it, and soon where nobody does.

A slot that is to be written is only named here; what is written is what it is when its turn comes.
So writes cannot overtake each other, and however often a slot changes, few of them are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

__all__ = ["InThread", "SlotSaver"]

#: How long a slot's advance may wait to be written, in seconds.
SAVE_INTERVAL: Final = 1.0


class InThread(Protocol):
    """Runs a job in a thread; `walstream.archive.lane.Lane.run` is one."""

    def __call__(self, job: Callable[[], None], /) -> Deferred[None]: ...


class SlotSaver:
    """Keeps the files of slots equal to the slots.

    :param save: makes the file of the slot of that name what the slot is now; no file for a slot
        that is no more. Called in a thread, on what *snapshot* gave.
    """

    _log = Logger()

    def __init__(
        self,
        snapshot: Callable[[str], Callable[[], None]],
        in_thread: InThread,
        clock: IReactorTime,
    ) -> None:
        self._snapshot = snapshot
