"""What WAL has to pass before it is kept, and before it is acknowledged.

Page headers are checked in the reactor's thread, as they come: that costs a few percent of one.
Records are read back in the lane, just before what holds them is made durable.
"""

from __future__ import annotations

import time
from enum import Enum
from typing import Protocol

from crc32c import crc32c
from twisted.logger import Logger

from walstream.archive.compression import pieces_of
from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths, forms_of
from walstream.errors import WalstreamError
from walstream.formats.lsn import LSN
from walstream.formats.page_rules import PageRules
from walstream.formats.positions import SystemIdentity
from walstream.formats.record_walk import RecordWalk, walk_through
from walstream.formats.timelines import TimelineHistory

__all__ = ["RecordCheck", "SegmentContent", "Verify", "begin_record_check"]

_log = Logger()

# Between two windows the reactor's thread gets its turn: they are worth 0.1 ms of work or so.
_WINDOW = 1 << 16


class Verify(Enum):
    """How closely WAL is looked at as it comes."""

    HEADERS = "headers"
    RECORDS = "records"


class SegmentContent(Protocol):
    """A segment that is being filled, and can be read back up to where it is.

    :ivar start: the position of its first byte.
    """

    start: int

    def read_back(self, position: int, size: int) -> bytes:
        """*size* bytes of what was put, from *position* on.

        :raises OSError: if that fails.
        """


class RecordCheck:
    """Checks the records of one stream. All but the making of it is the lane's."""

    def __init__(self, walk: RecordWalk) -> None:
        self._walk = walk

    def check(self, segment: SegmentContent, end: int) -> None:
        """Check what is in *segment* up to *end*; of a record that goes on there, what has come.

        :raises DamagedWAL: if it is not all good.
        :raises OSError: if it cannot be read back.
        """
        walk = self._walk
        # What was checked before, with an earlier sync, may reach further than this one.
        start = max(walk.needs, segment.start)
        while start < end:
            behind = min(start + _WINDOW, end)
            walk.feed(start, segment.read_back(start, behind - start))
            time.sleep(0)  # lets go of the interpreter
            start = end if behind == end else walk.needs


def begin_record_check(
    files: FileSystem,
    paths: ArchivePaths,
    identity: SystemIdentity,
    history: TimelineHistory,
    start: LSN,
) -> RecordCheck:
    """A check of a stream that begins at *start*, the start of a segment. For a lane.

    Where the archive holds the segment before, the check begins with that one, so that a record
    across the border is checked as well, and the chain of records goes on unbroken. If it is not
    good, that does not hold up the stream: it was acknowledged long ago.
    """
    size = identity.segment_size
    before = size.name(history.timeline_at(start - 1), size.number(start - 1))
    for name in forms_of(before):
        walk = RecordWalk(LSN(start - size), PageRules.of(identity, history), crc32c)
        try:
            walk_through(walk, start - size, pieces_of(files, paths.of(name), size))
        except FileNotFoundError:
            continue
        except (OSError, WalstreamError) as error:
            _log.warn(
                "records are checked from {start} on only, since {name} is not good: {reason}",
                start=str(start),
                name=name,
                reason=str(error),
            )
            break
        return RecordCheck(walk)
    return RecordCheck(RecordWalk(start, PageRules.of(identity, history), crc32c))
