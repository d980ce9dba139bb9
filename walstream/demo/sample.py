"""What the demo measures: where the WAL is, and which rows have come how far. Pure values."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize

__all__ = ["Look", "Rows", "Sample", "Speed"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the demo's table, as one server has them.

    :ivar checksum: the exclusive or of 64-bit hashes of all rows, so that those of two parts of
        the table make that of the whole.
    """

    count: int = 0
    checksum: int = 0

    def __add__(self, other: Rows) -> Rows:
        return Rows(self.count + other.count, self.checksum ^ other.checksum)

    @property
    def checksum_text(self) -> str:
        """Sixteen hexadecimal digits; PostgreSQL's bigint has a sign, and this has not."""
        return f"{self.checksum % 2**64:016x}"


@dataclass(frozen=True, slots=True)
class Look:
    """What the three answered at one moment.

    :ivar primary: up to where the primary has written WAL.
    :ivar hub: up to where the hub serves it, having it durably.
    :ivar standby: up to where the standby has replayed it.
    :ivar read_back: rows that a query on the standby finds.
    :ivar walsenders: how many ``pg_stat_replication`` on the primary shows.
    """

    primary: LSN
    hub: LSN
    standby: LSN
    read_back: int
    walsenders: int


@dataclass(frozen=True, slots=True)
class Sample(Look):
    """What was seen at one moment.

    :ivar seconds: since the rows began to flow.
    :ivar started: the primary's position at that time.
    :ivar segment_size: of all three.
    :ivar written: rows written on the primary.
    :ivar equal: the rows that were compared on both, which had no difference.
    """

    seconds: float
    started: LSN
    segment_size: SegmentSize
    written: int
    equal: Rows

    def behind(self, position: LSN) -> int:
        """How many bytes *position* is behind the primary's."""
        return max(0, self.primary - position)

    def filled(self, position: LSN) -> float:
        """How much of the segment that the primary writes *position* has reached: 0 to 1."""
        reached = position - self.segment_size.floor(self.primary)
        return max(0, reached) / self.segment_size

    @property
    def segments(self) -> int:
        """How many segments the hub has finished since the rows began to flow."""
        return self.segment_size.number(self.hub) - self.segment_size.number(self.started)


class Speed:
    """WAL per second, over the last few seconds.

    :param window: how many seconds.
    """

    def __init__(self, window: float = 5.0) -> None:
        self._window = window
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, seconds: float, position: int) -> float:
        """*position* was reached at *seconds*; bytes per second since what is in the window."""
        self._seen.append((seconds, position))
        while len(self._seen) > 2 and self._seen[1][0] <= seconds - self._window:
            self._seen.popleft()
        then, before = self._seen[0]
        return (position - before) / (seconds - then) if seconds > then else 0.0
