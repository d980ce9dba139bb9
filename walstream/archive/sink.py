"""The writing side of an archive: whose WAL may enter, where it goes on, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger

from walstream.archive.abandoned import give_up_beyond
from walstream.archive.backpressure import Backpressure
from walstream.archive.blank import clear_if_blank
from walstream.archive.bookkeeping import Bookkeeping
from walstream.archive.checking import Verify
from walstream.archive.continuity import check_continues, check_gap
from walstream.archive.documents import Documents
from walstream.archive.filesystem import FileSystem
from walstream.archive.identity import check_same_system, is_same_system, store_identity
from walstream.archive.lane import Lane
from walstream.archive.paths import ArchivePaths
from walstream.archive.possession import Expected
from walstream.archive.provider import ArchiveProvider
from walstream.archive.publication import Publication
from walstream.archive.stream import Stream
from walstream.archive.stream_maker import StreamMaker
from walstream.archive.survey import Survey
from walstream.archive.tail import Serve
from walstream.archive.tenure import Tenure
from walstream.errors import DamagedWAL, SinkFailed
from walstream.formats.lsn import LSN
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory

__all__ = ["ArchiveSink"]


class ArchiveSink:
    """Fills an archive directory; see `IWALSink` for what its methods promise.

    What is durable it tells the end mark, for other processes, and the provider, for this one.

    After a failure it lets go of the archive, and takes it into possession again when it is to be
    used again: see `Tenure`.
    """

    _log = Logger()

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        documents: Documents,
        provider: ArchiveProvider,
        lane: Lane,
        verify: Verify = Verify.HEADERS,
        serve: Serve = Serve.FLUSHED,
    ) -> None:
        self.backpressure = Backpressure()
        # Called when the archive was let go: whoever else has something of it open closes it too.
        self.released: Callable[[], None] = lambda: None
        self._files = files
        self._paths = paths
        self._documents = documents
        self._provider = provider
        self._lane = lane
        self._one_at_a_time = DeferredLock()
        self._tenure = Tenure(files, paths, lane)
        documents.assure = self._tenure.assure
        self._public = Publication(provider, self._tenure, serve)
        self._books = Bookkeeping(files, paths, lane, self._tenure.assure)
        self._maker = StreamMaker(files, paths, lane, self._tenure.assure, verify)
        self._stream: Stream | None = None
        self._written = self._flushed = 0
        self._durable: WALPosition | None = None
        self._history = TimelineHistory(1, ())  # of the stream's timeline

    async def open(self) -> None:
        """Take the archive into possession.

        :raises ArchiveError: if that cannot be; see `take_possession`.
        :raises OSError: so too.
        """
        self._found(await self._tenure.take())

    async def close(self) -> None:
        """End the stream, if there is one, and close what is open.

        :raises SinkFailed: if the stream could not be made durable; all is closed even so.
        """
        try:
            await self.finish()
        finally:
            await self._let_go()

    def assure(self) -> None:
        """Prove that the archive still is where it was, and ours; see `Tenure.assure`."""
        self._tenure.assure()

    # IWALSink

    @property
    def written(self) -> int:
        """See `IWALSink.written`."""
        stream = self._stream  # once: the lane's thread asks, too
        return self._written if stream is None else stream.written

    @property
    def flushed(self) -> int:
        """See `IWALSink.flushed`."""
        self.catch_up()
        return self._flushed

    def catch_up(self) -> None:
        """Learn how far the archive has become durable meanwhile: before anybody is told."""
        if self._stream is not None:
            self._stream.catch_up()

    def resume_position(self) -> WALPosition | None:
        """See `IWALSink.resume_position`."""
        self.catch_up()
        durable = self._durable
        if durable is None or self._books.behind_gap is not None:
            return self._books.behind_gap
        return WALPosition(durable.timeline, self._size().floor(durable.lsn))

    def durable_position(self) -> WALPosition | None:
        """See `IWALSink.durable_position`."""
        self.catch_up()
        return self._durable

    async def regain(self) -> None:
        """Take the archive again if it was let go, or is not where it was.

        :raises SinkFailed: if that cannot be now.
        """
        async with self._one_at_a_time:
            await self._regain()

    async def adopt(self, identity: SystemIdentity) -> None:
        """See `IWALSink.adopt`.

        :raises SinkFailed: if the archive is not there, or `identity` cannot be stored.
        """
        await self.regain()
        held = self._provider.identity
        if held is not None and not is_same_system(held, identity) and await self._disown(held):
            held = None
        if held is not None:
            check_same_system(self._paths, held, identity)
        if held is None or identity.server_version not in ("", held.server_version):
            try:
                await self._lane.run(partial(self._store_identity, identity))
            except OSError as error:
                raise _failed("store", self._paths.identity, error) from error
            self._provider.identity = identity

    async def _disown(self, held: SystemIdentity) -> bool:
        """If no WAL has come yet, be nobody's again; whether it is so."""
        async with self._one_at_a_time:
            job = partial(clear_if_blank, self._files, self._paths, self._size(), self.assure)
            try:
                if self._stream is not None or not await self._lane.run(job):
                    return False
            except OSError as error:
                raise _failed("clear", self._paths.root, error) from error
            await self._maker.start_over()
            self._provider.identity = self._durable = self._public.told = None
            self._written = self._flushed = 0
            self._documents.histories.clear()
            self._books.start_over()
        said = "no WAL of system {system} has come into archive {path}: it may be another's"
        self._log.warn(said, system=held.system_identifier, path=self._paths.root)
        return True

    def write(self, start: int, data: memoryview) -> None:
        """See `IWALSink.write`."""
        if self._stream is None:
            raise SinkFailed("no stream has begun, so no WAL is expected")
        self._stream.write(start, data)
        self._public.taken(start, data)

    def flush(self) -> Deferred[LSN]:
        """See `IWALSink.flush`."""
        stream = self._stream
        if stream is None or (stream.failure is None and stream.written == stream.start):
            return succeed(LSN(self._flushed))
        flushed = stream.flush()
        self._public.written(stream)
        return flushed

    def sync_soon(self) -> None:
        """See `IPromptSink.sync_soon`."""
        if self._stream is not None:
            self._stream.sync_soon()
            # The disk is at work meanwhile. Were it the other way round, a commit that waits for
            # it would wait for all the followers first.
            self._public.written(self._stream)

    def watch_durable(
        self, in_thread: Callable[[int], bool] | None, in_reactor: Callable[[], None] | None
    ) -> None:
        """See `IPromptSink.watch_durable`; with None and None, `IPromptSink.unwatch_durable`."""
        if self._stream is not None:
            self._stream.in_thread = in_thread
            self._stream.in_reactor = in_reactor

    async def begin(self, timeline: int, start: LSN) -> None:
        """See `IWALSink.begin`.

        :raises Discontinuity: if a gap would be left.
        :raises TimelineMismatch: if *timeline* does not descend from what is held.
        """
        async with self._one_at_a_time:
            with suppress(SinkFailed, DamagedWAL):
                # Whoever did not finish a stream does not want to know how it ended.
                await self._end_stream()
            await self._regain()
            try:
                await self._begin(WALPosition(timeline, start))
            except SinkFailed:
                await self._let_go()
                raise

    async def finish(self) -> None:
        """See `IWALSink.finish`."""
        async with self._one_at_a_time:
            await self._end_stream()

    async def accept_gap(self, start: LSN, end: WALPosition) -> None:
        """See `IWALSink.accept_gap`."""
        async with self._one_at_a_time:
            await self._end_stream()
            await self._regain()
            history = await self._history_of(end.timeline)
            held = check_gap(self._durable, start, end, history, self._size())
            await self._books.accept_gap(held, end)
            self._provider.gaps = self._books.gaps

    async def rewind(self, switch_point: LSN) -> None:
        """See `IWALSink.rewind`."""
        async with self._one_at_a_time:
            await self._end_stream()
            await self._regain()
            held = self._durable
            if held is None or held.lsn <= switch_point:
                return
            await give_up_beyond(self._provider, self._lane, self._size(), held, switch_point)
            self._public.told = self._durable = durable = WALPosition(held.timeline, switch_point)
            self._written = self._flushed = switch_point
            try:
                self._tenure.mark(durable)
            except OSError as error:
                raise _failed("write", self._paths.end, error) from error

    # Having the archive, and not having it.

    def _found(self, found: Survey) -> None:
        """The archive is ours, and that is what it holds."""
        self._documents.histories = set(found.histories)
        if found.identity is not None:
            self._provider.identity = found.identity
        if found.durable is not None:
            self._durable = found.durable
            self._written = self._flushed = found.durable.lsn
            if found.torn is not None:
                # It is received again into another file: see `SegmentSupply`.
                self._maker.suspect(found.durable.timeline)
        self._books.found(found)
        self._provider.gaps = self._books.gaps
        if found.end is not None:
            # An end before which there is no WAL is no promise.
            if found.newest_finished is not None or self._size().offset(found.end.lsn):
                self._public.told = found.end
            self._public.found(found.end, found.history)

    async def _regain(self) -> None:
        """Take the archive again if it was let go, or is not where it was."""
        if self._tenure.possession is not None:
            if not await self._tenure.is_lost():
                return
            with suppress(SinkFailed, DamagedWAL):
                await self._end_stream()
            await self._let_go()
        self._found(await self._tenure.retake(Expected(self._provider.identity, self._public.told)))
        self._log.info("archive {path} is taken into use again", path=self._paths.root)

    async def _let_go(self) -> None:
        """Keep nothing open: what has failed may have to be unmounted."""
        await self._maker.close()
        self._provider.close()
        await self._tenure.let_go()
        self.released()

    # Beginning and ending a stream.

    async def _begin(self, start: WALPosition) -> None:
        held = self._durable
        history = await self._history_of(start.timeline)
        behind_gap = self._books.behind_gap
        check_continues(held, start, history, self._size(), behind_gap)
        identity = self._provider.identity
        assert identity is not None, "a size is known, so it is known whose"
        await self._books.begin(identity, held, start, history)
        flushed: int = start.lsn
        resumed = behind_gap or held
        if resumed is not None and resumed.timeline == start.timeline:
            flushed = resumed.lsn
        stream = await self._maker.make(identity, start, flushed, history, self)
        self.backpressure.begin()
        self._history = history
        self._stream = stream
        if held is None:
            self._flushed = 0
            self._provider.extend(start, history)
        elif held.timeline != start.timeline or behind_gap is not None:
            # Everything before is durable on the timelines before, or will never come; what
            # follows is not yet.
            self._flushed = start.lsn
        self._public.begin(history, goes_on=behind_gap is None)

    async def _history_of(self, timeline: int) -> TimelineHistory:
        held = self._durable
        if timeline in self._documents.histories or (held and held.timeline != timeline):
            return await self._documents.history(timeline)
        # Nothing is held that it would have to descend from.
        return TimelineHistory(timeline, ())

    async def _end_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        self._written = stream.written
        try:
            await stream.finish()
        finally:
            durable = self._durable
            is_new = durable is None or durable.timeline != stream.timeline
            if is_new and self._books.behind_gap is None and stream.written > stream.start:
                # There is a .partial now, and the next stream has to begin with it.
                durable = self._durable = WALPosition(stream.timeline, LSN(stream.start))
            self._flushed = durable.lsn if durable is not None else 0
            if stream.failure is not None:
                await self._let_go()

    # StreamOwner

    def stream_is_durable(self, lsn: int) -> None:
        """Report how far the archive is durable."""
        durable = WALPosition(self._history.timeline, LSN(lsn))
        # Before anything is said: if it cannot be written, a restart would know of less.
        self._public.synced(durable)
        self._flushed, self._durable = lsn, durable
        self._books.came()
        self._public.durable(durable)
        self._public.written(self._stream)

    def stream_is_synced(self, lsn: int) -> None:
        """See `StreamOwner.stream_is_synced`: the mark is written before anybody is told."""
        self._public.synced(WALPosition(self._history.timeline, LSN(lsn)))

    def stream_is_followed(self) -> bool:
        """See `StreamOwner.stream_is_followed`. Who has it already waits for nothing."""
        return self._provider.is_followed and not self._public.serves_written

    def stream_is_checked(self) -> None:
        """See `StreamOwner.stream_is_checked`."""
        if self._provider.is_followed and self._public.serves_written:
            self._lane.tell(lambda: self._public.written(self._stream))

    def stream_has_unsynced(self, segments: int) -> None:
        """See `StreamOwner.stream_has_unsynced`."""
        self.backpressure.unsynced(segments)

    def stream_replaced(self, start: int) -> None:
        """See `StreamOwner.stream_replaced`."""
        self._maker.suspect(None)
        self._provider.was_replaced(self._history.timeline, self._size().number(start))

    def stream_failed(self, error: SinkFailed | DamagedWAL) -> None:
        """See `StreamOwner.stream_failed`."""
        self._maker.suspect(self._history.timeline)
        self._provider.take_back()
        self.backpressure.stop()

    def _store_identity(self, identity: SystemIdentity) -> None:
        self._tenure.assure()
        store_identity(self._files, self._paths, identity)

    def _size(self) -> SegmentSize:
        identity = self._provider.identity
        if identity is None:
            raise SinkFailed("no server's WAL was adopted, so none is expected")
        return identity.segment_size


def _failed(what: str, path: str, error: OSError) -> SinkFailed:
    return SinkFailed(f"could not {what} {path}: {error.strerror}")
