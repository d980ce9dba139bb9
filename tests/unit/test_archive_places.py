"""Tests for walstream.archive.places and readers: what is read is known to whoever removes WAL."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from twisted.internet.task import Clock

from tests.unit.archives import SIZE, START, ArchiveCase, DirectoryCase
from tests.unit.log_capture import capture_log
from walstream.archive.places import Place, Places
from walstream.archive.readers import ReaderFile, active_readers, retention_lock
from walstream.archive.retention import RetentionPolicy, prune
from walstream.archive.slot_files import SlotFiles
from walstream.archive.trail import MOMENT
from walstream.formats.lsn import LSN
from walstream.interfaces import Slot, WALPosition
from walstream.testing.disk import ManualLane


def position(number: int) -> WALPosition:
    """Where a segment begins."""
    return WALPosition(1, SIZE.start(number))


class ReaderFileTests(DirectoryCase):
    """The file that says what a process needs."""

    def needed(self) -> list[WALPosition | None]:
        """What the living processes need."""
        return [reader.position for reader in active_readers(self.files, self.paths)]

    def test_nobody(self) -> None:
        """Before anything was read there is no file, and no directory."""
        self.assertEqual(self.needed(), [])

    def test_it_says_where(self) -> None:
        """From the beginning on, and then further."""
        reader = ReaderFile(self.files, self.paths)
        reader.begin(position(5))
        self.assertEqual(self.needed(), [position(5)])
        reader.move(position(7))
        self.assertEqual(self.needed(), [position(7)])
        reader.move(None)
        self.assertEqual(self.needed(), [None])
        reader.close()
        self.assertEqual(os.listdir(self.paths.readers), [])

    def test_a_dead_process_needs_nothing(self) -> None:
        """Its lock has ended with it, its file has not."""
        reader = ReaderFile(self.files, self.paths)
        reader.begin(position(5))
        assert reader._fd is not None
        self.files.close(reader._fd)
        self.assertEqual(self.needed(), [])
        self.assertEqual(len(os.listdir(self.paths.readers)), 1)

    def test_who_removes_is_waited_for(self) -> None:
        """What it looked at must still be so when it removes."""
        with retention_lock(self.files, self.paths, shared=False):
            other = self.files.open(self.paths.retention, os.O_RDWR)
            with self.assertRaises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
            self.files.close(other)


class PlacesTests(DirectoryCase):
    """The places of a process, of which the one furthest back counts."""

    def setUp(self) -> None:
        super().setUp()
        self.lane = ManualLane()
        self.places = Places(self.files, self.paths, self.lane)
        self.addCleanup(self.places.close)
        self.addCleanup(self.lane.release)

    def told(self) -> WALPosition | None:
        """What others know."""
        (reader,) = active_readers(self.files, self.paths)
        return reader.position

    def enter(self, number: int) -> Place:
        """A cursor begins to read."""
        return self.successResultOf(self.places.enter(position(number)))

    def test_the_one_furthest_back_counts(self) -> None:
        """Whoever moves or leaves."""
        late, early = self.enter(8), self.enter(6)
        self.assertEqual(self.told(), position(6))
        early.move(position(7))
        self.assertEqual(self.told(), position(7))
        early.move(position(9))
        self.assertEqual(self.told(), position(8))
        late.leave()
        self.assertEqual(self.told(), position(9))
        early.leave()
        self.assertIsNone(self.told())

    def test_it_is_told_before_anything_is_read(self) -> None:
        """Not only soon after."""
        self.lane.is_held = True
        entered = self.places.enter(position(6))
        self.assertNoResult(entered)
        self.lane.release()
        self.successResultOf(entered)
        self.assertEqual(self.told(), position(6))

    def test_what_is_covered_is_not_told_again(self) -> None:
        """The second client costs nothing."""
        self.enter(6)
        self.lane.is_held = True
        self.enter(8)
        self.assertEqual(self.lane.waiting, 0)

    def test_what_is_being_told_does_not_cover(self) -> None:
        """It may be a position further on, which has been decided upon already."""
        first = self.enter(6)
        self.lane.is_held = True
        first.move(position(9))
        entered = self.places.enter(position(7))
        self.assertNoResult(entered)
        self.lane.release()
        self.successResultOf(entered)
        self.assertEqual(self.told(), position(7))

    def test_a_disk_that_cannot_be_written(self) -> None:
        """Is read from all the same, and it is said once."""
        self.files.make_directory = failing  # type: ignore[method-assign]
        log = capture_log(self)
        self.enter(6).leave()
        self.enter(5)
        self.assertEqual(sum("cannot be written" in text for text in log), 1)

    def test_after_the_end(self) -> None:
        """A cursor may be closed after its archive."""
        place = self.enter(6)
        self.successResultOf(self.places.close())
        place.leave()
        self.assertEqual(os.listdir(self.paths.readers), [])


class TrailTests(DirectoryCase):
    """A client that is gone for a moment finds what it was reading. (L15)"""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.clock.advance(1000.5)
        self.places = Places(self.files, self.paths, ManualLane(), self.clock)
        self.addCleanup(self.places.close)

    def told(self) -> tuple[WALPosition | None, WALPosition | None]:
        """What others know: what is read now, and what was a moment ago."""
        (reader,) = active_readers(self.files, self.paths)
        self.assertTrue(reader.is_clear)
        return reader.position, reader.lately

    def enter(self, number: int) -> Place:
        """A cursor begins to read."""
        return self.successResultOf(self.places.enter(position(number)))

    def pass_time(self, seconds: int) -> None:
        """So many seconds pass."""
        self.clock.pump([1] * seconds)

    def test_who_has_left(self) -> None:
        """Its WAL is held for a moment longer, and then not."""
        self.enter(6).leave()
        self.assertEqual(self.told(), (None, position(6)))
        self.pass_time(MOMENT - 1)
        self.assertEqual(self.told(), (None, position(6)))
        self.pass_time(3)
        self.assertEqual(self.told(), (None, None))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_goes_on(self) -> None:
        """What it was sent in the last moment need not have arrived."""
        place = self.enter(6)
        place.move(position(7))
        self.pass_time(MOMENT // 2)
        place.move(position(8))
        place.move(position(9))
        self.assertEqual(self.told(), (position(9), position(6)))
        self.pass_time(MOMENT // 2 + 2)
        self.assertEqual(self.told(), (position(9), position(7)))
        self.pass_time(MOMENT)
        self.assertEqual(self.told(), (position(9), None))

    def test_what_is_read_anyway(self) -> None:
        """Is not told twice."""
        self.enter(5)
        self.enter(6).leave()
        self.assertEqual(self.told(), (position(5), None))

    def test_between_two_timelines(self) -> None:
        """A prune in the moment between two streams leaves what the second asks for. (L15)"""
        for number in range(3, 10):
            self.put_segment(number)
        place = self.enter(6)
        self.enter(9)
        place.leave()
        prune(self.files, self.paths, RetentionPolicy(keep_from="readers"), 0.0)
        self.assertEqual(self.names()[0], self.name(6))
        self.pass_time(MOMENT + 2)
        prune(self.files, self.paths, RetentionPolicy(keep_from="readers"), 0.0)
        self.assertEqual(self.names()[0], self.name(9))

    def test_a_slot_that_is_lost(self) -> None:
        """Then nobody waits for the client that used it to come back."""
        for number in range(3, 10):
            self.put_segment(number)
        restart = position(6)
        SlotFiles(self.files, self.paths.slots).store(Slot("s", False, restart, None))
        self.enter(6).leave()
        policy = RetentionPolicy(keep_from="readers", max_slot_wal_keep_size=0)
        prune(self.files, self.paths, policy, 0.0)
        self.assertEqual(self.names()[0], self.name(9))

    def test_the_end(self) -> None:
        """Nothing is left behind, not even a timer."""
        place = self.enter(6)
        place.move(position(7))
        self.successResultOf(self.places.close())
        place.leave()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(os.listdir(self.paths.readers), [])

    def test_torn(self) -> None:
        """Half of what is told is not understood as nothing."""
        self.enter(6).move(position(7))
        (path,) = Path(self.paths.readers).iterdir()
        content = path.read_bytes()
        path.write_bytes(content[:-1] + b"x")
        (reader,) = active_readers(self.files, self.paths)
        self.assertFalse(reader.is_clear)


class ArchiveTests(ArchiveCase):
    """Cursors tell it by themselves."""

    def needed(self) -> list[WALPosition | None]:
        """What the living processes need."""
        return [reader.position for reader in active_readers(self.files, self.paths)]

    def test_a_cursor(self) -> None:
        """From where it is opened to where it is closed, segment by segment."""
        for number in (5, 6, 7):
            self.put_segment(number)
        reader = self.open_reader()
        cursor = self.successResultOf(reader.open(1, LSN(START + 4096)))
        self.assertEqual(self.needed(), [WALPosition(1, LSN(START + 4096))])
        while cursor.position < SIZE.start(7) + 1:
            if not cursor.read(1 << 20):
                self.successResultOf(cursor.ready())
        self.assertEqual(self.needed(), [position(7)])
        cursor.close()
        self.assertEqual(self.needed(), [None])
        self.successResultOf(reader.storage.close())
        self.assertEqual(self.needed(), [])
        self.assertEqual(os.listdir(Path(self.paths.readers)), [])


def failing(path: str) -> None:
    """A read-only file system."""
    raise OSError(30, os.strerror(30), path)
