"""What a page header has to say, given where it stands and what the pages before it said.

The rules are those of PostgreSQL's reader (``XLogReaderValidatePageHeader`` in ``xlogreader.c``),
and stricter where we know more: a timeline's history tells on which timeline each page was begun.
Whoever meets pages in order, on the wire or in files, has one `PageRules` for all of them.
"""

from __future__ import annotations

from typing import Self

from walstream.errors import DamagedWAL, FormatError
from walstream.formats.lsn import LSN
from walstream.formats.pages import (
    FIRST_IS_CONTRECORD,
    LONG_HEADER,
    LONG_HEADER_SIZE,
    PAGE_FIELDS,
    PAGE_SIZE,
    SEGMENT_FIELDS,
    SHORT_HEADER_SIZE,
    SPECIAL_FLAGS,
    PageHeader,
    magic_of,
    magic_of_server,
)
from walstream.formats.positions import SystemIdentity
from walstream.formats.record_skim import Ordinary
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory

__all__ = ["PageRules", "check_zeros", "is_zero"]

# The first release whose pages behind a segment switch are zeros, their headers included.
_ZEROS_SINCE = magic_of(11)

# Any magic number, to fill up one of which only the first byte is known.
_SOME_MAGIC = magic_of(18)

_NEVER = 1 << 64
_ZEROS = bytes(1 << 20)
_read = PAGE_FIELDS.unpack_from


