"""The ledger: what it says, how it is kept, and what is found missing."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.archives import IDENTITY, SIZE, DirectoryCase, history
from walstream.archive.holdings import Holdings, take_stock
from walstream.archive.ledger import (
    AcceptedGap,
    HeldRange,
    Hole,
    Ledger,
    change_ledger,
    format_ledger,
    load_ledger,
    now,
)
from walstream.errors import ArchiveError
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentFile
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import WALPosition

THEN, NOW = "2026-11-25T10:00:00+00:00", "2026-11-26T10:00:00+00:00"
EMPTY = Ledger(IDENTITY.system_identifier, SIZE)


def at(number: float, timeline: int = 1) -> WALPosition:
    """A position in a segment, or at its start."""
    return WALPosition(timeline, LSN(int(number * SIZE)))


def held(timeline: int, start: float, end: float | None = None) -> HeldRange:
    """A range from segment to segment."""
    return HeldRange(
        timeline, LSN(int(start * SIZE)), None if end is None else LSN(int(end * SIZE))
    )


class LedgerTests(SynchronousTestCase):
    """What happens to an archive, and what the ledger says then."""

    def test_begins(self) -> None:
        """With the first stream; the next ones on the same timeline are no news."""
        ledger = EMPTY.begun(at(5))
        self.assertEqual(ledger.ranges, (held(1, 5),))
        self.assertIs(ledger.begun(at(9)), ledger)

    def test_timelines(self) -> None:
        """One is left where the next begins, also where several were left unseen."""
        ledger = EMPTY.begun(at(5)).begun(at(7.5, 2), history(2, (1, int(7.5 * SIZE))))
        self.assertEqual(ledger.ranges, (held(1, 5, 7.5), held(2, 7.5)))
        jumps = history(4, (1, int(7.5 * SIZE)), (2, SIZE * 8), (3, SIZE * 9))
        ledger = EMPTY.begun(at(5)).begun(at(9, 4), jumps)
        self.assertEqual(
            ledger.ranges, (held(1, 5, 7.5), held(2, 7.5, 8), held(3, 8, 9), held(4, 9))
        )

    def test_back_on_the_old_timeline(self) -> None:
        """A process was killed before the first byte of the new one came: nothing is taken back."""
        ledger = EMPTY.begun(at(5)).begun(at(7, 2), history(2, (1, 7 * SIZE)))
        self.assertIs(ledger.begun(at(6)), ledger)

    def test_gap(self) -> None:
        """It closes the range before, and another begins behind it."""
        ledger = EMPTY.begun(at(5)).gap_accepted(at(7.5), at(9), THEN)
        self.assertEqual(ledger.ranges, (held(1, 5, 7.5), held(1, 9)))
        self.assertEqual(ledger.gaps, (AcceptedGap(1, at(7.5).lsn, 1, at(9).lsn, THEN),))

    def test_gap_that_grows(self) -> None:
        """If nothing has come behind it, it is the same one."""
        ledger = EMPTY.begun(at(5)).gap_accepted(at(7.5), at(9), THEN)
        ledger = ledger.gap_accepted(at(7.5), at(12, 2), NOW)
        self.assertEqual(ledger.ranges, (held(1, 5, 7.5), held(2, 12)))
        self.assertEqual(ledger.gaps, (AcceptedGap(1, at(7.5).lsn, 2, at(12).lsn, NOW),))
        ledger = ledger.gap_accepted(at(14, 2), at(16, 2), NOW)
        self.assertEqual(len(ledger.gaps), 2)

    def test_pending_gap(self) -> None:
        """For as long as nothing behind it is durable."""
        ledger = EMPTY.begun(at(5)).gap_accepted(at(7.5), at(9), THEN)
        for durable, pending in ((at(7.5), True), (at(9), True), (at(9.1), False)):
            self.assertEqual(ledger.pending_gap(durable) is not None, pending)
        self.assertIs(EMPTY.begun(at(5)).pending_gap(at(5)), None)

    def test_removed(self) -> None:
        """From the old end: ranges shrink and vanish, holes vanish, gaps stay on record."""
        ledger = EMPTY.begun(at(5)).gap_accepted(at(7.5), at(9), THEN)
        ledger = replace(ledger, holes=(Hole(1, at(6).lsn, at(7).lsn, THEN),))
        removed = ledger.removed(at(7).lsn)
        self.assertEqual(removed.ranges, (held(1, 7, 7.5), held(1, 9)))
        self.assertEqual((removed.holes, removed.gaps), ((), ledger.gaps))
        removed = ledger.removed(at(10).lsn)
        self.assertEqual((removed.ranges, removed.gaps), ((held(1, 10),), ledger.gaps))
        self.assertIs(removed.removed(at(9).lsn), removed)

    def test_left(self) -> None:
        """What lies beyond the point where a timeline was left."""
        ledger = EMPTY.begun(at(5)).begun(at(7.5, 2), history(2, (1, int(7.5 * SIZE))))
        self.assertFalse(ledger.is_left(1, at(7).lsn))
        self.assertTrue(ledger.is_left(1, at(8).lsn))
        self.assertFalse(ledger.is_left(2, at(8).lsn))
        self.assertFalse(ledger.is_left(3, at(8).lsn))

    def test_segments_of_a_hole(self) -> None:
        """By name, the one in which it begins or ends included."""
        hole = Hole(1, at(6.5).lsn, at(8).lsn, NOW)
        self.assertEqual(hole.segments(SIZE), [SIZE.name(1, 6), SIZE.name(1, 7)])


class LedgerFileTests(DirectoryCase):
    """`load_ledger` and `change_ledger`."""

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.paths.own)

    def change(self, ledger: Ledger) -> Ledger:
        return change_ledger(self.files, self.paths, lambda _: ledger)

    def test_round_trip(self) -> None:
        """What was written is read."""
        self.assertIs(load_ledger(self.files, self.paths), None)
        ledger = EMPTY.begun(at(5)).gap_accepted(at(7.5), at(9), now()).removed(at(6).lsn)
        ledger = replace(ledger, holes=(Hole(1, at(6).lsn, at(7).lsn, THEN),))
        self.assertEqual(self.change(ledger), ledger)
        self.assertEqual(load_ledger(self.files, self.paths), ledger)

    def test_durably(self) -> None:
        """Contents before name before directory; and not at all if nothing changes."""
        self.change(EMPTY)
        self.files.calls.clear()
        self.change(EMPTY)
        self.assertEqual(self.files.calls, ["create .walstream/ledger.lock"])
        self.change(EMPTY.begun(at(5)))
        self.assertEqual(
            self.files.calls[-4:],
            [
                "create .walstream/ledger.incoming",
                "fsync .walstream/ledger.incoming",
                "rename .walstream/ledger.incoming",
                "fsync .walstream",
            ],
        )

    def test_failure(self) -> None:
        """The old one stays."""
        self.change(EMPTY)
        self.files.fail("fsync .walstream/ledger.incoming", errno.ENOSPC)
        self.assertRaises(OSError, self.change, EMPTY.begun(at(5)))
        self.assertEqual(load_ledger(self.files, self.paths), EMPTY)
        self.assertEqual(self.files.open_files, [])

    def test_damage(self) -> None:
        """Is refused, and the way out is named."""
        good = json.loads(format_ledger(EMPTY.begun(at(5)).gap_accepted(at(7), at(9), NOW)))
        for damage in (
            b"",
            b"[]",
            b"{}",
            json.dumps({**good, "format": 2}).encode(),
            json.dumps({**good, "segment_size": 5}).encode(),
            json.dumps({**good, "removed_before": "x"}).encode(),
            json.dumps({**good, "ranges": good["ranges"][::-1]}).encode(),
            json.dumps({**good, "ranges": good["ranges"][:1]}).encode(),
            json.dumps({**good, "gaps": [{"start": "0/1"}]}).encode(),
            format_ledger(EMPTY)[:-10],
        ):
            with open(self.paths.ledger, "wb") as file:
                file.write(damage)
            error = self.assertRaises(ArchiveError, load_ledger, self.files, self.paths)
            self.assertIn("ledger.json is damaged", str(error))
            self.assertIn("remove it", str(error))


class StocktakingTests(SynchronousTestCase):
    """`take_stock`: the names in the directory against the ledger."""

    def stock(
        self,
        ledger: Ledger | None,
        end: WALPosition,
        *names: tuple[int, int],
        partials: tuple[tuple[int, int], ...] = (),
        histories: tuple[TimelineHistory, ...] = (),
    ) -> Ledger:
        """Take stock of segments, by timeline and number."""
        known = {each.timeline: each for each in histories}
        known.setdefault(1, TimelineHistory(1, ()))
        files = [SegmentFile(*each, None, False) for each in names]
        files += [SegmentFile(*each, None, True) for each in partials]
        return take_stock(ledger, IDENTITY, Holdings.of(files), end, known.get, NOW)

    def holes(self, ledger: Ledger) -> list[tuple[int, float, float]]:
        return [(each.timeline, each.start / SIZE, each.end / SIZE) for each in ledger.holes]

    def test_archive_without_a_ledger(self) -> None:
        """Gets one of what is there."""
        ledger = self.stock(None, at(8), (1, 5), (1, 6), (1, 7))
        self.assertEqual((ledger.ranges, ledger.holes), ((held(1, 5),), ()))

    def test_archive_without_a_ledger_on_several_timelines(self) -> None:
        """Along the history of its end; without that file, by the first segments of each."""
        names = ((1, 5), (2, 6), (2, 7), (3, 8))
        past = history(3, (1, int(6.5 * SIZE)), (2, SIZE * 8))
        partials = ((1, 6), (3, 9))
        ledger = self.stock(None, at(9, 3), *names, partials=partials, histories=(past,))
        self.assertEqual(ledger.ranges, (held(1, 5, 6.5), held(2, 6.5, 8), held(3, 8)))
        self.assertEqual(ledger.holes, ())
        ledger = self.stock(None, at(9, 3), *names, partials=partials)
        self.assertEqual(ledger.ranges, (held(1, 5, 6), held(2, 6, 8), held(3, 8)))
        self.assertEqual(ledger.holes, ())

    def test_hole(self) -> None:
        """Runs of what is missing; known for as long as it is there, and no longer. (L11)"""
        ledger = self.stock(None, at(12), (1, 5), (1, 6), (1, 8), (1, 11))
        self.assertEqual(self.holes(ledger), [(1, 7, 8), (1, 9, 11)])
        later = replace(ledger, holes=(Hole(1, at(9).lsn, at(11).lsn, THEN),))
        later = self.stock(later, at(13), (1, 5), (1, 6), (1, 7), (1, 8), (1, 10), (1, 11), (1, 12))
        self.assertEqual(self.holes(later), [(1, 9, 10)])
        self.assertEqual(later.holes[0].found, THEN)
        later = self.stock(later, at(8), *((1, number) for number in range(5, 13)))
        self.assertEqual(later.holes, ())

    def test_end_of_a_timeline(self) -> None:
        """Its last segment may be whole on the next one only."""
        past = history(2, (1, int(6.5 * SIZE)))
        ledger = EMPTY.begun(at(5)).begun(at(6.5, 2), past)
        for names, partials, holes in (
            (((1, 5), (2, 6), (2, 7)), (), []),
            (((1, 5), (2, 6), (2, 7)), ((1, 6),), []),
            (((1, 5), (2, 7)), ((1, 6),), [(2, 6.5, 7)]),
            (((1, 5), (2, 7)), (), [(1, 6, 6.5), (2, 6.5, 7)]),
            (((2, 6), (2, 7)), (), []),
        ):
            stock = self.stock(ledger, at(8, 2), *names, partials=partials)
            self.assertEqual(self.holes(stock), holes, (names, partials))

    def test_gap_is_no_hole(self) -> None:
        """Of what was accepted nothing is expected; around it everything."""
        ledger = EMPTY.begun(at(5)).gap_accepted(at(6.5), at(9), THEN)
        stock = self.stock(ledger, at(11), (1, 5), (1, 9), (1, 10), partials=((1, 6),))
        self.assertEqual((stock.holes, stock.gaps), ((), ledger.gaps))
        stock = self.stock(ledger, at(11), (1, 5), (1, 10))
        self.assertEqual(self.holes(stock), [(1, 6, 6.5), (1, 9, 10)])

    def test_removed_from_the_old_end(self) -> None:
        """As pg_archivecleanup does it."""
        ledger = EMPTY.begun(at(5))
        stock = self.stock(ledger, at(9), (1, 7), (1, 8))
        self.assertEqual((stock.holes, stock.removed_before), ((), at(7).lsn))
        self.assertEqual(stock.ranges, (held(1, 7),))

    def test_gone_on_with_by_another_program(self) -> None:
        """pg_receivewal has followed a promotion meanwhile."""
        past = history(2, (1, int(6.5 * SIZE)))
        ledger = EMPTY.begun(at(5))
        stock = self.stock(ledger, at(8, 2), (1, 5), (2, 6), (2, 7), histories=(past,))
        self.assertEqual((stock.ranges, stock.holes), ((held(1, 5, 6.5), held(2, 6.5)), ()))

    def test_nothing_is_there(self) -> None:
        """All of it is a hole, up to where it ended."""
        self.assertEqual(self.stock(EMPTY.begun(at(5)), at(5)).holes, ())
        self.assertEqual(self.holes(self.stock(EMPTY.begun(at(5)), at(8.5))), [(1, 5, 8)])

    @given(st.sets(st.integers(6, 19)), st.integers(5, 20))
    def test_whatever_is_missing(self, missing: set[int], end: int) -> None:
        """The holes are what is missing, no more and no less."""
        there = set(range(5, end)) - missing
        stock = self.stock(EMPTY.begun(at(5)), at(end), *((1, number) for number in there))
        found = {
            number for hole in stock.holes for number in range(hole.start // SIZE, hole.end // SIZE)
        }
        self.assertEqual(found, {number for number in missing if number < end})
