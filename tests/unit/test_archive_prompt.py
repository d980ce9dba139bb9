"""An archive as `IPromptSink`: what is durable is told by the thread that made it so."""

from __future__ import annotations

import errno

from zope.interface.verify import verifyObject

from tests.unit.archives import IDENTITY, SIZE, START, ArchiveCase, history
from walstream.archive import ArchiveDirectory
from walstream.archive.end_mark import read_end_mark
from walstream.errors import SinkFailed
from walstream.formats.lsn import LSN
from walstream.interfaces import IPromptSink, WALPosition

FIRST = SIZE.name(1, 5)


class PromptCase(ArchiveCase):
    """An archive that is watched, and whose disk is the test."""

    def begin_stream(self, start: int = START, timeline: int = 1) -> ArchiveDirectory:
        """Begin a stream; from now on the lane waits."""
        self.archive = self.open()
        self.successResultOf(self.archive.adopt(IDENTITY))
        self.successResultOf(self.archive.begin(timeline, LSN(start)))
        self.watch()
        return self.archive

    def watch(self) -> None:
        self.told: list[int] = []
        self.flushed: list[int] = []
        self.is_enough = False
        self.archive.watch_durable(
            self.in_thread, lambda: self.flushed.append(self.archive.flushed - START)
        )
        self.writing.is_held = True

    def in_thread(self, lsn: int) -> bool:
        self.told.append(lsn - START)
        return self.is_enough

    def receive(self, size: int, timeline: int = 1) -> None:
        start = self.archive.written
        self.archive.write(start, memoryview(self.wal(start, size, timeline)))

    def mark(self) -> int | None:
        """What the end mark says."""
        mark = read_end_mark(self.files, self.paths)
        return None if mark is None else mark.lsn - START