class PageRules:
    """Checks the headers of one cluster's pages, in the order in which the pages follow.

    What is not known beforehand, the first page tells, and all others have to agree with it.

    :ivar magic: that of all pages; None until it is known.
    :ivar timeline: that of the newest page; 0 before the first.
    :ivar until: a page from here on cannot be on `timeline`, by the history.
    """

    def __init__(
        self,
        size: SegmentSize,
        *,
        history: TimelineHistory | None = None,
        system_identifier: int | None = None,
        magic: int | None = None,
    ) -> None:
        """
        :param size: the size of the cluster's segments.
        :param history: that of the timeline which the pages are read on. Without it, and before
            its oldest ancestor, all that is asked of timelines is that they do not go back.
        """
        self.size = size
        self.magic = magic
        self.timeline = 0
        self.until = _NEVER
        self._history = history
        self._system_identifier = system_identifier

    @classmethod
    def of(cls, identity: SystemIdentity, history: TimelineHistory) -> Self:
        """The rules for a cluster's pages on the timeline of *history*."""
        return cls(
            identity.segment_size,
            history=history,
            system_identifier=identity.system_identifier,
            magic=magic_of_server(identity.server_version),
        )

    def check(self, header: bytes, offset: int, address: int) -> tuple[int, int, int]:
        """Check the header at *offset*, which has to be there in full, of the page at *address*.

        :return: the page's flags, its ``rem_len``, and the size of its header.
        :raises DamagedWAL: if no such page can be there.
        """
        magic, flags, timeline, said, rem_len = _read(header, offset)
        if (
            not flags & SPECIAL_FLAGS
            and said == address
            and magic == self.magic
            and timeline == self.timeline
            and address < self.until
            and address % self.size
        ):
            size = SHORT_HEADER_SIZE
        else:
            self._examine(header, offset, address)
            self._accept(header, offset, address)
            size = LONG_HEADER_SIZE if flags & LONG_HEADER else SHORT_HEADER_SIZE
        if flags & FIRST_IS_CONTRECORD and not rem_len:
            raise DamagedWAL(address, "what remains of the record", "at least one byte", "nothing")
        return flags, rem_len, size

    def ordinary(self, address: int) -> Ordinary | None:
        """What the pages from *address* on are like, as long as nothing special comes."""
        if self.magic is None:
            return None
        segment_end = address - address % self.size + self.size
        return Ordinary(self.magic, self.timeline, min(self.until, segment_end))

    def check_beginning(self, beginning: bytes, address: int) -> None:
        """Check the header of the page at *address* as far as it has come.

        :raises DamagedWAL: if no such page can be there.
        """
        timeline = self._timeline_at(address)[0] or self.timeline or 1
        flags = 0 if address % self.size else LONG_HEADER
        rest = PAGE_FIELDS.pack(self.magic or _SOME_MAGIC, flags, timeline, address, 0)
        rest += SEGMENT_FIELDS.pack(self._system_identifier or 0, self.size, PAGE_SIZE)
        self._examine(beginning + rest[len(beginning) :], 0, address)

    def header_size(self, beginning: bytes, offset: int, address: int) -> int:
        """How long the header is, going by as much of it as is there at *offset*."""
        flags = beginning[offset + 2 : offset + 3]
        is_long = not address % self.size or (flags and flags[0] & LONG_HEADER)
        return LONG_HEADER_SIZE if is_long else SHORT_HEADER_SIZE

    def may_be_zero(self, address: int) -> bool:
        """Whether the page at *address* may be zeros, header and all.

        It may behind a segment switch, and then so is everything up to the segment's end.
        """
        return bool(address % self.size) and (self.magic or _ZEROS_SINCE) >= _ZEROS_SINCE

    def _examine(self, header: bytes, offset: int, address: int) -> None:
        try:
            page = PageHeader.parse(header, offset)
        except FormatError as error:
            raise DamagedWAL(address, "the page", "one of WAL", error) from None
        if page.address != address:
            raise DamagedWAL(address, "the page's address", LSN(address), page.address)
        if self.magic is not None and page.magic != self.magic:
            raise DamagedWAL(address, "the page's magic", f"{self.magic:04X}", f"{page.magic:04X}")
        self._examine_timeline(page.timeline, address)
        if page.flags & LONG_HEADER:
            self._examine_segment(header, offset, address)
        elif not address % self.size:
            raise DamagedWAL(address, "the header", "that of a segment", "that of a page")

    def _examine_timeline(self, timeline: int, address: int) -> None:
        expected, is_known = self._timeline_at(address)
        if timeline < max(self.timeline, 1):
            raise DamagedWAL(
                address, "the page's timeline", f"{expected or self.timeline}", timeline
            )
        if expected and (timeline > expected or (is_known and timeline != expected)):
            raise DamagedWAL(address, "the page's timeline", expected, timeline)

    def _examine_segment(self, header: bytes, offset: int, address: int) -> None:
        system, size, page_size = SEGMENT_FIELDS.unpack_from(header, offset + SHORT_HEADER_SIZE)
        if self._system_identifier not in (None, system):
            raise DamagedWAL(address, "the system identifier", self._system_identifier, system)
        if size != self.size:
            raise DamagedWAL(address, "the segment size", int(self.size), size)
        if page_size != PAGE_SIZE:
            raise DamagedWAL(address, "the page size", PAGE_SIZE, page_size)

    def _accept(self, header: bytes, offset: int, address: int) -> None:
        self.magic, flags, self.timeline, _, _ = _read(header, offset)
        if flags & LONG_HEADER:
            offset += SHORT_HEADER_SIZE
            self._system_identifier, _, _ = SEGMENT_FIELDS.unpack_from(header, offset)
        if self._history is not None:
            expected = self._history.timeline_at(address)
            self.until = self._history.switch_point(expected) or _NEVER

    def _timeline_at(self, address: int) -> tuple[int | None, bool]:
        """The timeline that a page was begun on; and whether it cannot have been an older one."""
        history = self._history
        if history is None:
            return None, False
        oldest = history.ancestors[0].timeline if history.ancestors else history.timeline
        timeline = history.timeline_at(address)
        return timeline, timeline != oldest


def is_zero(data: memoryview) -> bool:
    """Whether all bytes are zero."""
    size = len(_ZEROS)
    return all(
        _ZEROS.startswith(data[offset : offset + size]) for offset in range(0, len(data), size)
    )


def check_zeros(position: int, data: memoryview) -> None:
    """Check what should be the zeros behind a segment switch.

    :raises DamagedWAL: if it is something else.
    """
    if not is_zero(data):
        offset = next(index for index, byte in enumerate(data) if byte)
        what = "what follows a segment switch"
        raise DamagedWAL(position + offset, what, "zeros", f"{data[offset]:02X}")
