"""How WAL is read from an archive: images of segments, and the cursors that share them."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.unit.archives import SIZE, START, ArchiveCase, history
from walstream.archive.cursor import Cursor
from walstream.archive.images import Image, Images
from walstream.archive.tail import Tail
from walstream.errors import EndOfTimeline, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALCursor, WALPosition
from walstream.testing.disk import ManualLane


class TailTests(SynchronousTestCase):
    """`Tail` says how far WAL may be served, and wakes who waits."""

    def test_wakes_in_order_and_once(self) -> None:
        """In the order in which they came; whoever has left is not woken."""
        tail, woken = Tail(), []
        wakers: list[Callable[[], None]] = [
            lambda number=number: woken.append(number)  # type: ignore[misc]
            for number in range(4)
        ]
        for wake in wakers:
            tail.wait(wake)
        tail.leave(wakers[1])
        tail.move(WALPosition(1, LSN(10)))
        tail.move(WALPosition(1, LSN(20)))
        self.assertEqual(woken, [0, 2, 3])

    def test_whoever_waits_again_is_woken_next_time(self) -> None:
        """Not in the same move, which would never end."""
        tail, woken = Tail(), []

        def wake() -> None:
            woken.append(tail.end.lsn)
            tail.wait(wake)

        tail.wait(wake)
        tail.move(WALPosition(1, LSN(10)))
        tail.move(WALPosition(1, LSN(20)))
        self.assertEqual(woken, [10, 20])

    def test_some_at_a_time(self) -> None:
        """A thousand are woken in many turns, in order; who waits again comes behind the others."""
        turns, woken = list[Callable[[], None]](), list[tuple[int, int]]()
        tail = Tail(turns.append)

        def come(number: int) -> None:
            def wake() -> None:
                woken.append((number, tail.end.lsn))
                tail.wait(wake)

            tail.wait(wake)

        for number in range(100):
            come(number)
        tail.move(WALPosition(1, LSN(10)))
        self.assertEqual(len(woken), 32)
        self.assertEqual(len(turns), 1)
        tail.move(WALPosition(1, LSN(20)))  # what comes meanwhile takes no further turn
        self.assertEqual((len(woken), len(turns)), (32, 1))
        while turns:
            turns.pop()()
        self.assertEqual([number for number, _ in woken], [*range(100), *range(32)])
        self.assertEqual([end for _, end in woken], [10] * 32 + [20] * 100)
        tail.move(WALPosition(1, LSN(30)))
        self.assertEqual(woken[-1], (32 + 31, 30))

    def test_one_that_fails(self) -> None:
        """Does not keep the others waiting."""
        turns, woken = list[Callable[[], None]](), list[int]()
        tail = Tail(turns.append)

        def fail() -> None:
            raise RuntimeError("a fault of a cursor's")

        tail.wait(fail)
        tail.wait(lambda: woken.append(1))
        tail.move(WALPosition(1, LSN(10)))
        self.assertEqual(woken, [1])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_timelines(self) -> None:
        """Historic timelines end at their switch points; strangers have nothing."""
        tail = Tail()
        tail.move(WALPosition(4, LSN(900)), history(4, (1, 300), (3, 500)))
        self.assertEqual([tail.available(each, 0) for each in (1, 2, 3, 4)], [300, 0, 500, 900])
        self.assertIs(tail.is_over(4, 900), None)
        self.assertIs(tail.is_over(2, 900), None)
        over = [tail.is_over(1, 300), tail.is_over(3, 500)]
        self.assertEqual(
            [(end.next_timeline, end.switch_point) for end in over if end is not None],
            [(3, 300), (4, 500)],
        )


class ImagesTests(SynchronousTestCase):
    """`Images` shares what is mapped, and keeps a few that nobody uses."""

    def setUp(self) -> None:
        self.lane = ManualLane()
        self.loaded: list[tuple[int, int]] = []
        self.fault: Exception | None = None
        self.size = 4096
        self.are_copies = False
        self.images = Images(self.lane, self.load, spare=2)

    def load(self, timeline: int, number: int, offset: int) -> Callable[[], Image]:
        """A job that maps nothing in particular."""

        def job() -> Image:
            self.loaded.append((timeline, number))
            if self.fault is not None:
                raise self.fault
            image = Image(mmap.mmap(-1, self.size), number * self.size)
            image.is_copy = self.are_copies
            return image

        return job

    def acquire(self, number: int) -> Image:
        """An image that is there by now."""
        return self.successResultOf(self.images.acquire(1, number))

    def test_shared(self) -> None:
        """Two users have the same, and it stays until both have released it."""
        one, two = self.acquire(1), self.acquire(1)
        self.assertIs(one, two)
        self.images.release(one)
        self.assertIs(self.acquire(1), one)
        self.assertEqual(self.loaded, [(1, 1)])

    def test_shared_while_it_is_loaded(self) -> None:
        """Whoever comes meanwhile waits for the same."""
        self.lane.is_held = True
        waiting = [self.images.acquire(1, 1) for _ in range(3)]
        self.lane.work()
        images = {id(self.successResultOf(each)) for each in waiting}
        self.assertEqual((len(images), self.loaded), (1, [(1, 1)]))
        self.assertEqual(self.successResultOf(self.images.acquire(1, 1)).users, 4)

    def test_least_recently_used_go_first(self) -> None:
        """Of those that nobody uses, only so many are kept."""
        for number in (1, 2, 3):
            self.images.release(self.acquire(number))
        del self.loaded[:]
        for number in (2, 3):
            self.acquire(number)
        self.assertEqual(self.loaded, [])
        self.acquire(1)
        self.assertEqual(self.loaded, [(1, 1)])

    def test_fewer_of_large_segments(self) -> None:
        """One at least; the memory that mappings take is bounded."""
        self.size = 1 << 30
        for number in (1, 2):
            self.images.release(self.acquire(number))
        del self.loaded[:]
        self.acquire(2)
        self.acquire(1)
        self.assertEqual(self.loaded, [(1, 1)])

    def test_fewer_copies(self) -> None:
        """Of those that take up room among temporary files, eight are kept, and more of others."""
        self.images = Images(self.lane, self.load, spare=20)
        for number in range(20):
            self.are_copies = number % 2 == 0
            self.images.release(self.acquire(number))
        del self.loaded[:]
        for number in range(20):
            self.acquire(number)
        self.assertEqual(self.loaded, [(1, 0), (1, 2)])

    def test_those_in_use_are_not_counted(self) -> None:
        """However many they are."""
        images = [self.acquire(number) for number in range(5)]
        self.assertEqual([self.acquire(number) for number in range(5)], images)

    def test_forgotten(self) -> None:
        """Another file has taken its place: who comes gets that, who has it can see it."""
        old = self.acquire(1)
        self.images.release(self.acquire(2))
        self.images.forget(1, 1)
        self.images.forget(1, 2)
        self.images.forget(1, 3)
        self.assertTrue(old.is_stale)
        new = self.acquire(1)
        self.assertIsNot(new, old)
        self.assertFalse(new.is_stale)
        self.images.release(old)
        self.assertIs(self.acquire(1), new)
        self.acquire(2)
        self.assertEqual(self.loaded, [(1, 1), (1, 2), (1, 1), (1, 2)])

    def test_forgotten_while_it_is_loaded(self) -> None:
        """What arrives then may be the old file's, and says so."""
        self.lane.is_held = True
        first = self.images.acquire(1, 1)
        self.images.forget(1, 1)
        second = self.images.acquire(1, 1)
        self.lane.work()
        self.assertTrue(self.successResultOf(first).is_stale)
        self.assertFalse(self.successResultOf(second).is_stale)

    def test_failure(self) -> None:
        """All who wait are told; whoever asks next tries again."""
        self.fault = WALUnavailable("x")
        self.lane.is_held = True
        waiting = [self.images.acquire(1, 1) for _ in range(2)]
        self.lane.release()
        for each in waiting:
            self.failureResultOf(each, WALUnavailable)
        self.fault = None
        self.acquire(1)

    def test_cleared(self) -> None:
        """Nothing unused is kept any more."""
        self.images.release(self.acquire(1))
        self.images.clear()
        self.acquire(1)
        self.assertEqual(len(self.loaded), 2)


