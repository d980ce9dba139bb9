"""How WAL gets into an archive, in which order it becomes durable, and where it is refused."""

from __future__ import annotations

import errno
import json
import os

from twisted.internet.defer import Deferred

from tests.unit.archives import IDENTITY, SIZE, START, ArchiveCase, Producer, history
from tests.unit.log_capture import capture_log
from walstream.archive.directory import ArchiveDirectory
from walstream.errors import (
    DamagedWAL,
    Discontinuity,
    SinkFailed,
    TimelineMismatch,
    WALUnavailable,
    WrongSystem,
)
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.interfaces import SystemIdentity, WALPosition
from walstream.testing.disk import ManualLane
from walstream.testing.wal import wal_bytes

FIRST = SIZE.name(1, 5)
SECOND = SIZE.name(1, 6)


class LayoutTests(ArchiveCase):
    """What is in the directory is what pg_receivewal puts there."""

    def test_layout(self) -> None:
        """Whole segments, a .partial of the full length with a tail of zeros, and nothing else."""
        archive = self.open()
        self.begin(archive)
        self.write(archive, SIZE * 2 + 100)
        self.finish(archive)
        self.assertEqual(self.names(), [FIRST, SECOND, SIZE.name(1, 7) + ".partial"])
        self.assert_finished([5, 6])
        rest = self.read(7, partial=True)
        self.assertEqual(rest, self.wal(SIZE.start(7), 100).ljust(SIZE, b"\0"))

    def test_no_segment_without_wal(self) -> None:
        """Where WAL ends between two segments, the next one has no file yet."""
        archive = self.open()
        self.begin(archive)
        self.finish(archive)
        self.assertEqual(self.names(), [])
        self.begin(archive)
        self.write(archive, SIZE)
        self.finish(archive)
        self.assertEqual(self.names(), [FIRST])

    def test_files_are_for_their_owner(self) -> None:
        """Nobody else may read WAL."""
        archive = self.open()
        self.begin(archive)
        self.write(archive, SIZE + 1)
        for name in self.names():
            self.assertEqual(os.stat(self.path / name).st_mode & 0o777, 0o600)
        self.assertEqual(os.stat(self.paths.own).st_mode & 0o777, 0o700)

    def test_spare_is_used_and_replaced(self) -> None:
        """The next segment's file is made ahead, and gone when the archive is closed."""
        archive = self.open()
        self.begin(archive)
        self.assertIn("spare", self.own_names())
        spare = os.stat(self.paths.spare)
        self.assertEqual(spare.st_size, SIZE)
        self.write(archive, 1)
        self.assertEqual(os.stat(self.paths.partial(FIRST).encode()).st_ino, spare.st_ino)
        self.assertIn("spare", self.own_names())
        self.successResultOf(archive.storage.close())
        self.assertEqual(
            self.own_names(), ["end", "identity.json", "ledger.json", "ledger.lock", "lock"]
        )
        self.assertEqual(self.files.open_files, [])

    def test_short_writes_are_continued(self) -> None:
        """A system call may take less than it is given."""
        archive = self.open()
        self.begin(archive)
        self.files.write_at_most = 1000
        self.write(archive, SIZE)
        self.files.write_at_most = None
        self.finish(archive)
        self.assert_finished([5])


