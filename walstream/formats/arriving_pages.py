"""The check of page headers in WAL that arrives in order, in pieces of any size.

Costs next to nothing: a page that is like the one before it is passed by a few comparisons, and a
piece inside of a page by one. Whatever else is left to `PageRules`. What lies between the headers
is for `walstream.formats.record_walk`.
"""

from __future__ import annotations

import struct

from walstream.errors import DamagedWAL
from walstream.formats.page_rules import PageRules, check_zeros
from walstream.formats.pages import (
    FIRST_IS_CONTRECORD,
    FIRST_IS_OVERWRITE_CONTRECORD,
    LONG_HEADER_SIZE,
    PAGE_FIELDS,
    PAGE_SIZE,
    SHORT_HEADER_SIZE,
    SPECIAL_FLAGS,
)

__all__ = ["ArrivingPages"]

_PAGES = struct.Struct(f"{PAGE_FIELDS.format}{PAGE_SIZE - PAGE_FIELDS.size}x")
_BODY = PAGE_SIZE - SHORT_HEADER_SIZE


class ArrivingPages:
    """Checks each page header that a stream brings, from the start of a segment on.

    A header that has come in part is checked as far as it has come. Only of its ``rem_len`` the
    first bytes may pass unchecked until the last one is there.
    """

    def __init__(self, start: int, rules: PageRules) -> None:
        self._rules = rules
        # Where the next header begins, or the next zero; and what has come of that header.
        self._next = start
        self._beginning = b""
        # Behind a segment switch all is zeros, up to here.
        self._zeros_until = start
        # How much of a record the next header has to announce; 0 if that is not known.
        self._due = 0

    def check(self, position: int, data: memoryview) -> None:
        """Check *data*, which has *position* and follows on what was checked before.

        :raises DamagedWAL: if it cannot be WAL. It does not count as checked then.
        """
        end = position + len(data)
        if end <= self._next:
            return
        before = self._next, self._beginning, self._zeros_until, self._due
        try:
            while self._next < end:
                if self._next < self._zeros_until:
                    self._pass_zeros(position, data)
                elif not self._pass_header(position, data):
                    break
                elif end - self._next >= PAGE_SIZE:
                    self._pass_pages(position, data)
        except DamagedWAL:
            self._next, self._beginning, self._zeros_until, self._due = before
            raise

    def _pass_zeros(self, position: int, data: memoryview) -> None:
        zeros = data[self._next - position : self._zeros_until - position]
        check_zeros(self._next, zeros)
        self._next += len(zeros)

    def _pass_header(self, position: int, data: memoryview) -> bool:
        """Pass the next header, whatever it looks like; False if it is not all there."""
        address, rules = self._next, self._rules
        known = len(self._beginning)
        offset = address + known - position
        header = self._beginning + bytes(data[offset : offset + LONG_HEADER_SIZE - known])
        if not any(header) and rules.may_be_zero(address):
            # Even of a header that has come in part: no magic number begins with a zero.
            self._zeros_until = address - address % rules.size + rules.size
            return True
        if len(header) < rules.header_size(header, 0, address):
            rules.check_beginning(header, address)
            self._beginning = header
            return False
        flags, rem_len, size = rules.check(header, 0, address)
        self._check_continues(flags, rem_len)
        self._due = max(rem_len - (PAGE_SIZE - size), 0)
        self._beginning = b""
        self._next += PAGE_SIZE
        return True

    def _check_continues(self, flags: int, rem_len: int) -> None:
        if not self._due or flags & FIRST_IS_OVERWRITE_CONTRECORD:
            return
        if not flags & FIRST_IS_CONTRECORD or rem_len != self._due:
            found = f"{rem_len} bytes" if flags & FIRST_IS_CONTRECORD else "nothing"
            raise DamagedWAL(self._next, "what remains of the record", f"{self._due} bytes", found)

    def _pass_pages(self, position: int, data: memoryview) -> None:
        """Pass whole pages for as long as there is nothing special about their headers."""
        rules, due, address = self._rules, self._due, self._next
        magic, timeline = rules.magic, rules.timeline
        # The first page of a segment is always special.
        segment_end = address + -address % rules.size
        count = (min(position + len(data), rules.until, segment_end) - address) // PAGE_SIZE
        if count <= 0:
            return
        offset = address - position
        pages = data[offset : offset + count * PAGE_SIZE]
        for found_magic, flags, found_timeline, said, rem_len in _PAGES.iter_unpack(pages):
            if said != address or found_magic != magic or found_timeline != timeline:
                break
            if flags & SPECIAL_FLAGS:
                break
            if flags & FIRST_IS_CONTRECORD:
                if not rem_len or (due and rem_len != due):
                    break
                due = rem_len - _BODY if rem_len > _BODY else 0
            elif due:
                break
            address += PAGE_SIZE
        self._due, self._next = due, address