class CursorCase(ArchiveCase):
    """Has an archive of two and a half segments, and cursors in it."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.begin(self.archive)
        self.write(self.archive, SIZE * 5 // 2)
        self.flush(self.archive)
        self.end = START + SIZE * 5 // 2

    def cursor(self, start: int = START, timeline: int = 1) -> IWALCursor:
        """A cursor that is closed when the test is over."""
        cursor = self.successResultOf(self.archive.open(timeline, LSN(start)))
        self.addCleanup(cursor.close)
        return cursor

    def loads(self, work: Callable[[], object]) -> int:
        """How many jobs the reading lane gets from *work*."""
        self.reading.is_held = True
        work()
        jobs = self.reading.waiting
        self.reading.release()
        return jobs

    def unavailable(self, result: Deferred[Any], segment: str) -> None:
        """That is the segment that is not there."""
        error = self.failureResultOf(result, WALUnavailable).value
        assert isinstance(error, WALUnavailable)
        self.assertEqual(error.segment, segment)


class CursorTests(CursorCase):
    """What the contract leaves open, or cannot see."""

    def test_reads_end_at_segments(self) -> None:
        """One read gives what is mapped at a time."""
        cursor = self.cursor(START + SIZE - 10)
        self.assertEqual(len(cursor.read(100)), 10)
        self.successResultOf(cursor.ready())
        self.assertEqual(len(cursor.read(SIZE * 2)), SIZE)

    def test_reads_ahead_in_the_second_half(self) -> None:
        """The next segment is mapped before it is needed, and only once."""
        cursor = self.cursor()
        self.assertEqual(self.loads(lambda: cursor.read(SIZE // 2)), 0)
        self.assertEqual(self.loads(lambda: cursor.read(1)), 1)
        self.assertEqual(self.loads(lambda: cursor.read(SIZE)), 0)
        self.assertEqual(len(cursor.read(100)), 100)

    def test_does_not_read_ahead_past_the_end(self) -> None:
        """There is nothing yet."""
        self.write(self.archive, 10)
        self.flush(self.archive)
        cursor = self.cursor(START + 2 * SIZE)
        self.assertEqual(self.loads(lambda: cursor.read(SIZE)), 0)
        self.assertEqual(cursor.position, self.end + 10)

    def test_neighbours_share_images(self) -> None:
        """A thousand cursors map a segment once."""
        self.assertEqual(self.loads(lambda: self.archive.open(1, START).addCallback(id)), 1)
        self.assertEqual(self.loads(lambda: self.cursor(START + 100)), 0)

    def test_not_ready_while_it_is_mapped(self) -> None:
        """A read gives nothing and waits for nothing; ready() does."""
        cursor = self.cursor(START + SIZE - 10)
        self.reading.is_held = True
        cursor.read(10)
        self.assertEqual(len(cursor.read(10)), 0)
        ready = cursor.ready()
        self.assertNoResult(ready)
        self.reading.release()
        self.successResultOf(ready)
        self.assertEqual(len(cursor.read(10)), 10)

    def test_cancelled_while_it_is_mapped(self) -> None:
        """What arrives later is used later."""
        cursor = self.cursor(START + SIZE - 10)
        self.reading.is_held = True
        cursor.read(10)
        ready = cursor.ready()
        ready.cancel()
        self.failureResultOf(ready, CancelledError)
        self.reading.release()
        self.assertEqual(len(cursor.read(10)), 10)

    def test_closed_while_it_is_mapped(self) -> None:
        """What arrives later is let go of."""
        cursor = self.cursor(START + SIZE - 10)
        self.reading.is_held = True
        cursor.read(10)
        cursor.close()
        self.reading.release()
        self.failureResultOf(cursor.ready(), RuntimeError)

    def test_one_ready_at_a_time(self) -> None:
        """As the interface says."""
        cursor = self.cursor(self.end)
        cursor.ready().addErrback(lambda _: None)
        self.assertRaises(RuntimeError, cursor.ready)

    def test_views_stay_after_the_file_is_gone(self) -> None:
        """A segment that is removed while it is read is read to its end."""
        cursor = self.cursor()
        view = cursor.read(100)
        os.unlink(self.path / self.name(5))
        self.assertEqual(view, self.wal(START, 100))
        self.assertEqual(len(cursor.read(SIZE)), SIZE - 100)

    def test_partial_and_finished_are_one_image(self) -> None:
        """When the segment gets its name, whoever reads it goes on with what is mapped."""
        cursor = self.cursor(START + 2 * SIZE)
        cursor.read(SIZE)
        self.write(self.archive, SIZE)
        self.flush(self.archive)
        self.assertEqual(self.loads(lambda: cursor.read(SIZE)), 1)  # the next one
        self.assertEqual(cursor.position, START + 3 * SIZE)


@implementer(ILogObserver)
class _Reasons:
    """Notes the reasons that are logged."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        self.reasons.append(str(event.get("reason", "")))


