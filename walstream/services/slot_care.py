"""How the slots of an archive are kept: what the options come to, and the parts they take."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import ThreadLane
from walstream.archive.paths import ArchivePaths
from walstream.archive.slot_keeper import SlotKeeper
from walstream.archive.slots import MOST_SLOTS, DirectorySlots

__all__ = ["SlotCare"]


@dataclass(frozen=True, slots=True)
class SlotCare:
    """How slots are kept.

    :ivar most: how many there can be.
    :ivar idle_timeout: seconds after which a slot that nobody uses is lost; 0: never.
    """

    most: int = MOST_SLOTS
    idle_timeout: float = 0.0

    def keep(
        self,
        reactor: Any,
        archive: str | os.PathLike[str],
        assure: Callable[[], None] | None = None,
    ) -> tuple[DirectorySlots, SlotKeeper]:
        """The slots of an archive, and who sees to their limits; to be opened in this order.

        :param assure: proves that the archive is where it was; see `DirectorySlots`.
        """
        paths, files = ArchivePaths(os.path.abspath(archive)), FileSystem()
        lane = ThreadLane(reactor, "walstream-slots")
        slots = DirectorySlots(paths, files, lane, reactor, assure=assure, most=self.most)
        lane = ThreadLane(reactor, "walstream-slot-limits")
        timeout = self.idle_timeout
        return slots, SlotKeeper(slots, paths, files, lane, reactor, idle_timeout=timeout)
