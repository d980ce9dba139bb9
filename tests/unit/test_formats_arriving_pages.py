"""What `walstream.formats.arriving_pages` and `walstream.formats.page_rules` promise."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import DamagedWAL
from walstream.formats.arriving_pages import ArrivingPages
from walstream.formats.lsn import LSN
from walstream.formats.page_rules import PageRules
from walstream.formats.pages import (
    LONG_HEADER,
    PAGE_SIZE,
    PageHeader,
    SegmentHeader,
    magic_of,
)
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory, TimelineSwitch
from walstream.testing.wal import SYSTEM_IDENTIFIER, WALBuilder

_SIZE = SegmentSize(1 << 20)
_START = 0x100000
_FIRST = TimelineHistory(1, ())


def _history(timeline: int, *switches: tuple[int, int]) -> TimelineHistory:
    return TimelineHistory(
        timeline, tuple(TimelineSwitch(past, LSN(at), "") for past, at in switches)
    )


def _mixed(major: int = 18) -> WALBuilder:
    """WAL with everything in it: long records, a switch, a crash, three segments."""
    wal = WALBuilder(segment_size=_SIZE, major=major)
    wal.noop(100)
    wal.noop(5 * PAGE_SIZE)
    wal.crash()
    wal.noop(300_000)
    wal.switch()
    wal.noop(_SIZE)
    return wal


class _Case(SynchronousTestCase):
    def pages(
        self,
        history: TimelineHistory | None = _FIRST,
        major: int | None = 18,
        system_identifier: int = SYSTEM_IDENTIFIER,
    ) -> ArrivingPages:
        """A check of a stream from `_START` on."""
        magic = None if major is None else magic_of(major)
        rules = PageRules(_SIZE, history=history, system_identifier=system_identifier, magic=magic)
        return ArrivingPages(_START, rules)

    def check(self, data: bytes, pages: ArrivingPages | None = None) -> None:
        """Check WAL that comes in pieces of every kind, and as a whole."""
        for size in (len(data), PAGE_SIZE, 100_000, 8191, 1000):
            checked = pages or self.pages()
            for offset in range(0, len(data), size):
                checked.check(_START + offset, memoryview(data)[offset : offset + size])
            if pages is not None:
                break

    def refusal(self, data: bytes, pages: ArrivingPages | None = None) -> DamagedWAL:
        """Why WAL is not taken, whatever pieces it comes in."""
        if pages is not None:
            found: DamagedWAL = self.assertRaises(DamagedWAL, self.check, data, pages)
            return found
        texts = set()
        for size in (len(data), PAGE_SIZE, 100_000, 8191, 7):
            pages = self.pages()

            def feed(checked: ArrivingPages = pages, size: int = size) -> None:
                for offset in range(0, len(data), size):
                    checked.check(_START + offset, memoryview(data)[offset : offset + size])

            error: DamagedWAL = self.assertRaises(DamagedWAL, feed)
            texts.add(str(error))
        self.assertEqual(len(texts), 1, texts)
        return error


class GoodPagesTests(_Case):
    """WAL as servers send it passes, in whatever pieces."""

    def test_every_version(self) -> None:
        """With long records, switches and overwritten records in it."""
        for major in range(11, 19):
            data = _mixed(major).bytes()
            for known in (major, None):
                self.check(data, self.pages(major=known))

    def test_any_pieces(self) -> None:
        """Headers may be cut anywhere."""
        self.check(_mixed().bytes())

    @settings(deadline=None, database=None, max_examples=30)
    @given(st.lists(st.integers(1, 20000), min_size=1, max_size=50), st.integers(1, 60))
    def test_random_pieces(self, sizes: list[int], small: int) -> None:
        """Of any sizes, in any order."""
        data = memoryview(_mixed().bytes())
        pages, offset, turn = self.pages(), 0, 0
        while offset < len(data):
            size = sizes[turn % len(sizes)] if turn % 3 else small
            pages.check(_START + offset, data[offset : offset + size])
            offset, turn = offset + size, turn + 1

    def test_headers_behind_a_switch(self) -> None:
        """Until version 10, the pages that a switch leaves unused have headers."""
        wal = WALBuilder(segment_size=_SIZE, major=11)
        wal.switch()
        data = bytearray(wal.bytes())
        for offset in range(0, _SIZE, PAGE_SIZE):
            header = SegmentHeader.parse(data) if not offset else None
            page = PageHeader(magic_of(10), 0, 1, LSN(_START + offset), 0)
            if header is not None:
                data[:2] = page.pack()[:2]
            else:
                data[offset : offset + 24] = page.pack()
        self.check(bytes(data), self.pages(major=10))
        zeros = bytes(data[:PAGE_SIZE]).ljust(_SIZE, b"\0")
        error = self.refusal(zeros, self.pages(major=10))
        self.assertEqual(error.position, _START + PAGE_SIZE)

    def test_a_new_timeline(self) -> None:
        """Its first segment begins with pages of the old one, up to the one of the switch."""
        wal = WALBuilder(segment_size=_SIZE)
        wal.noop(3 * PAGE_SIZE)
        child = wal.branch(2)
        child.noop(5 * PAGE_SIZE)
        self.check(child.bytes(), self.pages(_history(2, (1, wal.end))))
        self.check(child.bytes(), self.pages(_history(2)))  # ancestors may be unknown

    def test_long_header_elsewhere(self) -> None:
        """PostgreSQL's reader has no objection, if what it says is right."""
        wal = WALBuilder(segment_size=_SIZE)
        wal.noop(100)
        data = bytearray(wal.bytes().ljust(3 * PAGE_SIZE, b"\0"))
        for page in (1, 2):
            fields = (magic_of(18), LONG_HEADER, 1, LSN(_START + page * PAGE_SIZE), 0)
            header = SegmentHeader(*fields, SYSTEM_IDENTIFIER, _SIZE, PAGE_SIZE)
            data[page * PAGE_SIZE : page * PAGE_SIZE + 40] = header.pack()
        self.check(bytes(data))
        data[2 * PAGE_SIZE + 24] ^= 1
        self.assertIn("system identifier", str(self.refusal(bytes(data))))


