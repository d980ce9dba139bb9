"""What an archive does about WAL that it lacks, and about WAL that nobody needs."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from tests.unit.archives import IDENTITY, SIZE, START, ArchiveCase, DirectoryCase, history
from tests.unit.log_capture import capture_log
from walstream.archive import ArchiveDirectory, Equipment, abandoned
from walstream.archive.ledger import Ledger, load_ledger
from walstream.archive.paths import ArchivePaths
from walstream.errors import (
    ArchiveError,
    Discontinuity,
    EndOfTimeline,
    SinkFailed,
    TimelineMismatch,
    WALUnavailable,
)
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE
from walstream.interfaces import WALPosition
from walstream.testing.disk import ManualLane, ScriptedFiles
from walstream.testing.wal import WALBuilder


class GapCase(ArchiveCase):
    """An archive that ends inside segment 6, behind which the server has segment 9 next."""

    END = LSN(START + SIZE + 5000)
    BEHIND = WALPosition(1, SIZE.start(9))

    def setUp(self) -> None:
        super().setUp()
        self.log = capture_log(self)
        self.archive = self.open()
        self.begin(self.archive)
        self.write(self.archive, self.END - START)
        self.finish(self.archive)

    def accept(self) -> None:
        """The gap is accepted."""
        self.successResultOf(self.archive.accept_gap(self.END, self.BEHIND))

    def fill(self, size: int) -> None:
        """WAL comes behind it, and becomes durable."""
        self.begin(self.archive, self.BEHIND.lsn)
        self.write(self.archive, size)
        self.flush(self.archive)

    def reopen(self) -> None:
        """The process is killed, and started again."""
        self.abandon(self.archive)
        self.archive = self.open()

    def ledger(self) -> Ledger:
        """As it is on the disk."""
        ledger = load_ledger(self.files, self.paths)
        assert ledger is not None
        return ledger


class AcceptingTests(GapCase):
    """`accept_gap` of the archive."""

    def test_goes_on_behind_it(self) -> None:
        """The ledger has it, and so has the log; the ends before and behind are right."""
        self.accept()
        self.assertEqual(self.archive.durable_position(), WALPosition(1, self.END))
        self.assertEqual(self.archive.resume_position(), self.BEHIND)
        self.assertIn(f"the archive has a gap from {self.END} (timeline 1)", str(self.log))
        self.fill(100)
        self.assert_durable(self.archive, self.BEHIND.lsn + 100)
        (gap,) = self.ledger().gaps
        self.assertEqual((gap.start, gap.end), (self.END, self.BEHIND.lsn))

    def test_only_where_the_archive_ends(self) -> None:
        """And only forwards, to the start of a segment. (L6)"""
        for start in (START, LSN(self.END - 1), LSN(self.END + 1)):
            accepting = self.archive.accept_gap(start, self.BEHIND)
            self.failureResultOf(accepting, Discontinuity)
        for end in (self.END, LSN(self.BEHIND.lsn + 1), START):
            accepting = self.archive.accept_gap(self.END, WALPosition(1, end))
            self.failureResultOf(accepting, Discontinuity)
        self.assertEqual(self.ledger().gaps, ())
        self.assertEqual(self.archive.resume_position(), WALPosition(1, SIZE.start(6)))

    def test_on_a_timeline_that_is_not_ours(self) -> None:
        """What lies behind must be of the same history."""
        at = LSN(self.END - 8)
        self.successResultOf(self.archive.store_history(2, history(2, (1, at)).format()))
        accepting = self.archive.accept_gap(self.END, WALPosition(2, self.BEHIND.lsn))
        self.failureResultOf(accepting, TimelineMismatch)

    def test_over_a_promotion(self) -> None:
        """The archive goes on behind the gap on a newer timeline."""
        past = history(2, (1, SIZE.start(8)))
        self.successResultOf(self.archive.store_history(2, past.format()))
        self.BEHIND = WALPosition(2, SIZE.start(9))
        self.accept()
        self.begin(self.archive, self.BEHIND.lsn, 2)
        self.write(self.archive, 100, 2)
        self.files.fail(f"fsync {self.name(9, 2)}.partial", errno.EIO)
        self.failureResultOf(self.archive.finish(), SinkFailed)
        self.files.heal()
        self.assertEqual(self.archive.durable_position(), WALPosition(1, self.END))
        self.begin(self.archive, self.BEHIND.lsn, 2)
        self.write(self.archive, 100, 2)
        self.flush(self.archive)
        self.assertEqual(self.archive.end(), WALPosition(2, LSN(self.BEHIND.lsn + 100)))
        cursor = self.successResultOf(self.archive.open(1, self.END))
        self.assertIn("gap", self.failure(cursor.ready(), WALUnavailable))
        self.reopen()
        self.assert_durable(self.archive, self.BEHIND.lsn + 100, 2)

    def test_before_the_first_byte(self) -> None:
        """If it cannot be recorded, the archive ends where it did, and nothing else begins."""
        self.files.fail("fsync .walstream/ledger.incoming", errno.EIO)
        accepting = self.archive.accept_gap(self.END, self.BEHIND)
        self.assertIn("ledger.json", self.failure(accepting, SinkFailed))
        self.files.heal()
        beginning = self.archive.begin(1, self.BEHIND.lsn)
        self.failureResultOf(beginning, Discontinuity)
        self.assertEqual(self.ledger().gaps, ())

    def test_nothing_but_that_gap(self) -> None:
        """Neither where it was before, nor another one."""
        self.accept()
        for start in (SIZE.start(6), SIZE.start(8), SIZE.start(10)):
            self.failureResultOf(self.archive.begin(1, start), Discontinuity)

    def test_again_with_another_end(self) -> None:
        """The server went on to remove WAL before any came: it is the same gap."""
        self.accept()
        self.reopen()
        self.BEHIND = WALPosition(1, SIZE.start(11))
        self.accept()
        self.fill(100)
        (gap,) = self.ledger().gaps
        self.assertEqual((gap.start, gap.end), (self.END, self.BEHIND.lsn))
        accepting = self.archive.accept_gap(self.END, WALPosition(1, SIZE.start(20)))
        self.failureResultOf(accepting, Discontinuity)

    def test_killed_before_the_first_byte(self) -> None:
        """The next process goes on where this one would have."""
        self.accept()
        self.reopen()
        self.assertEqual(self.archive.durable_position(), WALPosition(1, self.END))
        self.assertEqual(self.archive.resume_position(), self.BEHIND)
        self.assertEqual(self.archive.end(), WALPosition(1, self.END))
        self.begin(self.archive, self.BEHIND.lsn)
        self.write(self.archive, 100)  # and is killed before it is durable
        self.reopen()
        self.assertEqual(self.archive.resume_position(), self.BEHIND)
        self.assertEqual(self.archive.end(), WALPosition(1, self.END))
        self.fill(SIZE + 100)
        self.assert_durable(self.archive, self.BEHIND.lsn + SIZE + 100)
        self.assert_finished([5, 9])

    def test_next_to_the_end(self) -> None:
        """A gap that is not even a segment is none of several unfinished segments."""
        self.BEHIND = WALPosition(1, SIZE.start(7))
        self.accept()
        self.fill(100)
        self.reopen()
        self.assertEqual(self.archive.resume_position(), self.BEHIND)
        self.assert_durable(self.archive, self.BEHIND.lsn + 100)

    def test_shown_for_ever(self) -> None:
        """At each start, also when all around it is gone."""
        self.accept()
        self.fill(SIZE)
        (self.path / self.name(5)).unlink()
        (self.path / f"{self.name(6)}.partial").unlink()
        for _ in range(2):
            self.log.clear()
            self.reopen()
            self.assertIn(f"the archive has a gap from {self.END}", str(self.log))
            self.assertNotIn("hole", str(self.log))


class ServingTests(GapCase):
    """Nobody is served across a gap, or out of it."""

    def test_up_to_it(self) -> None:
        """All before it, and no byte more; then it is named. (L16)"""
        cursor = self.successResultOf(self.archive.open(1, LSN(self.END - 100)))
        self.assertEqual(len(cursor.read(1000)), 100)
        waiting = cursor.ready()
        self.accept()
        self.assertIn(f"gap from {self.END}", self.failure(waiting, WALUnavailable))
        self.fill(SIZE * 2)
        self.assertEqual(cursor.available, self.END)
        self.assertEqual(len(cursor.read(1000)), 0)
        self.assertIn("gap", self.failure(cursor.ready(), WALUnavailable))

    def test_what_is_before_it(self) -> None:
        """Also from the .partial that will never be finished."""
        self.accept()
        self.fill(SIZE * 2)
        self.reopen()
        cursor = self.successResultOf(self.archive.open(1, SIZE.start(6)))
        self.assertEqual(bytes(cursor.read(SIZE)), self.wal(SIZE.start(6), 5000))
        self.assertEqual(len(cursor.read(SIZE)), 0)

    def test_inside_and_behind(self) -> None:
        """Who asks for what is missing is told; who asks for what is behind gets it."""
        self.accept()
        self.fill(SIZE)
        for start in (LSN(self.END + 1), SIZE.start(8)):
            said = self.failure(self.archive.open(1, start), WALUnavailable)
            self.assertIn(f"gap from {self.END}", said)
        cursor = self.successResultOf(self.archive.open(1, self.BEHIND.lsn))
        self.assertEqual(bytes(cursor.read(100)), self.wal(self.BEHIND.lsn, 100))

    def test_by_another_process(self) -> None:
        """A reader learns of the gap before it sees what lies behind."""
        reader = self.open_reader()
        cursor = self.successResultOf(reader.open(1, LSN(self.END - 100)))
        self.assertEqual(len(cursor.read(1000)), 100)
        waiting = cursor.ready()
        self.accept()
        self.fill(100)
        # The mark's change is noticed first.
        reader._follower.changed([self.paths.end])
        self.assertIn(f"gap from {self.END}", self.failure(waiting, WALUnavailable))
        self.assertEqual(len(cursor.read(1000)), 0)
        self.assertEqual(reader.end(), WALPosition(1, LSN(self.BEHIND.lsn + 100)))

    def test_where_a_timeline_ends_with_it(self) -> None:
        """Who has all of the old timeline is led on to the next, and meets the gap there."""
        past = history(2, (1, self.END))
        self.successResultOf(self.archive.store_history(2, past.format()))
        self.BEHIND = WALPosition(2, SIZE.start(9))
        self.accept()
        self.begin(self.archive, self.BEHIND.lsn, 2)
        self.write(self.archive, 100, 2)
        self.flush(self.archive)
        cursor = self.successResultOf(self.archive.open(1, self.END))
        self.failureResultOf(cursor.ready(), EndOfTimeline)
        cursor = self.successResultOf(self.archive.open(2, self.END))
        self.assertIn("gap", self.failure(cursor.ready(), WALUnavailable))


class RewindTests(ArchiveCase):
    """`rewind`: what lies beyond the point where the upstream left the timeline."""

    def setUp(self) -> None:
        super().setUp()
        self.builder = WALBuilder(IDENTITY.system_identifier, SIZE, start=START)
        self.builder.fill_to(START + SIZE - 8192)
        self.at = self.builder.end
        self.builder.noop(SIZE * 2)
        self.archive = self.open()
        self.begin(self.archive)

    def receive(self, end: int) -> None:
        """WAL up to there comes, and becomes durable."""
        self.archive.write(START, memoryview(self.builder.bytes(START, end)))
        self.finish(self.archive)

    def test_unfinished_record(self) -> None:
        """Is given up, over segments too; then the new timeline follows."""
        self.receive(self.at + SIZE + SIZE // 2)
        self.assertEqual(self.names(), [self.name(5), self.name(6), f"{self.name(7)}.partial"][:3])
        log = capture_log(self)
        self.successResultOf(self.archive.rewind(self.at))
        self.assertIn("never became whole", str(log))
        self.assert_durable(self.archive, self.at)
        self.assertEqual(self.archive.resume_position(), WALPosition(1, START))
        # The old timeline once more up to there, as a server sends it, and then the new one.
        self.begin(self.archive)
        self.archive.write(START, memoryview(self.builder.bytes(START, self.at)))
        self.finish(self.archive)
        past = history(2, (1, self.at)).format()
        self.successResultOf(self.archive.store_history(2, past))
        child = self.builder.branch(2, self.at)
        child.fill_to(START + SIZE * 3)
        self.begin(self.archive, START, 2)
        self.assertNotIn(f"{self.name(7)}.partial", self.names())
        self.archive.write(START, memoryview(child.bytes(START, START + SIZE // 2)))
        self.finish(self.archive)
        # Killed now, it does not take the finished segment that was given up for its end.
        self.abandon(self.archive)
        self.archive = self.open()
        self.assertEqual(self.archive.resume_position(), WALPosition(2, START))
        self.begin(self.archive, START, 2)
        self.archive.write(START, memoryview(child.bytes(START, START + SIZE * 3)))
        self.finish(self.archive)
        self.assert_durable(self.archive, START + SIZE * 3, 2)
        cursor = self.successResultOf(self.archive.open(1, START))
        self.assertEqual(cursor.available, self.at)

    def test_killed_meanwhile(self) -> None:
        """It is given up again."""
        self.receive(self.at + SIZE + SIZE // 2)
        self.successResultOf(self.archive.rewind(self.at))
        self.abandon(self.archive)
        self.archive = self.open()
        self.successResultOf(self.archive.rewind(self.at))
        self.assert_durable(self.archive, self.at)

    def test_whole_record(self) -> None:
        """Is not given up, and named; nothing is changed."""
        more = self.builder.end
        self.builder.noop(100)
        self.receive(self.builder.end)
        before = self.archive.durable_position()
        said = self.failure(self.archive.rewind(self.at), TimelineMismatch)
        self.assertIn(f"ends at {more}, is whole", said)
        self.assertEqual(self.archive.durable_position(), before)

    def test_piece_by_piece(self) -> None:
        """A long record is looked at in the lane, little of it at a time; or very little."""
        self.receive(self.at + SIZE + SIZE // 2)
        self.writing.is_held = True
        rewound = self.archive.rewind(self.at)
        jobs = 0
        while self.writing.waiting:
            self.assertNoResult(rewound)
            self.writing.work(1)
            jobs += 1
        self.successResultOf(rewound)
        self.assertGreater(jobs, (SIZE + SIZE // 2) // abandoned._PIECE)
        self.writing.release()

    def test_pieces_of_any_size(self) -> None:
        """Records and their headers may be cut anywhere: a whole one is found."""
        more = self.builder.end
        self.builder.noop(100)
        self.receive(self.builder.end)
        for size in (1000, PAGE_SIZE, 100_003):
            self.patch(abandoned, "_PIECE", size)
            said = self.failure(self.archive.rewind(self.at), TimelineMismatch)
            self.assertIn(f"ends at {more}, is whole", said)

    def test_damage(self) -> None:
        """What is no WAL is not given up as the beginning of a record; it is said where it is."""
        self.receive(self.at + SIZE + SIZE // 2)
        with (self.path / self.name(6)).open("r+b") as file:
            file.seek(SIZE // 2)
            file.write(b"nonsense")
        said = self.failure(self.archive.rewind(self.at), TimelineMismatch)
        self.assertIn(f"what the archive holds from {self.at} on: ", said)

    def test_nothing_beyond(self) -> None:
        """Nothing is to be done."""
        self.receive(self.at)
        self.successResultOf(self.archive.rewind(self.at))
        self.assert_durable(self.archive, self.at)


class TornTests(ArchiveCase):
    """A disk that lost what it had said was durable."""

    def setUp(self) -> None:
        super().setUp()
        archive = self.open()
        self.begin(archive)
        self.write(archive, SIZE + SIZE // 2)
        self.successResultOf(archive.storage.close())
        self.partial = self.path / f"{self.name(6)}.partial"

    def reopen(self) -> tuple[ArchiveDirectory, str]:
        log = capture_log(self)
        archive = self.open()
        return archive, str(log)

    def test_whole(self) -> None:
        """What is as it should be is trusted."""
        archive, log = self.reopen()
        self.assertNotIn("acknowledged", log)
        self.assert_durable(archive, START + SIZE + SIZE // 2)

    def test_zeros(self) -> None:
        """It goes on at the last whole record, and the rest comes again into another file. (L14)"""
        for offset in (8192, 12288, 40000, SIZE // 2 - 8192):
            content = bytearray(self.wal(SIZE.start(6), SIZE // 2).ljust(SIZE, b"\0"))
            content[offset : offset + 4096] = bytes(4096)
            self.partial.write_bytes(content)
            inode = self.partial.stat().st_ino
            archive, log = self.reopen()
            self.assertIn("WAL that was acknowledged is not in the archive any more", log)
            durable = archive.durable_position()
            assert durable is not None
            self.assertLessEqual(durable.lsn, SIZE.start(6) + offset)
            self.assertGreater(durable.lsn, SIZE.start(6) + offset - 16384)
            self.assertEqual(archive.end(), durable)
            self.begin(archive, SIZE.start(6))
            self.write(archive, SIZE // 2)
            self.finish(archive)
            self.assert_durable(archive, SIZE.start(6) + SIZE // 2)
            self.assertNotEqual(self.partial.stat().st_ino, inode)
            self.assertEqual(
                self.partial.read_bytes()[: SIZE // 2], self.wal(SIZE.start(6), SIZE // 2)
            )
            self.successResultOf(archive.storage.close())

    def test_length(self) -> None:
        """A file without its size, or none at all, holds nothing that is durable."""
        for length in (0, 1, 100, SIZE - 1, SIZE + 1, None):
            self.partial.unlink()
            if length is not None:
                self.partial.write_bytes(self.wal(SIZE.start(6), min(length, SIZE)) + b"\0")
                with self.partial.open("r+b") as file:
                    file.truncate(length)
            archive, log = self.reopen()
            self.assertIn("no file holds the WAL before", log)
            self.assert_durable(archive, SIZE.start(6))
            self.begin(archive, SIZE.start(6))
            self.write(archive, SIZE // 2)
            self.finish(archive)
            self.assertEqual(
                self.partial.read_bytes()[: SIZE // 2], self.wal(SIZE.start(6), SIZE // 2)
            )
            self.successResultOf(archive.storage.close())


class OpeningTests(ArchiveCase):
    """What the ledger says when an archive is opened."""

    def test_nothing_left(self) -> None:
        """The end mark still says where to go on; all the rest is a hole."""
        archive = self.open()
        self.begin(archive)
        self.write(archive, SIZE * 2 + 100)
        self.successResultOf(archive.storage.close())
        for name in self.names():
            (self.path / name).unlink()
        log = capture_log(self)
        archive = self.open()
        self.assertEqual(archive.resume_position(), WALPosition(1, SIZE.start(7)))
        self.assertIn(f"{self.name(5)}, {self.name(6)}", str(log))

    def test_killed_before_the_first_byte(self) -> None:
        """An archive begins where it was about to."""
        archive = self.open()
        self.begin(archive)
        self.abandon(archive)
        archive = self.open()
        self.assertEqual(archive.resume_position(), WALPosition(1, START))

    def test_another_clusters_ledger(self) -> None:
        """Is refused."""
        archive = self.open()
        self.begin(archive)
        self.write(archive, SIZE)
        self.successResultOf(archive.storage.close())
        path = Path(self.paths.ledger)
        path.write_text(path.read_text().replace(str(IDENTITY.system_identifier), "42"))
        self.assertIn("of system 42", self.failure(self.make().storage.open(), ArchiveError))

    def test_full_disk(self) -> None:
        """That the ledger cannot be written is no reason not to start."""
        self.put_segment(5)
        self.files.fail("fsync .walstream/ledger.incoming", errno.ENOSPC)
        archive = self.open()
        self.files.heal()
        self.begin(archive, SIZE.start(6))
        self.assertEqual(archive.resume_position(), WALPosition(1, SIZE.start(6)))


T = TypeVar("T")

_STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from([1, 8192, SIZE - 100, SIZE * 2])),
    st.tuples(st.just("gap"), st.integers(1, 3)),
    st.tuples(st.just("promote"), st.just(0)),
    st.tuples(st.just("restart"), st.just(0)),
)


class _Killed(BaseException):
    """The process is gone."""


class _DyingFiles(ScriptedFiles):
    """Ends the process at one of its next system calls."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.calls_left: int | None = None

    def _check(self, what: str, path: str) -> None:
        super()._check(what, path)
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise _Killed


