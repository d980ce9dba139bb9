"""Archives in which some segments are compressed: read, followed and gone on with as any other."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from tests.unit.archives import SIZE, START, ArchiveCase, compressed
from walstream.archive.paths import forms_of
from walstream.errors import TimelineMismatch, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.interfaces import IDatedProvider, IWALCursor, WALPosition


class MixedCase(ArchiveCase):
    """Has an archive of four segments and a half, one of each form."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.begin(self.archive)
        self.write(self.archive, SIZE * 9 // 2)
        self.flush(self.archive)
        for number, suffix in ((5, "gz"), (6, "lz4"), (7, "zst")):
            self.compress_segment(number, suffix)

    def cursor(self, start: int = START) -> IWALCursor:
        """A cursor that is closed when the test is over."""
        cursor = self.successResultOf(self.archive.open(1, LSN(start)))
        self.addCleanup(cursor.close)
        return cursor

    def unavailable(self, result: Deferred[Any]) -> str:
        """Why a segment cannot be served."""
        error = self.failureResultOf(result, WALUnavailable).value
        assert error is not None
        self.flushLoggedErrors()
        return str(error.__cause__)


class ServingTests(MixedCase):
    """What cursors give."""

    def read_all(self, cursor: IWALCursor) -> bytes:
        """Everything up to the end."""
        content = b""
        while cursor.position < cursor.available:
            self.successResultOf(cursor.ready())
            content += cursor.read(100_000)
        return content

    def test_every_form(self) -> None:
        """They read through all of them, and do not notice."""
        wal = self.wal(START, SIZE * 9 // 2)
        self.assertTrue(self.read_all(self.cursor()) == wal)
        self.assertEqual([name for name in self.files.open_files if "(unnamed)" in name], [])

    def test_when_it_was_written(self) -> None:
        """A segment is as old as its file, in whatever form; one that is not there has no age."""
        verifyObject(IDatedProvider, self.archive)
        forms = ((5, ".gz"), (6, ".lz4"), (7, ".zst"), (8, ""), (9, ".partial"))
        for number, suffix in forms:
            os.utime(self.path / f"{self.name(number)}{suffix}", (7e8, 1e9 + number))
        for number, _ in forms:
            written = self.archive.last_written(1, LSN(SIZE.start(number) + 10))
            self.assertEqual(self.successResultOf(written), 1e9 + number)
        for number in (4, 10):
            written = self.archive.last_written(1, LSN(SIZE.start(number)))
            self.assertIsNone(self.successResultOf(written))

    def test_after_its_form_has_changed(self) -> None:
        """Who reads a segment reads on, and who comes later finds the new file."""
        cursor = self.cursor(SIZE.start(8))
        cursor.read(10)
        self.compress_segment(8)
        self.assertEqual(cursor.read(SIZE), self.wal(SIZE.start(8) + 10, SIZE - 10))
        cursor.close()
        self.archive._provider.close()
        self.assertEqual(self.cursor(SIZE.start(8)).read(10), self.wal(SIZE.start(8), 10))

    def test_form_that_changes_between_two_looks(self) -> None:
        """Compressed while it is looked for, or decompressed."""
        for before, after in (("", ".zst"), (".zst", ""), ("", ".gz"), (".gz", "")):
            self.archive._provider.close()
            for name in forms_of(self.name(6)):
                (self.path / name).unlink(missing_ok=True)
            self.put_form(before)
            self.change_when_looked_for(before, after)
            cursor = self.cursor(SIZE.start(6))
            self.assertEqual(cursor.read(10), self.wal(SIZE.start(6), 10))
            cursor.close()
            self.assertNotIn(f"{self.name(6)}{before}", self.names())

    def change_when_looked_for(self, before: str, after: str) -> None:
        """Segment 6 changes its form just before it is found in the one that it has."""
        real = self.files.open

        def change(path: str, flags: int) -> int:
            if path.endswith(f"{self.name(6)}{before}"):
                self.files.open = real  # type: ignore[method-assign]
                self.put_form(after)
                os.unlink(path)
            return real(path, flags)

        self.files.open = change  # type: ignore[method-assign]

    def put_form(self, suffix: str) -> None:
        """Segment 6 in that form, and nothing else changed."""
        wal = self.wal(SIZE.start(6), SIZE)
        content = compressed(wal, suffix[1:]) if suffix else wal
        (self.path / f"{self.name(6)}{suffix}").write_bytes(content)

    def test_damaged(self) -> None:
        """Nothing of it is served, and the operator is told why."""
        path = self.path / f"{self.name(6)}.lz4"
        path.write_bytes(path.read_bytes()[:-1])
        cursor = self.cursor()
        cursor.read(SIZE)
        self.assertIn(f"{path.name} is damaged", self.unavailable(cursor.ready()))
        self.put_segment(6, system_identifier=42)
        path.write_bytes(compressed(self.read(6), "lz4"))
        os.unlink(self.path / self.name(6))
        self.assertIn(f"{path.name} holds the WAL of system 42", self.unavailable(cursor.ready()))

    def test_damaged_beside_a_good_one(self) -> None:
        """Somebody is decompressing it, say."""
        (self.path / self.name(6)).write_bytes(b"half")
        self.assertEqual(self.cursor(SIZE.start(6)).read(10), self.wal(SIZE.start(6), 10))

    def test_no_room_to_decode(self) -> None:
        """Nothing is left open, and the place that has no room is named."""
        self.files.fail("write (unnamed)", errno.ENOSPC)
        opening = self.archive.open(1, START)
        self.assertIn("No space left on device: '/", self.unavailable(opening))
        self.assertNotIn("(unnamed)", self.files.open_files)
        self.files.fail("create (unnamed)", errno.ENOENT)
        self.assertIn("No such file", self.unavailable(self.archive.open(1, START)))


class ReceivingTests(MixedCase):
    """Where a stream goes on."""

    def restart(self) -> None:
        """As after a kill."""
        self.abandon(self.archive)
        self.archive = self.open()

    def test_behind_a_compressed_one(self) -> None:
        """The newest finished segment may be compressed, too."""
        os.unlink(self.path / f"{self.name(9)}.partial")
        self.compress_segment(8)
        self.restart()
        self.assertEqual(self.archive.resume_position(), WALPosition(1, SIZE.start(9)))
        self.begin(self.archive, SIZE.start(9))
        self.write(self.archive, SIZE)
        self.finish(self.archive)
        self.assert_finished([9])

    def test_damaged_newest(self) -> None:
        """It is received again."""
        os.unlink(self.path / f"{self.name(9)}.partial")
        path = self.compress_segment(8)
        path.write_bytes(path.read_bytes() + b"the rest of an older stream")
        self.restart()
        self.assertEqual(self.archive.resume_position(), WALPosition(1, SIZE.start(8)))
        self.assertEqual(self.archive.end(), WALPosition(1, SIZE.start(8)))
        self.begin(self.archive, SIZE.start(8))
        self.write(self.archive, SIZE + 10)
        self.finish(self.archive)
        self.assert_finished([8])

    def test_stream_that_begins_in_a_finished_one(self) -> None:
        """What comes is compared with what it holds, and no second file is made."""
        os.unlink(self.path / f"{self.name(9)}.partial")
        self.restart()
        for number, suffix in ((9, "gz"), (9, "lz4"), (9, "zst")):
            path = self.compress_segment(number, suffix)
            other = bytearray(self.wal(SIZE.start(9), SIZE))
            other[-1] ^= 1
            self.begin(self.archive, SIZE.start(9))
            self.assertRaises(
                TimelineMismatch, self.archive.write, SIZE.start(9), memoryview(other)
            )
            self.begin(self.archive, SIZE.start(9))
            self.write(self.archive, SIZE - 10)
            self.finish(self.archive)
            self.assertNotIn(self.name(9), [name[:24] for name in self.names() if "." not in name])
            self.assertNotIn(f"{self.name(9)}.partial", self.names())
            path.unlink()

    def test_stream_that_begins_in_a_damaged_one(self) -> None:
        """It is as good as none."""
        os.unlink(self.path / f"{self.name(9)}.partial")
        self.restart()
        (self.path / f"{self.name(9)}.gz").write_bytes(b"x")
        self.begin(self.archive, SIZE.start(9))
        self.write(self.archive, SIZE)
        self.finish(self.archive)
        self.assert_finished([9])


class FollowingTests(MixedCase):
    """A reader beside whoever compresses."""

    def setUp(self) -> None:
        super().setUp()
        self.reader = self.open_reader()

    def changed(self, *names: str) -> None:
        """The system tells that files have changed."""
        self.reader._follower.changed({os.path.join(self.paths.root, name) for name in names})

    def surveys(self) -> int:
        """How many surveys wait."""
        waiting: int = self.reader._equipment.reading.waiting  # type: ignore[attr-defined]
        return waiting

    def test_form_that_changes(self) -> None:
        """Is no news, and costs nothing."""
        self.reader._equipment.reading.is_held = True  # type: ignore[attr-defined]
        self.compress_segment(8)
        self.changed(f"{self.name(8)}.gz", ".walstream/compressing")
        self.assertEqual(self.surveys(), 0)
        self.assertEqual(self.reader.end(), self.archive.end())

    def test_new_compressed_segment(self) -> None:
        """pg_receivewal has finished one: it counts once it has been decoded, elsewhere."""
        reading: Any = self.reader._equipment.reading
        reading.is_held = True
        path = self.compress_segment(9)
        self.changed(path.name)
        self.assertEqual(self.reader.end().lsn, self.archive.end().lsn)
        reading.release()
        self.assertEqual(self.reader.end(), WALPosition(1, SIZE.start(10)))
        path = self.compress_segment(10)
        path.write_bytes(path.read_bytes()[:-1])
        self.changed(path.name)
        self.assertEqual(self.reader.end(), WALPosition(1, SIZE.start(10)))
        self.assertEqual(len(self.reader._follower._skipped), 1)
