"""What this process has of the archive that it writes: all of it, or after a failure nothing.

A file system that has failed may have to be unmounted, mended and mounted again, and a directory
that is gone may come back, while we run. Therefore nothing is kept open after a failure, and what
was in memory is compared with what is there before another byte is written.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from twisted.logger import Logger

from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.archive.paths import ArchivePaths
from walstream.archive.possession import (
    Expected,
    Possession,
    retake_possession,
    take_possession,
)
from walstream.archive.survey import Survey
from walstream.errors import ArchiveLost, SinkFailed
from walstream.formats.positions import WALPosition

__all__ = ["Tenure", "is_root_unchanged"]


class Tenure:
    """Takes an archive into possession, proves that it still is, and lets go of it.

    :ivar possession: what we have; None before it was taken and after it was let go.
    """

    _log = Logger()

    def __init__(self, files: FileSystem, paths: ArchivePaths, lane: Lane) -> None:
        self.possession: Possession | None = None
        self._files = files
        self._paths = paths
        self._lane = lane

    async def take(self) -> Survey:
        """Take the archive for the first time; see `take_possession`."""
        return await self._take(take_possession)

    async def retake(self, expected: Expected) -> Survey:
        """Take the archive again that was let go.

        :raises SinkFailed: if that cannot be now; see `retake_possession`.
        """
        try:
            return await self._take(partial(retake_possession, expected=expected))
        except OSError as error:
            path = error.filename or self._paths.root
            raise SinkFailed(f"could not open {path} again: {error.strerror}") from error

    async def is_lost(self) -> bool:
        """Whether the archive that was taken is not where it was."""
        try:
            await self._lane.run(self.assure)
        except (ArchiveLost, OSError):
            return True
        return False

    def assure(self) -> None:
        """Prove that the archive still is where it was, and ours. Two system calls; in any thread.

        :raises ArchiveLost: if it is not.
        :raises OSError: if it cannot be told.
        """
        possession, lock = self.possession, self._paths.lock
        if possession is not None and self._files.find_identity(lock) == possession.lock.identity:
            return
        found = "another directory, or another lock file, is in its place"
        if self._files.find_identity(self._paths.root) is None:
            found = "there is no such directory"
        elif self._files.find_identity(lock) is None:
            found = f"there is no {lock}"
        raise ArchiveLost(f"the archive at {self._paths.root} is gone: {found}")

    def mark(self, end: WALPosition) -> None:
        """See `EndMark.write`. In any thread."""
        possession = self.possession
        if possession is not None:
            possession.mark.write(end)

    async def let_go(self) -> None:
        """Have nothing of the archive any more."""
        possession, self.possession = self.possession, None
        if possession is not None:
            # What had to be durable was synced; there is nothing that closing could add.
            with suppress(OSError):
                await self._lane.run(possession.release)

    async def _take(self, take: Callable[[FileSystem, ArchivePaths], Possession]) -> Survey:
        self.possession = await self._lane.run(partial(take, self._files, self._paths))
        found = self.possession.survey
        for name in found.skipped:
            self._log.warn("segment file {name} has incorrect size, skipping", name=name)
        for reason in found.damaged:
            self._log.error("{reason}: it does not count as finished", reason=reason)
        return found


def is_root_unchanged(files: FileSystem, paths: ArchivePaths) -> Callable[[], None]:
    """What proves, for a process that does not write an archive, that it is where it is now."""
    before = files.find_identity(paths.root)

    def assure() -> None:
        if files.find_identity(paths.root) != before:
            raise ArchiveLost(
                f"the archive at {paths.root} is gone: another directory, or none, is in its place"
            )

    return assure