class DurabilityTests(ArchiveCase):
    """Nothing is reported before it is durable: data first, name second, directory third."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.begin(self.archive)
        self.files.calls.clear()
        self.writing.is_held = True

    def test_segment_end(self) -> None:
        """A finished segment: fsync, rename, fsync of the directory; only then is it flushed.

        Of the loss catalogue: L1, L2.
        """
        self.write(self.archive, SIZE)
        seen = []
        while self.writing.waiting:
            self.writing.work(1)
            seen.append((self.files.calls[-1], self.archive.flushed))
        self.assertEqual(
            [call for call in self.files.calls if "spare" not in call],
            [f"fsync {FIRST}.partial", f"rename {FIRST}.partial", "fsync ."],
        )
        self.assertEqual(seen, [("set_size .walstream/spare", 0), *[("fsync .", START + SIZE)] * 2])

    def test_first_flush_of_a_segment(self) -> None:
        """The size and the name are new, so the whole file and the directory are synced.

        Of the loss catalogue: L2, L14.
        """
        self.write(self.archive, 100)
        self.files.calls.clear()
        flush = self.archive.flush()
        self.assertNoResult(flush)
        self.assertEqual(self.archive.flushed, 0)
        self.writing.work()
        self.assertEqual(self.successResultOf(flush), START + 100)
        self.assertEqual(self.files.calls[-2:], [f"fsync {FIRST}.partial", "fsync ."])

    def test_next_flush_of_a_segment(self) -> None:
        """From then on its data is enough. (L1)"""
        self.writing.is_held = False
        self.write(self.archive, 100)
        self.flush(self.archive)
        self.files.calls.clear()
        self.write(self.archive, 100)
        self.flush(self.archive)
        self.assertEqual(self.files.calls, [f"fdatasync {FIRST}.partial"])

    def test_flush_between_segments(self) -> None:
        """It waits for the segments before, and has nothing to sync itself."""
        self.write(self.archive, SIZE)
        flush = self.archive.flush()
        self.assertNoResult(flush)
        self.writing.work()
        self.assertEqual(self.successResultOf(flush), START + SIZE)
        self.assertNotIn(f"fdatasync {FIRST}.partial", self.files.calls)

    def test_group_commit(self) -> None:
        """Whoever asks while a sync is under way shares the next one, whatever is written."""
        self.write(self.archive, 100)
        first = self.archive.flush()
        self.write(self.archive, 100)
        shared = [self.archive.flush()]
        self.write(self.archive, 100)
        shared.append(self.archive.flush())
        self.writing.work()
        self.assertEqual(self.successResultOf(first), START + 100)
        self.assertEqual([self.successResultOf(each) for each in shared], [START + 300] * 2)
        syncs = [call for call in self.files.calls if call.endswith(f"sync {FIRST}.partial")]
        self.assertEqual(syncs, [f"fsync {FIRST}.partial", f"fdatasync {FIRST}.partial"])

    def test_flush_from_within_a_flush(self) -> None:
        """Whoever is told may ask again at once."""
        self.write(self.archive, 100)

        again: list[Deferred[LSN]] = []

        def ask_again(_: LSN) -> None:
            self.write(self.archive, 100)
            again.append(self.archive.flush())

        self.archive.flush().addCallback(ask_again)
        self.writing.work()
        self.assertEqual(self.successResultOf(again[0]), START + 200)

    def test_cancelled_flush_disturbs_nobody(self) -> None:
        """The others are told all the same."""
        self.write(self.archive, 100)
        one, two = self.archive.flush(), self.archive.flush()
        one.addErrback(lambda _: None)
        one.cancel()
        self.writing.work()
        self.assertEqual(self.successResultOf(two), START + 100)

    def test_end_mark_follows(self) -> None:
        """The mark tells other processes what is durable, and not more."""
        self.write(self.archive, 100)
        flush = self.archive.flush()
        self.assertEqual((self.path / ".walstream" / "end").read_bytes(), b"")
        self.writing.work()
        self.successResultOf(flush)
        mark = (self.path / ".walstream" / "end").read_bytes()
        self.assertTrue(mark.startswith(b"00000001 00000000/00500064 "))
        self.write(self.archive, SIZE)
        self.writing.work()
        after = (self.path / ".walstream" / "end").read_bytes()
        self.assertTrue(after.startswith(b"00000001 00000000/00600000 "))
        self.assertEqual(len(after), len(mark))

    def test_writeback_is_started_early(self) -> None:
        """Every 4 MiB, one range at a time: what comes meanwhile is in the next one."""
        size = type(SIZE)(1 << 24)
        self.writing.is_held = False
        self.successResultOf(self.archive.storage.close())
        other = self.path / "other"
        other.mkdir()
        self.path, self.files = other, type(self.files)(str(other))
        archive = self.open()
        identity = SystemIdentity(IDENTITY.system_identifier, size, "18")
        self.successResultOf(archive.adopt(identity))
        self.successResultOf(archive.begin(1, size.start(1)))
        self.writing.is_held = True
        wal = memoryview(wal_bytes(size, 6 * 2_400_000, segment_size=size))
        pieces = [wal[offset : offset + 2_400_000] for offset in range(0, len(wal), 2_400_000)]
        for piece in pieces[:5]:
            archive.write(archive.written, piece)
        self.writing.work()
        archive.write(archive.written, pieces[5])
        self.writing.work()
        hints = [call for call in self.files.calls if call.startswith("start_writeback")]
        self.assertEqual([hint.split()[-1] for hint in hints], ["0+4796416", "4796416+9601024"])


class BackpressureTests(ArchiveCase):
    """A disk that is slower than the server holds the server back."""

    def test_pauses_and_resumes(self) -> None:
        """Four finished segments may wait; when two are left the producer goes on. (L18)"""
        archive, producer = self.open(), Producer()
        self.begin(archive)
        archive.registerProducer(producer, True)
        self.writing.is_held = True
        for _ in range(3):
            self.write(archive, SIZE)
        self.assertEqual(producer.calls, [])
        self.write(archive, SIZE)
        self.write(archive, SIZE)
        self.assertEqual(producer.calls, ["pause"])
        while archive.flushed < START + 2 * SIZE:
            self.writing.work(1)
        self.assertEqual(producer.calls, ["pause"])
        while archive.flushed < START + 3 * SIZE:
            self.writing.work(1)
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_late_producer_is_paused(self) -> None:
        """Whoever registers while too much waits is paused at once."""
        archive, producer = self.open(), Producer()
        self.begin(archive)
        self.writing.is_held = True
        self.write(archive, SIZE * 4)
        archive.registerProducer(producer, True)
        self.assertEqual(producer.calls, ["pause"])
        self.writing.work()
        self.assertEqual(producer.calls, ["pause", "resume"])

    def test_pull_producers_are_refused(self) -> None:
        """WAL comes when it comes."""
        self.assertRaises(RuntimeError, self.open().registerProducer, Producer(), False)


class OverlapTests(ArchiveCase):
    """A stream begins again at the segment's start, where more is durable already."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.begin(self.archive)
        self.write(self.archive, 5000)
        self.finish(self.archive)

    def test_durable_bytes_are_not_written_again(self) -> None:
        """They are only compared, and flushed stays where it is."""
        self.begin(self.archive)
        self.assertEqual((self.archive.written, self.archive.flushed), (START, START + 5000))
        self.files.fail(f"write {FIRST}.partial", errno.EIO)
        for size in (1, 4998, 1):
            self.write(self.archive, size)
            self.assertEqual(self.archive.flushed, START + 5000)
            self.assertEqual(self.flush(self.archive), START + 5000)
        self.files.heal()
        self.write(self.archive, SIZE - 5000)
        self.finish(self.archive)
        self.assert_finished([5])

    def test_one_piece_over_the_edge(self) -> None:
        """A piece may be durable in part: the rest of it is written."""
        self.begin(self.archive)
        self.write(self.archive, 6000)
        self.finish(self.archive)
        self.assert_durable(self.archive, START + 6000)
        self.assertEqual(self.read(5, partial=True), self.wal(START, 6000).ljust(SIZE, b"\0"))

    def test_other_wal_is_refused(self) -> None:
        """The first byte that differs is named, and nothing is overwritten. (L13)"""
        before = self.read(5, partial=True)
        self.begin(self.archive)
        self.write(self.archive, 100)
        other = bytearray(self.wal(START + 100, 8000))
        other[1000] ^= 1
        error = self.assertRaises(
            TimelineMismatch, self.archive.write, START + 100, memoryview(other)
        )
        self.assertIn(str(LSN(START + 1100)), str(error))
        self.assertIn(FIRST, str(error))
        self.assertEqual(self.read(5, partial=True), before)
        self.finish(self.archive)
        self.assert_durable(self.archive, START + 5000)

    def test_a_stream_that_ends_in_the_overlap(self) -> None:
        """It has brought nothing new, and taken nothing."""
        self.begin(self.archive)
        self.write(self.archive, 100)
        self.finish(self.archive)
        self.assert_durable(self.archive, START + 5000)
        self.assertEqual(self.archive.resume_position(), WALPosition(1, START))

    def test_a_segment_that_somebody_else_finished(self) -> None:
        """It is compared and never written to, and the stream goes on behind it."""
        self.put_segment(6)
        self.begin(self.archive)
        self.write(self.archive, SIZE * 2 + 10)
        self.finish(self.archive)
        self.assert_finished([5, 6])
        self.assert_durable(self.archive, START + SIZE * 2 + 10)

    def test_a_finished_segment_keeps_its_content(self) -> None:
        """Other WAL than it holds is refused."""
        self.put_segment(6)
        self.begin(self.archive)
        self.write(self.archive, SIZE)
        other = memoryview(self.wal(START + SIZE, 90) + b"!")
        self.assertRaises(TimelineMismatch, self.archive.write, START + SIZE, other)
        self.assert_finished([6])

    def test_wrong_size_is_put_right(self) -> None:
        """A .partial that is too short or too long is given its full length, and kept. (L3)"""
        path = self.path / f"{FIRST}.partial"
        for size in (5000, SIZE * 2):
            os.truncate(path, size)
            self.begin(self.archive)
            self.assertEqual(path.stat().st_size, SIZE)
            self.write(self.archive, 5000)
            self.finish(self.archive)


