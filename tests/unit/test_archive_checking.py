"""WAL is checked before it is kept, and before it is acknowledged."""

from __future__ import annotations

from crc32c import crc32c

from tests.unit.archives import IDENTITY, SIZE, START, ArchiveCase, history
from walstream.archive import ArchiveDirectory
from walstream.archive.checking import RecordCheck, Verify
from walstream.errors import DamagedWAL, Discontinuity, SinkFailed
from walstream.formats.lsn import LSN
from walstream.formats.page_rules import PageRules
from walstream.formats.pages import PAGE_SIZE
from walstream.formats.record_walk import RecordWalk
from walstream.formats.segments import history_file_name
from walstream.services.retry import Verdict, verdict
from walstream.testing.wal import WALBuilder


class _Case(ArchiveCase):
    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.builder = WALBuilder(segment_size=SIZE, start=START)

    def put(self, data: bytes, start: int | None = None) -> None:
        """Write it where the stream stands."""
        start = self.archive.written if start is None else start
        self.archive.write(start, memoryview(data))

    def damaged(self, lsn: int) -> bytes:
        """The builder's WAL, with another byte at a position."""
        data = bytearray(self.builder.bytes())
        data[lsn - START] ^= 0x10
        return bytes(data)


class HeadersTests(_Case):
    """Page headers are checked as they come."""

    def test_nothing_of_what_fails_is_kept(self) -> None:
        """Neither written nor counted; and what came before stays."""
        self.begin(self.archive)
        self.write(self.archive, 5000)
        before = self.read(5, partial=True)
        bad = bytearray(self.wal(START + 5000, 3 * PAGE_SIZE))
        bad[PAGE_SIZE * 2 - 5000 + 8] ^= 1
        error = self.assertRaises(DamagedWAL, self.put, bytes(bad))
        self.assertEqual(error.position, START + 2 * PAGE_SIZE)
        self.assertEqual(self.archive.written, START + 5000)
        self.assertEqual(self.read(5, partial=True), before)
        self.assertEqual(self.flush(self.archive), START + 5000)
        self.finish(self.archive)
        self.assert_durable(self.archive, START + 5000)

    def test_a_good_stream_goes_on_from_there(self) -> None:
        """What was refused is received again, and what was kept is compared."""
        self.begin(self.archive)
        self.write(self.archive, 5000)
        bad = self.wal(START + 5000, PAGE_SIZE).replace(b"\x18\xd1", b"\x18\xd0")
        self.assertRaises(DamagedWAL, self.put, bad)
        self.finish(self.archive)
        self.begin(self.archive)
        self.write(self.archive, SIZE + 10)
        self.finish(self.archive)
        self.assert_finished([5])

    def test_it_is_checked_again_when_it_comes_again(self) -> None:
        """A reconnected stream begins with the segment, and is looked at like any."""
        self.begin(self.archive)
        self.write(self.archive, 5000)
        self.finish(self.archive)
        self.begin(self.archive)
        error = self.assertRaises(DamagedWAL, self.put, b"\x18\xd0" + bytes(100))
        self.assertEqual(error.position, START)

    def test_another_system_in_the_stream(self) -> None:
        """The long header of each segment tells, whatever the server said of itself."""
        self.begin(self.archive)
        other = self.wal(START, 100, system_identifier=17)
        error = self.assertRaises(DamagedWAL, self.put, other)
        self.assertEqual(error.found, "17")

    def test_a_server_of_another_version_than_it_says(self) -> None:
        """Its pages would not be read by the servers that want them."""
        self.begin(self.archive)
        builder = WALBuilder(segment_size=SIZE, start=START, major=17)
        builder.noop()
        error = self.assertRaises(DamagedWAL, self.put, builder.bytes())
        self.assertEqual((error.expected, error.found), ("D118", "D116"))

    def test_streams_that_jump_overlap_or_rewind(self) -> None:
        """Good pages at the wrong place are refused before they are looked at."""
        self.begin(self.archive)
        self.write(self.archive, 2 * PAGE_SIZE)
        for start in (START, START + PAGE_SIZE, START + 3 * PAGE_SIZE, START + SIZE):
            self.assertRaises(Discontinuity, self.put, self.wal(start, PAGE_SIZE), start)
        self.write(self.archive, PAGE_SIZE)

    def test_it_is_tried_again(self) -> None:
        """The server, or another one, may have it right."""
        self.assertIs(verdict(DamagedWAL(1, "it", "good", "bad")), Verdict.RETRY)