class BadPagesTests(_Case):
    """What cannot be WAL there is refused, with what was expected and what came."""

    def setUp(self) -> None:
        wal = WALBuilder(segment_size=_SIZE)
        wal.fill_to(_START + 2 * _SIZE - PAGE_SIZE)
        self.data = wal.bytes()

    def damaged(self, offset: int, data: bytes) -> bytes:
        """The WAL with other bytes in it."""
        return self.data[:offset] + data + self.data[offset + len(data) :]

    def test_what_is_wrong_is_said(self) -> None:
        """Every field of a header is looked at."""
        page, segment = 5 * PAGE_SIZE, _SIZE
        for offset, data, reason in (
            (page, b"\x16", "0/10A000: the page's magic should be D118, but is D116"),
            (page, b"\x18\x20", "should be one of WAL, but is not a WAL page: magic 2018"),
            (page + 2, b"\x21", "not a WAL page: flags 0021"),
            (page + 4, b"\x02", "the page's timeline should be 1, but is 2"),
            (page + 4, b"\x00", "the page's timeline should be 1, but is 0"),
            (page + 8, b"\x00\x00", "the page's address should be 0/10A000, but is 0/100000"),
            (page + 16, bytes(4), "should be at least one byte, but is nothing"),
            (segment + 2, b"\x01", "the header should be that of a segment, but is that of a page"),
            (segment + 24, b"\x00", "the system identifier should be 7423190665107412305, but is"),
            (segment + 32, b"\x00\x00\x20", "the segment size should be 1048576, but is 2097152"),
            (segment + 36, b"\x00\x40", "the page size should be 8192, but is 16384"),
        ):
            error = self.refusal(self.damaged(offset, data))
            self.assertRegex(str(error), reason)
            self.assertEqual(error.position, _START + offset - offset % PAGE_SIZE)

    def test_every_byte_of_a_header(self) -> None:
        """But for the padding, and what only the records tell."""
        for page, size in ((_SIZE, 40), (7 * PAGE_SIZE, 24)):
            for offset in range(page, page + size):
                if 16 <= offset - page < 24:
                    continue
                changed = bytes([self.data[offset] ^ 0x80])
                self.refusal(self.damaged(offset, changed))

    def test_a_header_that_came_in_part(self) -> None:
        """What has come of it is not taken if it is wrong, whatever may follow."""
        page = 7 * PAGE_SIZE
        for offset in (*range(16), *range(24, 24)):
            changed = bytes([self.data[page + offset] ^ 0x80])
            cut = self.damaged(page + offset, changed)[: page + offset + 1]
            self.refusal(cut)

    def test_rest_of_a_record(self) -> None:
        """A record that fills pages tells what the next one has to say."""
        wal = WALBuilder(segment_size=_SIZE)
        wal.noop(10 * PAGE_SIZE)
        data = bytearray(wal.bytes())
        data[5 * PAGE_SIZE + 16] ^= 1
        self.assertIn("what remains of the record", str(self.refusal(bytes(data))))
        data[5 * PAGE_SIZE + 16] ^= 1
        data[5 * PAGE_SIZE + 2 : 5 * PAGE_SIZE + 3] = b"\0"
        data[5 * PAGE_SIZE + 16 : 5 * PAGE_SIZE + 20] = bytes(4)
        self.assertIn("but is nothing", str(self.refusal(bytes(data))))

    def test_zeros_must_go_on(self) -> None:
        """Behind a page of zeros, header and all, there is nothing more in the segment."""
        wal = WALBuilder(segment_size=_SIZE)
        wal.switch()
        data = bytearray(wal.bytes())
        data[-5] = 7
        error = self.refusal(bytes(data))
        self.assertEqual((error.position, error.found), (_START + _SIZE - 5, "07"))
        hole = self.damaged(3 * PAGE_SIZE, bytes(PAGE_SIZE))
        error = self.refusal(hole)
        self.assertEqual(error.position, _START + 4 * PAGE_SIZE)

    def test_a_segment_cannot_be_zeros(self) -> None:
        """Not from its very beginning."""
        self.refusal(self.damaged(_SIZE, bytes(PAGE_SIZE)))

    def test_another_cluster(self) -> None:
        """The first header tells."""
        error = self.refusal(self.data, self.pages(system_identifier=5))
        self.assertEqual((error.expected, error.found), ("5", str(SYSTEM_IDENTIFIER)))

    def test_another_version(self) -> None:
        """The server said which it is; and if not, the first header does, and all must agree."""
        self.assertIn("D116", str(self.refusal(self.data, self.pages(major=17))))
        changed = self.damaged(_SIZE, b"\x16")
        self.assertIn("D118", str(self.refusal(changed, self.pages(major=None))))

    def test_timelines(self) -> None:
        """A page is on the timeline that the history says, from the switch point's page on."""
        wal = WALBuilder(segment_size=_SIZE)
        wal.noop(3 * PAGE_SIZE)
        child = wal.branch(2)
        child.noop(5 * PAGE_SIZE)
        early = _history(2, (1, wal.end - PAGE_SIZE))
        late = _history(2, (1, wal.end + PAGE_SIZE))
        self.assertIn("should be 2, but is 1", str(self.refusal(child.bytes(), self.pages(early))))
        self.assertIn("should be 1, but is 2", str(self.refusal(child.bytes(), self.pages(late))))
        self.assertIn("should be 1, but is 2", str(self.refusal(child.bytes())))
        back = child.bytes() + wal.bytes()[:0]
        changed = bytearray(back)
        changed[6 * PAGE_SIZE + 4] = 1
        error = self.refusal(bytes(changed), self.pages(_history(2)))
        self.assertIn("the page's timeline should be 2, but is 1", str(error))

    def test_what_was_refused_does_not_count(self) -> None:
        """When it comes again, all of it is looked at again."""
        pages = self.pages()
        cut = 2 * PAGE_SIZE + 10
        pages.check(_START, memoryview(self.data)[:cut])
        bad = self.damaged(5 * PAGE_SIZE, b"\0")
        for _ in range(2):
            error = self.assertRaises(DamagedWAL, pages.check, _START + cut, memoryview(bad)[cut:])
            self.assertEqual(error.position, _START + 5 * PAGE_SIZE)
        worse = self.damaged(3 * PAGE_SIZE, b"\x01")
        self.assertRaises(DamagedWAL, pages.check, _START + cut, memoryview(worse)[cut:])
        pages.check(_START + cut, memoryview(self.data)[cut:])
