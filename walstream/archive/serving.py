"""What an archive has in common, whether it is filled by this process or by another one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from zope.interface import implementer

from walstream.archive.documents import Documents
from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane, ThreadLane
from walstream.archive.paths import ArchivePaths
from walstream.archive.places import Places
from walstream.archive.provider import ArchiveProvider
from walstream.errors import ArchiveError
from walstream.formats.lsn import LSN
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import (
    BackupHistoryFile,
    IDatedProvider,
    IWALCursor,
    SystemIdentity,
    WALPosition,
)

__all__ = ["Equipment", "ServedArchive", "Storage"]

# Reads wait for a disk or for nothing; two threads keep one slow segment from holding up the rest.
_READERS = 2


@dataclass(frozen=True, slots=True)
class Equipment:
    """What an archive works with. Tests bring their own.

    :ivar files: the system calls.
    :ivar writing: one thread, for what has to become durable in order.
    :ivar reading: threads for everything else that waits for the disk.
    :ivar clock: what time it is; see `Places`.
    """

    files: FileSystem
    writing: Lane
    reading: Lane
    clock: IReactorTime | None = None

    @classmethod
    def of(cls, reactor: IReactorFromThreads) -> Equipment:
        """The real things."""
        return cls(
            FileSystem(),
            ThreadLane(reactor, "walstream-sync"),
            ThreadLane(reactor, "walstream-read", _READERS),
            IReactorTime(reactor),
        )


@dataclass(frozen=True, slots=True)
class Storage:
    """Opens and closes an archive, each of them once: for another use, make another archive.

    :ivar open: take the directory into use; an `ArchiveError` in the Deferred tells why not, and
        all is closed again then.
    :ivar close: make everything durable, let go of the directory, and end all threads.
    """

    open: Callable[[], Deferred[None]]
    close: Callable[[], Deferred[None]]


@implementer(IDatedProvider)
class ServedArchive:
    """The reading side of an archive directory; how it is opened is for subclasses.

    :ivar paths: where its files are.
    :ivar storage: opens and closes it. Only in between is there anything to read.
    """

    def __init__(self, path: str | os.PathLike[str], equipment: Equipment) -> None:
        self.storage = Storage(self._open, self._close)
        self.paths = ArchivePaths(os.path.abspath(path))
        self._equipment = equipment
        files, lane = equipment.files, equipment.reading
        self._documents = Documents(files, self.paths, lane, equipment.writing)
        self._places = Places(files, self.paths, lane, equipment.clock)
        self._provider = ArchiveProvider(files, self.paths, self._documents, lane, self._places)

    # IDatedProvider

    @property
    def identity(self) -> SystemIdentity | None:
        """See `IWALProvider.identity`."""
        return self._provider.identity

    def end(self) -> WALPosition:
        """See `IWALProvider.end`. 0/0 on timeline 1 while nothing is held."""
        self._follow()
        return self._provider.end()

    def history(self, timeline: int) -> Deferred[TimelineHistory]:
        """See `IWALProvider.history`."""
        return self._documents.history(timeline)

    def history_file(self, timeline: int) -> Deferred[bytes]:
        """See `IWALProvider.history_file`."""
        return self._documents.history_file(timeline)

    def backup_history(self, start: LSN) -> Deferred[BackupHistoryFile | None]:
        """See `IWALProvider.backup_history`."""
        return Deferred.fromCoroutine(self._provider.backup_history(start))

    def open(self, timeline: int, start: LSN) -> Deferred[IWALCursor]:
        """See `IWALProvider.open`. A cursor has at most two segments mapped into memory."""
        self._follow()
        return Deferred.fromCoroutine(self._provider.open(timeline, start))

    def last_written(self, timeline: int, position: LSN) -> Deferred[float | None]:
        """See `IDatedProvider.last_written`."""
        return self._equipment.reading.run(self._provider.last_written(timeline, position))

    def _follow(self) -> None:
        """From now on somebody follows the archive, and is to be told of all that comes."""
        self._provider.is_followed = True

    # Storage

    async def _start(self) -> None:
        """Take the directory into use.

        :raises ArchiveError: if that cannot be.
        :raises OSError: so too.
        """
        raise NotImplementedError

    async def _stop(self) -> None:
        """Let go of the directory, whatever it takes. `_start` may have failed half-way."""
        raise NotImplementedError

    def _open(self) -> Deferred[None]:
        return uncancelled(Deferred.fromCoroutine(self._start_or_stop()))

    async def _start_or_stop(self) -> None:
        try:
            await self._start()
        except OSError as error:
            await self._shut()
            raise ArchiveError(f"archive {self.paths.root} cannot be opened: {error}") from error
        except BaseException:
            await self._shut()
            raise

    def _close(self) -> Deferred[None]:
        return uncancelled(Deferred.fromCoroutine(self._shut()))

    async def _shut(self) -> None:
        try:
            await self._stop()
        finally:
            self._provider.close()
            await self._places.close().addErrback(lambda _: None)
            await self._equipment.writing.close()
            await self._equipment.reading.close()


def uncancelled(work: Deferred[None]) -> Deferred[None]:
    """A Deferred that ends with *work*, but whose cancelling does not reach it.

    A job that writes to the disk runs to its end, and what follows it must too.
    """
    waiter: Deferred[None] = Deferred()
    work.chainDeferred(waiter)
    return waiter
