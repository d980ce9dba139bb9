"""Taking an archive directory into use, and what a restart finds."""

from __future__ import annotations

import errno
import os

from tests.unit.archives import IDENTITY, SIZE, START, ArchiveCase, DirectoryCase
from walstream.archive.lock import ArchiveLock
from walstream.errors import ArchiveError, SinkFailed, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.interfaces import BackupHistoryFile, SystemIdentity, WALPosition
from walstream.testing.wal import wal_bytes


class LockTests(DirectoryCase):
    """One process writes an archive."""

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.paths.own)

    def test_names_the_holder(self) -> None:
        """Whoever comes second is told who was first."""
        lock = ArchiveLock.acquire(self.paths)
        self.addCleanup(lock.release)
        error = self.assertRaises(ArchiveError, ArchiveLock.acquire, self.paths)
        self.assertIn(f"process {os.getpid()}", str(error))
        self.assertIn(self.paths.root, str(error))

    def test_released(self) -> None:
        """Then the next one can have it, whatever the file says."""
        ArchiveLock.acquire(self.paths).release()
        with open(self.paths.lock, "w") as file:
            file.write("1234567890\n")
        lock = ArchiveLock.acquire(self.paths)
        with open(self.paths.lock) as file:
            self.assertEqual(file.read(), f"{os.getpid()}\n")
        lock.release()


class OpeningTests(ArchiveCase):
    """Opening for writing."""

    def refusal(self) -> str:
        """Why the archive cannot be opened; everything is closed again."""
        before = self.files.open_files
        archive = self.make()
        reason = self.failure(archive.storage.open(), ArchiveError)
        self.assertTrue(self.writing.is_closed and self.reading.is_closed)
        self.assertEqual(self.files.open_files, before)
        return reason

    def test_makes_the_directory(self) -> None:
        """But not the ones above it: a volume that is not mounted is no place for an archive."""
        self.path = self.path / "new"
        self.open()
        self.assertTrue(self.path.is_dir())
        self.path = self.path / "not" / "there"
        self.assertIn("cannot be opened", self.refusal())

    def test_one_at_a_time(self) -> None:
        """The second is refused and told by whom it is held; it leaves the first alone."""
        first = self.open()
        self.begin(first)
        self.assertIn(f"written by process {os.getpid()}", self.refusal())
        self.write(first, 10)
        self.flush(first)

    def test_closed_and_opened_again(self) -> None:
        """The lock goes with the archive."""
        first = self.open()
        self.successResultOf(first.storage.close())
        self.open()

    def test_foreign_files(self) -> None:
        """A directory with other things in it is probably not meant."""
        for name in ("a.txt", "b", "c", "d"):
            (self.path / name).write_bytes(b"")
        self.assertIn("(a.txt, b, c, …)", self.refusal())
        self.assertEqual(self.names(), ["a.txt", "b", "c", "d"])
        self.assertFalse(os.path.exists(self.paths.own))

    def test_foreign_files_later(self) -> None:
        """Once it is an archive, what else people put there is their business."""
        archive = self.open()
        self.begin(archive)
        self.successResultOf(archive.storage.close())
        (self.path / "README").write_bytes(b"")
        self.open()

    def test_adopts_what_pg_receivewal_left(self) -> None:
        """Its segments are kept, its .partial is continued, and whose they are is stored."""
        self.put_segment(5)
        self.put_segment(6, partial=True, valid=1000)
        archive = self.open()
        adopted = SystemIdentity(IDENTITY.system_identifier, SIZE, "18")
        self.assertEqual(archive.identity, adopted)
        self.assertIn("identity.json", self.own_names())
        self.assertEqual(archive.resume_position(), WALPosition(1, SIZE.start(6)))
        self.assertEqual(archive.end(), WALPosition(1, SIZE.start(6)))
        self.begin(archive, SIZE.start(6))
        self.write(archive, SIZE)
        self.finish(archive)
        self.assert_finished([5, 6])

    def test_refuses_mixed_wal(self) -> None:
        """Before anything is written."""
        self.put_segment(5)
        self.put_segment(6, system_identifier=42)
        self.assertIn("two clusters", self.refusal())
        self.assertEqual(self.own_names(), ["lock"])

    def test_what_is_found_is_made_durable(self) -> None:
        """Whoever put it there may not have done so; it is counted as durable from now on."""
        self.put_segment(4)
        self.put_segment(5)
        archive = self.open()
        synced = [call for call in self.files.calls if call.startswith("fsync")]
        self.assertIn(f"fsync {self.name(4)}", synced)
        self.assertIn(f"fsync {self.name(5)}", synced)
        self.assertLess(synced.index(f"fsync {self.name(5)}"), synced.index("fsync ."))
        self.begin(archive, SIZE.start(6))
        self.write(archive, SIZE)
        self.successResultOf(archive.storage.close())
        self.files.calls.clear()
        self.open()  # our own mark says that all of it is
        self.assertEqual([call for call in self.files.calls if "fsync" in call], ["fsync ."])

    def test_disk_errors(self) -> None:
        """Are told, and leave nothing open."""
        self.files.fail("fsync .", errno.EIO)
        self.assertIn("Input/output error", self.refusal())

    def test_leftovers_are_removed(self) -> None:
        """Files that were being made when a process was killed."""
        self.open()
        for name in ("spare", "fresh", "rewrite", "incoming"):
            (self.path / ".walstream" / name).write_bytes(b"x")
        os.mkdir(self.paths.compressing)
        (self.path / ".walstream" / "compressing" / f"{self.name(5)}.gz").write_bytes(b"x")
        self.abandon_all()
        self.open()
        self.assertEqual(self.own_names(), ["compressing", "end", "lock"])
        self.assertEqual(os.listdir(self.paths.compressing), [])

    def abandon_all(self) -> None:
        """Whatever was opened is killed."""
        for function, arguments, _ in list(self._cleanups):
            if function == self.close:
                self.abandon(arguments[0])

    def test_before_and_after(self) -> None:
        """An archive that is not open holds nothing; closed twice is closed."""
        archive = self.make()
        self.assertIs(archive.identity, None)
        self.assertEqual((archive.written, archive.flushed), (0, 0))
        self.assertEqual(archive.end(), WALPosition(1, LSN(0)))
        self.successResultOf(archive.storage.close())


