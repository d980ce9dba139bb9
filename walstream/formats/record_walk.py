"""The walk through the records of WAL that comes in order, a window at a time.

The rules are those of PostgreSQL's reader (``xlogreader.c``), so that a walk ends where recovery
would: at the first thing that cannot be WAL, be it zeros, a recycled segment or damage. Asked for
beyond them is only that nothing but zeros follows a segment switch. However long a record is, in
memory are its header and its checksum so far.

Written for speed, since all of an archive may pass: where nothing is special, and nobody asks for
the records themselves, `walstream.formats.record_skim` goes ahead.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import TypeAlias

from walstream.errors import DamagedWAL, FormatError
from walstream.formats.lsn import LSN
from walstream.formats.page_rules import PageRules, check_zeros, is_zero
from walstream.formats.pages import (
    FIRST_IS_CONTRECORD,
    FIRST_IS_OVERWRITE_CONTRECORD,
    LONG_HEADER_SIZE,
    PAGE_SIZE,
    SHORT_HEADER_SIZE,
)
from walstream.formats.record_skim import skim

__all__ = [
    "RECORD_HEADER",
    "Checksum",
    "FoundRecord",
    "PieceWalk",
    "RecordWalk",
    "is_switch",
    "walk_through",
]

#: A function that gives the CRC-32C (Castagnoli) of bytes, and takes that of the bytes before them
#: to go on from as its second argument; such as that of the package crc32c.
Checksum: TypeAlias = Callable[..., int]

#: Where a record begins, where it ends, and its header's fields as `RECORD_HEADER` has them.
FoundRecord: TypeAlias = tuple[int, int, tuple[int, ...]]

#: ``XLogRecord``: length, xid, previous record, info, resource manager, 2 bytes of padding, CRC.
RECORD_HEADER = struct.Struct("<IIQBB2xI")

_HEADER_SIZE = RECORD_HEADER.size
_CRC_OFFSET = 20
_ALIGNMENT = 8  # MAXALIGN of every 64-bit platform
_RM_XLOG = 0
_XLOG_SWITCH = 0x40
_RESOURCE_MANAGER_INFO = 0xF0  # the lower half of info is the same for all of them
# Less than so many bytes are walked through as quickly one by one.
_WORTH_SKIMMING = 2 * PAGE_SIZE

_unpack = RECORD_HEADER.unpack_from
_unpack_length = struct.Struct("<I")


def is_switch(resource_manager: int, info: int) -> bool:
    """Whether a record leaves the rest of its segment unused (``XLOG_SWITCH``)."""
    return resource_manager == _RM_XLOG and info & _RESOURCE_MANAGER_INFO == _XLOG_SWITCH


class RecordWalk:
    """Walks from the start of a page on; the rest of a record that began before is passed over.

    :ivar end: up to here all is whole records, the zeros behind a switch included.
    :ivar first: where the first record is, and where it says that the one before it was.
    :ivar last: where the last whole record is.
    :ivar records: how many whole records there were.
    """

    def __init__(self, start: int, rules: PageRules, crc32c: Checksum | None) -> None:
        """
        :param crc32c: without it, records' checksums are left alone.
        :raises FormatError: if *start* is not where a page begins.
        """
        if start % PAGE_SIZE:
            raise FormatError(f"WAL can be walked from the start of a page, not from {LSN(start)}")
        self.end = start
        self.first: tuple[int, int] | None = None
        self.last: int | None = None
        self.records = 0
        self._rules = rules
        self._crc32c = crc32c
        self._at = start
        self._has_begun = False
        # The record that goes on on the next page: where it began, its header as far as it has
        # come (None if it began before us), its checksum so far, and how many bytes are to come.
        self._begun_at = start
        self._header: bytes | None = None
        self._crc = 0
        self._missing = 0
        # Behind a segment switch all is zeros, up to here.
        self._zeros_until = start

    @property
    def needs(self) -> int:
        """Where the next window has to begin at the latest; the start of a page."""
        return self._at - self._at % PAGE_SIZE

    @property
    def unfinished(self) -> int | None:
        """Where the record began whose rest has to come on the next page, if there is one."""
        return None if self._header is None else self._begun_at

    def feed(self, start: int, window: bytes, found: list[FoundRecord] | None = None) -> None:
        """Walk through a window of WAL. What is not whole in it has to be in the next one again.

        :param start: where its first byte is: the start of a page, `needs` or before it.
        :param found: takes the records that end in the window.
        :raises DamagedWAL: where WAL ends, or is damaged; the walk is over then.
        """
        end = start + len(window)
        may_skim = found is None
        while self._at < end:
            if self._at < self._zeros_until:
                if not self._pass_zeros(start, window):
                    return
                continue
            if self._at % PAGE_SIZE == 0 and not self._begin_page(start, window):
                return
            if self._missing and not self._continue_record(start, window, found):
                return
            if may_skim and self._at % PAGE_SIZE:
                may_skim = self._skim(start, window)
            if self._at % PAGE_SIZE and not self._pass_records(start, window, found):
                return

    # Each of these goes on at `_at`, and says whether the window has enough for more.

    def _begin_page(self, start: int, window: bytes) -> bool:
        address, rules = self._at, self._rules
        offset = address - start
        # A page's first records are there with its header as a rule, so its length matters seldom.
        room = len(window) - offset
        if room < LONG_HEADER_SIZE and room < rules.header_size(window, offset, address):
            return False
        flags, rem_len, size = rules.check(window, offset, address)
        if flags & FIRST_IS_OVERWRITE_CONTRECORD:
            # A crash left the record unfinished, and recovery gave it up.
            self._missing, self._header = 0, None
        continued = rem_len if flags & FIRST_IS_CONTRECORD else 0
        if not self._has_begun:
            self._has_begun = True
            self._missing = continued
        elif continued != self._missing:
            record = f"the record at {LSN(self._begun_at)}" if self._missing else "a record"
            what = f"what the page continues of {record}"
            raise DamagedWAL(address, what, f"{self._missing} bytes", f"{continued} bytes")
        self._at += size
        return True

    def _skim(self, start: int, window: bytes) -> bool:
        """Pass what is ordinary; False if a record in this window is not good."""
        at, last, crc32c = self._at, self.last, self._crc32c
        ordinary = self._rules.ordinary(at)
        if crc32c is None or last is None or ordinary is None:
            return True
        if min(start + len(window), ordinary.end) - at < _WORTH_SKIMMING:
            return True
        skimmed = skim(start, window, at, last, ordinary, crc32c)
        if skimmed is None:
            return False
        if skimmed.records:
            self._at, self.last = skimmed.at, skimmed.last
            self.records += skimmed.records
            # It may have passed the header of the page that it stopped on.
            passed = skimmed.at % PAGE_SIZE == SHORT_HEADER_SIZE
            self.end = skimmed.at - (SHORT_HEADER_SIZE if passed else 0)
        return True

    def _pass_records(  # noqa: C901 - a function call for each record would cost a fifth
        self, start: int, window: bytes, found: list[FoundRecord] | None
    ) -> bool:
        """Pass the records that are whole on this page, and begin the one that is not."""
        crc32c, last, size, records = self._crc32c, self.last, len(window), self.records
        offset = self._at - start
        page_end = self.needs + PAGE_SIZE - start
        last_header = page_end - _HEADER_SIZE
        try:
            while offset <= last_header:
                if offset + _HEADER_SIZE > size:
                    return False
                fields = _unpack(window, offset)
                length, _, previous, info, resource_manager, crc = fields
                end = offset + length
                if length < _HEADER_SIZE or end > page_end:
                    break
                if end > size:
                    return False
                if previous != last:
                    self._check_link(start + offset, previous, last)
                if crc32c is not None:
                    # What follows the header comes first, and then the header before its CRC.
                    body = offset + _HEADER_SIZE
                    computed = crc32c(window[body:end] + window[offset : offset + _CRC_OFFSET])
                    if computed != crc:
                        raise _wrong_checksum(start + offset, start + end, crc, computed)
                last = start + offset
                records += 1
                offset = end + 7 & ~7
                if resource_manager == _RM_XLOG and is_switch(resource_manager, info):
                    self._zeros_until = self._segment_end(start + offset)
                if found is not None:
                    found.append((last, max(start + offset, self._zeros_until), fields))
                if self._zeros_until > start + offset:
                    break
        finally:
            self._at = start + offset
            if last != self.last:
                self.last, self.records = last, records
                self.end = max(self._at, self._zeros_until)
        if offset == page_end or self._at < self._zeros_until:
            return True
        return self._begin_record(start, window)

    def _begin_record(self, start: int, window: bytes) -> bool:
        """Take the beginning of a record that goes on on the next page."""
        offset = self._at - start
        page_end = self.needs + PAGE_SIZE - start
        if offset + _unpack_length.size > len(window):
            return False
        (length,) = _unpack_length.unpack_from(window, offset)
        if length < _HEADER_SIZE:
            raise DamagedWAL(self._at, "the record's length", f"{_HEADER_SIZE} or more", length)
        if page_end > len(window):
            return False
        self._begun_at = self._at
        self._header = window[offset : min(offset + _HEADER_SIZE, page_end)]
        self._crc = 0
        self._missing = length - (page_end - offset)
        self._take_body(window[offset + len(self._header) : page_end])
        self._at = start + page_end
        return True

    def _continue_record(self, start: int, window: bytes, found: list[FoundRecord] | None) -> bool:
        offset = self._at - start
        end = offset + min(self._missing, PAGE_SIZE - self._at % PAGE_SIZE)
        if end > len(window):
            return False
        self._at = start + end
        self._missing -= end - offset
        if self._header is not None:
            # Where a page ends, it may have cut the header.
            body = offset + _HEADER_SIZE - len(self._header)
            self._header += window[offset:body]
            self._take_body(window[body:end])
        if not self._missing:
            self._finish_record(found)
        return True

    def _take_body(self, piece: bytes) -> None:
        if self._crc32c is not None:
            self._crc = self._crc32c(piece, self._crc)

    def _finish_record(self, found: list[FoundRecord] | None) -> None:
        self._at += -self._at % _ALIGNMENT
        if self._header is None:
            self.end = self._at
            return
        lsn, header, self._header = self._begun_at, self._header, None
        fields = _unpack(header)
        _, _, previous, info, resource_manager, crc = fields
        self._check_link(lsn, previous, self.last)
        if self._crc32c is not None:
            computed = self._crc32c(header[:_CRC_OFFSET], self._crc)
            if computed != crc:
                raise _wrong_checksum(lsn, self._at, crc, computed)
        if is_switch(resource_manager, info):
            self._zeros_until = self._segment_end(self._at)
        self.last, self.end = lsn, max(self._at, self._zeros_until)
        self.records += 1
        if found is not None:
            found.append((lsn, self.end, fields))

    def _check_link(self, lsn: int, previous: int, last: int | None) -> None:
        if last is None:
            # Of what comes before the first record, only this much is known.
            if previous >= lsn:
                raise DamagedWAL(lsn, "the previous record", "one before it", LSN(previous))
            self.first = lsn, previous
        elif previous != last:
            raise DamagedWAL(lsn, "the previous record", LSN(last), LSN(previous))

    def _segment_end(self, position: int) -> int:
        return position + -position % self._rules.size

    def _pass_zeros(self, start: int, window: bytes) -> bool:
        """Pass what follows a segment switch: zeros, and until version 10 page headers too."""
        offset = self._at - start
        rest = memoryview(window)[offset : self._zeros_until - start]
        if not is_zero(rest):
            if self._at % PAGE_SIZE == 0 and rest[0]:
                return self._begin_page(start, window)
            rest = rest[: self.needs + PAGE_SIZE - self._at]
            check_zeros(self._at, rest)
        self._at += len(rest)
        return True


class PieceWalk:
    """Feeds a walk with WAL that comes in order, in pieces of any size.

    :param position: where the first piece begins: where the walk does.
    """

    def __init__(self, walk: RecordWalk, position: int) -> None:
        self._walk = walk
        self._position = position
        self._rest = b""

    def feed(self, piece: bytes, found: list[FoundRecord] | None = None) -> None:
        """Go on with *piece*.

        :param found: takes the records that end in it.
        :raises DamagedWAL: as `RecordWalk.feed`.
        """
        walk, position = self._walk, self._position
        window = self._rest + piece if self._rest else piece
        walk.feed(position, window, found)
        behind = position + len(window)
        self._rest = window[walk.needs - position :] if walk.needs < behind else b""
        self._position = behind - len(self._rest)


def walk_through(walk: RecordWalk, position: int, pieces: Iterable[bytes]) -> None:
    """Feed a walk with WAL from *position* on, in pieces of any size.

    :raises DamagedWAL: as `RecordWalk.feed`.
    """
    walked = PieceWalk(walk, position)
    for piece in pieces:
        walked.feed(piece)


def _wrong_checksum(lsn: int, end: int, said: int, computed: int) -> DamagedWAL:
    what = f"the checksum of the record up to {LSN(end)}"
    return DamagedWAL(lsn, what, f"{said:08X}", f"{computed:08X}")
