"""Tests for walstream.archive.inventory and coverage: what is there, and what is missing."""

from __future__ import annotations

import os
from collections.abc import Callable

from tests.unit.archives import IDENTITY, SIZE, DirectoryCase
from walstream.archive.coverage import (
    Gap,
    Run,
    current_timeline,
    find_gaps,
    missing_histories,
    runs_of,
)
from walstream.archive.end_mark import EndMark
from walstream.archive.inventory import Inventory, take_inventory
from walstream.archive.ledger import Ledger, change_ledger
from walstream.errors import ArchiveError
from walstream.formats.lsn import LSN
from walstream.formats.positions import WALPosition
from walstream.formats.segments import backup_history_name


class InventoryCase(DirectoryCase):
    """Takes inventories."""

    def inventory(self) -> Inventory:
        """What is there."""
        return take_inventory(self.files, self.paths)

    def put_segments(self, first: int, last: int, timeline: int = 1) -> None:
        """Put segments there, the last included."""
        for number in range(first, last + 1):
            self.put_segment(number, timeline)

    def put_compressed(self, number: int, suffix: str = "gz", timeline: int = 1) -> None:
        """Put something there that has a compressed segment's name."""
        (self.path / f"{self.name(number, timeline)}.{suffix}").write_bytes(b"small")


class InventoryTests(InventoryCase):
    """What is found in a directory."""

    def test_nothing(self) -> None:
        """An empty directory holds nothing, and tells nobody's WAL."""
        self.assertEqual(self.inventory(), Inventory())

    def test_segments(self) -> None:
        """Finished ones and others, in their order, with their forms and sizes."""
        self.put_segment(7)
        self.put_segment(6)
        self.put_compressed(5, "zst")
        self.put_segment(8, partial=True)
        found = self.inventory()
        self.assertEqual(found.identity and found.identity.segment_size, IDENTITY.segment_size)
        self.assertEqual(
            [(held.number, held.compression, held.on_disk) for held in found.segments],
            [(5, "zst", 5), (6, None, SIZE), (7, None, SIZE)],
        )
        self.assertEqual([held.name for held in found.partials], [self.name(8) + ".partial"])

    def test_no_segment_but_the_newest_is_opened(self) -> None:
        """There may be a hundred thousand, on a slow disk."""
        self.put_segments(3, 9)
        opened: list[str] = []
        really_open = self.files.open

        def noting(path: str, flags: int) -> int:
            opened.append(path)
            return really_open(path, flags)

        self.files.open = noting  # type: ignore[method-assign]
        self.inventory()
        self.assertEqual({os.path.basename(path) for path in opened}, {self.name(9)})

    def test_documents(self) -> None:
        """Histories are read; of backups the names tell enough."""
        self.put_segment(3)
        self.put_history(2, (1, SIZE.start(4)))
        start = LSN(SIZE.start(3) + 0x28)
        (self.path / backup_history_name(1, start, SIZE)).write_bytes(b"")
        found = self.inventory()
        self.assertEqual(list(found.histories), [2])
        self.assertEqual(list(found.backups.values()), [WALPosition(1, start)])

    def test_what_does_not_count(self) -> None:
        """A segment that a full disk cut off, and files that have no business there."""
        self.put_segment(4)
        self.put_segment(3).write_bytes(b"short")
        (self.path / "notes.txt").write_bytes(b"")
        found = self.inventory()
        self.assertEqual((found.skipped, found.foreign), ([self.name(3)], ["notes.txt"]))
        self.assertEqual([held.number for held in found.segments], [4])

    def test_a_servers_own_directory(self) -> None:
        """Is no archive."""
        (self.path / "archive_status").mkdir()
        with self.assertRaisesRegex(ArchiveError, "pg_wal"):
            self.inventory()