class FailureTests(ArchiveCase):
    """A disk that fails: what was durable stays so, and nothing else is ever said to be."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.begin(self.archive)
        self.producer = Producer()
        self.archive.registerProducer(self.producer, True)

    def test_failed_sync(self) -> None:
        """Everybody is told, with the file and the error; and it is not tried again."""
        self.write(self.archive, 100)
        self.files.fail(f"fsync {FIRST}.partial", errno.EIO)
        reason = f"could not make durable {self.paths.partial(FIRST)}: Input/output error"
        self.assertEqual(self.failure(self.archive.flush(), SinkFailed), reason)
        self.assertEqual(self.producer.calls, ["stop"])
        self.files.heal()
        self.files.calls.clear()
        error = self.assertRaises(SinkFailed, self.archive.write, START + 100, memoryview(b"x"))
        self.assertEqual(str(error), reason)
        self.assertEqual(self.failure(self.archive.flush(), SinkFailed), reason)
        self.assertEqual(self.failure(self.archive.finish(), SinkFailed), reason)
        self.assertNotIn(f"fsync {FIRST}.partial", self.files.calls)
        self.assert_durable(self.archive, START)

    def test_failed_write(self) -> None:
        """The same, where the error comes at once."""
        self.files.fail(f"write {FIRST}.partial", errno.ENOSPC)
        error = self.assertRaises(SinkFailed, self.write, self.archive, 100)
        self.assertIn("No space left on device", str(error))
        self.assertIn(f"{FIRST}.partial", str(error))
        self.assertEqual(self.producer.calls, ["stop"])
        self.failure(self.archive.flush(), SinkFailed)

    def test_no_room_for_the_next_segment(self) -> None:
        """What was durable is; another stream goes on when there is room again."""
        self.write(self.archive, SIZE)
        for name in ("spare", "fresh"):
            self.files.fail(f"set_size .walstream/{name}", errno.ENOSPC)
        self.write(self.archive, SIZE)  # the spare one was made before
        error = self.assertRaises(SinkFailed, self.write, self.archive, 1)
        self.assertIn(SIZE.name(1, 7), str(error))
        self.failure(self.archive.finish(), SinkFailed)
        self.assert_durable(self.archive, START + 2 * SIZE)
        again = self.archive.begin(1, LSN(START + 2 * SIZE))
        self.assertIn("No space left on device", self.failure(again, SinkFailed))
        self.files.heal()
        self.begin(self.archive, START + 2 * SIZE)
        self.write(self.archive, 10)
        self.assertEqual(self.flush(self.archive), START + 2 * SIZE + 10)

    def test_no_finished_segment_behind_a_hole(self) -> None:
        """If one segment cannot be made durable, those behind it are not finished either. (L1)"""
        self.files.fail(f"fsync {FIRST}.partial", errno.EIO)
        self.writing.is_held = True
        self.write(self.archive, SIZE * 3 + 10)
        flush, finish = self.archive.flush(), self.archive.finish()
        self.writing.work()
        self.failure(flush, SinkFailed)
        self.failure(finish, SinkFailed)
        self.assertEqual([name for name in self.names() if "." not in name], [])
        self.assert_durable(self.archive, START)
        self.assertEqual(self.archive.resume_position(), WALPosition(1, START))

    def test_rename_and_directory_count_too(self) -> None:
        """A segment whose name or directory entry is not durable is not."""
        for number, call in enumerate((f"rename {FIRST}.partial", "fsync ."), 5):
            self.files.fail(call, errno.EIO)
            self.write(self.archive, SIZE)
            self.failure(self.archive.finish(), SinkFailed)
            self.assert_durable(self.archive, START)
            self.files.heal()
            # The second time it has its name, and was made durable when it was found.
            self.begin(self.archive, SIZE.start(number))
        self.write(self.archive, SIZE)
        self.finish(self.archive)
        self.assert_finished([5, 6])
        self.assert_durable(self.archive, START + 2 * SIZE)

    def test_failed_end_mark(self) -> None:
        """A file system that does not even take the mark is not trusted."""
        self.files.fail("write .walstream/end", errno.EIO)
        self.write(self.archive, 10)
        self.assertIn(self.paths.end, self.failure(self.archive.flush(), SinkFailed))

    def test_late_producer_is_stopped(self) -> None:
        """Whoever registers with a sink that has failed is told at once."""
        self.archive.unregisterProducer()
        self.files.fail(f"fsync {FIRST}.partial", errno.EIO)
        self.write(self.archive, 10)
        self.failure(self.archive.flush(), SinkFailed)
        late = Producer()
        self.archive.registerProducer(late, True)
        self.assertEqual(late.calls, ["stop"])

    def test_close_reports_what_failed(self) -> None:
        """And everything is closed even so."""
        self.write(self.archive, 10)
        self.files.fail(f"fsync {FIRST}.partial", errno.EIO)
        self.failure(self.archive.storage.close(), SinkFailed)
        self.assertEqual(self.files.open_files, [])
        self.assertTrue(self.writing.is_closed and self.reading.is_closed)


class RecoveryTests(ArchiveCase):
    """After a failed sync a segment's file is not trusted; its durable beginning is not lost."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.begin(self.archive)
        self.write(self.archive, 5000)
        self.flush(self.archive)
        self.old = os.stat(self.path / f"{FIRST}.partial").st_ino
        self.write(self.archive, 5000)
        self.files.fail(f"fdatasync {FIRST}.partial", errno.EIO)
        self.failure(self.archive.finish(), SinkFailed)
        self.files.heal()

    def inode(self) -> int:
        """The file that has the .partial's name."""
        return os.stat(self.path / f"{FIRST}.partial").st_ino

    def test_what_was_durable_still_is(self) -> None:
        """Up to the last sync that went well."""
        self.assert_durable(self.archive, START + 5000)
        self.assertEqual(self.archive.resume_position(), WALPosition(1, START))

    def test_the_segment_is_received_again_into_a_fresh_file(self) -> None:
        """Which takes the old one's place when it holds more durable WAL than that, not before.

        Of the loss catalogue: L1.
        """
        self.begin(self.archive)
        self.assertEqual(self.archive.flushed, START + 5000)
        self.write(self.archive, 5000)
        self.assertEqual(self.flush(self.archive), START + 5000)
        self.assertEqual(self.inode(), self.old)
        self.files.calls.clear()
        self.write(self.archive, 1)
        self.assertEqual(self.flush(self.archive), START + 5001)
        self.assertNotEqual(self.inode(), self.old)
        self.assertEqual(
            self.files.calls,
            ["fsync .walstream/rewrite", "rename .walstream/rewrite", "fsync ."],
        )
        self.write(self.archive, SIZE)
        self.finish(self.archive)
        self.assert_finished([5])

    def test_a_whole_segment_at_once(self) -> None:
        """It takes the old one's place and its final name, and nothing is left over."""
        self.begin(self.archive)
        self.write(self.archive, SIZE)
        self.finish(self.archive)
        self.assert_finished([5])
        self.assertEqual(self.names(), [FIRST])
        self.assertNotIn("rewrite", self.own_names())

    def test_killed_before_the_fresh_file_took_its_place(self) -> None:
        """The old one still stands for what was reported as durable."""
        self.begin(self.archive)
        self.write(self.archive, 5000)
        self.abandon(self.archive)
        again = self.open()
        self.assert_durable(again, START + 5000)
        self.assertEqual(self.read(5, partial=True)[:5000], self.wal(START, 5000))
        self.assertNotIn("rewrite", self.own_names())

    def test_a_stream_that_ends_before(self) -> None:
        """The old file stays, and the next stream tries again."""
        self.begin(self.archive)
        self.write(self.archive, 10)
        self.finish(self.archive)
        self.assertEqual(self.inode(), self.old)
        self.assertNotIn("rewrite", self.own_names())
        self.assert_durable(self.archive, START + 5000)
        self.begin(self.archive)
        self.write(self.archive, 6000)
        self.finish(self.archive)
        self.assertNotEqual(self.inode(), self.old)

    def test_other_wal_is_refused_here_too(self) -> None:
        """The durable beginning decides."""
        self.begin(self.archive)
        other = memoryview(self.wal(START, 90) + b"!")
        self.assertRaises(TimelineMismatch, self.archive.write, START, other)

    def test_a_beginning_that_cannot_be_read(self) -> None:
        """It is replaced without being compared: it may be the very reason for the failure."""
        self.begin(self.archive)
        self.files.fail(f"read {FIRST}.partial", errno.EIO)
        self.write(self.archive, 6000)
        self.finish(self.archive)
        self.assertEqual(self.read(5, partial=True)[:6000], self.wal(START, 6000))

    def test_then_it_is_trusted_again(self) -> None:
        """The stream after that continues in place."""
        self.begin(self.archive)
        self.write(self.archive, 6000)
        self.finish(self.archive)
        fresh = self.inode()
        self.begin(self.archive)
        self.write(self.archive, 7000)
        self.finish(self.archive)
        self.assertEqual(self.inode(), fresh)

    def test_readers_go_over_to_the_fresh_file(self) -> None:
        """A cursor that has the old one mapped reads on in the new one."""
        with open(self.path / f"{FIRST}.partial", "r+b") as file:
            file.seek(5000)
            file.write(bytes(5000))
        cursor = self.successResultOf(self.archive.open(1, START))
        self.addCleanup(cursor.close)
        self.assertEqual(len(cursor.read(10_000)), 5000)
        self.begin(self.archive)
        self.write(self.archive, 9000)
        self.flush(self.archive)
        self.successResultOf(cursor.ready())
        self.assertEqual(cursor.read(10_000), self.wal(START + 5000, 4000))

    def test_nothing_durable_in_the_segment(self) -> None:
        """Then the old file is simply removed."""
        self.begin(self.archive)
        self.write(self.archive, SIZE + 100)
        self.files.fail(f"fsync {SECOND}.partial", errno.EIO)
        self.failure(self.archive.finish(), SinkFailed)
        self.files.heal()
        self.begin(self.archive, START + SIZE)
        self.assertEqual(self.names(), [FIRST])
        self.write(self.archive, 100)
        self.finish(self.archive)
        self.assertEqual(self.read(6, partial=True)[:100], self.wal(START + SIZE, 100))