class RecordsTests(_Case):
    """With ``--verify records``, checksums and links are checked before WAL is acknowledged."""

    verify = Verify.RECORDS

    def test_good_records_pass(self) -> None:
        """Of every size, in pieces of any, with a flush after each."""
        for size in (0, 100, 3 * PAGE_SIZE, 100_000):
            self.builder.noop(size)
        self.builder.crash()
        self.builder.noop(SIZE + 12345)
        self.builder.switch()
        self.builder.fill_segment()
        self.builder.noop(50_000)
        data = self.builder.bytes()
        self.begin(self.archive)
        for offset in range(0, len(data), 77_777):
            self.put(data[offset : offset + 77_777])
            self.assertEqual(self.flush(self.archive), self.archive.written)
        self.finish(self.archive)
        self.assertEqual(self.archive.flushed, self.builder.end)

    def test_small_commits(self) -> None:
        """Record by record, and cut anywhere."""
        for _ in range(300):
            self.builder.noop(150)
        data = self.builder.bytes()
        self.begin(self.archive)
        for offset in range(0, len(data), 99):
            self.put(data[offset : offset + 99])
            self.flush(self.archive)
        self.assertEqual(self.archive.flushed, self.builder.end)

    def test_a_sync_that_comes_late(self) -> None:
        """Another may have been further already."""
        self.builder.noop(5 * PAGE_SIZE)
        data = self.builder.bytes()

        class Segment:
            start: int = START

            def read_back(self, position: int, size: int) -> bytes:
                offset = position - START
                assert size >= 0
                return data[offset : offset + size]

        rules = PageRules.of(IDENTITY, history(1))
        check = RecordCheck(RecordWalk(START, rules, crc32c))
        for end in (START + 4 * PAGE_SIZE, START + 100, START, self.builder.end, START + PAGE_SIZE):
            check.check(Segment(), end)

    def test_a_bad_record_is_never_acknowledged(self) -> None:
        """The good ones before it may be; its segment gets no final name."""
        self.builder.fill_to(START + 10 * PAGE_SIZE)
        bad = self.builder.noop(200)
        self.builder.fill_segment()
        data = self.damaged(bad.lsn + 100)
        self.begin(self.archive)
        self.put(data[: 9 * PAGE_SIZE])
        self.flush(self.archive)
        self.put(data[9 * PAGE_SIZE :])
        error = self.failureResultOf(self.archive.flush(), DamagedWAL).value
        self.assertEqual(error.position, bad.lsn)
        self.assertEqual(self.archive.flushed, START + 9 * PAGE_SIZE)
        self.failureResultOf(self.archive.finish(), DamagedWAL)
        self.assertEqual(self.names(), [self.name(5) + ".partial"])

    def test_it_is_received_again(self) -> None:
        """Into another file: nothing of the bad one is trusted."""
        self.test_a_bad_record_is_never_acknowledged()
        self.begin(self.archive)
        self.put(self.builder.bytes())
        self.finish(self.archive)
        self.assertEqual(self.names(), [self.name(5)])
        self.assertEqual(self.read(5), self.builder.bytes())

    def test_waiting_flushes_fail_and_the_producer_is_stopped(self) -> None:
        """As for any failure of the sink."""
        bad = self.builder.noop(200)
        self.begin(self.archive)
        self.writing.is_held = True
        self.put(self.damaged(bad.lsn + 40))
        first, second = self.archive.flush(), self.archive.flush()
        self.writing.release()
        self.failureResultOf(first, DamagedWAL)
        self.failureResultOf(second, DamagedWAL)
        self.assertRaises(DamagedWAL, self.put, b"")

    def test_a_record_across_the_border_of_two_streams(self) -> None:
        """A stream begins with a segment, in the middle of a record that the one before begins."""
        self.builder.fill_to(START + SIZE - 4000)
        crossing = self.builder.noop(PAGE_SIZE)
        self.builder.noop(100)
        data = self.builder.bytes()
        self.begin(self.archive)
        self.put(data[:SIZE])
        self.finish(self.archive)
        self.begin(self.archive, START + SIZE)
        self.put(self.damaged(START + SIZE + 1000)[SIZE:])
        error = self.failureResultOf(self.archive.flush(), DamagedWAL).value
        self.assertEqual(error.position, crossing.lsn)
        self.failureResultOf(self.archive.finish(), DamagedWAL)
        self.begin(self.archive, START + SIZE)
        self.put(data[SIZE:])
        self.finish(self.archive)
        self.assertEqual(self.archive.flushed, self.builder.end)

    def test_the_chain_goes_on_across_streams(self) -> None:
        """The first record of the new stream has to follow on the last one of the old."""
        self.builder.fill_segment()
        self.begin(self.archive)
        self.put(self.builder.bytes())
        self.finish(self.archive)
        other = WALBuilder(segment_size=SIZE, start=LSN(START + SIZE))
        other.noop(100)
        self.begin(self.archive, START + SIZE)
        self.put(other.bytes())
        error = self.failureResultOf(self.archive.flush(), DamagedWAL).value
        self.assertEqual(error.what, "the previous record")
        self.failureResultOf(self.archive.finish(), DamagedWAL)

    def test_nothing_before_is_held(self) -> None:
        """Then the first record that begins in the segment is the first that is checked."""
        self.builder.noop(SIZE)
        self.builder.noop(100)
        bad = self.builder.noop(100)
        self.builder.noop(100)
        self.begin(self.archive, START + SIZE)
        self.put(self.damaged(bad.lsn + 30)[SIZE:])
        error = self.failureResultOf(self.archive.flush(), DamagedWAL).value
        self.assertEqual(error.position, bad.lsn)
        self.failureResultOf(self.archive.finish(), DamagedWAL)

    def test_a_bad_segment_before_does_not_hold_up(self) -> None:
        """It was acknowledged long ago, and is for the operator to mend."""
        self.builder.fill_segment()
        self.builder.noop(100)
        (self.path / self.name(5)).write_bytes(self.damaged(START + 5000)[:SIZE])
        self.archive = self.open_again()
        self.begin(self.archive, START + SIZE)
        self.put(self.builder.bytes()[SIZE:])
        self.finish(self.archive)
        self.assertEqual(self.archive.flushed, self.builder.end)

    def open_again(self) -> ArchiveDirectory:
        """The archive, as a new process finds it."""
        self.successResultOf(self.archive.storage.close())
        return self.open()

    def test_a_new_timeline(self) -> None:
        """Its first segment begins with the old one's records."""
        self.builder.fill_to(START + SIZE + 3 * PAGE_SIZE)
        child = self.builder.branch(2)
        child.fill_to(START + SIZE + 9 * PAGE_SIZE)
        self.begin(self.archive)
        self.put(self.builder.bytes())
        self.finish(self.archive)
        content = history(2, (1, self.builder.end)).format()
        self.successResultOf(self.archive.store_history(2, content))
        self.assertTrue((self.path / history_file_name(2)).exists())
        self.begin(self.archive, START + SIZE, 2)
        self.put(child.bytes())
        self.finish(self.archive)
        self.assert_durable(self.archive, child.end, 2)

    def test_what_was_not_finished(self) -> None:
        """The next stream begins all the same."""
        self.builder.fill_to(START + 9000)
        self.begin(self.archive)
        self.put(self.damaged(START + 100))
        self.failureResultOf(self.archive.flush(), DamagedWAL)
        self.begin(self.archive)
        self.put(self.builder.bytes())
        self.finish(self.archive)
        self.assert_durable(self.archive, self.builder.end)

    def test_a_read_that_fails(self) -> None:
        """What cannot be read back is not acknowledged."""
        self.builder.noop(100)
        self.begin(self.archive)
        self.put(self.builder.bytes())
        self.files.fail(f"read {self.name(5)}.partial", 5)
        self.failureResultOf(self.archive.flush(), SinkFailed)
        self.failureResultOf(self.archive.finish(), SinkFailed)
