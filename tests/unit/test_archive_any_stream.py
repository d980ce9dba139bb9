"""Whatever happens to an archive while it is read: each reader gets all WAL, in order, and right.

An archive is filled, synced, compressed, promoted, restarted, and failed by its disk at random,
while readers are at random places in it. They do what clients do: when a timeline ends they go on
with the next one, and when their connection is lost they come again, at their segment's start.
"""

from __future__ import annotations

import errno
import shutil
from functools import partial
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.unit.archives import BUILT, IDENTITY, SIZE, START, ArchiveCase, history
from walstream.archive import ArchiveDirectory, mapping
from walstream.archive import cursor as cursor_module
from walstream.archive.checking import Verify
from walstream.archive.tail import Serve
from walstream.errors import DamagedWAL, EndOfTimeline, SinkFailed
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALCursor, WALPosition

# Of records of 7000 bytes the one in the middle is whole in it.
_DAMAGED = 20000

_SIZES = st.sampled_from([1, 100, 8192, SIZE // 2, SIZE - 100, SIZE * 2])

_STEPS = st.one_of(
    st.tuples(st.just("receive"), _SIZES),
    st.tuples(st.just("receive"), _SIZES),
    st.tuples(st.just("work"), st.integers(1, 8)),
    st.tuples(st.just("read"), st.integers(0, 7)),
    st.tuples(st.just("read"), st.integers(0, 7)),
    st.tuples(st.just("come"), st.integers(0, 100)),
    st.tuples(st.just("compress"), st.integers(0, 40)),
    st.tuples(st.just("switch"), st.integers(0, 1)),
    st.tuples(st.just("fail"), st.sampled_from(["fsync", "fdatasync", "write", "rename"])),
    st.tuples(st.just("damage"), st.booleans()),
    st.tuples(st.just("reconnect"), st.just(0)),
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("hold"), st.integers(0, 1)),
)

# A reader that waits is given what comes in the place of what was damaged, before it is durable.
_AGAIN: list[tuple[str, Any]] = [
    ("come", 100),
    ("read", 1),
    ("damage", True),
    ("receive", 8192),
    ("work", 8),
    ("read", 1),
    ("read", 1),
    ("receive", 8192),
    ("work", 8),
]


class _Reader:
    """A client: where it is, and on which timeline; whether it reads as soon as it is woken."""

    def __init__(self, timeline: int, position: int, *, is_eager: bool) -> None:
        self.timeline = timeline
        self.position = position
        self.is_eager = is_eager
        self.cursor: IWALCursor | None = None
        self.opening: Deferred[IWALCursor] | None = None
        self.ready: Deferred[None] | None = None
        self.outcome: Any = None
        self.reads = 0


class AnyStreamTests(ArchiveCase):
    """Random lives of an archive and its readers."""

    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
    )
    @given(
        st.lists(_STEPS, min_size=5, max_size=60),
        st.sampled_from(Serve),
        st.sampled_from(Verify),
        st.sampled_from([SIZE, SIZE // 4]),
    )
    @example(_AGAIN, Serve.WRITTEN, Verify.RECORDS, SIZE)
    def test_every_reader_gets_all(
        self, steps: list[tuple[str, Any]], serve: Serve, verify: Verify, window: int
    ) -> None:
        """No gap, no repeat, no wrong byte; and in the end everything."""
        self.serve, self.verify = serve, verify
        self.patch(mapping, "WINDOW", window)
        self.patch(cursor_module, "WINDOW", window)
        self.start()
        try:
            for step, argument in steps:
                getattr(self, f"do_{step}")(argument)
                self.check_end()
                self.assertEqual(self.wrong, [])
            self.come_to_rest()
            self.assertEqual(self.wrong, [])
        finally:
            self.flushLoggedErrors()
            self.close(self.archive, self.writing, self.reading)
            shutil.rmtree(self.path, ignore_errors=True)

    # One life.

    def start(self) -> None:
        """Begin with one reader."""
        super().setUp()
        self.archive = self.open_again()
        self.timeline = 1
        self.switches: list[tuple[int, int]] = []
        self.ends: dict[int, int] = {}
        self.readers: list[_Reader] = []
        self.wrong: list[LSN] = []
        self.begin(self.archive)
        self.writing.is_held = True
        self.do_come(0)

    def open_again(self) -> ArchiveDirectory:
        archive = self.make()
        self.successResultOf(archive.storage.open())
        return archive

    def all_done(self, result: Deferred[Any]) -> Any:
        """What comes of it once all disks have done all."""
        outcomes: list[Any] = []
        result.addBoth(outcomes.append)
        held = self.reading.is_held
        for _ in range(4):
            self.writing.release()
            self.reading.release()
        self.writing.is_held, self.reading.is_held = True, held
        return outcomes[0]

    def do_receive(self, size: int) -> None:
        """A batch."""
        written = self.archive.written
        if written + size > BUILT.stop:
            return
        try:
            self.write(self.archive, size, self.timeline)
            self.archive.sync_soon()
        except (SinkFailed, DamagedWAL):
            self.do_reconnect(0)

    def do_work(self, jobs: int) -> None:
        """The disk gets to something."""
        self.writing.work(jobs)
        self.forget()

    def forget(self) -> None:
        """When a sync has failed, the kernel gives up what it could not write."""
        stream, durable = self.archive._sink._stream, self.archive.durable_position()
        if stream is None or not stream._is_broken:
            return
        end = durable.lsn if durable and durable.timeline == self.timeline else 0
        for path in self.path.glob(f"{self.timeline:08X}*.partial"):
            valid = max(0, min(end - SIZE.start(int(path.name[8:24], 16)), SIZE))
            with path.open("r+b") as file:
                file.seek(valid)
                file.write(b"\xff" * (SIZE - valid))

    def do_fail(self, call: str) -> None:
        """Something on the disk fails until the next connection."""
        number = SIZE.number(self.archive.written)
        for segment in (number, number - 1):
            self.files.fail(f"{call} {self.name(segment, self.timeline)}.partial", errno.EIO)

    def do_damage(self, is_over: bool) -> None:
        """A batch comes in which a record is wrong, if that is seen: it is whole in one segment.

        It may be seen at once, and the connection made again.
        """
        written, durable = self.archive.written, self.archive.durable_position()
        is_again = durable is not None and written < durable.lsn
        is_in_one = SIZE.offset(written) + _DAMAGED <= SIZE and written + _DAMAGED <= BUILT.stop
        if self.verify is not Verify.RECORDS or is_again or not is_in_one:
            return
        bad = bytearray(self.wal(written, _DAMAGED, self.timeline))
        for at in (_DAMAGED // 2, _DAMAGED // 2 + 16):  # one of them may be in no record
            bad[at] ^= 1
        try:
            self.archive.write(written, memoryview(bad))
            self.archive.sync_soon()
        except (SinkFailed, DamagedWAL):
            is_over = True
        if is_over:
            self.do_work(8)
            self.do_reconnect(0)

    def do_reconnect(self, _: int) -> None:
        """The connection is lost, and made again."""
        self.files.heal()
        self.all_done(self.archive.finish())
        self.forget()
        resume = self.archive.resume_position()
        start = START if resume is None else resume.lsn
        if resume is not None and resume.timeline != self.timeline:
            start = SIZE.floor(self.switches[-1][1])
        for result in (
            self.archive.adopt(IDENTITY),
            self.archive.begin(self.timeline, LSN(start)),
        ):
            self.assertIsNone(self.all_done(result))

    def do_restart(self, _: int) -> None:
        """The process is killed, and started again."""
        self.files.heal()
        for reader in self.readers:
            self.leave(reader)
        self.abandon(self.archive)
        self.reading.release()
        self.archive = self.open_again()
        self.ends.clear()
        self.writing.is_held = True
        self.do_reconnect(0)

    def do_switch(self, at_a_boundary: int) -> None:
        """The upstream is promoted where the archive ends."""
        if self.timeline > 4:
            return
        self.do_reconnect(0)
        if at_a_boundary:
            self.do_receive(-self.archive.written % SIZE)
        at = max(self.all_done(self.archive.flush()), self.archive.end().lsn)
        if self.archive.written < at or self.archive.end().timeline != self.timeline:
            return  # what it has not got again is not worth a promotion
        self.all_done(self.archive.finish())
        self.switches.append((self.timeline, at))
        self.timeline += 1
        content = history(self.timeline, *self.switches).format()
        self.assertIsNone(self.all_done(self.archive.store_history(self.timeline, content)))
        self.assertIsNone(self.all_done(self.archive.begin(self.timeline, LSN(SIZE.floor(at)))))

    def do_compress(self, which: int) -> None:
        """A finished segment is compressed, or gets another form."""
        names = sorted(name for name in self.names() if "." not in name)[:-1]
        if names:
            name = names[which % len(names)]
            suffix = ("gz", "lz4", "zst")[which % 3]
            timeline, number = int(name[:8], 16), int(name[8:], 16)
            self.compress_segment(number, suffix, timeline)
            self.archive._provider.close()

    def do_hold(self, is_held: int) -> None:
        """Reads wait, or not."""
        self.reading.is_held = bool(is_held)
        if not is_held:
            self.reading.work()

    # Readers.

    def do_come(self, percent: int) -> None:
        """Another client, which begins anywhere."""
        if len(self.readers) < 8:
            end = self.archive.end()
            start = START + (max(end.lsn, START) - START) * percent // 100
            timeline = next(
                (timeline for timeline, at in self.switches if start < at), self.timeline
            )
            timeline = min(timeline, end.timeline)
            self.readers.append(_Reader(timeline, start, is_eager=len(self.readers) % 2 == 1))

    def do_read(self, which: int) -> None:
        """A client takes something."""
        reader = self.readers[which % len(self.readers)]
        reader.reads += 1
        if reader.cursor is None:
            self.enter(reader)
        if reader.cursor is not None:
            self.take(reader, (1, 5000, SIZE // 3, SIZE * 2)[reader.reads % 4])

    def enter(self, reader: _Reader) -> None:
        if reader.opening is None and reader.timeline > self.archive.end().timeline:
            return  # after a restart it is not there again yet
        if reader.opening is None:
            reader.opening = self.archive.open(reader.timeline, LSN(reader.position))
            reader.opening.addCallback(partial(setattr, reader, "cursor"))
            reader.opening.addErrback(lambda failure: setattr(reader, "outcome", failure))
        if isinstance(reader.outcome, Failure):
            reader.outcome.raiseException()

    def take(self, reader: _Reader, limit: int) -> None:
        cursor = reader.cursor
        assert cursor is not None
        if reader.ready is None:
            if self.read_view(reader, cursor, limit):
                return
            reader.ready = cursor.ready()
            reader.ready.addBoth(partial(self.woken, reader, cursor))
        if reader.outcome is not None:
            (outcome,), reader.outcome, reader.ready = reader.outcome, None, None
            if isinstance(outcome, Failure):
                self.go_on(reader, outcome)

    def read_view(self, reader: _Reader, cursor: IWALCursor, limit: int) -> bool:
        """Whether there was something; where it was wrong is looked at after each step."""
        view = cursor.read(limit)
        right = self.wal(reader.position, len(view), self.timeline)
        if view != right or cursor.position != reader.position + len(view):
            self.wrong.append(LSN(reader.position))
        reader.position += len(view)
        return len(view) > 0

    def woken(self, reader: _Reader, cursor: IWALCursor, outcome: Failure | None) -> None:
        """In the midst of whatever has woken it, as clients are."""
        reader.outcome = (outcome,)
        if reader.is_eager and outcome is None:
            self.read_view(reader, cursor, SIZE // 3)

    def go_on(self, reader: _Reader, failure: Failure) -> None:
        """Its timeline is over: the next one's begins in the same segment."""
        error = failure.value
        assert isinstance(error, EndOfTimeline), failure.getTraceback()
        self.assertEqual(error.switch_point, reader.position)
        self.leave(reader)
        reader.timeline = error.next_timeline

    def leave(self, reader: _Reader) -> None:
        """The client begins again at its segment's start, as they all do."""
        if reader.cursor is None:
            self.reading.release()  # for the one that is being opened
        if reader.cursor is not None:
            reader.cursor.close()
        reader.cursor = reader.opening = reader.ready = reader.outcome = None
        reader.position = max(SIZE.floor(reader.position), START)

    # What has to be true.

    def check_end(self) -> None:
        """It never goes back on one timeline."""
        end = self.archive.end()
        self.assertGreaterEqual(end.lsn, self.ends.get(end.timeline, 0))
        self.ends[end.timeline] = end.lsn

    def come_to_rest(self) -> None:
        """All that was lost comes again, and then every reader gets to the end."""
        self.do_hold(0)
        self.do_reconnect(0)
        end = max(
            (
                self.archive.written,
                self.archive.end().lsn,
                *self.ends.values(),
                *(at for _, at in self.switches),
            )
        )
        end = max(end, *(reader.position for reader in self.readers)) + 1
        while self.archive.written < min(end, BUILT.stop):
            self.do_receive(min(SIZE // 2, end - self.archive.written))
        self.all_done(self.archive.flush())
        self.assertEqual(self.archive.end(), WALPosition(self.timeline, LSN(end)))
        for number, reader in enumerate(self.readers):
            for _ in range(2000):
                self.do_read(number)
                if reader.position == end:
                    break
            self.assertEqual((reader.timeline, reader.position), (self.timeline, end))
