"""An archive that serves WAL before it is durable: at once, and never a wrong byte."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from twisted.internet.defer import Deferred

from tests.unit.archives import IDENTITY, SIZE, START, ArchiveCase, history
from walstream.archive.checking import Verify
from walstream.archive.tail import Serve
from walstream.errors import DamagedWAL, EndOfTimeline, SinkFailed, TimelineMismatch
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE
from walstream.interfaces import IWALCursor, WALPosition

_PARTIAL = f"{SIZE.name(1, 5)}.partial"


class WrittenCase(ArchiveCase):
    """An archive with 5000 durable bytes; from then on the disk waits for the test."""

    serve = Serve.WRITTEN

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.begin(self.archive)
        self.receive(5000)
        self.writing.work()
        self.writing.is_held = True

    def receive(self, size: int, timeline: int = 1) -> None:
        """A batch comes, and is over."""
        self.write(self.archive, size, timeline)
        self.archive.sync_soon()

    def work(self, result: Deferred[None]) -> Deferred[None]:
        """The disk does all that it is asked for until then."""
        self.writing.release()
        self.writing.is_held = True
        return result

    def reconnect(self, start: int = START, timeline: int = 1) -> None:
        """The stream has failed, and begins again at its segment's start."""
        self.files.heal()
        self.work(self.archive.finish()).addErrback(lambda _: None)
        self.successResultOf(self.work(self.archive.adopt(IDENTITY)))
        self.successResultOf(self.work(self.archive.begin(timeline, LSN(start))))

    def fail_sync(self, partial: str = _PARTIAL) -> None:
        """The next sync of what came fails; the kernel forgets what it could not write."""
        self.files.fail(f"fdatasync {partial}", errno.EIO)
        self.files.fail(f"fsync {partial}", errno.EIO)
        self.writing.work()
        self.forget()

    def forget(self) -> None:
        """What no sync has brought to the disk is not in any file any more."""
        durable = self.archive.durable_position() or WALPosition(1, START)
        for number in range(5, 12):
            path = self.path / f"{self.name(number, durable.timeline)}.partial"
            valid = max(0, min(durable.lsn - SIZE.start(number), SIZE))
            if path.exists():
                with path.open("r+b") as file:
                    file.seek(valid)
                    file.write(b"\xff" * (SIZE - valid))

    def cursor(self, start: int = START, timeline: int = 1) -> IWALCursor:
        """A cursor that is closed when the test is over."""
        cursor = self.successResultOf(self.archive.open(timeline, LSN(start)))
        self.addCleanup(cursor.close)
        return cursor

    def read(self, cursor: IWALCursor, timeline: int = 1) -> int:  # type: ignore[override]
        """Read all there is, and see that it is right; where that ends."""
        while True:
            start = cursor.position
            view = cursor.read(1 << 17)
            if view:
                right = self.wal(start, len(view), timeline)
                self.assertTrue(view == right, f"wrong from {LSN(start)} on")
                continue
            if cursor.position >= cursor.available:
                return cursor.position
            self.successResultOf(cursor.ready())

    def assert_end(self, lsn: int, timeline: int = 1) -> None:
        """That is what clients are told."""
        self.assertEqual(self.archive.end(), WALPosition(timeline, LSN(lsn)))