class GapTests(InventoryCase):
    """What is missing between the oldest and the newest."""

    def gaps(self) -> list[Run]:
        """What is missing."""
        return [Run(*gap[:3]) for gap in find_gaps(self.inventory())]

    def change_ledger(self, change: Callable[[Ledger], Ledger]) -> None:
        """Have the ledger say something."""
        empty = Ledger(IDENTITY.system_identifier, IDENTITY.segment_size)
        change_ledger(self.files, self.paths, lambda ledger: change(ledger or empty))

    def test_none(self) -> None:
        """Whole, whatever the forms: one segment may be there in two."""
        self.put_segments(3, 5)
        self.put_compressed(5)
        self.put_compressed(6)
        self.put_segment(7, partial=True)
        self.assertEqual(self.gaps(), [])
        self.assertEqual(runs_of(self.inventory().segments), [Run(1, 3, 6)])

    def test_in_the_middle(self) -> None:
        """Each hole is told for itself."""
        for number in (3, 5, 6, 9):
            self.put_segment(number)
        self.assertEqual(self.gaps(), [Run(1, 4, 4), Run(1, 7, 8)])

    def test_before_the_unfinished(self) -> None:
        """What is received continues what is there."""
        self.put_segment(3)
        self.put_segment(5, partial=True)
        self.assertEqual(self.gaps(), [Run(1, 4, 4)])

    def test_an_unfinished_one_in_the_middle(self) -> None:
        """Is none that recovery can pass."""
        self.put_segments(3, 4)
        self.put_segment(5, partial=True)
        self.put_segment(6)
        self.put_history(2, (1, SIZE.start(6)))
        self.put_segments(6, 7, timeline=2)
        self.assertIn(Run(1, 5, 5), self.gaps())

    def test_over_timelines(self) -> None:
        """The new timeline has the segment in which it began; before it the old one's count."""
        self.put_segments(3, 4)
        self.put_segment(5, partial=True)
        self.put_history(2, (1, SIZE.start(5) + 800))
        self.put_segments(5, 6, timeline=2)
        self.assertEqual(self.gaps(), [])
        self.assertEqual(current_timeline(self.inventory()), 2)
        (self.path / self.name(5, 2)).unlink()
        self.assertEqual(self.gaps(), [Run(2, 5, 5)])
        (self.path / self.name(4)).unlink()
        self.assertEqual(self.gaps(), [Run(1, 4, 4), Run(2, 5, 5)])

    def test_on_a_boundary(self) -> None:
        """A timeline that was left at a segment's end was finished."""
        self.put_segments(3, 4)
        self.put_history(2, (1, SIZE.start(5)))
        self.put_segments(5, 6, timeline=2)
        self.assertEqual(self.gaps(), [])

    def test_a_timeline_within_a_segment(self) -> None:
        """Two promotions in one segment: of the timeline between nothing is needed."""
        self.put_segments(3, 4)
        self.put_history(3, (1, SIZE.start(5) + 800), (2, SIZE.start(5) + 1600))
        self.put_segments(5, 6, timeline=3)
        self.assertEqual(self.gaps(), [])

    def test_an_abandoned_branch(self) -> None:
        """Is whole in itself, beside the one that goes on."""
        self.put_segments(3, 8)
        self.put_history(2, (1, SIZE.start(5) + 800))
        self.put_segments(5, 6, timeline=2)
        self.assertEqual(self.gaps(), [])
        self.assertEqual(current_timeline(self.inventory()), 1)

    def test_what_was_removed(self) -> None:
        """Is no gap; nor are leftovers of a removal that was not done to the end."""
        self.put_segments(5, 6)
        self.put_segment(2)
        self.assertEqual(self.gaps(), [Run(1, 3, 4)])
        self.change_ledger(lambda ledger: ledger.removed(SIZE.start(5)))
        self.assertEqual(self.gaps(), [])
        (self.path / self.name(5)).unlink()
        self.assertEqual(self.gaps(), [Run(1, 5, 5)])

    def test_what_is_durable_has_to_be_there(self) -> None:
        """Also if it is the newest that is missing."""
        self.put_segments(5, 6)
        os.makedirs(self.paths.own)
        mark = EndMark(self.files, self.paths)
        self.addCleanup(mark.close)
        mark.write(WALPosition(1, LSN(SIZE.start(7))))
        self.assertEqual(self.gaps(), [])
        mark.write(WALPosition(1, LSN(SIZE.start(7) + 1)))
        self.assertEqual(self.gaps(), [Run(1, 7, 7)])
        self.put_segment(7, partial=True)
        self.assertEqual(self.gaps(), [])

    def test_an_accepted_gap(self) -> None:
        """Is shown for ever after, with when; what is missing besides is another."""
        for number in (3, 8):
            self.put_segment(number)
        self.put_segment(4, partial=True)
        start, end = WALPosition(1, LSN(SIZE.start(4) + 800)), WALPosition(1, SIZE.start(7))
        self.change_ledger(lambda ledger: ledger.gap_accepted(start, end, "2026-11-23"))
        self.assertEqual(
            find_gaps(self.inventory()),
            [Gap(1, 4, 6, "2026-11-23"), Gap(1, 7, 7)],
        )

    def test_missing_histories(self) -> None:
        """Without them nothing is known of the line."""
        self.put_segments(5, 6, timeline=3)
        self.assertEqual(missing_histories(self.inventory()), [3])
        self.put_history(3, (1, SIZE.start(5)))
        self.assertEqual(missing_histories(self.inventory()), [])
