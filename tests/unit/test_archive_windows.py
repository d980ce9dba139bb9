"""Large segments are mapped, and read ahead, a window at a time."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.unit.archives import SIZE, START, ArchiveCase
from walstream.archive import cursor as cursor_module
from walstream.archive import mapping
from walstream.archive.images import Image
from walstream.errors import WALUnavailable
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALCursor

_WINDOW = SIZE // 4


class WindowCase(ArchiveCase):
    """Has an archive of two segments and a bit, whose segments have four windows."""

    def setUp(self) -> None:
        super().setUp()
        self.populated: list[tuple[int, int]] = []
        self.patch(mapping, "WINDOW", _WINDOW)
        self.patch(cursor_module, "WINDOW", _WINDOW)
        self.patch(mapping, "populate", self.populate)
        self.archive = self.open()
        self.begin(self.archive)
        self.write(self.archive, SIZE * 2 + 1000)
        self.flush(self.archive)

    def populate(self, mapped: Any, length: int) -> bool:
        """What is read ahead: how much is mapped, and how much of it is WAL."""
        self.populated.append((len(mapped), length))
        return True

    def cursor(self, start: int = START) -> IWALCursor:
        """A cursor that is closed when the test is over."""
        cursor = self.successResultOf(self.archive.open(1, LSN(start)))
        self.addCleanup(cursor.close)
        return cursor

    def read_through(self, cursor: IWALCursor) -> int:
        """Read all there is, and see that it is right; in how many pieces it came."""
        pieces = 0
        while cursor.position < cursor.available:
            start = cursor.position
            view = cursor.read(SIZE)
            if not view:
                self.successResultOf(cursor.ready())
                continue
            pieces += 1
            self.assertTrue(view == self.wal(start, len(view)), f"wrong at {LSN(start)}")
        return pieces

    def images(self) -> list[Image]:
        """Those in use."""
        return list(self.archive._provider._images._used.values())


class WindowTests(WindowCase):
    """Plain segments."""

    def test_first_byte(self) -> None:
        """Waits for its window only, wherever it is."""
        for offset in (0, _WINDOW + 10, SIZE - 1):
            del self.populated[:]
            self.archive._provider.close()
            cursor = self.cursor(START + offset)
            self.assertEqual(self.populated, [(_WINDOW, _WINDOW)])
            self.assertEqual(cursor.read(1), self.wal(START + offset, 1))
            cursor.close()

    def test_reads_through(self) -> None:
        """Window by window, each once, and never more than two of them."""
        cursor = self.cursor()
        while cursor.position < cursor.available:
            if not cursor.read(1000):
                self.successResultOf(cursor.ready())
            self.assertLessEqual(len(self.images()), 2)
        self.assertEqual(self.populated, [(_WINDOW, _WINDOW)] * 8 + [(_WINDOW, 1000)])
        self.assertEqual(self.read_through(self.cursor()), 9)

    def test_ahead(self) -> None:
        """The next window is read in the second half of one, at a segment's end too."""
        for start in (START, START + SIZE - _WINDOW):
            cursor = self.cursor(start)
            del self.populated[:]
            cursor.read(_WINDOW // 2)
            self.assertEqual(self.populated, [])
            cursor.read(1)
            self.assertEqual(len(self.populated), 1)
            cursor.read(_WINDOW)
            self.assertEqual(len(cursor.read(10)), 10)

    def test_live_window(self) -> None:
        """What is written into a window that is mapped is read there."""
        cursor = self.cursor(START + SIZE * 2)
        self.read_through(cursor)
        del self.populated[:]
        self.write(self.archive, _WINDOW - 1000)
        self.flush(self.archive)
        self.assertEqual(self.read_through(cursor), 1)
        self.assertEqual(self.populated, [])

    def test_whoever_reads_there_shares(self) -> None:
        """Also while it is read."""
        self.reading.is_held = True
        opening = [self.archive.open(1, LSN(START + offset)) for offset in (0, 10, 20)]
        self.reading.release()
        for each in opening:
            self.addCleanup(self.successResultOf(each).close)
        self.assertEqual(len(self.populated), 1)

    def test_windows_of_one_segment_at_a_time(self) -> None:
        """Each gets its own."""
        self.reading.is_held = True
        starts = [START + 2 * _WINDOW, START, START + _WINDOW]
        opening = [self.archive.open(1, LSN(start)) for start in starts]
        self.reading.release()
        for start, each in zip(starts, opening, strict=True):
            cursor = self.successResultOf(each)
            self.addCleanup(cursor.close)
            self.assertEqual(cursor.read(5), self.wal(start, 5))
        self.assertEqual(len(self.populated), 3)

    def test_replaced(self) -> None:
        """All windows of the segment are."""
        cursors = [self.cursor(START + SIZE * 2), self.cursor(START), self.cursor(START + _WINDOW)]
        self.archive._provider.was_replaced(1, SIZE.number(START))
        self.assertEqual([len(cursor.read(1)) for cursor in cursors], [1, 0, 0])
        for cursor in cursors:
            self.read_through(cursor)

    def test_replaced_while_it_is_read(self) -> None:
        """Whoever waits gets a window of the new file."""
        self.reading.is_held = True
        opening = [self.archive.open(1, LSN(START + offset)) for offset in (0, _WINDOW)]
        self.reading.work(1)  # the place
        self.archive._provider.was_replaced(1, SIZE.number(START))
        opening.append(self.archive.open(1, START))
        self.reading.release()
        for each in opening:
            cursor = self.successResultOf(each)
            self.addCleanup(cursor.close)
            self.read_through(cursor)
        self.assertFalse(any(image.is_stale for image in self.images()))

    def test_header_is_checked(self) -> None:
        """Of a segment that is entered in its middle, too."""
        self.put_segment(5, system_identifier=42)
        opening = self.archive.open(1, LSN(START + SIZE - 1))
        self.assertIn("system 42", self.reason(opening))

    def test_one_window_is_bad(self) -> None:
        """Those that wait for others get them."""

        def populate(mapped: Any, length: int) -> bool:
            if mapped[:8] == self.wal(START + _WINDOW, 8):
                raise OSError(5, "Input/output error")
            return True

        self.patch(mapping, "populate", populate)
        self.reading.is_held = True
        opening = [self.archive.open(1, LSN(START + offset)) for offset in (_WINDOW, 0)]
        self.reading.release()
        self.assertIn("Input/output error", self.reason(opening[0]))
        cursor = self.successResultOf(opening[1])
        self.addCleanup(cursor.close)
        self.assertEqual(len(cursor.read(SIZE)), _WINDOW)
        self.assertIn("Input/output error", self.reason(cursor.ready()))

    def reason(self, result: Deferred[Any]) -> str:
        """Why a segment cannot be served."""
        error = self.failureResultOf(result, WALUnavailable).value
        assert isinstance(error, WALUnavailable)
        self.assertEqual(error.segment, self.name(5))
        return str(error.reason)


class CompressedTests(WindowCase):
    """Compressed segments are decoded as a whole."""

    def decoded(self) -> int:
        """How often one was."""
        return self.files.calls.count("create (unnamed)")

    def test_decoded_once(self) -> None:
        """For all who read it, wherever they are."""
        self.compress_segment(5)
        self.reading.is_held = True
        starts = [START + _WINDOW, START + SIZE - 1, START]
        opening = [self.archive.open(1, LSN(start)) for start in starts]
        self.reading.release()
        for each in opening:
            cursor = self.successResultOf(each)
            self.addCleanup(cursor.close)
        self.read_through(self.cursor(START + 2 * _WINDOW))
        self.assertEqual(self.decoded(), 1)
        self.assertEqual(self.populated[0], (SIZE, SIZE))

    def test_compressed_while_windows_are_read(self) -> None:
        """Who has a window of the plain file reads on; the rest is decoded."""
        one, other = self.cursor(START), self.cursor(START + SIZE - _WINDOW)
        self.compress_segment(5)
        third = self.cursor(START + 2 * _WINDOW)
        for cursor in (one, other, third):
            self.read_through(cursor)
        self.assertLessEqual(self.decoded(), 3)