class SyncSoonTests(PromptCase):
    """`sync_soon`."""

    def test_interface(self) -> None:
        """An archive is a prompt sink."""
        verifyObject(IPromptSink, self.begin_stream())

    def test_tells(self) -> None:
        """Once it is durable it is told, by the thread and then by the reactor, and marked."""
        self.begin_stream()
        self.receive(100)
        self.archive.sync_soon()
        self.assertEqual((self.told, self.flushed), ([], []))
        self.writing.work()
        self.assertEqual((self.told, self.flushed, self.mark()), ([100], [100], 100))
        self.assertIn(f"fsync {FIRST}.partial", self.files.calls)

    def test_one_job_for_many(self) -> None:
        """Whatever comes until the disk gets to it shares the sync."""
        self.begin_stream()
        self.receive(100)
        waiting = self.writing.waiting
        for _ in range(4):
            self.receive(100)
            self.archive.sync_soon()
        self.assertEqual(self.writing.waiting, waiting + 1)
        self.writing.work()
        self.assertEqual(self.told, [500])

    def test_what_comes_while_it_syncs(self) -> None:
        """WAL that comes during a sync is not counted with it, and has one of its own."""
        self.begin_stream()
        self.receive(100)
        self.archive.sync_soon()
        fsync = self.files.fsync

        def slow_fsync(fd: int) -> None:
            self.files.fsync = fsync  # type: ignore[method-assign]
            fsync(fd)
            self.receive(50)
            self.archive.sync_soon()

        self.files.fsync = slow_fsync  # type: ignore[method-assign]
        self.writing.work()
        self.assertEqual(self.told, [100, 150])

    def test_nothing_new(self) -> None:
        """Without WAL that is not durable there is nothing to sync or to tell."""
        self.begin_stream()
        self.archive.sync_soon()
        self.writing.work()
        self.receive(100)
        self.archive.sync_soon()
        self.writing.work()
        calls = len(self.files.calls)
        self.archive.sync_soon()
        self.writing.work()
        self.assertEqual((self.told, len(self.files.calls)), ([100], calls))

    def test_finished_segments(self) -> None:
        """A segment that was finished is told, too, in order; also if nothing lies behind it."""
        self.begin_stream()
        self.receive(SIZE - 100)
        self.archive.sync_soon()
        self.receive(100)
        self.archive.sync_soon()
        self.writing.work()
        self.assertEqual(self.told, [SIZE])
        self.receive(100)
        self.archive.sync_soon()
        self.receive(SIZE)
        self.archive.sync_soon()
        self.writing.work()
        self.assertEqual(self.told, [SIZE, 2 * SIZE, 2 * SIZE + 100])
        self.assertEqual(self.flushed[-1], self.archive.flushed - START)

    def test_no_hole(self) -> None:
        """A sync that was due before a segment was complete does not overtake that segment.

        It finds the next segment open, whose bytes are worth nothing before the last one's are
        durable.
        """
        self.begin_stream()
        self.receive(SIZE - 100)
        self.archive.sync_soon()  # its turn comes before the segment's end
        self.receive(200)
        self.archive.sync_soon()
        self.writing.work(1)
        self.assertEqual(self.told, [])
        self.files.fail(f"rename {FIRST}.partial", errno.EIO)
        self.writing.work()
        self.assertEqual(self.told, [])
        self.assertEqual(self.archive.flushed, 0)

    def test_not_again(self) -> None:
        """What is durable and comes again is not news."""
        self.begin_stream()
        self.receive(100)
        self.writing.release()
        self.successResultOf(self.archive.finish())
        self.successResultOf(self.archive.begin(1, LSN(START)))
        self.watch()
        self.receive(60)
        self.archive.sync_soon()
        self.writing.work()
        self.assertEqual(self.told, [])
        self.receive(60)
        self.archive.sync_soon()
        self.writing.work()
        self.assertEqual(self.told, [120])

    def test_unwatched(self) -> None:
        """Nobody is told any more, and all is made durable even so."""
        self.begin_stream()
        self.receive(100)
        self.archive.sync_soon()
        self.archive.unwatch_durable()
        self.writing.work()
        self.assertEqual((self.told, self.flushed), ([], []))
        self.assertEqual(self.archive.flushed, START + 100)

    def test_unwatched_meanwhile(self) -> None:
        """A stream that ends in the reactor's thread while the lane is about to tell of a sync has
        not failed: the archive is not let go of.
        """
        self.begin_stream()
        synced = self.archive._sink.stream_is_synced

        def unwatch(lsn: int) -> None:
            synced(lsn)
            self.archive.unwatch_durable()

        self.archive._sink.stream_is_synced = unwatch  # type: ignore[method-assign]
        self.receive(100)
        self.archive.sync_soon()
        self.writing.work()
        finished = self.archive.finish()
        self.writing.work()
        self.successResultOf(finished)
        self.assertEqual((self.archive.flushed, self.mark()), (START + 100, 100))

    def test_with_flush(self) -> None:
        """A flush tells as well."""
        self.begin_stream()
        self.receive(100)
        flushed = self.archive.flush()
        self.writing.work()
        self.successResultOf(flushed)
        self.assertEqual((self.told, self.flushed), ([100], [100]))

    def test_enough(self) -> None:
        """Whom it was enough to be told in the thread: the reactor is not woken, but looks."""
        self.begin_stream()
        self.is_enough = True
        self.receive(100)
        self.archive.sync_soon()
        self.writing.work()
        self.assertEqual((self.told, self.flushed), ([100], []))
        self.assertEqual(self.archive.flushed, START + 100)
        self.assertEqual(self.flushed, [100])
        self.receive(100)
        self.archive.sync_soon()
        self.writing.work()
        self.assertEqual(self.archive.durable_position(), WALPosition(1, LSN(START + 200)))

    def test_followed(self) -> None:
        """Once somebody follows the archive, the reactor is told of what came, and what comes."""
        self.begin_stream()
        self.is_enough = True
        self.receive(100)
        self.archive.sync_soon()
        self.writing.work()
        self.assertEqual(self.archive.end(), WALPosition(1, LSN(START + 100)))
        cursor = self.successResultOf(self.archive.open(1, LSN(START + 100)))
        ready = cursor.ready()
        self.receive(100)
        self.archive.sync_soon()
        self.writing.work()
        self.successResultOf(ready)
        cursor.close()

    def test_followed_and_looked_at(self) -> None:
        """Somebody looks just when the lane is about to tell: the next time it tells again."""
        self.begin_stream()

        def look() -> bool:
            return self.archive.flushed > 0

        self.archive._sink.stream_is_followed = look  # type: ignore[method-assign]
        self.is_enough = True
        for count in (100, 200, 300):
            self.receive(100)
            self.archive.sync_soon()
            self.writing.work()
            self.assertEqual(self.flushed[-1], count)
            self.archive._sink.stream_is_followed = lambda: True  # type: ignore[method-assign]

    def test_finish_after_enough(self) -> None:
        """What only the thread knows is not synced again at the end."""
        self.begin_stream()
        self.is_enough = True
        self.receive(100)
        self.archive.sync_soon()
        self.writing.work()
        calls = len(self.files.calls)
        finished = self.archive.finish()
        self.writing.work()
        self.successResultOf(finished)
        self.assertEqual(len(self.files.calls), calls)
        self.assertEqual(self.archive.flushed, START + 100)

    def test_no_stream(self) -> None:
        """Without a stream there is nothing to do."""
        archive = self.open()
        archive.sync_soon()
        archive.unwatch_durable()


