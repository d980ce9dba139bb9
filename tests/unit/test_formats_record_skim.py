"""The quick way through WAL comes to what the long way does."""

from __future__ import annotations

import random

from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import DamagedWAL
from walstream.formats.page_rules import PageRules
from walstream.formats.pages import PAGE_SIZE
from walstream.formats.record_skim import GLUE, Ordinary, Skimmed, skim
from walstream.formats.record_walk import FoundRecord, RecordWalk, walk_through
from walstream.formats.segments import SegmentSize
from walstream.testing.wal import WALBuilder

_SIZE = SegmentSize(1 << 20)
_ORDINARY = Ordinary(0xD118, 1, 1 << 40)


def _mixed(seed: int, pages: int = 120) -> WALBuilder:
    chance = random.Random(seed)
    wal = WALBuilder(segment_size=_SIZE)
    while wal.end < wal.start + pages * PAGE_SIZE:
        kind = chance.random()
        if kind < 0.01:
            wal.crash()
        elif kind < 0.012:
            wal.switch()
        elif kind < 0.1:
            wal.noop(chance.randrange(60_000))
        else:
            wal.noop(chance.randrange(700))
    return wal


def _outcome(data: bytes, start: int, window: int, *, slowly: bool) -> tuple[object, ...]:
    """What a walk comes to: where it ended, with which records, and why."""
    walk = RecordWalk(start, PageRules(_SIZE), crc32c)
    found: list[FoundRecord] | None = [] if slowly else None
    reason = ""
    try:
        if slowly:
            for offset in range(0, len(data), window):
                needed = walk.needs - start
                walk.feed(walk.needs, data[needed : offset + window], found)
        else:
            walk_through(
                walk, start, (data[at : at + window] for at in range(0, len(data), window))
            )
    except DamagedWAL as error:
        reason = str(error)
    return walk.end, walk.first, walk.last, walk.records, walk.unfinished, reason


class SameTests(SynchronousTestCase):
    """A walk that skims, and one that does not because it is asked for the records."""

    def assert_same(self, data: bytes, start: int, window: int) -> None:
        """Both come to the same."""
        slow = _outcome(data, start, window, slowly=True)
        self.assertEqual(_outcome(data, start, window, slowly=False), slow)

    def test_good_wal(self) -> None:
        """With windows of all kinds, from any page on."""
        for seed in range(6):
            wal = _mixed(seed)
            for window in (PAGE_SIZE, 5 * PAGE_SIZE, 1 << 19):
                for page in (0, 3, 50):
                    start = wal.start + page * PAGE_SIZE
                    self.assert_same(wal.bytes(start), start, window)

    @settings(deadline=None, database=None, max_examples=200)
    @given(st.integers(0, 3), st.data())
    def test_damaged_wal(self, seed: int, data: st.DataObject) -> None:
        """Whatever is changed, wherever."""
        wal = _mixed(seed, 40)
        damaged = bytearray(wal.bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            offset = data.draw(st.integers(0, len(damaged) - 1))
            if data.draw(st.booleans()):
                offset -= offset % PAGE_SIZE - data.draw(st.integers(0, 40))
            damaged[min(offset, len(damaged) - 1)] = data.draw(st.integers(0, 255))
        self.assert_same(bytes(damaged), wal.start, 1 << 19)

    def test_every_bit_of_every_header(self) -> None:
        """Of pages on which a record begins, and of those on which one goes on."""
        wal = WALBuilder(segment_size=_SIZE)
        wal.noop(2 * PAGE_SIZE)
        for _ in range(3):
            wal.fill_to(wal.end - wal.end % PAGE_SIZE + PAGE_SIZE)
            wal.noop(5 * PAGE_SIZE)
        data = wal.bytes()
        for page in range(1, len(data) // PAGE_SIZE):
            for bit in range(8 * 24):
                damaged = bytearray(data)
                damaged[page * PAGE_SIZE + bit // 8] ^= 1 << bit % 8
                self.assert_same(bytes(damaged), wal.start, 1 << 19)

    def test_a_link_that_is_wrong(self) -> None:
        """Though the checksum is right, on a page and across two."""
        for size in (100, PAGE_SIZE):
            wal = WALBuilder(segment_size=_SIZE)
            for _ in range(30):
                wal.noop(1500)
            wal._last = wal.records[-2].lsn
            wrong = wal.noop(size)
            wal.fill_to(wal.end - wal.end % PAGE_SIZE + 9 * PAGE_SIZE)
            self.assert_same(wal.bytes(), wal.start, 1 << 19)
            outcome = _outcome(wal.bytes(), wal.start, 1 << 19, slowly=False)
            self.assertEqual(outcome[0], wrong.lsn)


class SkimTests(SynchronousTestCase):
    """`skim` itself."""

    def setUp(self) -> None:
        self.wal = WALBuilder(segment_size=_SIZE)
        for size in (0, 0, 300, 2000, 5, 30_000, 100, 20_000, 0):
            self.wal.noop(size)
        self.wal.fill_to(self.wal.end - self.wal.end % PAGE_SIZE + 3 * PAGE_SIZE)
        self.records = self.wal.records
        self.first = self.records[0]

    def skim(self, data: bytes, ordinary: Ordinary = _ORDINARY) -> Skimmed | None:
        """From the second record on."""
        return skim(self.wal.start, data, self.first.end, self.first.lsn, ordinary, crc32c)

    def test_glue(self) -> None:
        """Behind a record and its checksum it takes the checksum of all of it to 0."""
        for record in (b"", b"x", b"a longer one" * 50):
            whole = record + crc32c(record).to_bytes(4, "little")
            self.assertEqual(crc32c(whole + GLUE), 0)
            self.assertEqual(crc32c(GLUE, crc32c(whole)), 0)

    def test_goes_to_the_end(self) -> None:
        """All records of whole pages are passed, however long they are."""
        last = self.records[-1]
        self.assertEqual(
            self.skim(self.wal.bytes()), Skimmed(last.end, last.lsn, len(self.records) - 1)
        )

    def test_stops_before_what_is_cut(self) -> None:
        """A record of which not all is there is not passed, nor anything behind."""
        cut = self.records[5].lsn - self.wal.start + 2 * PAGE_SIZE
        skimmed = self.skim(self.wal.bytes()[: cut - cut % PAGE_SIZE])
        self.assertEqual(skimmed, Skimmed(self.records[5].lsn, self.records[4].lsn, 4))

    def test_stops_where_ordinary_pages_end(self) -> None:
        """There may be another timeline from there on."""
        end = self.wal.start + 3 * PAGE_SIZE
        skimmed = self.skim(self.wal.bytes(), _ORDINARY._replace(end=end))
        assert skimmed is not None
        self.assertLessEqual(skimmed.at, end)
        self.assertEqual(skimmed.at, self.records[5].lsn)

    def test_a_bad_checksum(self) -> None:
        """One is enough, the first or the last."""
        for record in (self.records[1], self.records[-1]):
            data = bytearray(self.wal.bytes())
            data[record.lsn - self.wal.start + 24 + 1] ^= 1
            self.assertIsNone(self.skim(bytes(data)))
