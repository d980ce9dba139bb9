"""Compresses what a sink has finished, behind its back: it neither tells anyone nor waits.

Nothing is handed over, so nothing can pile up or get lost: once a second this looks how far the
sink has come, and if that is in another segment than before, looks into the directory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from functools import partial

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.archive.compressing import Abandoned, SegmentCompressor, find_plain
from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.archive.paths import ArchivePaths
from walstream.errors import WalstreamError
from walstream.formats.compression import Compression
from walstream.formats.segments import SegmentSize
from walstream.interfaces import IWALSink

__all__ = ["Compressor"]

_EVERY = 1.0

# Seconds to leave the disk alone after a segment could not be compressed: twice as long each time.
_FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 60.0


class Compressor:
    """Keeps the finished segments of an archive compressed, but for the newest.

    :param sink: fills the archive; open, and neither opened nor closed here.
    :param assure: proves that the archive still is ours, or raises `ArchiveLost`.
    :param lane: for this alone; has as many threads as segments may be compressed at once.
    :param jobs: that number.
    """

    _log = Logger()

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        sink: IWALSink,
        assure: Callable[[], None],
        compression: Compression,
        lane: Lane,
        clock: IReactorTime,
        jobs: int = 1,
    ) -> None:
        self._files = files
        self._paths = paths
        self._sink = sink
        self._lane = lane
        self._clock = clock
        self._jobs = jobs
        self._assure = assure
        self._compressor = SegmentCompressor(
            files, paths, compression, assure, is_stopping=lambda: self._is_stopping
        )
        self._is_stopping = False
        self._look_again = LoopingCall(self._look)
        self._look_again.clock = clock
        self._seen: tuple[int, int] | None = None
        # What could not be compressed, to be tried again when everything else is done.
        self._set_aside: set[str] = set()
        self._pause = 0.0
        self._resume_at = 0.0

    def open(self) -> Deferred[None]:
        """Begin. The archive must be open."""
        self._look_again.start(_EVERY)
        return succeed(None)

    def close(self) -> Deferred[None]:
        """End; fires soon: what is being compressed is given up, and stays plain."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._is_stopping = True
        if self._look_again.running:
            self._look_again.stop()
        await self._lane.close()

    # A look, and what follows from it; the next comes when all that is done.

    def _look(self) -> Deferred[None] | None:
        position, identity = self._sink.durable_position(), self._sink.identity
        if position is None or identity is None or not self._may_go_on():
            return None
        size = identity.segment_size
        place = position.timeline, size.number(position.lsn)
        if place == self._seen and not self._set_aside:
            return None
        return Deferred.fromCoroutine(self._catch_up(size, place)).addErrback(self._cannot_look)

    async def _catch_up(self, size: SegmentSize, place: tuple[int, int]) -> None:
        """Compress what there is, until all is done or something fails."""
        while self._may_go_on():
            besides = frozenset(self._set_aside)
            names = deque(await self._lane.run(partial(self._find, size, besides)))
            if names:
                workers = [self._work_off(names, size) for _ in range(self._jobs)]
                await gatherResults(map(Deferred.fromCoroutine, workers))
            elif besides:
                self._set_aside.clear()  # their turn comes again
            else:
                self._seen = place
                return

    def _find(self, size: SegmentSize, besides: Collection[str]) -> list[str]:
        self._assure()
        return find_plain(self._files, self._paths, size, besides)

    async def _work_off(self, names: deque[str], size: int) -> None:
        while names and self._may_go_on():
            name = names.popleft()
            try:
                await self._lane.run(partial(self._compressor.compress, name, size))
            except Abandoned:
                return
            except Exception as error:
                self._set_aside.add(name)
                self._take_a_break(f"compress {name}, which stays as it is", error)
            else:
                if not self._set_aside:
                    self._pause = 0.0

    def _may_go_on(self) -> bool:
        return not self._is_stopping and self._clock.seconds() >= self._resume_at

    def _cannot_look(self, failure: Failure) -> None:
        if not self._is_stopping and failure.value is not None:
            self._take_a_break("look for segments to compress", failure.value)

    def _take_a_break(self, what: str, error: BaseException) -> None:
        if not isinstance(error, (OSError, WalstreamError)):
            self._log.failure("compressing failed", Failure(error))
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._resume_at = self._clock.seconds() + self._pause
        self._log.error(
            "could not {what}; going on in {seconds} s: {reason}",
            what=what,
            seconds=round(self._pause),
            reason=str(error),
        )
