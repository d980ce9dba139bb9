"""PostgreSQL's recovery test 039_end_of_wal, for what reads WAL here.

Behind the end of good WAL there may be anything: what a torn write left, or a recycled segment with
just the wrong bytes in the right places. Each of PostgreSQL's cases ends the walk there, with a
reason, and none is taken for WAL; in a ``.partial`` it is no damage unless it should be durable.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from crc32c import crc32c
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.archives import SIZE, DirectoryCase
from walstream.archive.end_mark import EndMark
from walstream.archive.filesystem import FileSystem
from walstream.archive.identity import store_identity
from walstream.archive.verification import Verification
from walstream.formats.lsn import LSN
from walstream.formats.pages import FIRST_IS_CONTRECORD, PAGE_SIZE, PageHeader, magic_of
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.records import RECORD_HEADER, end_of_wal
from walstream.testing.wal import SYSTEM_IDENTIFIER, WALBuilder

_START = SIZE.start(1)

# How much room the page has at the end of good WAL: none, for a split header, or plenty.
_ROOM = 2000
_SPLIT = 8

_Fake = tuple[str, int, Callable[["_EndOfWAL"], bytes], str]


class _EndOfWAL:
    """Good WAL that ends with so much room on its page, and what is written behind it."""

    def __init__(self, room: int) -> None:
        self.wal = WALBuilder(segment_size=SIZE)
        self.wal.noop(500)
        self.wal.fill_to(_START + 3 * PAGE_SIZE - room)
        self.end = self.wal.end
        self.page = LSN(_START + 3 * PAGE_SIZE)

    def header(self, length: int, previous: int | None = None, crc: int = 0) -> bytes:
        """A record's header."""
        previous = self.wal.records[-1].lsn if previous is None else previous
        return RECORD_HEADER.pack(length, 0, previous, 0x20, 0, crc)

    def page_header(
        self,
        rem_len: int,
        *,
        magic: int = magic_of(18),
        flags: int = FIRST_IS_CONTRECORD,
        address: int | None = None,
    ) -> bytes:
        """The header of the page behind."""
        address = self.page if address is None else address
        return PageHeader(magic, flags, 1, LSN(address), rem_len).pack()

    def across(self, length: int, page: bytes) -> bytes:
        """A record of that *length* that goes on on a page with that header."""
        record = self.header(length).ljust(length, b"\x07")
        room = self.page - self.end
        return record[:room] + page + record[room:]


def _fakes() -> list[_Fake]:
    small, long = 24 + 3, 24 + 5000
    rest, split_rest = long - _ROOM, long - _SPLIT
    found: list[_Fake] = [
        ("xl_tot_len zero", _ROOM, lambda end: bytes(100), "length should be 24 or more, but is 0"),
        ("xl_tot_len short", _ROOM, lambda end: end.header(23), "length .* but is 23"),
        ("xl_tot_len short, at the page's end", _SPLIT, lambda end: end.header(23)[:8], "is 23"),
        (
            "xl_prev bad",
            _ROOM,
            lambda end: end.header(small, previous=0xDEADBEEF).ljust(small, b"\7"),
            "the previous record should be .* but is 0/DEADBEEF",
        ),
        (
            "xl_crc bad",
            _ROOM,
            lambda end: end.header(small, crc=0xBAD).ljust(small, b"\7"),
            "the checksum of the record",
        ),
        (
            "xl_crc bad, across pages",
            _ROOM,
            lambda end: end.across(long, end.page_header(rest)),
            "the checksum of the record up to",
        ),
        (
            "xl_crc bad, split header",
            _SPLIT,
            lambda end: end.across(long, end.page_header(split_rest)),
            "the checksum of the record up to",
        ),
    ]
    for name, room, remaining in (("", _ROOM, rest), (", split header", _SPLIT, split_rest)):

        def page(remaining: int = remaining, **fields: int) -> Callable[[_EndOfWAL], bytes]:
            said = {"rem_len": remaining} | fields
            return lambda end: end.across(long, end.page_header(**said))

        found += [
            ("xlp_magic zero" + name, room, page(magic=0), "not a WAL page: magic 0000"),
            ("xlp_magic bad" + name, room, page(magic=0xD0AD), "magic should be D118, but is D0AD"),
            ("xlp_pageaddr bad" + name, room, page(address=0xBAAA000), "the page's address should"),
            ("xlp_info bad" + name, room, page(flags=0x1234), "not a WAL page: flags 1234"),
            ("xlp_info without contrecord" + name, room, page(flags=0), "but is 0 bytes"),
            ("xlp_rem_len bad" + name, room, page(rem_len=123456), "but is 123456 bytes"),
            ("page of zeros" + name, room, lambda end: end.across(long, bytes(24)), "magic 0000"),
        ]
    return found