class ContinuityTests(ArchiveCase):
    """No gap, one system, one history."""

    def test_begins_at_a_segment(self) -> None:
        """Nowhere else, not even the first time."""
        archive = self.open()
        self.successResultOf(archive.adopt(IDENTITY))
        self.failure(archive.begin(1, LSN(START + 8192)), Discontinuity)

    def test_nothing_without_a_system(self) -> None:
        """Somebody has to say whose WAL it is, and to begin."""
        archive = self.open()
        self.failure(archive.begin(1, START), SinkFailed)
        self.assertRaises(SinkFailed, archive.write, START, memoryview(b"x"))
        self.assertEqual(self.successResultOf(archive.flush()), 0)
        self.successResultOf(archive.finish())

    def test_refuses_a_gap(self) -> None:
        """Both positions are named; nothing is changed. (L6)"""
        archive = self.open()
        self.begin(archive)
        self.write(archive, SIZE + 10)
        self.finish(archive)
        for start in (START, START + 2 * SIZE):
            text = self.failure(archive.begin(1, LSN(start)), Discontinuity)
            self.assertIn(str(LSN(START + SIZE)), text)
            self.assertIn(str(LSN(start)), text)
        self.assert_durable(archive, START + SIZE + 10)

    def test_a_jump_in_the_stream(self) -> None:
        """What does not follow on what came is refused, and nothing of it is taken. (L6)"""
        archive = self.open()
        self.begin(archive)
        self.write(archive, 100)
        for start in (START + 200, START):
            wal = memoryview(self.wal(start, 100))
            self.assertRaises(Discontinuity, archive.write, start, wal)
        self.assertEqual(archive.written, START + 100)

    def test_refuses_another_system(self) -> None:
        """And names both. (L9)"""
        archive = self.open()
        self.begin(archive)
        text = self.failure(archive.adopt(SystemIdentity(42, SIZE, "18")), WrongSystem)
        self.assertIn("system 42", text)
        self.assertIn(str(IDENTITY.system_identifier), text)

    def test_takes_note_of_a_new_version(self) -> None:
        """The same cluster may be of a newer minor version, which is what is served then."""
        archive = self.open()
        self.begin(archive)
        newer = SystemIdentity(IDENTITY.system_identifier, SIZE, "18.7")
        self.successResultOf(archive.adopt(newer))
        self.assertEqual(archive.identity, newer)
        stored = json.loads((self.path / ".walstream" / "identity.json").read_text())
        self.assertEqual(stored["server_version"], "18.7")

    def test_identity_that_cannot_be_stored(self) -> None:
        """Is a failure of the sink, and nothing is adopted."""
        archive = self.open()
        self.files.fail("fsync .walstream/incoming", errno.EIO)
        self.assertIn("identity.json", self.failure(archive.adopt(IDENTITY), SinkFailed))
        self.assertIs(archive.identity, None)

    def test_a_stream_that_was_not_finished(self) -> None:
        """The next one ends it."""
        archive = self.open()
        self.begin(archive)
        self.write(archive, SIZE + 10)
        self.begin(archive, START + SIZE)
        self.assert_durable(archive, START + SIZE + 10)

    def test_a_stream_that_failed_and_was_not_finished(self) -> None:
        """The next one does not fail for it."""
        archive = self.open()
        self.begin(archive)
        self.files.fail(f"fsync {FIRST}.partial", errno.EIO)
        self.write(archive, 10)
        self.failure(archive.flush(), SinkFailed)
        self.files.heal()
        self.begin(archive)
        self.write(archive, 10)
        self.finish(archive)
        self.assert_durable(archive, START + 10)

    def test_first_stream_is_announced(self) -> None:
        """Followers see where it begins, and can wait there."""
        archive = self.open()
        self.begin(archive)
        self.assertEqual(archive.end(), WALPosition(1, START))
        self.assertEqual(archive.flushed, 0)

    def test_cancelled_begin_goes_on(self) -> None:
        """What has reached the lane is done; the next one finds everything in order."""
        archive = self.open()
        self.successResultOf(archive.adopt(IDENTITY))
        self.writing.is_held = True
        beginning = archive.begin(1, START)
        beginning.addErrback(lambda _: None)
        beginning.cancel()
        again = archive.begin(1, START)
        self.writing.release()
        self.successResultOf(again)
        self.write(archive, 10)
        self.finish(archive)