class RestartTests(ArchiveCase):
    """What is durable is known again, however the last process ended."""

    def test_after_a_stop(self) -> None:
        """The exact end, inside a segment."""
        archive = self.open()
        self.begin(archive)
        self.write(archive, SIZE + 5000)
        self.successResultOf(archive.storage.close())
        again = self.open()
        self.assertEqual(again.identity, IDENTITY)
        self.assert_durable(again, START + SIZE + 5000)
        self.assertEqual(again.written, START + SIZE + 5000)
        self.assertEqual(again.resume_position(), WALPosition(1, LSN(START + SIZE)))
        self.assertEqual(again.end(), WALPosition(1, LSN(START + SIZE + 5000)))

    def test_history_file_that_is_missing(self) -> None:
        """The archive ends on the timeline of its segments, of whose past nothing is known."""
        self.put_segment(5, 3)
        archive = self.open()
        self.assert_durable(archive, SIZE.start(6), 3)
        self.assertEqual(archive.end(), WALPosition(3, SIZE.start(6)))
        self.failureResultOf(archive.open(1, LSN(START)), WALUnavailable)

    def test_after_a_kill(self) -> None:
        """Up to the last sync; what came after it comes again, in the same file."""
        archive = self.open()
        self.begin(archive)
        self.write(archive, 5000)
        self.flush(archive)
        self.write(archive, 5000)
        self.abandon(archive)
        again = self.open()
        self.assert_durable(again, START + 5000)
        self.begin(again)
        self.write(again, SIZE + 10)
        self.finish(again)
        self.assert_finished([5])

    def test_killed_with_several_segments_unsynced(self) -> None:
        """The stream goes on at the first of them, and finishes them all."""
        archive = self.open()
        self.begin(archive)
        self.writing.is_held = True
        self.write(archive, 3 * SIZE + 10)
        self.abandon(archive)
        again = self.open()
        self.assertEqual(again.resume_position(), WALPosition(1, START))
        self.begin(again)
        self.write(again, 4 * SIZE)
        self.finish(again)
        self.assert_finished([5, 6, 7, 8])

    def test_killed_between_rename_and_report(self) -> None:
        """The finished segment counts, though the mark had not been moved yet."""
        archive = self.open()
        self.begin(archive)
        self.write(archive, 10)
        self.flush(archive)
        mark = (self.path / ".walstream" / "end").read_bytes()
        self.write(archive, SIZE - 10)
        (self.path / ".walstream" / "end").write_bytes(mark)
        self.abandon(archive)
        self.assert_durable(self.open(), START + SIZE)

    def test_killed_after_a_name_could_not_be_synced(self) -> None:
        """The name is given again, to a file with the same bytes: a sync alone may do nothing.

        Of the loss catalogue: L2.
        """
        archive = self.open()
        self.begin(archive)
        self.write(archive, 10)
        self.flush(archive)
        self.write(archive, SIZE - 11)
        self.files.fail("fsync .", errno.EIO)
        self.write(archive, 1)
        self.abandon(archive)
        before = os.stat(self.path / self.name(5)).st_ino
        self.files.heal()
        self.files.calls.clear()
        self.assert_durable(self.open(), START + SIZE)
        self.assertNotEqual(os.stat(self.path / self.name(5)).st_ino, before)
        self.assert_finished([5])
        calls = ["fsync .walstream/fresh", "rename .walstream/fresh", f"fsync {self.name(5)}"]
        made = [call for call in self.files.calls if call.split()[0] not in ("create", "unlink")]
        self.assertEqual(made, [*calls, "fsync ."])

    def test_no_room_to_give_the_name_again(self) -> None:
        """Then it is only synced: a full disk is no reason not to start."""
        self.put_segment(5)
        archive = self.open()
        self.begin(archive, SIZE.start(6))
        self.write(archive, 10)
        self.successResultOf(archive.storage.close())
        self.put_segment(6)
        self.files.fail("write .walstream/fresh", errno.ENOSPC)
        self.assert_durable(self.open(), SIZE.start(7))
        self.assertNotIn("fresh", self.own_names())

    def test_killed_before_the_new_timeline_was_announced(self) -> None:
        """Followers see the old one to its end, until the new one has come again."""
        archive = self.open()
        self.begin(archive)
        self.write(archive, 5000)
        at = self.switch(archive)
        self.write(archive, 100, 2)
        self.flush(archive)
        self.abandon(archive)
        again = self.open()
        self.assertEqual(again.end(), WALPosition(1, LSN(at)))
        self.assertEqual(again.resume_position(), WALPosition(2, START))
        self.begin(again, START, 2)
        self.write(again, 6000, 2)
        self.flush(again)
        self.assertEqual(again.end(), WALPosition(2, LSN(START + 6000)))

    def test_partial_from_which_nothing_was_flushed(self) -> None:
        """In the same process as after a restart, the next stream begins with it."""
        archive = self.open()
        self.begin(archive)
        self.files.fail(f"fsync {self.name(5)}.partial", errno.EIO)
        self.write(archive, 100)
        archive.finish().addErrback(lambda _: None)
        self.assertEqual(archive.resume_position(), WALPosition(1, START))