class ServedAtOnceTests(WrittenCase):
    """WAL is served when it has been written."""

    def test_before_it_is_durable(self) -> None:
        """Whoever waits has it before the call returns in which the batch was over."""
        cursor = self.cursor(START + 5000)
        ready = cursor.ready()
        self.write(self.archive, 100)
        self.assertNoResult(ready)
        self.archive.sync_soon()
        self.successResultOf(ready)
        self.assertEqual(self.read(cursor), START + 5100)
        self.assert_end(START + 5100)
        self.assertEqual(self.archive.durable_position(), WALPosition(1, LSN(START + 5000)))

    def test_not_from_the_file(self) -> None:
        """The kernel may have forgotten it, and nobody knows yet that a sync has failed."""
        self.receive(100)
        self.forget()
        self.assertEqual(self.read(self.cursor(START + 5000)), START + 5100)

    def test_flush_is_the_end_of_a_batch_too(self) -> None:
        """For whoever knows no other."""
        self.write(self.archive, 100)
        self.archive.flush().addErrback(lambda _: None)
        self.assert_end(START + 5100)

    def test_the_sync_is_begun_first(self) -> None:
        """A commit that waits for it does not wait for the followers."""
        seen: list[int] = []
        cursor = self.cursor(START + 5000)
        cursor.ready().addCallback(lambda _: seen.append(self.writing.waiting))
        self.receive(100)
        self.assertEqual(seen, [1])

    def test_segments_that_no_sync_has_reached(self) -> None:
        """They still have the names of unfinished ones."""
        self.receive(SIZE * 3)
        self.assertIn(f"{self.name(6)}.partial", self.names())
        cursor = self.cursor()
        self.assertEqual(self.read(cursor), START + 5000 + SIZE * 3)
        self.assertEqual(self.read(self.cursor(SIZE.start(7) + 10)), cursor.position)
        self.writing.release()
        self.assert_end(START + 5000 + SIZE * 3)
        self.assertEqual(self.read(self.cursor()), cursor.position)

    def test_nobody_is_woken_when_it_is_durable(self) -> None:
        """They have it."""
        self.archive.watch_durable(lambda lsn: True, lambda: None)
        cursor = self.cursor(START + 5000)
        self.receive(100)
        self.read(cursor)
        told: list[Callable[[], None]] = []
        self.writing.tell = told.append  # type: ignore[assignment, method-assign]
        self.writing.work()
        self.assertEqual(told, [])
        self.assertEqual(self.archive.flushed, START + 5100)

    def test_other_processes(self) -> None:
        """Are told of what is durable only."""
        reader = self.open_reader()
        self.receive(100)
        self.reactor.advance(1)
        self.assertEqual(reader.end(), WALPosition(1, LSN(START + 5000)))
        self.writing.work()
        self.reactor.advance(1)
        self.assertEqual(reader.end(), WALPosition(1, LSN(START + 5100)))

    def test_unless_it_is_wanted(self) -> None:
        """By default it is served when it is durable."""
        self.archive._sink._public._serve = Serve.FLUSHED
        self.receive(100)
        self.assert_end(START + 5000)

    def test_damaged(self) -> None:
        """What is wrong with a page is found before anything of it is written."""
        bad = bytearray(self.wal(START + 5000, PAGE_SIZE))
        bad[PAGE_SIZE - 5000 + 8] ^= 1
        self.assertRaises(DamagedWAL, self.archive.write, START + 5000, memoryview(bad))
        self.archive.sync_soon()
        self.assert_end(START + 5000)


