"""Checks the page headers of a segment as a whole: of whose WAL it is, and of which part of it.

Pure: bytes in, and how many of them are good. What lies between the headers is not looked at.
"""

from __future__ import annotations

from walstream.errors import FormatError
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE, Buffer, PageHeader, SegmentHeader
from walstream.formats.positions import SystemIdentity
from walstream.formats.timelines import TimelineHistory

__all__ = ["check_pages"]


def check_pages(
    content: Buffer,
    start: LSN,
    history: TimelineHistory | None,
    timeline: int,
    identity: SystemIdentity,
) -> tuple[int, str | None]:
    """How much of a segment is good, in bytes; and what is wrong with the page behind that.

    Behind a segment switch all is zeros, headers included, which is good too.

    :param start: where the segment begins.
    :param history: of its timeline; without it, all that is asked of the pages' timelines is that
        they do not go back, nor beyond *timeline*.
    """
    size, newest = identity.segment_size, 0
    for offset in range(0, size, PAGE_SIZE):
        try:
            header = _header(content, offset, identity)
            if header is None:
                return _rest_is_zero(content, offset, start)
            if header.address != start + offset:
                raise FormatError(f"it says that it is at {header.address}")
            on_timeline = (
                header.timeline <= timeline if history is None else header.timeline in history
            )
            if header.timeline < newest or not on_timeline:
                raise FormatError(f"it is on timeline {header.timeline}")
        except FormatError as error:
            return offset, f"the page at {LSN(start + offset)} is not right: {error}"
        newest = header.timeline
    return size, None


def _header(content: Buffer, offset: int, identity: SystemIdentity) -> PageHeader | None:
    """The header of a page; None if it may be one of the zeros behind a segment switch."""
    if offset:
        if content[offset] == content[offset + 1] == 0:
            return None
        return PageHeader.parse(content, offset)
    header = SegmentHeader.parse(content)
    found = (header.system_identifier, header.segment_size)
    if found != (identity.system_identifier, identity.segment_size):
        raise FormatError(f"it is of system {found[0]} with segments of {found[1]} bytes")
    return header


def _rest_is_zero(content: Buffer, offset: int, start: LSN) -> tuple[int, str | None]:
    rest = bytes(memoryview(content)[offset:])
    if rest.count(0) == len(rest):
        return len(content), None
    return offset, f"the page at {LSN(start + offset)} is zeros, and others follow that are not"
