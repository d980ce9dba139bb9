"""An archive that goes away while it is written: nothing false is said, and nothing is forgotten.

What a file system does to the files under a process is done here by renaming and removing. What
only a real one can do is in tests/integration/test_faults.py.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import Deferred, fail

from tests.unit.archives import IDENTITY, SIZE, START, ArchiveCase, Producer
from walstream.archive import ArchiveDirectory
from walstream.errors import ArchiveLost, SinkFailed
from walstream.formats.lsn import LSN
from walstream.interfaces import WALPosition

FIRST = SIZE.name(1, 5)
PARTIAL = f"{FIRST}.partial"


class FaultCase(ArchiveCase):
    """Has an archive with 100 acknowledged bytes."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.producer = Producer()
        self.archive.registerProducer(self.producer, True)
        self.begin(self.archive)
        self.write(self.archive, 100)
        self.flush(self.archive)
        self.away = Path(f"{self.path}-away")

    def adopting(self) -> str:
        """What a receiver is told that connects now."""
        return self.failure(self.archive.adopt(IDENTITY), SinkFailed)

    def lose(self) -> str:
        """Write 100 bytes more and see that they are not acknowledged; what is said of it."""
        self.write(self.archive, 100)
        reason = self.failure(self.archive.flush(), SinkFailed)
        self.assertEqual(self.archive.flushed, START + 100)
        self.assertEqual(self.producer.calls, ["stop"])
        self.assertEqual(self.failure(self.archive.finish(), SinkFailed), reason)
        return reason

    def goes_on(self) -> None:
        """It goes on where it was, and all of it is there."""
        resume = self.archive.resume_position()
        self.assertEqual(resume, WALPosition(1, LSN(START)))
        self.begin(self.archive)
        self.write(self.archive, SIZE + 10)
        self.assertEqual(self.flush(self.archive), START + SIZE + 10)
        self.assert_finished([5])
        self.assertEqual(self.read(6, partial=True)[:10], self.wal(START + SIZE, 10))