class FailureTests(PromptCase):
    """What cannot be made durable is never told."""

    def test_sync_fails(self) -> None:
        """The stream is over, as with a flush that fails."""
        self.begin_stream()
        self.receive(100)
        self.archive.sync_soon()
        self.files.fail(f"fsync {FIRST}.partial", errno.EIO)
        self.writing.work()
        self.files.heal()
        with self.assertRaises(SinkFailed):
            self.receive(100)
        self.archive.sync_soon()
        self.writing.work()
        self.assertEqual((self.told, self.flushed), ([], []))
        self.failureResultOf(self.archive.flush(), SinkFailed)

    def test_after_a_segment_that_failed(self) -> None:
        """A sync whose turn comes behind the failure is not made, and the lane is not kept busy."""
        self.begin_stream()
        self.receive(SIZE - 100)
        self.archive.sync_soon()
        self.receive(200)
        self.files.fail(f"fsync {FIRST}.partial", errno.EIO)
        self.writing.work()
        self.assertEqual(self.told, [])
        self.assertEqual(self.writing.waiting, 0)

    def test_mark_fails(self) -> None:
        """Who cannot be told by the mark is not told otherwise."""
        self.begin_stream()
        self.receive(100)
        self.archive.sync_soon()
        self.files.fail("write .walstream/end", errno.ENOSPC)
        self.writing.work()
        self.assertEqual(self.told, [])
        failure = self.failureResultOf(self.archive.flush(), SinkFailed)
        self.assertIn(".walstream/end", failure.getErrorMessage())


class TimelineTests(PromptCase):
    """A new timeline."""

    def test_worth_telling(self) -> None:
        """Other processes are told of it once it has come past the switch point, and not before."""
        self.begin_stream()
        self.receive(1000)
        self.writing.release()
        self.successResultOf(self.archive.finish())
        content = history(2, (1, START + 1000)).format()
        self.successResultOf(self.archive.store_history(2, content))
        self.successResultOf(self.archive.begin(2, LSN(START)))
        self.watch()
        for size, mark in ((500, WALPosition(1, LSN(START + 1000))), (700, None)):
            self.receive(size, 2)
            self.archive.sync_soon()
            self.writing.work()
            end = WALPosition(2, LSN(self.archive.written))
            self.assertEqual(read_end_mark(self.files, self.paths), mark or end)
        self.assertEqual(self.told[-1], 1200)
