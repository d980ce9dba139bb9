"""The archive directory: WAL on disk as pg_receivewal lays it out, to be filled and to be served."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorFromThreads
from zope.interface import implementer

from walstream.archive.documents import Documents
from walstream.archive.filesystem import FileSystem
from walstream.archive.follower import Follower
from walstream.archive.lane import Lane, ThreadLane
from walstream.archive.lock import ArchiveLock
from walstream.archive.paths import ArchivePaths
from walstream.archive.possession import take_possession
from walstream.archive.provider import ArchiveProvider
from walstream.archive.sink import ArchiveSink
from walstream.archive.watch import Watch, make_watch
from walstream.errors import ArchiveError
from walstream.formats.lsn import LSN
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import (
    BackupHistoryFile,
    IWALCursor,
    IWALProvider,
    IWALSink,
    SystemIdentity,
    WALPosition,
)

__all__ = ["ArchiveDirectory", "ArchiveReader", "Equipment", "Storage"]

_Step = Callable[[], Coroutine[Any, Any, None]]

# Reads wait for a disk or for nothing; two threads keep one slow segment from holding up the rest.
_READERS = 2


@dataclass(frozen=True, slots=True)
class Equipment:
    """What an archive works with. Tests bring their own.

    :ivar files: the system calls.
    :ivar writing: one thread, for what has to be durable in order.
    :ivar reading: threads for everything else that waits for the disk.
    """

    files: FileSystem
    writing: Lane
    reading: Lane

    @classmethod
    def of(cls, reactor: IReactorFromThreads) -> Equipment:
        """The real things."""
        return cls(
            FileSystem(),
            ThreadLane(reactor, "walstream-sync"),
            ThreadLane(reactor, "walstream-read", _READERS),
        )

    async def close(self) -> None:
        """End the threads, when all that they were given is done."""
        await self.writing.close()
        await self.reading.close()


@dataclass(frozen=True, slots=True)
class Storage:
    """Opens and closes an archive. Each of them once: there is a new archive object for each use.

    :ivar open: take the directory into use; an `ArchiveError` in the Deferred tells why not.
    :ivar close: make everything durable, let go of the directory, and end all threads.
    """

    open: Callable[[], Deferred[None]]
    close: Callable[[], Deferred[None]]

    @classmethod
    def of(cls, open_: _Step, close: _Step) -> Storage:
        """From the coroutines that do it."""
        return cls(lambda: Deferred.fromCoroutine(open_()), lambda: Deferred.fromCoroutine(close()))


@implementer(IWALProvider)
class ArchiveReader:
    """An archive that another process may fill at the same time: walstream, or pg_receivewal.

    It takes no lock and writes nothing at all. What walstream is still receiving is served as far
    as it is durable; of pg_receivewal's ``.partial``, which does not tell, nothing is.

    :ivar storage: opens and closes it; only in between is there anything to read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        reactor: IReactorFromThreads,
        *,
        equipment: Equipment | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.storage = Storage.of(self._open, self._stop)
        self._paths = ArchivePaths(os.path.abspath(path))
        self._equipment = equipment or Equipment.of(reactor)
        files, reading, writing = _parts(self._equipment)
        self._documents = Documents(files, self._paths, reading, writing)
        self._provider = ArchiveProvider(files, self._paths, self._documents, reading)
        self._follower = Follower(files, self._paths, self._provider, self._documents, reading)
        self._watch = watch or make_watch(self._paths, reactor)

    # IWALProvider

    @property
    def identity(self) -> SystemIdentity | None:
        """See `IWALProvider.identity`."""
        return self._provider.identity

    def end(self) -> WALPosition:
        """See `IWALProvider.end`. Position 0/0 on timeline 1 while nothing is held."""
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
        """See `IWALProvider.open`. A cursor maps at most two segments into memory."""
        return Deferred.fromCoroutine(self._provider.open(timeline, start))

    # Storage

    async def _open(self) -> None:
        try:
            await self._start()
        except BaseException as error:
            await self._stop()
            if isinstance(error, OSError):
                raise ArchiveError(
                    f"archive {self._paths.root} cannot be opened: {error}"
                ) from error
            raise

    async def _start(self) -> None:
        self._watch.start(self._follower.changed)
        await self._follower.look()

    async def _stop(self) -> None:
        self._watch.stop()
        self._provider.close()
        await self._equipment.close()