class GoneTests(FaultCase):
    """What a sync says of a file that its name no longer leads to is worth nothing."""

    def test_renamed_away(self) -> None:
        """The data is synced, in a place that nobody knows: that does not count."""
        os.rename(self.path, self.away)
        self.assertIn(f"archive at {self.paths.root} is gone: there is no such", self.lose())
        reason = self.adopting()
        for words in (str(IDENTITY.system_identifier), str(LSN(START + 100)), "no such directory"):
            self.assertIn(words, reason)
        self.assertFalse(self.path.exists(), "a new archive was begun")
        os.rename(self.away, self.path)
        self.goes_on()

    def test_whoever_has_something_of_it_is_told(self) -> None:
        """At once, when nothing else of it is open any more: it may have to be unmounted."""
        open_then: list[str] = []

        def released() -> None:
            links = (os.path.join("/proc/self/fd", each) for each in os.listdir("/proc/self/fd"))
            targets = [os.readlink(each) for each in links if os.path.lexists(each)]
            open_then.append(str([each for each in targets if self.paths.root in each]))

        self.archive.watch_release(released)
        os.rename(self.path, self.away)
        self.lose()
        self.assertEqual(open_then, ["[]"])
        os.rename(self.away, self.path)
        self.goes_on()

    def test_an_empty_directory_in_its_place(self) -> None:
        """A mount point without its file system: nothing is written there, however often. (L18)"""
        os.rename(self.path, self.away)
        self.path.mkdir()
        self.lose()
        for _ in range(3):
            self.assertIn("found an empty directory", self.adopting())
            self.failure(self.archive.begin(1, LSN(START)), ArchiveLost)
        self.assertEqual(os.listdir(self.path), [])
        self.path.rmdir()
        os.rename(self.away, self.path)
        self.goes_on()

    def test_swapped_while_nothing_was_streamed(self) -> None:
        """It is noticed before a byte is written, and healed without another attempt."""
        self.finish(self.archive)
        os.rename(self.path, self.away)
        self.path.mkdir()
        self.assertIn("found an empty directory", self.adopting())
        self.assertEqual(os.listdir(self.path), [])
        self.path.rmdir()
        shutil.copytree(self.away, self.path)
        self.goes_on()

    def test_swapped_between_adopting_and_beginning(self) -> None:
        """The last look is at the very beginning."""
        self.finish(self.archive)
        self.successResultOf(self.archive.adopt(IDENTITY))
        os.rename(self.path, self.away)
        self.path.mkdir()
        self.failure(self.archive.begin(1, LSN(START)), ArchiveLost)
        self.assertEqual(os.listdir(self.path), [])

    def test_another_archive_in_its_place(self) -> None:
        """It is not ours to write to: neither its segments nor its own files change."""
        os.rename(self.path, self.away)
        self.path.mkdir()
        os.mkdir(self.paths.own)
        other = self.wal(START, 50, system_identifier=42).ljust(SIZE, b"\0")
        for path in (self.path / PARTIAL, Path(self.paths.spare), Path(self.paths.lock)):
            path.write_bytes(other)
        self.write(self.archive, SIZE - 100)  # its end: a rename
        self.failure(self.archive.finish(), ArchiveLost)
        self.assertIn("found system 42", self.adopting())
        self.assertEqual(self.names(), [PARTIAL])
        self.assertEqual(self.own_names(), ["lock", "spare"])
        self.assertEqual((self.path / PARTIAL).read_bytes(), other)

    def test_the_next_segment_is_not_made_elsewhere(self) -> None:
        """A spare file is not given a name in another archive."""
        self.writing.is_held = True
        self.write(self.archive, SIZE - 100)
        os.rename(self.path, self.away)
        shutil.copytree(self.away, self.path)
        before = self.names(), self.own_names()
        self.assertRaises(ArchiveLost, self.write, self.archive, 1)
        self.assertEqual((self.names(), self.own_names()), before)

    def test_history_is_not_stored_elsewhere(self) -> None:
        """Nor is anything else that has a name."""
        os.rename(self.path, self.away)
        shutil.copytree(self.away, self.path)
        storing = self.archive.store_history(2, b"1\t0/500800\tby a test\n")
        self.failure(storing, ArchiveLost)
        self.assertNotIn("00000002.history", self.names())

    def test_lock_file_removed(self) -> None:
        """Another process could have the archive: what is written from then on does not count.

        Of the loss catalogue: L1.
        """
        os.unlink(self.paths.lock)
        self.assertIn(self.paths.lock, self.lose())
        self.goes_on()
        self.assertIn("lock", self.own_names())

    def test_taken_by_another_process(self) -> None:
        """Then it is that one's; once it has ended, it is ours again."""
        os.unlink(self.paths.lock)
        self.lose()
        lanes = self.writing, self.reading
        other = self.open()
        self.assertIn(f"being written by process {os.getpid()}", self.adopting())
        self.successResultOf(other.storage.close())
        self.writing, self.reading = lanes
        self.goes_on()

    def test_partial_removed(self) -> None:
        """A sync of an unlinked file succeeds; it makes nothing durable. (L1)"""
        (self.path / PARTIAL).unlink()
        self.assertIn(f"{self.paths.partial(FIRST)} was removed", self.lose())

    def test_partial_removed_between_two_streams(self) -> None:
        """It is not taken for a segment that has not begun yet."""
        self.finish(self.archive)
        self.successResultOf(self.archive.adopt(IDENTITY))
        (self.path / PARTIAL).unlink()
        reason = self.failure(self.archive.begin(1, LSN(START)), ArchiveLost)
        self.assertIn(f"{PARTIAL} is gone", reason)
        self.assertIn(str(LSN(START + 100)), reason)
        self.assertEqual(self.names(), [])

    def test_it_can_be_unmounted(self) -> None:
        """After a failure nothing is open."""
        self.files.fail(f"fdatasync {PARTIAL}", errno.EIO)
        self.lose()
        self.assertEqual(self.files.open_files, [])
        locks = [os.readlink(f"/proc/self/fd/{fd}") for fd in _descriptors()]
        self.assertNotIn(self.paths.lock, locks)