class CursorImagesTests(SynchronousTestCase):
    """A cursor holds at most two images, and lets go of all of them."""

    def setUp(self) -> None:
        self.lane = ManualLane()
        self.tail = Tail()
        self.tail.move(WALPosition(1, LSN(100 * SIZE)))
        self.loaded: list[Image] = []
        self.missing: set[int] = set()
        self.images = Images(self.lane, self.load)
        self.cursor = Cursor(1, 0, SIZE, self.tail, self.images)

    def load(self, timeline: int, number: int, offset: int) -> Callable[[], Image]:
        """A job that maps nothing in particular."""

        def job() -> Image:
            if number in self.missing:
                raise WALUnavailable(str(number))
            self.loaded.append(Image(mmap.mmap(-1, SIZE), number * SIZE))
            return self.loaded[-1]

        return job

    def used(self) -> list[int]:
        """The numbers of the segments that are in use."""
        return [image.key[1] for image in self.loaded for _ in range(image.users)]

    def read(self, size: int) -> None:
        """Read up to so many bytes, waiting for them."""
        if not self.cursor.read(size):
            self.successResultOf(self.cursor.ready())
            self.cursor.read(size)

    def test_on_the_way(self) -> None:
        """One segment, and in its second half the next."""
        self.read(1)
        self.assertEqual(self.used(), [0])
        self.read(SIZE - 1)
        self.assertEqual(self.used(), [0, 1])
        self.read(1)
        self.assertEqual(self.used(), [1])
        for _ in range(20):
            self.read(SIZE // 4)
            self.assertLessEqual(len(self.used()), 2)
        self.cursor.close()
        self.assertEqual(self.used(), [])

    def test_closed_while_one_is_mapped(self) -> None:
        """What arrives later is let go of."""
        self.lane.is_held = True
        self.cursor.ready().addErrback(lambda _: None)
        self.cursor.close()
        self.lane.work()
        self.assertEqual((len(self.loaded), self.used()), (1, []))

    def test_cancelled_wait_leaves_nothing(self) -> None:
        """Nobody is woken who does not wait."""
        self.cursor.position = 100 * SIZE
        ready = self.cursor.ready().addErrback(lambda _: None)
        ready.cancel()
        self.assertEqual(list(self.tail._waiting), [])

    def test_replaced_under_the_reader(self) -> None:
        """Nothing more is read from the old file."""
        self.read(100)
        self.images.forget(1, 0)
        self.assertEqual(len(self.cursor.read(100)), 0)
        self.successResultOf(self.cursor.ready())
        self.read(100)
        self.assertEqual([image.users for image in self.loaded], [0, 1])

    def test_replaced_ahead_of_the_reader(self) -> None:
        """The next segment was ready, and is mapped again."""
        self.read(SIZE)
        self.images.forget(1, 1)
        self.read(100)
        self.assertEqual([image.users for image in self.loaded], [0, 0, 1])
        self.assertEqual(self.cursor.position, SIZE + 100)

    def test_replaced_while_the_next_is_mapped(self) -> None:
        """Whether that comes or is missing, the present one is mapped again first."""
        for missing in (set[int](), {1}):
            self.missing = missing
            self.setUp()
            self.missing = missing
            self.read(1)
            self.lane.is_held = True
            self.cursor.read(SIZE - 100)
            self.images.forget(1, 0)
            ready = self.cursor.ready()
            self.lane.release()
            self.successResultOf(ready)
            self.assertEqual(len(self.cursor.read(SIZE)), 99)


class MissingTests(CursorCase):
    """WAL that is not there is named; a file that cannot be right is not served."""

    def setUp(self) -> None:
        super().setUp()
        self.log = _Reasons()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def logged_reasons(self) -> str:
        """What the operator is told."""
        return " ".join(self.log.reasons)

    def test_before_and_behind(self) -> None:
        """What is not held; what does not exist yet can be waited for."""
        self.unavailable(self.archive.open(1, SIZE.start(4)), self.name(4))
        ready = self.cursor(self.end + 10).ready()
        self.write(self.archive, 10)
        self.flush(self.archive)
        self.assertNoResult(ready)
        self.write(self.archive, 1)
        self.flush(self.archive)
        self.successResultOf(ready)

    def test_another_timeline(self) -> None:
        """Nothing of it is held."""
        self.unavailable(self.archive.open(2, START), self.name(5, 2))

    def test_nothing_at_all(self) -> None:
        """An archive without WAL ends at 0/0, and whatever may come has to be waited for."""
        self.path = self.path / "empty"
        self.archive = self.open()
        for start in (0, START):
            self.assertNoResult(self.cursor(start).ready().addErrback(lambda _: None))

    def test_vanished_on_the_way(self) -> None:
        """The next segment was removed, or damaged: its name is told when its turn comes."""
        os.rename(self.path / self.name(6), self.path / f"{self.name(6)}.gz")
        cursor = self.cursor()
        self.assertEqual(len(cursor.read(SIZE)), SIZE)
        self.unavailable(cursor.ready(), self.name(6))
        reasons = self.logged_reasons()
        self.assertIn(f"{self.name(6)}.gz is damaged", reasons)

    def test_comes_back(self) -> None:
        """Whoever asks again finds it."""
        os.rename(self.path / self.name(6), self.path / "away")
        cursor = self.cursor()
        cursor.read(SIZE)
        self.unavailable(cursor.ready(), self.name(6))
        os.rename(self.path / "away", self.path / self.name(6))
        self.successResultOf(cursor.ready())
        self.assertEqual(cursor.read(10), self.wal(START + SIZE, 10))

    def test_partial_before_the_end(self) -> None:
        """A .partial is good only where the archive ends: nobody knows how much of it is WAL."""
        os.rename(self.path / self.name(5), self.path / f"{self.name(5)}.partial")
        self.unavailable(self.archive.open(1, START), self.name(5))

    def test_finished_between_two_looks(self) -> None:
        """The writer may give a segment its final name at any moment."""
        real = self.files.open

        def finish(path: str, flags: int) -> int:
            if path == self.paths.partial(self.name(7)):
                os.rename(path, self.paths.of(self.name(7)))
            return real(path, flags)

        self.files.open = finish  # type: ignore[method-assign]
        cursor = self.cursor(START + 2 * SIZE)
        self.assertEqual(len(cursor.read(SIZE)), SIZE // 2)

    def test_cancelled_opening(self) -> None:
        """Nothing is held on to."""
        self.reading.is_held = True
        opening = self.archive.open(1, START)
        opening.cancel()
        self.failureResultOf(opening, CancelledError)
        self.reading.release()
        self.assertEqual(self.archive._provider._images._used, {})

    def test_short_file(self) -> None:
        """Is never mapped: reading behind its end would kill the process."""
        os.truncate(self.path / self.name(5), SIZE - 1)
        self.unavailable(self.archive.open(1, START), self.name(5))
        self.assertIn(f"has {SIZE - 1} bytes", self.logged_reasons())

    def test_other_wal(self) -> None:
        """Neither another cluster's nor that of another place."""
        self.put_segment(5, system_identifier=42)
        self.unavailable(self.archive.open(1, START), self.name(5))
        self.assertIn("system 42", self.logged_reasons())
        os.rename(self.path / self.name(6), self.path / self.name(5))
        self.unavailable(self.archive.open(1, START), self.name(5))
        self.assertIn("from 0/600000 on", self.logged_reasons())

    def test_no_wal(self) -> None:
        """Nor what is no WAL."""
        (self.path / self.name(5)).write_bytes(bytes(SIZE))
        self.unavailable(self.archive.open(1, START), self.name(5))
        self.assertIn("not a WAL page", self.logged_reasons())

    def test_unreadable(self) -> None:
        """A file that may not be read is not there for us."""
        real = self.files.open

        def refuse(path: str, flags: int) -> int:
            if path.endswith(self.name(5)):
                raise OSError(errno.EACCES, "Permission denied")
            return real(path, flags)

        self.files.open = refuse  # type: ignore[method-assign]
        self.unavailable(self.archive.open(1, START), self.name(5))
        self.assertIn("Permission denied", self.logged_reasons())


class HistoricTests(CursorCase):
    """The segment in which a timeline ended is read from whichever file surely has it."""

    def read_all(self, cursor: IWALCursor) -> bytes:
        """Read a historic timeline to its end."""
        wal = bytearray()
        while cursor.position < cursor.available:
            view = cursor.read(1 << 20)
            wal += view
            if not view:
                self.successResultOf(cursor.ready())
        self.failureResultOf(cursor.ready(), EndOfTimeline)
        return bytes(wal)

    def test_from_the_next_timeline(self) -> None:
        """Its own .partial may lack the end, or be gone; the next timeline's file has it."""
        at = self.switch(self.archive)
        self.write(self.archive, SIZE, 2)
        self.flush(self.archive)
        (self.path / f"{self.name(7)}.partial").write_bytes(bytes(SIZE))
        cursor = self.cursor(START + SIZE)
        wal = self.read_all(cursor)
        expected = self.wal(START + SIZE, SIZE) + self.wal(START + 2 * SIZE, SIZE // 2, 2)
        self.assertTrue(wal == expected)
        self.assertEqual(cursor.position, at)

    def test_from_its_own(self) -> None:
        """A finished file of its own is best, wherever it comes from."""
        self.switch(self.archive)
        self.write(self.archive, SIZE, 2)
        self.flush(self.archive)
        self.put_segment(7)
        os.unlink(self.path / self.name(7, 2))
        wal = self.read_all(self.cursor(START + 2 * SIZE))
        self.assertTrue(wal == self.wal(START + 2 * SIZE, SIZE // 2))

    def test_from_a_descendant(self) -> None:
        """If several timelines ended in one segment, any that follows will do."""
        at = self.archive.written
        self.finish(self.archive)
        content = history(4, (1, at), (2, at + 100), (3, at + 200)).format()
        self.successResultOf(self.archive.store_history(4, content))
        self.begin(self.archive, SIZE.floor(at), 4)
        self.write(self.archive, SIZE // 2 + 500, 4)
        self.flush(self.archive)
        for timeline, end in ((1, at), (2, at + 100), (3, at + 200)):
            cursor = self.cursor(START + 2 * SIZE, timeline)
            self.assertEqual(cursor.available, end)
            wal = self.read_all(cursor)
            self.assertTrue(wal == self.wal(START + 2 * SIZE, len(wal), 4))
            self.assertEqual(cursor.position, end)

    def test_no_file_has_it(self) -> None:
        """Then it is the timeline's own segment that is missing."""
        self.switch(self.archive)
        self.write(self.archive, SIZE, 2)
        self.flush(self.archive)
        os.unlink(self.path / self.name(7, 2))
        self.unavailable(self.archive.open(1, LSN(START + 2 * SIZE)), self.name(7))

    def test_a_reader_in_the_segment_goes_over(self) -> None:
        """Its file of the old timeline ended before the switch point; the rest is in the new."""
        at = self.end + 5000
        cursor = self.cursor(START + 2 * SIZE)
        self.assertEqual(len(cursor.read(SIZE)), SIZE // 2)
        self.finish(self.archive)
        self.successResultOf(self.archive.store_history(2, history(2, (1, at)).format()))
        self.begin(self.archive, SIZE.floor(at), 2)
        ready = cursor.ready()
        self.write(self.archive, SIZE // 2 + 6000, 2)
        self.assertNoResult(ready)
        self.flush(self.archive)
        self.successResultOf(ready)
        self.assertEqual(cursor.read(SIZE), self.wal(self.end, 5000, 2))
        self.failureResultOf(cursor.ready(), EndOfTimeline)
