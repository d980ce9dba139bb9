"""Whatever is killed: a slot is as it was, or as it was to be, and what was answered is durable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.test_archive_crashes import Killed, MortalFiles
from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths
from walstream.archive.slot_possession import stored_slots
from walstream.archive.slots import DirectorySlots
from walstream.formats.lsn import LSN
from walstream.interfaces import Slot, WALPosition
from walstream.testing.disk import ManualLane

HERE, THERE = WALPosition(1, LSN(0x3000000)), WALPosition(1, LSN(0x4000000))

#: What becomes of a slot, step by step.
STATES = [
    None,
    Slot("s", False, HERE, None),
    Slot("s", False, THERE, None),
    Slot("s", False, None, None, "wal_removed"),
    None,
]


class Life:
    """The life of a slot, up to the call before which its process is killed.

    :ivar steps: how many of its steps were over by then, and told.
    """

    def __init__(self, root: Path, calls: int) -> None:
        self.steps = 0
        self.paths = ArchivePaths(os.path.abspath(root))
        os.makedirs(self.paths.slots)
        # The model of the disk knows one directory. How it is made, others test.
        self.files = MortalFiles(self.paths.slots)
        self.clock = Clock()
        self.slots = DirectorySlots(self.paths, self.files, ManualLane(), self.clock)
        self.is_killed = False
        try:
            self.over(self.slots.open())
            self.files.lives = calls
            self.live()
        except Killed:
            self.is_killed = True
        self.files.lives = 1 << 30
        self.slots._possession.release()

    def live(self) -> None:
        """Each step is over when it is durable."""
        self.over(self.slots.create("s", 7, temporary=False, restart=HERE))
        self.steps = 1
        self.slots.advance("s", THERE)
        self.clock.advance(1)
        self.steps = 2
        self.over(self.slots.invalidate("s", "wal_removed"))
        self.steps = 3
        self.over(self.slots.drop("s", wait=False))
        self.steps = 4

    def over(self, result: Deferred[Any]) -> None:
        """What fails, fails because the process is gone."""
        failures: list[object] = []
        result.addErrback(failures.append)
        if failures:
            raise Killed


class CrashTests(SynchronousTestCase):
    """Killed before each of its calls, with and without a power failure."""

    def test_every_instant(self) -> None:
        """A slot is there in one of two states: before the step that was under way, or after."""
        calls = 0
        while self.check(calls):
            calls += 1
        self.assertGreater(calls, 12)

    def check(self, calls: int) -> bool:
        """Live until so many calls were made; False if that was all."""
        life = Life(Path(self.mktemp()), calls)
        self.check_stored(life, life.paths)
        restored = ArchivePaths(os.path.abspath(self.mktemp()))
        os.makedirs(restored.slots)
        for name, content in life.files.after_power_failure().items():
            Path(restored.slots, name).write_bytes(content)
        self.check_stored(life, restored)
        return life.is_killed

    def check_stored(self, life: Life, paths: ArchivePaths) -> None:
        """What the next process finds."""
        stored = stored_slots(FileSystem(), paths)
        found = stored[0] if stored else None
        self.assertIn(found, STATES[life.steps : life.steps + 2])