@implementer(IWALProvider, IWALSink)
class ArchiveDirectory:
    """An archive that this process fills, and serves at the same time.

    It is locked against other writers. What is served is what is durable.

    :ivar storage: opens and closes it; only in between is it of any use.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        reactor: IReactorFromThreads,
        *,
        equipment: Equipment | None = None,
    ) -> None:
        self.storage = Storage.of(self._open, self._stop)
        self._paths = ArchivePaths(os.path.abspath(path))
        self._equipment = equipment or Equipment.of(reactor)
        files, reading, writing = _parts(self._equipment)
        self._documents = Documents(files, self._paths, reading, writing)
        self._provider = ArchiveProvider(files, self._paths, self._documents, reading)
        self._sink = ArchiveSink(files, self._paths, self._documents, self._provider, writing)
        self._lock: ArchiveLock | None = None

    @property
    def identity(self) -> SystemIdentity | None:
        """See `IWALProvider.identity` and `IWALSink.identity`."""
        return self._provider.identity

    def history(self, timeline: int) -> Deferred[TimelineHistory]:
        """See `IWALProvider.history`."""
        return self._documents.history(timeline)

    # IWALProvider

    def end(self) -> WALPosition:
        """See `IWALProvider.end`. Position 0/0 on timeline 1 while nothing is held."""
        return self._provider.end()

    def history_file(self, timeline: int) -> Deferred[bytes]:
        """See `IWALProvider.history_file`."""
        return self._documents.history_file(timeline)

    def backup_history(self, start: LSN) -> Deferred[BackupHistoryFile | None]:
        """See `IWALProvider.backup_history`."""
        return Deferred.fromCoroutine(self._provider.backup_history(start))

    def open(self, timeline: int, start: LSN) -> Deferred[IWALCursor]:
        """See `IWALProvider.open`. A cursor maps at most two segments into memory."""
        return Deferred.fromCoroutine(self._provider.open(timeline, start))

    # IWALSink

    @property
    def written(self) -> int:
        """See `IWALSink.written`."""
        return self._sink.written

    @property
    def flushed(self) -> int:
        """See `IWALSink.flushed`."""
        return self._sink.flushed

    def adopt(self, identity: SystemIdentity) -> Deferred[None]:
        """See `IWALSink.adopt`."""
        return Deferred.fromCoroutine(self._sink.adopt(identity))

    def resume_position(self) -> WALPosition | None:
        """See `IWALSink.resume_position`."""
        return self._sink.resume_position()

    def durable_position(self) -> WALPosition | None:
        """See `IWALSink.durable_position`."""
        return self._sink.durable_position()

    def histories(self) -> Collection[int]:
        """See `IWALSink.histories`."""
        return frozenset(self._documents.histories)

    def store_history(self, timeline: int, content: bytes) -> Deferred[None]:
        """See `IWALSink.store_history`."""
        return Deferred.fromCoroutine(self._documents.store_history(timeline, content))

    def store_backup_history(self, file: BackupHistoryFile) -> Deferred[None]:
        """See `IWALSink.store_backup_history`."""
        assert self.identity is not None, "WAL was adopted, so it is known whose"
        return self._documents.store_backup_history(file, self.identity.segment_size)

    def begin(self, timeline: int, start: LSN) -> Deferred[None]:
        """See `IWALSink.begin`."""
        return Deferred.fromCoroutine(self._sink.begin(timeline, start))

    def write(self, start: int, data: memoryview) -> None:
        """See `IWALSink.write`."""
        self._sink.write(start, data)

    def flush(self) -> Deferred[LSN]:
        """See `IWALSink.flush`."""
        return self._sink.flush()

    def finish(self) -> Deferred[None]:
        """See `IWALSink.finish`."""
        return Deferred.fromCoroutine(self._sink.finish())

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """See `IWALSink.registerProducer`."""
        self._sink.backpressure.register(producer, streaming)

    def unregisterProducer(self) -> None:
        """See `IWALSink.unregisterProducer`."""
        self._sink.backpressure.unregister()

    # Storage

    async def _open(self) -> None:
        files, _, writing = _parts(self._equipment)
        try:
            possession = await writing.run(partial(take_possession, files, self._paths))
        except BaseException as error:
            await self._equipment.close()
            if isinstance(error, OSError):
                raise ArchiveError(
                    f"archive {self._paths.root} cannot be opened: {error}"
                ) from error
            raise
        self._lock = possession.lock
        found = possession.survey
        self._provider.identity = found.identity
        self._documents.histories |= found.histories
        if found.end is not None:
            self._provider.extend(
                found.end, found.history or TimelineHistory(found.end.timeline, ())
            )
        self._sink.open(found, possession.mark)

    async def _stop(self) -> None:
        try:
            await self._sink.close()
        finally:
            self._provider.close()
            await self._equipment.close()
            if self._lock is not None:
                self._lock.release()
                self._lock = None


def _parts(equipment: Equipment) -> tuple[FileSystem, Lane, Lane]:
    return equipment.files, equipment.reading, equipment.writing
