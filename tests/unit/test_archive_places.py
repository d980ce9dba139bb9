"""Tests for walstream.archive.places and readers: what is read is known to whoever removes WAL."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tests.unit.archives import SIZE, START, ArchiveCase, DirectoryCase
from tests.unit.log_capture import capture_log
from walstream.archive.places import Place, Places
from walstream.archive.readers import ReaderFile, active_readers, retention_lock
from walstream.formats.lsn import LSN
from walstream.interfaces import WALPosition
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