class ReturnTests(FaultCase):
    """What comes back must hold what was acknowledged."""

    def lost(self, damage: Callable[[], object]) -> str:
        """Lose the archive, damage it, bring it back; what is said then."""
        os.rename(self.path, self.away)
        self.lose()
        os.rename(self.away, self.path)
        damage()
        return self.adopting()

    def test_with_less(self) -> None:
        """Both positions are named, and it is not written to. (L18)"""
        os.rename(self.path, self.away)
        self.lose()
        os.rename(self.away, self.path)
        (self.path / PARTIAL).unlink()
        self.put_segment(4)
        reason = self.adopting()
        self.assertIn("holds less than was acknowledged", reason)
        self.assertIn(f"expected WAL up to {LSN(START + 100)} on timeline 1", reason)
        self.assertIn(f"found WAL up to {LSN(START)} on timeline 1", reason)
        self.assertEqual(self.names(), [self.name(4)])

    def test_with_nothing(self) -> None:
        """The same, where not a segment is left."""
        reason = self.lost((self.path / PARTIAL).unlink)
        self.assertIn("found WAL up to nowhere", reason)

    def test_without_a_server(self) -> None:
        """What was durable before a failure, and nobody had been told, is served all the same."""
        told: list[int] = []

        def fails(lsn: int) -> bool:
            told.append(lsn)
            raise MemoryError

        self.archive.watch_durable(fails, lambda: None)
        self.write(self.archive, 100)
        self.archive.sync_soon()
        self.failure(self.archive.finish(), SinkFailed)
        self.assertEqual((told, len(self.flushLoggedErrors(MemoryError))), ([START + 200], 1))
        self.assertEqual(self.archive.end().lsn, START + 100)
        self.successResultOf(self.archive.regain())
        self.assertEqual(self.archive.end().lsn, START + 200)
        self.goes_on()

    def test_with_an_older_mark(self) -> None:
        """What no mark vouches for is not there: after a restart it is received again."""
        reason = self.lost(Path(self.paths.end).unlink)
        self.assertIn("restart to go on with what there is", reason)
        self.successResultOf(self.archive.storage.close())
        self.archive = self.open()
        self.goes_on()

    def test_with_more(self) -> None:
        """Another process has gone on with it: so do we, behind it."""
        os.rename(self.path, self.away)
        self.lose()
        os.rename(self.away, self.path)
        lanes = self.writing, self.reading
        other = self.open()
        self.begin(other)
        self.write(other, SIZE + 5000)
        self.successResultOf(other.storage.close())
        self.writing, self.reading = lanes
        self.successResultOf(self.archive.adopt(IDENTITY))
        self.assert_durable(self.archive, START + SIZE + 5000)
        self.assertEqual(self.archive.end().lsn, START + SIZE + 5000)

    def test_damaged(self) -> None:
        """What ends a start is tried again here: it may be another disk by mistake."""
        self.assertIn(
            "identity.json is damaged", self.lost(lambda: Path(self.paths.identity).write_text("x"))
        )

    def test_unreadable(self) -> None:
        """The path and the reason."""
        self.files.fail(f"fdatasync {PARTIAL}", errno.EIO)
        self.lose()
        self.files.fail("fsync .", errno.EROFS)
        self.assertIn(f"could not open {self.paths.root} again: Read-only", self.adopting())
        self.files.heal()
        self.goes_on()

    def test_before_anything_was_adopted(self) -> None:
        """An archive of nobody's yet is known by the directory that we have made in it."""
        self.successResultOf(self.archive.storage.close())
        shutil.rmtree(self.path)
        archive = self.open()
        shutil.rmtree(self.path)
        self.path.mkdir()
        text = self.failure(archive.adopt(IDENTITY), ArchiveLost)
        self.assertIn("found a directory that was never an archive", text)
        self.assertEqual(os.listdir(self.path), [])