def _segment(end: _EndOfWAL, behind: bytes) -> bytes:
    """The segment; what follows what is *behind* is no WAL either."""
    content = end.wal.bytes() + behind
    return content + random.Random(3).randbytes(SIZE - len(content))


class WalkTests(SynchronousTestCase):
    """`end_of_wal`, which is a walk."""

    def test_each_is_the_end(self) -> None:
        """Exactly where good WAL ends, and for its own reason."""
        for name, room, make, reason in _fakes():
            with self.subTest(name):
                end = _EndOfWAL(room)
                content = _segment(end, make(end))
                found = end_of_wal(content, end.wal.start, SIZE, crc32c=crc32c)
                self.assertEqual((found.lsn, found.exhausted), (end.end, False), found.reason)
                self.assertRegex(found.reason, reason)

    def test_a_good_record_is_none_of_them(self) -> None:
        """The cases fail for what they say, and not because of how they are made."""
        end = _EndOfWAL(_ROOM)
        body = b"\7" * (5000 - 5)
        data = bytes((254,)) + struct.pack("<I", len(body)) + body
        crc = crc32c(end.header(24 + len(data))[:20], crc32c(data))
        record = end.header(24 + len(data), crc=crc) + data
        rest = len(record) - _ROOM
        content = _segment(end, record[:_ROOM] + end.page_header(rest) + record[_ROOM:])
        found = end_of_wal(content, end.wal.start, SIZE, crc32c=crc32c)
        self.assertGreater(found.lsn, end.page)


class VerifyTests(DirectoryCase):
    """``walstream verify`` on a segment with such an end."""

    def verify(self, durable: int | None) -> list[tuple[bool, int | None]]:
        """What is found, and where."""
        (self.path / ".walstream").mkdir(exist_ok=True)
        files = FileSystem()
        store_identity(files, self.paths, SystemIdentity(SYSTEM_IDENTIFIER, SIZE, "18.6"))
        mark = EndMark(files, self.paths)
        if durable is not None:
            mark.write(WALPosition(1, LSN(durable)))
        mark.close()
        found = Verification(files, self.paths).findings()
        return [(finding.is_fault, finding.position) for finding in found]

    def test_each_is_found(self) -> None:
        """It is none of our business behind the end mark, and damage before, or when finished."""
        for name, room, make, _ in _fakes():
            with self.subTest(name):
                end = _EndOfWAL(room)
                path = self.path / (self.name(1) + ".partial")
                path.write_bytes(_segment(end, make(end)))
                self.assertEqual(self.verify(None), [(False, end.end)])
                self.assertEqual(self.verify(end.end), [])
                ((is_fault, position),) = self.verify(end.end + 6000)
                self.assertTrue(is_fault)
                self.assertIn(position, (end.end, end.page))
                path.rename(self.path / self.name(1))
                ((is_fault, again),) = self.verify(None)
                self.assertEqual((is_fault, again), (True, position))
                (self.path / self.name(1)).unlink()
                (self.path / ".walstream" / "end").unlink()