class DisownedTests(ArchiveCase):
    """An archive into which no WAL has come is not bound to the server that answered first."""

    OTHER = SystemIdentity(IDENTITY.system_identifier + 1, SegmentSize(1 << 21), "17.2")

    def fooled(self) -> ArchiveDirectory:
        """An archive with all that a server has left there that never sent WAL."""
        archive = self.open()
        self.successResultOf(archive.adopt(self.OTHER))
        self.successResultOf(archive.store_history(2, history(2, (1, START + 100)).format()))
        self.successResultOf(archive.begin(2, LSN(0xFF000000)))
        self.assertRaises(DamagedWAL, archive.write, 0xFF000000, memoryview(bytes(8192)))
        self.successResultOf(archive.finish())
        return archive

    def check_is_as_new(self, archive: ArchiveDirectory) -> None:
        """The right server is taken, and its WAL."""
        self.assertIs(archive.resume_position(), None)
        self.assertEqual(list(archive.histories()), [])
        told = history(2, (1, START + 200)).format()
        self.successResultOf(archive.store_history(2, told))
        self.successResultOf(archive.begin(1, LSN(START)))
        self.assertEqual(archive.end(), WALPosition(1, START))
        self.write(archive, SIZE + 10)
        self.finish(archive)
        self.assert_durable(archive, START + SIZE + 10)
        self.assertEqual(self.names(), [FIRST, SECOND + ".partial", "00000002.history"])

    def test_by_the_next_server(self) -> None:
        """It is taken as if nobody had been there."""
        archive = self.fooled()
        texts = capture_log(self)
        self.successResultOf(archive.adopt(IDENTITY))
        self.assertIn("no WAL of system", texts[0])
        self.assertEqual(archive.identity, IDENTITY)
        self.check_is_as_new(archive)

    def test_after_a_restart(self) -> None:
        """So too if the process was killed meanwhile, with a file that nothing has come into."""
        self.abandon(self.fooled())
        name = SegmentSize(1 << 21).name(2, 0x7F8) + ".partial"
        (self.path / name).write_bytes(bytes(1 << 21))
        archive = self.open()
        self.assertEqual(archive.identity, self.OTHER)
        self.assertIsNot(archive.resume_position(), None)
        self.successResultOf(archive.adopt(IDENTITY))
        self.check_is_as_new(archive)

    def test_not_once_wal_has_come(self) -> None:
        """Not even if the mark is lost that tells how much; nor if it can't be read."""
        archive = self.open()
        self.begin(archive)
        self.write(archive, 10_000)
        self.finish(archive)
        self.failure(archive.adopt(self.OTHER), WrongSystem)
        self.abandon(archive)
        (self.path / ".walstream" / "end").unlink()
        archive = self.open()
        self.failure(archive.adopt(self.OTHER), WrongSystem)
        self.assertEqual(archive.identity, IDENTITY)
        self.assertEqual(self.names(), [FIRST + ".partial"])

    def test_not_when_the_wal_was_moved_away(self) -> None:
        """It was this system's archive, and somebody may bring its WAL back."""
        archive = self.open()
        self.begin(archive)
        self.write(archive, SIZE)
        self.finish(archive)
        self.abandon(archive)
        (self.path / FIRST).unlink()
        archive = self.open()
        self.failure(archive.adopt(self.OTHER), WrongSystem)

    def test_not_in_the_middle_of_a_stream(self) -> None:
        """The WAL that comes is the first one's."""
        archive = self.open()
        self.begin(archive)
        self.failure(archive.adopt(self.OTHER), WrongSystem)
        self.write(archive, 10)
        self.finish(archive)
        self.assert_durable(archive, START + 10)

    def test_what_cannot_be_removed(self) -> None:
        """It is the first one's until it is nobody's."""
        archive = self.fooled()
        for call in ("unlink 00000002.history", "fsync ."):
            self.files.fail(call, errno.EIO)
            self.failure(archive.adopt(IDENTITY), SinkFailed)
            self.assertEqual(archive.identity, self.OTHER)
            self.files.heal()
        self.successResultOf(archive.adopt(IDENTITY))
        self.check_is_as_new(archive)


