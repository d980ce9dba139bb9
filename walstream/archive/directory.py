"""The archive directory: WAL on disk as pg_receivewal lays it out, filled here and served."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorFromThreads
from zope.interface import implementer

from walstream.archive.checking import Verify
from walstream.archive.serving import Equipment, ServedArchive, uncancelled
from walstream.archive.sink import ArchiveSink
from walstream.archive.tail import Serve
from walstream.formats.lsn import LSN
from walstream.interfaces import (
    BackupHistoryFile,
    IPromptSink,
    IWALProvider,
    SystemIdentity,
    WALPosition,
)

__all__ = ["ArchiveDirectory"]


@implementer(IPromptSink, IWALProvider)
class ArchiveDirectory(ServedArchive):
    """An archive that this process fills, and serves to as many as want it.

    Its directory is locked for as long as it is open.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        reactor: IReactorFromThreads,
        *,
        equipment: Equipment | None = None,
        verify: Verify = Verify.HEADERS,
        serve: Serve = Serve.FLUSHED,
    ) -> None:
        """
        :param verify: what of the WAL is checked before it counts.
        :param serve: when it is served. In other processes it is never before it is durable.
        """
        super().__init__(path, equipment or Equipment.of(reactor))
        self._sink = ArchiveSink(
            self._equipment.files,
            self.paths,
            self._documents,
            self._provider,
            self._equipment.writing,
            verify,
            serve,
        )

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
        return uncancelled(Deferred.fromCoroutine(self._sink.adopt(identity)))

    def resume_position(self) -> WALPosition | None:
        """See `IWALSink.resume_position`."""
        return self._sink.resume_position()

    def durable_position(self) -> WALPosition | None:
        """See `IWALSink.durable_position`."""
        return self._sink.durable_position()

    def histories(self) -> Collection[int]:
        """See `IWALSink.histories`."""
        return self._documents.histories

    def store_history(self, timeline: int, content: bytes) -> Deferred[None]:
        """See `IWALSink.store_history`.

        :raises FormatError: (in the Deferred) if it is no history file.
        :raises TimelineMismatch: (in the Deferred) if one is held that tells another history.
        """
        work = self._documents.store_history(timeline, content)
        return uncancelled(Deferred.fromCoroutine(work))

    def store_backup_history(self, file: BackupHistoryFile) -> Deferred[None]:
        """See `IWALSink.store_backup_history`; errors as `store_history`."""
        work = self._documents.store_backup_history(file)
        return uncancelled(Deferred.fromCoroutine(work))

    def begin(self, timeline: int, start: LSN) -> Deferred[None]:
        """See `IWALSink.begin`.

        :raises Discontinuity: (in the Deferred) if a gap would be left.
        :raises TimelineMismatch: (in the Deferred) if *timeline* does not descend from what is
            held.
        """
        return uncancelled(Deferred.fromCoroutine(self._sink.begin(timeline, start)))

    def write(self, start: int, data: memoryview) -> None:
        """See `IWALSink.write`.

        :raises TimelineMismatch: if *data* differs from what is durable already; that is as it
            was.
        """
        self._sink.write(start, data)

    def flush(self) -> Deferred[LSN]:
        """See `IWALSink.flush`."""
        return self._sink.flush()

    def sync_soon(self) -> None:
        """See `IPromptSink.sync_soon`."""
        self._sink.sync_soon()

    def watch_durable(
        self, in_thread: Callable[[int], bool], in_reactor: Callable[[], None]
    ) -> None:
        """See `IPromptSink.watch_durable`."""
        self._sink.watch_durable(in_thread, in_reactor)

    def unwatch_durable(self) -> None:
        """See `IPromptSink.unwatch_durable`."""
        self._sink.watch_durable(None, None)

    def finish(self) -> Deferred[None]:
        """See `IWALSink.finish`."""
        return uncancelled(Deferred.fromCoroutine(self._sink.finish()))

    def accept_gap(self, start: LSN, end: WALPosition) -> Deferred[None]:
        """See `IWALSink.accept_gap`. It is written to the ledger, and shown at each start."""
        return uncancelled(Deferred.fromCoroutine(self._sink.accept_gap(start, end)))

    def rewind(self, switch_point: LSN) -> Deferred[None]:
        """See `IWALSink.rewind`.

        :raises WALUnavailable: (in the Deferred) if what lies beyond cannot be read.
        """
        return uncancelled(Deferred.fromCoroutine(self._sink.rewind(switch_point)))

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """See `IWALSink.registerProducer`."""
        self._sink.backpressure.register(producer, streaming)

    def unregisterProducer(self) -> None:
        """See `IWALSink.unregisterProducer`."""
        self._sink.backpressure.unregister()

    # For those who have to do with the archive, and not with WAL.

    def regain(self) -> Deferred[None]:
        """Take the archive again if it was let go after a failure, as `adopt` does by itself.

        What is durable in it is served then, whether a server is there or not.

        :raises SinkFailed: (in the Deferred) if it is not there, or cannot be used.
        """
        return uncancelled(Deferred.fromCoroutine(self._sink.regain()))

    def assure(self) -> None:
        """Prove that the archive still is where it was, and ours. May be called in any thread.

        :raises ArchiveLost: if it is not.
        :raises OSError: if it cannot be told.
        """
        self._sink.assure()

    def watch_release(self, released: Callable[[], None]) -> None:
        """Call *released* when the archive was let go: it closes what it has open of it."""
        self._sink.released = released

    # IWALProvider

    def _follow(self) -> None:
        super()._follow()
        self._sink.catch_up()

    # Storage

    async def _start(self) -> None:
        await self._sink.open()

    async def _stop(self) -> None:
        await self._sink.close()