class LedgerCrashTests(DirectoryCase):
    """Killed between any two system calls, an archive knows what it holds and what it lacks."""

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(_STEPS, st.none() | st.integers(0, 25)), max_size=12))
    def test_the_ledger_is_true(self, steps: list[tuple[tuple[str, int], int | None]]) -> None:
        """Nothing that was accepted is forgotten, and nothing else is ever missing."""
        run = _Run(self, Path(self.mktemp()))
        for (what, argument), calls in steps:
            run.files.calls_left = calls
            try:
                getattr(run, what)(argument)
            except _Killed:
                run.restart(0)
            run.files.calls_left = None
            run.check()


class _Run:
    def __init__(self, case: LedgerCrashTests, path: Path) -> None:
        path.mkdir()
        case.path = path  # where its WAL's timelines are looked up
        self.case = case
        self.path = case.path = path  # where the histories are by which WAL is made
        self.timeline = 1
        self.accepted: list[tuple[LSN, LSN]] = []
        self.durable = LSN(0)
        self.files = _DyingFiles(str(path))
        self.open()

    def open(self) -> None:
        equipment = Equipment(self.files, ManualLane(), ManualLane())
        reactor: Any = MemoryReactorClock()
        self.archive = ArchiveDirectory(self.path, reactor, equipment=equipment)
        self.result(self.archive.storage.open())

    def result(self, deferred: Deferred[T]) -> T:
        """What a Deferred fires with; if the process has died meanwhile, it does not."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        if self.files.calls_left is not None and self.files.calls_left < 0:
            raise _Killed
        (result,) = results
        assert not isinstance(result, Failure), result
        outcome: T = result
        return outcome

    def restart(self, _: int) -> None:
        self.files.calls_left = None
        possession = self.archive._sink._tenure.possession
        if possession is not None:
            possession.lock.release()
        self.open()
        resume = self.archive.resume_position()
        if resume is not None:
            self.timeline = max(self.timeline, resume.timeline)

    def begin(self) -> None:
        self.result(self.archive.adopt(IDENTITY))
        resume = self.archive.resume_position() or WALPosition(1, START)
        timeline, start = resume.timeline, resume.lsn
        self.result(self.archive.begin(timeline, start))

    def write(self, size: int) -> None:
        self.begin()
        held = self.archive.durable_position()
        resume = self.archive.resume_position()
        start = self.archive.written
        already = 0 if held is None or resume is None else max(held.lsn - resume.lsn, 0)
        timeline = 1 if resume is None else resume.timeline
        self.archive.write(start, memoryview(self.case.wal(start, already + size, timeline)))
        self.durable = self.result(self.archive.flush())
        self.result(self.archive.finish())

    def gap(self, segments: int) -> None:
        held = self.archive.durable_position()
        if held is None:
            return
        behind = WALPosition(held.timeline, SIZE.start(SIZE.number(held.lsn) + segments))
        self.result(self.archive.accept_gap(held.lsn, behind))
        self.accepted = [gap for gap in self.accepted if gap[0] != held.lsn]
        self.accepted.append((held.lsn, behind.lsn))

    def promote(self, _: int) -> None:
        held, resume = self.archive.durable_position(), self.archive.resume_position()
        if held is None or resume is None or SIZE.floor(held.lsn) != resume.lsn:
            return
        ledger = self.archive._sink._books.ledger
        assert ledger is not None
        ends = {each.timeline: each.end for each in ledger.ranges if each.end is not None}
        past = [(timeline, int(end)) for timeline, end in sorted(ends.items())]
        past = [each for each in past if each[0] < held.timeline]
        timeline = held.timeline + 1
        at = held.lsn
        if timeline in self.archive.histories():
            at = self.result(self.archive.history(timeline)).ancestors[-1].switch_point
            if at < held.lsn:
                return  # that branch was missed: nobody follows it
        content = history(timeline, *past, (held.timeline, at)).format()
        self.result(self.archive.store_history(timeline, content))
        self.result(self.archive.begin(timeline, SIZE.floor(held.lsn)))
        start = self.archive.written
        size = held.lsn - start + 100
        self.archive.write(start, memoryview(self.case.wal(start, size, timeline)))
        self.durable = self.result(self.archive.flush())
        self.result(self.archive.finish())

    def check(self) -> None:
        ledger = load_ledger(self.files, ArchivePaths(str(self.path.absolute())))
        held, resume = self.archive.durable_position(), self.archive.resume_position()
        if ledger is None:
            assert not self.accepted
            assert held is None
            return
        gaps = [(gap.start, gap.end) for gap in ledger.gaps]
        for start, end in self.accepted:
            known = [gap for gap in gaps if gap[0] == start]
            assert known and known[0][1] >= end, f"the gap from {start} was forgotten"
        for before, after in zip(ledger.ranges, ledger.ranges[1:], strict=False):
            assert before.end is not None
            assert before.end == after.start or (before.end, after.start) in gaps
        assert ledger.holes == ()
        if held is None or resume is None:
            return
        assert held.lsn >= self.durable, "what was acknowledged is gone"
        assert resume.lsn == SIZE.floor(held.lsn) or (held.lsn, resume.lsn) in gaps
