"""Makes streams: each with the file of its first segment, and the checks that it is to pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from walstream.archive.checking import Verify, begin_record_check
from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.archive.paths import ArchivePaths
from walstream.archive.stream import Stream, StreamOwner
from walstream.archive.supply import SegmentSupply
from walstream.errors import SinkFailed
from walstream.formats.arriving_pages import ArrivingPages
from walstream.formats.page_rules import PageRules
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.timelines import TimelineHistory

__all__ = ["StreamMaker"]


class StreamMaker:
    """Makes the streams of one archive, one after the other.

    :param assure: proves that the archive's directory still is ours; see `SegmentSupply`.
    :param verify: what of the WAL is checked.
    """

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        lane: Lane,
        assure: Callable[[], None],
        verify: Verify,
    ) -> None:
        self._files = files
        self._paths = paths
        self._lane = lane
        self._assure = assure
        self._verify = verify
        # Not before the first stream is it known how large segments are.
        self._supply: SegmentSupply | None = None
        self._suspect: int | None = None

    def suspect(self, timeline: int | None) -> None:
        """See `SegmentSupply.suspect`."""
        self._suspect = timeline
        if self._supply is not None:
            self._supply.suspect = timeline

    async def make(
        self,
        identity: SystemIdentity,
        start: WALPosition,
        flushed: int,
        history: TimelineHistory,
        owner: StreamOwner,
    ) -> Stream:
        """A stream of WAL from *start* on, of which the bytes up to *flushed* are held.

        :raises SinkFailed: if its first segment cannot be opened.
        """
        size = identity.segment_size
        if self._supply is None:
            self._supply = SegmentSupply(self._files, self._paths, size, self._lane, self._assure)
            self._supply.suspect = self._suspect
        supply = self._supply
        try:
            first = await supply.prepare(start.timeline, start.lsn, flushed)
        except OSError as error:
            path = supply.path(start.timeline, size.number(start.lsn))
            raise SinkFailed(f"could not open {path}: {error.strerror}") from error
        pages = ArrivingPages(start.lsn, PageRules.of(identity, history))
        records = None
        if self._verify is Verify.RECORDS:
            begin = partial(begin_record_check, self._files, self._paths, identity, history)
            records = await self._lane.run(partial(begin, start.lsn))
        return Stream(start, flushed, size, first, supply, self._lane, owner, pages, records)

    async def start_over(self) -> None:
        """The next stream may be of another system, with segments of another size."""
        await self.close()
        self._supply = self._suspect = None

    async def close(self) -> None:
        """Give up the file that was made ahead."""
        if self._supply is not None:
            await self._supply.close()