class TimelineTests(ArchiveCase):
    """Going over to another timeline."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.begin(self.archive)
        self.write(self.archive, SIZE + 5000)
        self.at = START + SIZE + 5000

    def test_both_files_are_there(self) -> None:
        """The old timeline's last segment stays .partial; the new one's has its own file."""
        self.switch(self.archive)
        self.write(self.archive, SIZE + 1, 2)
        self.finish(self.archive)
        self.assertEqual(
            self.names(),
            [
                FIRST,
                f"{SECOND}.partial",
                "00000002.history",
                SIZE.name(2, 6),
                f"{SIZE.name(2, 7)}.partial",
            ],
        )
        self.assert_durable(self.archive, START + 2 * SIZE + 1, 2)

    def test_announced_when_it_has_reached_the_switch_point(self) -> None:
        """Until then the old timeline is what is served, and what the end mark says."""
        self.switch(self.archive)
        old = WALPosition(1, LSN(self.at))
        self.assertEqual(self.archive.flushed, START + SIZE)
        self.write(self.archive, 4999, 2)
        self.flush(self.archive)
        self.assertEqual(self.archive.end(), old)
        self.assertEqual(self.archive.flushed, self.at - 1)
        mark = (self.path / ".walstream" / "end").read_bytes()
        self.assertTrue(mark.startswith(b"00000001 00000000/00601388 "))
        self.write(self.archive, 1, 2)
        self.flush(self.archive)
        self.assertEqual(self.archive.end(), WALPosition(2, LSN(self.at)))
        mark = (self.path / ".walstream" / "end").read_bytes()
        self.assertTrue(mark.startswith(b"00000002 00000000/00601388 "))

    def test_a_new_timeline_that_brought_nothing(self) -> None:
        """Is not what the archive ends on."""
        self.switch(self.archive)
        self.finish(self.archive)
        self.assert_durable(self.archive, self.at, 1)

    def test_refuses_a_fork_before_the_end(self) -> None:
        """A timeline that left ours before our end has other WAL than we hold. (L10)"""
        self.finish(self.archive)
        content = history(2, (1, self.at - 1)).format()
        self.successResultOf(self.archive.store_history(2, content))
        text = self.failure(self.archive.begin(2, LSN(START + SIZE)), TimelineMismatch)
        self.assertIn(str(LSN(self.at - 1)), text)
        self.assertIn(str(LSN(self.at)), text)

    def test_refuses_a_fork_from_before_its_parent_began(self) -> None:
        """PostgreSQL can make a timeline that left its parent before that had begun."""
        self.finish(self.archive)
        content = history(3, (1, self.at), (2, self.at - 1)).format()
        self.successResultOf(self.archive.store_history(3, content))
        self.failure(self.archive.begin(3, LSN(START + SIZE)), TimelineMismatch)

    def test_refuses_a_gap_before_the_fork(self) -> None:
        """The old timeline must have been received into the segment of the switch point."""
        self.finish(self.archive)
        content = history(2, (1, self.at + SIZE)).format()
        self.successResultOf(self.archive.store_history(2, content))
        for start in (START + SIZE, START + 2 * SIZE):
            self.failure(self.archive.begin(2, LSN(start)), Discontinuity)

    def test_refuses_a_stranger(self) -> None:
        """Neither an older timeline nor one that does not descend from ours."""
        self.switch(self.archive)
        self.write(self.archive, 6000, 2)
        self.finish(self.archive)
        self.failure(self.archive.begin(1, LSN(START + SIZE)), TimelineMismatch)
        content = history(3, (1, self.at)).format()
        self.successResultOf(self.archive.store_history(3, content))
        self.failure(self.archive.begin(3, LSN(START + SIZE)), TimelineMismatch)

    def test_needs_the_history(self) -> None:
        """Without the file nobody knows whether it descends from ours."""
        self.finish(self.archive)
        text = self.failure(self.archive.begin(2, LSN(START + SIZE)), WALUnavailable)
        self.assertIn("00000002.history", text)

    def test_first_stream_needs_no_history(self) -> None:
        """Nothing is held that a timeline would have to descend from."""
        self.finish(self.archive)
        self.successResultOf(self.archive.storage.close())
        for path in (*self.path.glob("0*"), *self.path.glob(".walstream/*")):
            path.unlink()
        archive = self.open()
        self.begin(archive, START, 7)
        self.write(archive, 10, 7)
        self.flush(archive)
        self.assertEqual(archive.end(), WALPosition(7, LSN(START + 10)))

    def test_two_switches_in_one_segment(self) -> None:
        """A grandchild may be taken up directly, if it left its parent in the same segment."""
        self.finish(self.archive)
        content = history(3, (1, self.at), (2, self.at + 500)).format()
        self.successResultOf(self.archive.store_history(3, content))
        self.begin(self.archive, START + SIZE, 3)
        self.write(self.archive, 6000, 3)
        self.flush(self.archive)
        self.assertEqual(self.archive.end(), WALPosition(3, LSN(START + SIZE + 6000)))

    def test_ends_between_two_segments(self) -> None:
        """The new timeline begins with a segment of its own."""
        self.write(self.archive, SIZE - 5000)
        at = self.switch(self.archive)
        self.assertEqual(at, START + 2 * SIZE)
        self.write(self.archive, 10, 2)
        self.flush(self.archive)
        self.assertEqual(self.archive.end(), WALPosition(2, LSN(at + 10)))


class LaneTests(ArchiveCase):
    """What the test's own lane promises."""

    def test_held_jobs_wait(self) -> None:
        """They are run in order, and a failure is the Deferred's."""
        lane, done = ManualLane(is_held=True), []
        lane.post(lambda: done.append(1))
        failing = lane.run(lambda: 1 // 0)
        self.assertEqual((lane.waiting, done), (2, []))
        lane.work(1)
        self.assertEqual(done, [1])
        lane.release()
        self.failureResultOf(failing, ZeroDivisionError)