class EachStepTests(FaultCase):
    """Each call that can fail, fails once: nothing false is said, and it goes on afterwards."""

    STEPS = (
        ("stat .walstream/lock", errno.EACCES),
        ("stat .walstream/lock", errno.ESTALE),
        (f"stat {PARTIAL}", errno.EIO),
        (f"write {PARTIAL}", errno.EROFS),
        (f"fsync {PARTIAL}", errno.EIO),
        (f"fsync {PARTIAL}", errno.EDQUOT),
        (f"rename {PARTIAL}", errno.EROFS),
        ("fsync .", errno.EIO),
        ("open .", errno.EMFILE),
        ("write .walstream/end", errno.ENOSPC),
        ("rename .walstream/spare", errno.EROFS),
    )

    def check(self, archive: ArchiveDirectory, call: str, error: int) -> None:
        """Over the end of the segment, and over that of the next one."""
        self.files.fail(call, error)
        try:
            self.write(archive, SIZE)
        except SinkFailed as failure:
            reason = str(failure)
        else:
            reason = self.failure(archive.flush(), SinkFailed)
        self.assertIn(os.strerror(error), reason)
        self.assertIn("could not", reason)
        self.failure(archive.finish(), SinkFailed)
        for number in range(5, SIZE.number(archive.flushed - 1) + 1):
            size = min(SIZE, archive.flushed - SIZE.start(number))
            held = self.read(number, partial=self.name(number) not in self.names())
            self.assertEqual(held[:size], self.wal(SIZE.start(number), size))

    def test_each(self) -> None:
        """The path and the reason are told, and all of the WAL comes in the end."""
        for call, error in self.STEPS:
            self.check(self.archive, call, error)
            self.files.heal()
            self.successResultOf(self.archive.adopt(IDENTITY))
            resume = self.archive.resume_position()
            assert resume is not None
            self.begin(self.archive, resume.lsn)
            self.write(self.archive, START + 3 * SIZE - self.archive.written)
            self.assertEqual(self.flush(self.archive), START + 3 * SIZE, call)
            self.assert_finished([5, 6, 7])
            self.successResultOf(self.archive.storage.close())
            shutil.rmtree(self.path)
            self.archive = self.open()
            self.begin(self.archive)
            self.write(self.archive, 100)
            self.flush(self.archive)

    def test_mark_before_word(self) -> None:
        """What the end mark cannot say is not said to anybody: a restart would not know of it.

        Of the loss catalogue: L1.
        """
        self.files.fail("write .walstream/end", errno.ENOSPC)
        self.lose()
        self.assertEqual(self.archive.durable_position(), WALPosition(1, LSN(START + 100)))
        self.assertEqual(self.archive.end(), WALPosition(1, LSN(START + 100)))

    def test_no_memory_in_a_lane(self) -> None:
        """Whatever ends a job, nobody waits for ever, and no segment behind it is finished."""

        def exhausted(_: int) -> None:
            raise MemoryError

        patch = self.patch(self.files, "fsync", exhausted)
        self.write(self.archive, 3 * SIZE)
        self.assertIn("MemoryError", self.failure(self.archive.flush(), SinkFailed))
        self.failure(self.archive.finish(), SinkFailed)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
        self.assertEqual([name for name in self.names() if name.isalnum()], [])
        patch.restore()
        self.goes_on()

    def test_no_thread_for_a_lane(self) -> None:
        """A job that never ran is a failure too: what comes behind it does not count."""
        run, failing = self.writing.run, fail(OSError(errno.EAGAIN, "no thread"))

        def once(_: Callable[[], None]) -> Deferred[None]:
            self.writing.run = run  # type: ignore[method-assign]
            return failing

        self.writing.run = once  # type: ignore[assignment, method-assign]
        self.write(self.archive, 3 * SIZE)
        self.assertIn("no thread", self.failure(self.archive.finish(), SinkFailed))
        self.assertEqual(self.archive.flushed, START + 100)
        self.assertEqual([name for name in self.names() if name.isalnum()], [])

    def test_cleaning_up_hides_nothing(self) -> None:
        """When the file system became read-only, its leftovers cannot be removed either."""
        self.files.fail(f"fdatasync {PARTIAL}", errno.EIO)
        self.lose()
        self.begin(self.archive)
        for call in ("write .walstream/rewrite", "unlink .walstream/rewrite"):
            self.files.fail(call, errno.EROFS)
        error = self.assertRaises(SinkFailed, self.write, self.archive, 100)
        self.assertIn("Read-only file system", str(error))
        self.assertEqual(self.failure(self.archive.finish(), SinkFailed), str(error))


def _descriptors() -> list[str]:
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]