class DocumentTests(ArchiveCase):
    """Histories and backup histories are kept as they are, and never replaced by others."""

    CONTENT = b"1\t0/500800\tno recovery target specified\n"

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.successResultOf(self.archive.adopt(IDENTITY))

    def test_stored_durably(self) -> None:
        """Contents before name before directory; byte by byte. (L2)"""
        self.files.calls.clear()
        self.successResultOf(self.archive.store_history(2, self.CONTENT))
        self.assertEqual(
            self.files.calls,
            [
                "create .walstream/incoming",
                "fsync .walstream/incoming",
                "rename .walstream/incoming",
                "fsync .",
            ],
        )
        self.assertEqual((self.path / "00000002.history").read_bytes(), self.CONTENT)
        self.assertEqual(self.successResultOf(self.archive.history_file(2)), self.CONTENT)
        self.assertEqual(set(self.archive.histories()), {2})

    def test_known_after_a_restart(self) -> None:
        """They are found in the directory."""
        self.successResultOf(self.archive.store_history(2, self.CONTENT))
        self.successResultOf(self.archive.storage.close())
        self.assertEqual(set(self.open().histories()), {2})

    def test_the_same_again(self) -> None:
        """Only the descent counts: servers may word the reason differently. Ours stays."""
        self.successResultOf(self.archive.store_history(2, self.CONTENT))
        self.successResultOf(self.archive.store_history(2, b"1\t0/500800\tother words\n"))
        self.assertEqual((self.path / "00000002.history").read_bytes(), self.CONTENT)

    def test_there_but_not_durable(self) -> None:
        """It got its name, and then a sync failed: that it is there is not enough. (L2)"""
        self.files.fail("fsync .", errno.EIO)
        self.failure(self.archive.store_history(2, self.CONTENT), SinkFailed)
        self.assertIn("00000002.history", self.names())
        self.files.heal()
        self.files.calls.clear()
        self.successResultOf(self.archive.store_history(2, self.CONTENT))
        self.assertEqual(self.files.calls[-2:], ["rename .walstream/incoming", "fsync ."])

    def test_another_history(self) -> None:
        """Two servers were promoted to the same timeline: that is refused."""
        self.successResultOf(self.archive.store_history(2, self.CONTENT))
        storing = self.archive.store_history(2, b"1\t0/500900\tx\n")
        self.assertEqual(type(self.failureResultOf(storing).value).__name__, "TimelineMismatch")
        self.assertEqual((self.path / "00000002.history").read_bytes(), self.CONTENT)

    def test_nonsense(self) -> None:
        """What is no history file is not stored."""
        storing = self.archive.store_history(2, b"<html>\n")
        self.assertEqual(type(self.failureResultOf(storing).value).__name__, "FormatError")
        self.assertEqual(self.names(), [])

    def test_disk_error(self) -> None:
        """A failure of the sink, with the file and the reason; nothing is held then."""
        self.files.fail("fsync .walstream/incoming", errno.ENOSPC)
        storing = self.archive.store_history(2, self.CONTENT)
        reason = str(self.failureResultOf(storing).value)
        self.assertIn("00000002.history", reason)
        self.assertIn("No space left", reason)
        self.assertEqual(set(self.archive.histories()), set())

    def test_backup_history(self) -> None:
        """It is found by the position at which the backup began, on the timeline of then."""
        start = LSN(START + 0x28)
        name = f"{SIZE.name(1, 5)}.00000028.backup"
        file = BackupHistoryFile(name, b"START WAL LOCATION: 0/500028\n")
        self.successResultOf(self.archive.store_backup_history(file))
        self.successResultOf(self.archive.store_backup_history(file))
        self.assertEqual(self.successResultOf(self.archive.backup_history(start)), file)
        self.assertIs(self.successResultOf(self.archive.backup_history(START)), None)
        self.begin(self.archive)
        self.write(self.archive, SIZE * 2)
        self.switch(self.archive)
        self.write(self.archive, 10, 2)
        self.flush(self.archive)
        self.assertEqual(self.archive.end().timeline, 2)
        self.assertEqual(self.successResultOf(self.archive.backup_history(start)), file)

    def test_another_backup_history(self) -> None:
        """One that is held is not replaced."""
        name = f"{SIZE.name(1, 5)}.00000028.backup"
        self.successResultOf(self.archive.store_backup_history(BackupHistoryFile(name, b"1")))
        storing = self.archive.store_backup_history(BackupHistoryFile(name, b"2"))
        self.assertEqual(type(self.failureResultOf(storing).value).__name__, "TimelineMismatch")

    def test_names_are_not_paths(self) -> None:
        """A server cannot have a file written elsewhere, or under another file's name."""
        for name in ("../x", SIZE.name(1, 5), f"{SIZE.name(1, 5)}.00000028.backup/../x", ""):
            storing = self.archive.store_backup_history(BackupHistoryFile(name, b""))
            self.assertEqual(type(self.failureResultOf(storing).value).__name__, "FormatError")


class SizeTests(ArchiveCase):
    """Any segment size will do."""

    def test_large_and_small(self) -> None:
        """Names and lengths follow it."""
        for size in (SegmentSize(1 << 20), SegmentSize(1 << 25)):
            self.path = self.path / str(size)
            self.path.mkdir()
            self.files = type(self.files)(str(self.path))
            archive = self.open()
            identity = SystemIdentity(IDENTITY.system_identifier, size, "18")
            self.successResultOf(archive.adopt(identity))
            self.successResultOf(archive.begin(1, size.start(0x81)))
            wal = wal_bytes(archive.written, 100, segment_size=size)
            archive.write(archive.written, memoryview(wal))
            self.finish(archive)
            partial = self.path / f"{size.name(1, 0x81)}.partial"
            self.assertEqual(partial.stat().st_size, size)
