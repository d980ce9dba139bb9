"""Where in whose WAL: a position on a timeline, and the cluster whose WAL it is.

Values only. `walstream.interfaces` hands them out too, to those who know interfaces anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize

__all__ = ["SystemIdentity", "WALPosition"]


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Which cluster WAL belongs to, and the two facts without which it cannot be read.

    :ivar system_identifier: the cluster's 64-bit number (IDENTIFY_SYSTEM, ``systemid``).
    :ivar segment_size: the cluster's ``wal_segment_size``.
    :ivar server_version: as the server words it in ``server_version``, e.g. ``18.6``.
    """

    system_identifier: int
    segment_size: SegmentSize
    server_version: str


@dataclass(frozen=True, slots=True, order=True)
class WALPosition:
    """A byte position on a timeline."""

    timeline: int
    lsn: LSN
