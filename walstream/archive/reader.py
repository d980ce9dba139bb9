"""The archive reader: serves an archive directory that another process fills, or nobody."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from zope.interface import implementer

from walstream.archive.follower import Follower
from walstream.archive.serving import Equipment, ServedArchive
from walstream.archive.watch import Watch, make_watch
from walstream.errors import ArchiveError
from walstream.interfaces import IWALProvider

__all__ = ["ArchiveReader"]


@implementer(IWALProvider)
class ArchiveReader(ServedArchive):
    """An archive that walstream or pg_receivewal may be filling in another process.

    It takes no lock that a writer would miss, and tells those who remove WAL what its clients
    still need. What walstream is still receiving is served as far as it is durable; of
    pg_receivewal's ``.partial``, which does not tell, nothing is. More is noticed as it comes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        reactor: IReactorFromThreads,
        *,
        equipment: Equipment | None = None,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(path, equipment or Equipment.of(reactor))
        files, lane = self._equipment.files, self._equipment.reading
        self._follower = Follower(files, self.paths, self._provider, self._documents, lane)
        self._watch = watch or make_watch(self.paths, reactor)

    def look(self) -> Deferred[None]:
        """Look at all of the archive now, though nothing has told of a change.

        :raises ArchiveError: (in the Deferred) if it cannot be one archive any more.
        """
        return Deferred.fromCoroutine(self._follower.look())

    async def _start(self) -> None:
        if not os.path.isdir(self.paths.root):
            raise ArchiveError(f"archive {self.paths.root} is not a directory")
        # Watched before it is looked at, so that nothing can slip through in between.
        self._watch.start(self._follower.changed)
        await self._follower.look()

    async def _stop(self) -> None:
        self._watch.stop()
