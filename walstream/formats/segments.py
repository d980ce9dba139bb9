"""Segments: the files of one fixed size that WAL is kept in; the names of these and of their
companions, timeline and backup histories.

Knows names and numbers; whether a file exists, and what is in it, is not its business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from walstream.errors import FormatError
from walstream.formats.lsn import LSN

__all__ = [
    "DEFAULT_SEGMENT_SIZE",
    "SegmentFile",
    "SegmentSize",
    "backup_history_name",
    "history_file_name",
    "is_backup_history_name",
    "parse_backup_history_name",
    "parse_history_file_name",
    "parse_segment_file",
]

_MIB = 1 << 20
_GIB = 1 << 30
_SETTING = re.compile(r"([0-9]{1,10})(MB|GB)")
_UNITS = {"MB": _MIB, "GB": _GIB}
_SEGMENT_FILE = re.compile(
    r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(?:\.(gz|lz4|zst))?(\.partial)?"
)
_HISTORY_FILE = re.compile(r"([0-9A-F]{8})\.history")
_BACKUP_HISTORY = re.compile(r"([0-9A-F]{24})\.([0-9A-F]{8})\.backup")


class SegmentSize(int):
    """A cluster's ``wal_segment_size`` in bytes, and the arithmetic of segments that follows.

    :raises FormatError: unless it is a power of two from 1 MiB to 1 GiB, which is what initdb's
        ``--wal-segsize`` allows.
    """

    __slots__ = ()

    def __new__(cls, size: int) -> Self:
        if not _MIB <= size <= _GIB or size & (size - 1):
            raise FormatError(
                f"a WAL segment size must be a power of two from 1 MiB to 1 GiB, not {size} bytes"
            )
        return super().__new__(cls, size)

    def number(self, lsn: int) -> int:
        """The number of the segment that holds the byte at *lsn*.

        A position on a boundary belongs to the segment that begins there: for the last byte of
        a run that ends at *lsn*, ask for *lsn* - 1.
        """
        return lsn // self

    def start(self, number: int) -> LSN:
        """The position of the first byte of segment *number*."""
        return LSN(number * self)

    def floor(self, lsn: int) -> LSN:
        """The position of the first byte of the segment that holds the byte at *lsn*."""
        return LSN(lsn - lsn % self)

    def offset(self, lsn: int) -> int:
        """How far *lsn* is from the start of its segment, in bytes."""
        return lsn % self

    def name(self, timeline: int, number: int) -> str:
        """The name of a segment's file: timeline, then number, in 24 upper-case hex digits.

        The number's lower part counts the segments of 4 GiB of WAL (``XLogFileName``).
        """
        high, low = divmod(number, (1 << 32) // self)
        return f"{timeline:08X}{high:08X}{low:08X}"

    @classmethod
    def from_setting(cls, text: str) -> Self:
        """Read the answer to ``SHOW wal_segment_size``, such as ``16MB`` or ``1GB``.

        :raises FormatError: for any other unit, and for a size that cannot be.
        """
        match = _SETTING.fullmatch(text)
        if match is None:
            raise FormatError(f"{text!r} is not a WAL segment size: expected one such as 16MB")
        return cls(int(match[1]) * _UNITS[match[2]])

    def setting(self) -> str:
        """What ``SHOW wal_segment_size`` answers: the largest unit that leaves no fraction."""
        return "1GB" if self == _GIB else f"{self // _MIB}MB"


#: What initdb takes unless told otherwise.
DEFAULT_SEGMENT_SIZE = SegmentSize(16 * _MIB)


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """What the name of a segment's file says.

    :ivar compression: ``gz``, ``lz4``, ``zst``, or None for WAL as it is.
    :ivar partial: whether the segment is still being received (``.partial``).
    """

    timeline: int
    number: int
    compression: str | None
    partial: bool


def parse_segment_file(name: str, size: SegmentSize) -> SegmentFile | None:
    """Read the name of a segment's file, in the forms that pg_receivewal gives it.

    None for anything that is not such a name, a number that clusters of this segment size never
    use included. Lower-case digits are not PostgreSQL's, so they make it another file.
    """
    match = _SEGMENT_FILE.fullmatch(name)
    if match is None:
        return None
    timeline, high, low = (int(part, 16) for part in match.group(1, 2, 3))
    per_4_gib = (1 << 32) // size
    if timeline == 0 or low >= per_4_gib:
        return None
    return SegmentFile(timeline, high * per_4_gib + low, match[4], match[5] is not None)


def history_file_name(timeline: int) -> str:
    """The name of a timeline's history file (``TLHistoryFileName``)."""
    return f"{timeline:08X}.history"


def parse_history_file_name(name: str) -> int | None:
    """The timeline that a history file's name says; None for any other name."""
    match = _HISTORY_FILE.fullmatch(name)
    return (int(match[1], 16) or None) if match else None


def backup_history_name(timeline: int, start: LSN, size: SegmentSize) -> str:
    """The name of the file of the backup that started at *start* (``BackupHistoryFileName``)."""
    return f"{size.name(timeline, size.number(start))}.{size.offset(start):08X}.backup"


def is_backup_history_name(name: str) -> bool:
    """Whether a file may be a backup history: its name then is no path, and nothing else."""
    return _BACKUP_HISTORY.fullmatch(name) is not None


def parse_backup_history_name(name: str, size: SegmentSize) -> tuple[int, LSN] | None:
    """The timeline and the start position that the name says; None for any other name."""
    match = _BACKUP_HISTORY.fullmatch(name)
    segment = parse_segment_file(match[1], size) if match else None
    if match is None or segment is None:
        return None
    offset = int(match[2], 16)
    return (segment.timeline, LSN(size.start(segment.number) + offset)) if offset < size else None