class RecordsTests(WrittenCase):
    """With every record checked."""

    verify = Verify.RECORDS

    def test_once_it_is_checked(self) -> None:
        """That is before it is synced."""
        cursor = self.cursor(START + 5000)
        ready = cursor.ready()
        self.receive(3000)
        self.assertNoResult(ready)
        self.assert_end(START + 5000)
        self.files.fail(f"fdatasync {_PARTIAL}", errno.EIO)
        seen: list[int] = []
        ready.addCallback(lambda _: seen.append(self.read(cursor)))
        self.writing.work()
        self.assertEqual(seen, [START + 8000])

    def receive_damaged(self) -> None:
        """A record comes that is whole, and wrong; it is found before it is synced."""
        bad = bytearray(self.wal(START + 5000, 3000))
        bad[-100] ^= 1
        self.archive.write(START + 5000, memoryview(bad))
        self.write(self.archive, SIZE // 2)
        self.archive.sync_soon()
        self.writing.work()

    def test_damaged_records_are_not_served(self) -> None:
        """They are refused before."""
        self.receive_damaged()
        self.assert_end(START + 5000)
        self.reconnect()
        self.receive(SIZE // 2)
        self.writing.work()
        self.assertEqual(self.read(self.cursor()), START + SIZE // 2)

    def test_damaged_records_are_not_kept_either(self) -> None:
        """What comes again in their place is served before it is durable, not they. (L16)"""
        self.receive_damaged()
        self.reconnect()
        self.receive(6000)
        self.writing.work()  # the new file has its name
        self.receive(4000)
        # What is read is checked, and not durable.
        self.files.fail(f"fdatasync {_PARTIAL}", errno.EIO)
        cursor = self.cursor(START + 6000)
        ready = cursor.ready().addCallback(lambda _: self.read(cursor))
        self.writing.work()
        self.assertEqual(self.successResultOf(ready), START + 10000)


class FailureTests(WrittenCase):
    """What was served cannot be kept here. It comes again, and nothing else is read meanwhile."""

    def test_a_sync_fails(self) -> None:
        """Nobody reads on in the file that failed; the end stays."""
        late, early = self.cursor(START + 5000), self.cursor(START)
        self.receive(3000)
        self.read(late)
        early.read(100)
        self.fail_sync()
        self.assert_end(START + 8000)
        self.assertEqual(self.read(early), START + 5000)
        self.reconnect()
        self.archive.watch_durable(lambda lsn: True, lambda: None)
        waiting = early.ready()
        for size in (5000, 1000):
            self.receive(size)
            self.assertNoResult(waiting)  # the file has not its name yet
            self.assertEqual(self.archive.written, START + size + (size == 1000) * 5000)
        self.assert_end(START + 8000)
        self.writing.work()
        self.successResultOf(waiting)
        self.assertEqual(self.read(early), START + 6000)
        self.receive(1999)
        self.assertEqual(self.read(early), START + 7999)
        self.assertEqual(self.read(late), START + 8000)
        ready = late.ready()
        self.assertNoResult(ready)
        self.receive(2)
        self.successResultOf(ready)
        self.assertEqual(self.read(late), START + 8001)
        self.assertEqual(self.read(early), START + 8001)

    def test_several_segments_are_lost(self) -> None:
        """All behind the durable end."""
        cursor = self.cursor()
        self.receive(SIZE * 3)
        cursor.read(100)
        here = self.cursor(SIZE.start(7))
        here.read(1000)
        self.fail_sync()
        self.assertEqual(self.read(cursor), START + 5000)
        self.assertNoResult(here.ready())
        self.assert_end(START + 5000 + SIZE * 3)
        self.reconnect()
        self.receive(SIZE * 2)
        self.assertEqual(len(here.read(10)), 0)
        self.writing.work()
        self.assertEqual(self.read(cursor), START + SIZE * 2)
        self.receive(SIZE * 2)
        self.assertEqual(self.read(cursor), START + SIZE * 4)
        self.assertEqual(self.read(here), START + SIZE * 4)

    def test_a_write_fails(self) -> None:
        """What was taken before is durable yet, or comes again."""
        cursor = self.cursor()
        self.receive(1000)
        self.files.fail(f"write {_PARTIAL}", errno.ENOSPC)
        self.assertRaises(SinkFailed, self.receive, 1000)
        self.forget()
        self.assertEqual(self.read(cursor), START + 5000)
        self.assert_end(START + 6000)
        self.reconnect()
        self.receive(7000)
        self.writing.work()
        self.assertEqual(self.read(cursor), START + 7000)

    def test_no_room_for_the_next_segment(self) -> None:
        """The present one is finished even so, and readable when it is."""
        cursor = self.cursor()
        self.receive(1000)
        self.files.fail("rename .walstream/spare", errno.ENOSPC)
        self.assertRaises(SinkFailed, self.receive, SIZE)
        self.assertEqual(self.read(cursor), START + 5000)
        self.files.heal()
        self.writing.work()
        self.assertEqual(self.read(cursor), START + SIZE)

    def test_while_an_image_is_loaded(self) -> None:
        """One that is still the old file's is not used."""
        self.receive(3000)
        self.reading.is_held = True
        opening = self.archive.open(1, LSN(START))
        self.reading.work(1)  # its place is told
        self.fail_sync()
        self.reconnect()
        self.receive(7000)
        self.writing.work()
        self.reading.release()
        cursor = self.successResultOf(opening)
        self.addCleanup(cursor.close)
        self.assertEqual(self.read(cursor), START + 7000)

    def test_nothing_was_durable(self) -> None:
        """The first segment of all is received from its start, into a new file."""
        self.path = self.path / "empty"
        self.path.mkdir()
        self.files = type(self.files)(str(self.path))
        self.paths = type(self.paths)(os.path.abspath(self.path))
        self.archive = self.open()
        self.begin(self.archive)
        self.writing.is_held = True
        self.receive(4000)
        cursor = self.cursor()
        self.assertEqual(self.read(cursor), START + 4000)
        late = self.cursor(START + 3000)
        self.fail_sync()
        self.assertEqual(len(late.read(1)), 0)
        self.reconnect()
        self.receive(3500)
        self.assertEqual(self.read(late), START + 3500)
        self.assert_end(START + 4000)
        self.receive(1000)
        self.assertEqual(self.read(late), START + 4500)
        self.assertEqual(self.read(cursor), START + 4500)

    def test_whoever_comes_meanwhile(self) -> None:
        """May begin where others are already, and waits."""
        self.receive(3000)
        self.fail_sync()
        cursor = self.cursor(START + 7000)
        ready = cursor.ready()
        self.reconnect()
        self.receive(7000)
        self.writing.work()
        self.assertNoResult(ready)
        self.receive(10)
        self.successResultOf(ready)
        self.assertEqual(self.read(cursor), START + 7010)

    def test_the_archive_goes_away(self) -> None:
        """And is taken into use again: what was served is not forgotten."""
        self.receive(3000)
        cursor = self.cursor()
        os.rename(self.paths.lock, f"{self.paths.lock}.away")
        self.writing.work()
        self.forget()
        self.assertEqual(self.read(cursor), START + 5000)
        os.rename(f"{self.paths.lock}.away", self.paths.lock)
        self.reconnect()
        self.assert_end(START + 8000)
        self.receive(9000)
        self.writing.work()
        self.assertEqual(self.read(cursor), START + 9000)


class ReconnectTests(WrittenCase):
    """Nothing has failed but the connection."""

    def test_from_the_segments_start(self) -> None:
        """The written position goes back, the end does not, and nobody notices."""
        self.receive(3000)
        self.reconnect()
        self.assertEqual(self.archive.written, START)
        cursor = self.cursor()
        self.receive(2000)
        self.assert_end(START + 8000)
        self.assertEqual(self.read(cursor), START + 8000)
        self.receive(7000)
        self.assertEqual(self.read(cursor), START + 9000)

    def test_another_server(self) -> None:
        """WAL that differs from what is durable is refused; and served it is not."""
        self.receive(3000)
        self.reconnect()
        other = bytearray(self.wal(START, 9000))
        other[7000] ^= 1
        self.assertRaises(TimelineMismatch, self.archive.write, START, memoryview(other))
        self.archive.sync_soon()
        self.assert_end(START + 8000)
        self.assertEqual(self.read(self.cursor()), START + 8000)


class TimelineTests(WrittenCase):
    """The upstream is promoted."""

    def follow(self, switch_point: int) -> None:
        """Timeline 2 begins there."""
        self.archive.store_history(2, history(2, (1, switch_point)).format())
        self.reconnect(SIZE.floor(switch_point), 2)

    def test_new_timeline(self) -> None:
        """It is served as soon as its first bytes are durable, and then as it comes."""
        self.receive(3000)
        self.follow(START + 8000)
        self.receive(9000, 2)
        self.assert_end(START + 8000)
        self.writing.work()
        self.assert_end(START + 9000, 2)
        self.receive(100, 2)
        self.assert_end(START + 9100, 2)
        self.assertEqual(self.read(self.cursor(START, 2), 2), START + 9100)

    def test_what_comes_during_the_first_sync(self) -> None:
        """Is served after it, and does not wait for what comes next."""
        self.archive.watch_durable(lambda lsn: True, lambda: None)
        self.follow(START + 5000)
        self.archive.watch_durable(lambda lsn: True, lambda: None)
        self.archive.end()
        self.receive(6000, 2)
        self.receive_in_sync(500)
        self.writing.work()
        self.assertEqual(self.archive._provider.end(), WALPosition(2, LSN(START + 6500)))

    def receive_in_sync(self, size: int) -> None:
        """More comes while the next sync is under way."""
        real = self.files.fsync

        def fsync(fd: int) -> None:
            self.files.fsync = real  # type: ignore[method-assign]
            self.receive(size, 2)
            real(fd)

        self.files.fsync = fsync  # type: ignore[method-assign]

    def test_promoted_before_what_was_served(self) -> None:
        """What could not be kept does not come any more: followers are told where it ends."""
        ahead, behind = self.cursor(START + 5000), self.cursor()
        self.receive(3000)
        self.read(ahead)
        self.fail_sync()
        self.files.heal()
        self.follow(START + 6000)
        ready = ahead.ready()
        self.assertNoResult(ready)
        self.receive(7000, 2)
        self.writing.work()
        self.assert_end(START + 7000, 2)
        for over in (ready, self.cursor(START + 6000).ready()):
            self.assert_over(over, START + 6000)
        self.assertEqual(self.read(behind, 2), START + 6000)
        self.assert_over(behind.ready(), START + 6000)

    def assert_over(self, over: Deferred[None], switch_point: int) -> None:
        """Timeline 1 ends there."""
        error = self.failureResultOf(over, EndOfTimeline).value
        assert isinstance(error, EndOfTimeline)
        self.assertEqual((error.next_timeline, error.switch_point), (2, switch_point))

    def test_given_up(self) -> None:
        """What is durable beyond the switch point is only the beginning of a record."""
        self.receive(3000)
        self.writing.work()
        self.receive(100)
        result = self.work(self.archive.finish())
        self.successResultOf(result)
        end = self.archive.durable_position()
        assert end is not None
        cursor = self.cursor(end.lsn - 100)
        self.assertEqual(self.read(cursor), end.lsn)
        at = end.lsn - 2
        rewound = self.archive.rewind(LSN(at))
        self.work(rewound)
        self.successResultOf(rewound)
        self.assert_end(end.lsn)
        self.follow(at)
        self.receive(9000, 2)
        self.writing.work()
        self.assert_over(cursor.ready(), at)
        self.assert_end(START + 9000, 2)


class GapTests(WrittenCase):
    """Behind a gap that was accepted."""

    def test_not_before_it_is_durable(self) -> None:
        """Up to then another gap may be accepted in its place."""
        behind = WALPosition(1, SIZE.start(9))
        self.receive(3000)
        self.successResultOf(self.work(self.archive.finish()))
        accepted = self.archive.accept_gap(LSN(START + 8000), behind)
        self.successResultOf(self.work(accepted))
        self.reconnect(behind.lsn)
        self.receive(100)
        self.assert_end(START + 8000)
        self.writing.work()
        self.assert_end(behind.lsn + 100)
        self.receive(100)
        self.assert_end(behind.lsn + 200)
        self.assertEqual(self.read(self.cursor(behind.lsn)), behind.lsn + 200)
        self.assertEqual(self.read(self.cursor()), START + 8000)
