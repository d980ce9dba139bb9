"""The quick way through WAL with nothing special in it, for `walstream.formats.record_walk`.

Passes whole records and ordinary pages for as long as all is as it should be, and says how far that
was. It never says what is wrong: whoever finds that it has stopped short looks for themselves.

The checksums of all records are looked at together. One over a good record and, behind it, its own
checksum is the same constant for every record; four bytes more take it back to 0, with which the
next record's begins. So all that was passed, each record followed by its checksum and these four
bytes, has to come to 0. A difference anywhere is carried to the end, since each step is reversible;
two in one go may cancel out once in 2**32 times, as with any checksum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from walstream.formats.pages import FIRST_IS_CONTRECORD, PAGE_SIZE, SHORT_HEADER_SIZE, SPECIAL_FLAGS

__all__ = ["GLUE", "Ordinary", "Skimmed", "skim"]

#: Brings the CRC-32C of a record with its own behind it back to 0.
GLUE = bytes.fromhex("6cd087d3")

# WAL is looked at as words of 8 bytes, to which records are aligned.
_PAGE = PAGE_SIZE // 8
_HEADER = SHORT_HEADER_SIZE // 8
_BODY = PAGE_SIZE - SHORT_HEADER_SIZE
_RECORD_HEADER = 24

# A segment switch, which is special: info and resource manager, and the bits that tell.
_SWITCH = 0x0040
_SWITCH_MASK = 0xFFF0

# Of a page's first word, what is the same on all ordinary pages; and the flag that is not.
_SAME = 0xFFFFFFFF_0000FFFF | SPECIAL_FLAGS << 16
_CONTINUES = FIRST_IS_CONTRECORD << 16

# Shorter data is copied, longer is pointed at: what costs less.
_SHORT = 700


class Ordinary(NamedTuple):
    """What ordinary pages are like: their magic and timeline, and where they end."""

    magic: int
    timeline: int
    end: int


class Skimmed(NamedTuple):
    """How far it went: the next position, the last record's, and how many there were."""

    at: int
    last: int
    records: int


def skim(  # noqa: C901 - a function call for each record would take as long as the rest
    start: int,
    window: bytes,
    at: int,
    last: int,
    ordinary: Ordinary,
    crc32c: Callable[[bytes], int],
) -> Skimmed | None:
    """Pass ordinary records from *at* on; None if one of them is not good, whichever it is.

    :param start: the position of the window's first byte, where a page begins.
    :param at: where a record begins, behind the header of its page.
    :param last: where the record before it is.
    """
    size = min(len(window), ordinary.end - start)
    size -= size % PAGE_SIZE
    view = memoryview(window)[:size]
    words, halves = view.cast("Q"), view.cast("I")
    first_word = ordinary.magic | ordinary.timeline << 32
    end_of_all = size >> 3
    index = at - start >> 3
    page_end = index - index % _PAGE + _PAGE
    parts: list[bytes | memoryview] = []
    records = 0
    while index < end_of_all:
        if index == page_end:
            is_ordinary = words[index] & (_SAME | _CONTINUES) == first_word
            if not is_ordinary or words[index + 1] != start + (index << 3):
                break
            index += _HEADER
            page_end += _PAGE
        offset = index << 3
        room = (page_end << 3) - offset
        length = halves[index << 1]
        end = offset + length
        if room < _RECORD_HEADER or length < _RECORD_HEADER or words[index + 1] != last:
            break
        if length <= room:
            if length == _RECORD_HEADER and words[index + 2] & _SWITCH_MASK == _SWITCH:
                break
            body = offset + _RECORD_HEADER
            parts += (view if length > _SHORT else window)[body:end], window[offset:body], GLUE
            index = end + 7 >> 3
        else:
            begun = len(parts)
            parts.append(view[offset + _RECORD_HEADER : page_end << 3])
            missing = length - room
            page = page_end
            while page < end_of_all:
                word = words[page]
                if (
                    word & _SAME != first_word
                    or not word & _CONTINUES
                    or words[page + 1] != start + (page << 3)
                    or halves[(page << 1) + 4] != missing
                ):
                    missing = -1
                    break
                body = (page + _HEADER) << 3
                page += _PAGE
                if missing <= _BODY:
                    parts += view[body : body + missing], window[offset : offset + 24], GLUE
                    index = body + missing + 7 >> 3
                    missing = 0
                    break
                parts.append(view[body : body + _BODY])
                missing -= _BODY
            if missing:
                del parts[begun:]
                break
            page_end = page
        last = start + offset
        records += 1
    if crc32c(b"".join(parts)):
        return None
    return Skimmed(start + (index << 3), last, records)
