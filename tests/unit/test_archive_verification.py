"""What ``walstream verify`` finds in an archive, and what it lets pass."""

from __future__ import annotations

import errno
import gzip
import os
import random

from tests.unit.archives import SIZE, DirectoryCase
from walstream.archive.end_mark import EndMark
from walstream.archive.filesystem import FileSystem
from walstream.archive.identity import store_identity
from walstream.archive.ledger import Ledger, change_ledger
from walstream.archive.verification import Finding, Scope, Verification
from walstream.errors import ArchiveError
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.segments import history_file_name
from walstream.testing.wal import SYSTEM_IDENTIFIER, WALBuilder

_START = SIZE.start(1)


class _Case(DirectoryCase):
    def setUp(self) -> None:
        super().setUp()
        self.wal_of = WALBuilder(segment_size=SIZE)

    def build(self, segments: int) -> None:
        """Put so many finished segments there, with records of many sizes."""
        sizes = random.Random(5)
        end = _START + segments * SIZE
        while self.wal_of.end < end - SIZE:
            self.wal_of.noop(sizes.choice([0, 20, 100, 1000, 9000, 30_000, 300_000]))
        self.wal_of.fill_to(end)
        self.store(self.wal_of)

    def store(self, wal: WALBuilder, *, segments: int | None = None, partial: bool = False) -> None:
        """Put the builder's segments there; the last one as .partial."""
        found = list(wal.segments().items())
        for number, (name, content) in enumerate(found, 1):
            suffix = ".partial" if partial and number == len(found) else ""
            (self.path / f"{name}{suffix}").write_bytes(content)

    def mark(self, lsn: int, timeline: int = 1) -> None:
        """Say how far the archive is durable."""
        (self.path / ".walstream").mkdir(exist_ok=True)
        files = FileSystem()
        identity = SystemIdentity(SYSTEM_IDENTIFIER, SIZE, "18.6")
        store_identity(files, self.paths, identity)
        mark = EndMark(files, self.paths)
        mark.write(WALPosition(timeline, LSN(lsn)))
        mark.close()

    def change(self, number: int, offset: int, data: bytes, timeline: int = 1) -> None:
        """Put other bytes into a segment."""
        path = self.path / self.name(number, timeline)
        content = bytearray(path.read_bytes())
        content[offset : offset + len(data)] = data
        path.write_bytes(content)

    def flip(self, lsn: int) -> None:
        """Flip a bit."""
        number, offset = SIZE.number(lsn), SIZE.offset(lsn)
        byte = (self.path / self.name(number)).read_bytes()[offset]
        self.change(number, offset, bytes([byte ^ 4]))

    def verify(self, scope: Scope | None = None) -> list[Finding]:
        """What is found; the summary is kept."""
        verification = Verification(FileSystem(), self.paths, scope)
        found = list(verification.findings())
        self.summary = verification.summary
        self.assertEqual(self.summary.faults, sum(each.is_fault for each in found))
        return found

    def faults(self, scope: Scope | None = None) -> list[tuple[str, str]]:
        """Kind and subject of what is not good."""
        found = self.verify(scope)
        return [(each.kind, each.subject) for each in found if each.is_fault]


class GoodTests(_Case):
    """Archives as they should be."""

    def test_finished_segments(self) -> None:
        """All records are counted, once, whatever unit they are in."""
        self.build(9)
        self.assertEqual(self.verify(), [])
        self.assertEqual(self.summary.segments, 9)
        self.assertEqual(self.summary.bytes, 9 * SIZE)
        self.assertEqual(self.summary.ranges, 1)
        self.assertEqual(self.summary.records, len(self.wal_of.records))

    def test_an_empty_archive(self) -> None:
        """Nothing is wrong with it."""
        self.assertEqual(self.verify(), [])

    def test_records_longer_than_segments(self) -> None:
        """And than units."""
        self.wal_of.noop(100)
        for size in (3 * SIZE, 1, 2 * SIZE + 77, 100_000):
            self.wal_of.noop(size)
        self.wal_of.fill_segment()
        self.store(self.wal_of)
        self.assertEqual(self.verify(), [])
        self.assertEqual(self.summary.records, len(self.wal_of.records))

    def test_switches_and_crashes(self) -> None:
        """Segments that end in zeros, and records that were never finished."""
        for _ in range(4):
            self.wal_of.noop(5000)
            self.wal_of.switch()
            self.wal_of.fill_to(self.wal_of.end + SIZE - PAGE_SIZE)
            self.wal_of.crash()
            self.wal_of.noop(3 * PAGE_SIZE)
        self.wal_of.switch()
        self.store(self.wal_of)
        self.assertEqual(self.verify(), [])

    def test_beginning_anywhere(self) -> None:
        """What was before the oldest segment need not be there."""
        self.build(5)
        for number in (1, 2):
            (self.path / self.name(number)).unlink()
        self.assertEqual(self.verify(), [])

    def test_a_partial_up_to_the_end_mark(self) -> None:
        """What is behind the mark does not count."""
        self.build(2)
        self.wal_of.noop(1000)
        self.wal_of.noop(5 * PAGE_SIZE)
        self.store(self.wal_of, partial=True)
        self.mark(self.wal_of.end - 2 * PAGE_SIZE - 5)
        self.assertEqual(self.verify(), [])
        path = self.path / (self.name(3) + ".partial")
        content = bytearray(path.read_bytes())
        content[SIZE.offset(self.wal_of.end) - 20] ^= 1
        path.write_bytes(content)
        self.assertEqual(self.verify(), [])

    def test_a_partial_without_a_mark(self) -> None:
        """It is pg_receivewal's: how far it is WAL is told, and nothing is wrong about that."""
        self.build(2)
        self.wal_of.noop(1000)
        self.store(self.wal_of, partial=True)
        (note,) = self.verify()
        self.assertEqual((note.is_fault, note.position), (False, self.wal_of.end))

    def test_several_partials_after_a_power_cut(self) -> None:
        """What was being received is zeros, the mark is gone: nobody was told it is durable."""
        for finished in (2, 3, 4):
            self.wal_of = WALBuilder(segment_size=SIZE)
            self.build(finished)
            self.wal_of.noop(3 * SIZE)
            self.store(self.wal_of)
            for number in range(finished + 1, finished + 5):
                path = self.path / self.name(number)
                content = path.read_bytes() if number == finished + 1 else bytes(SIZE)
                path.with_name(path.name + ".partial").write_bytes(content)
                path.unlink()
            self.assert_good_and_clear_partials()

    def test_a_mark_that_is_older_than_the_next_segment(self) -> None:
        """Killed in between: what follows the mark came, though nobody vouches for it."""
        self.build(2)
        self.wal_of.noop(100)
        for mark in (self.wal_of.records[-2].end, self.wal_of.end):
            self.wal_of.noop(100)
            self.wal_of.switch()
            self.wal_of.noop(100)
            self.store(self.wal_of)
            for path in sorted(self.path.glob("?" * 24))[2:]:
                path.rename(path.with_name(path.name + ".partial"))
            self.mark(mark)
            self.assert_good_and_clear_partials()

    def assert_good_and_clear_partials(self) -> None:
        """Nothing is wrong, however many processes look."""
        for jobs in (1, 3):
            verification = Verification(FileSystem(), self.paths)
            faults = [each for each in verification.findings(jobs) if each.is_fault]
            self.assertEqual(faults, [])
        for path in self.path.glob("*.partial"):
            path.unlink()

    def test_compressed_segments(self) -> None:
        """They are decoded, among plain ones and beside themselves."""
        self.build(4)
        for number in (2, 3):
            path = self.path / self.name(number)
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            if number == 2:
                path.unlink()
        self.assertEqual(self.verify(), [])
        self.assertEqual(self.summary.segments, 5)

    def test_a_promotion(self) -> None:
        """The old timeline's end stays as .partial, and the new one begins in the same segment."""
        self.build(2)
        self.wal_of.noop(300_000)
        child = self.wal_of.branch(2)
        child.noop(SIZE)
        child.fill_segment()
        self.wal_of.noop(5000)  # nobody followed this
        self.store(self.wal_of, partial=True)
        self.store(child)
        self.put_history(2, (1, child.records[-3].lsn))
        self.put_history(2, (1, self.switch_point(child)))
        faults = [each for each in self.verify() if each.is_fault]
        self.assertEqual(faults, [])

    def switch_point(self, child: WALBuilder) -> int:
        """Where the child left the parent."""
        shared = [record for record in child.records if record in self.wal_of.records]
        return shared[-1].end

    def test_a_promotion_between_two_segments(self) -> None:
        """And one more in the same segment."""
        self.build(2)
        at = self.wal_of.end
        child = self.wal_of.branch(2)
        child.noop(3 * PAGE_SIZE)
        second = child.end
        grandchild = child.branch(3)
        grandchild.noop(2 * SIZE)
        grandchild.fill_segment()
        self.store(child, partial=True)
        self.store(grandchild)
        self.put_history(2, (1, at))
        self.put_history(3, (1, at), (2, second))
        self.assertEqual([each for each in self.verify() if each.is_fault], [])


class DamageTests(_Case):
    """What is found, and where it is said to be."""

    def test_a_byte_of_any_record(self) -> None:
        """Wherever it is flipped: in headers, in data, where a record goes on."""
        self.build(4)
        chance = random.Random(17)
        for _ in range(60):
            record = chance.choice(self.wal_of.records)
            lsn = record.lsn + chance.randrange(record.length)
            # The two bytes of padding in a record's header count, too.
            before = {path: path.read_bytes() for path in self.path.iterdir() if path.is_file()}
            self.flip(lsn)
            self.assertNotEqual(self.faults(), [], f"{record} at {LSN(lsn)}")
            for path, content in before.items():
                path.write_bytes(content)

    def test_every_segment_is_looked_at(self) -> None:
        """Damage in one does not keep others from being found."""
        self.build(6)
        for number in (2, 3, 5):
            self.change(number, 100 * PAGE_SIZE + 500, b"\xff\x00\xff")
        self.assertEqual([name for _, name in self.faults()], [self.name(n) for n in (2, 3, 5)])

    def test_zeroed_page(self) -> None:
        """A page that was never written."""
        self.build(3)
        self.change(2, 7 * PAGE_SIZE, bytes(PAGE_SIZE))
        self.assertEqual(self.faults(), [("damage", self.name(2))])

    def test_zeroed_end(self) -> None:
        """As a crash leaves it, without a switch that would explain it."""
        self.build(3)
        self.change(2, SIZE // 2, bytes(SIZE // 2))
        self.assertIn(("damage", self.name(2)), self.faults())

    def test_bytes_behind_a_switch(self) -> None:
        """Nothing but zeros is there on a server."""
        self.wal_of.noop(100)
        self.wal_of.switch()
        self.wal_of.fill_segment()
        self.store(self.wal_of)
        self.change(1, SIZE - 100, b"x")
        (finding,) = self.verify()
        self.assertEqual(finding.position, _START + SIZE - 100)

    def test_swapped_segments(self) -> None:
        """Each says which one it is."""
        self.build(4)
        one, other = (self.path / self.name(number) for number in (2, 3))
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
        self.assertEqual(self.faults(), [("damage", self.name(2)), ("damage", self.name(3))])

    def test_truncated(self) -> None:
        """A plain segment has its size."""
        self.build(3)
        path = self.path / self.name(2)
        path.write_bytes(path.read_bytes()[:-1])
        self.assertIn(("size", self.name(2)), self.faults())

    def test_removed(self) -> None:
        """It is a gap, and what is behind is verified all the same."""
        self.build(5)
        (self.path / self.name(3)).unlink()
        self.change(4, 20 * PAGE_SIZE + 500, b"\xff\x00\xff")
        found = self.verify()
        self.assertEqual(
            [(each.kind, each.subject) for each in found],
            [("gap", self.name(3)), ("damage", self.name(4))],
        )
        self.assertIn("0/300000 to 0/400000", found[0].what)
        self.assertEqual(self.summary.ranges, 2)

    def test_a_segment_of_another_history(self) -> None:
        """Good in itself, but the chain of records does not lead there, in whatever unit it is."""
        for number in range(2, 9):
            with self.subTest(number):
                self.wal_of = WALBuilder(segment_size=SIZE)
                self.wal_of.fill_segment()
                for _ in range(8):
                    self.wal_of.fill_segment()
                self.store(self.wal_of)
                other = WALBuilder(segment_size=SIZE, start=SIZE.start(number))
                other.fill_segment()
                self.store(other)
                self.assertIn(("damage", self.name(number)), self.faults())

    def test_another_system(self) -> None:
        """A segment that got here by mistake."""
        self.build(3)
        other = WALBuilder(17, segment_size=SIZE, start=SIZE.start(2))
        other.fill_segment()
        self.store(other)
        ((_, name), *_) = self.faults()
        self.assertEqual(name, self.name(2))

    def test_damaged_compressed_segment(self) -> None:
        """The trailer may be right."""
        self.build(3)
        path = self.path / self.name(2)
        packed = bytearray(gzip.compress(path.read_bytes()))
        path.unlink()
        gz = path.with_name(path.name + ".gz")
        packed[len(packed) // 2] ^= 1
        gz.write_bytes(packed)
        self.assertEqual(self.faults(), [("damage", gz.name)])
        gz.write_bytes(packed[: len(packed) // 2])
        self.assertEqual(self.faults(), [("damage", gz.name)])

    def test_the_record_across_the_end_of_a_unit(self) -> None:
        """Its end is in the next unit's segment, and is this one's to check."""
        self.wal_of.fill_to(_START + 4 * SIZE - PAGE_SIZE)
        crossing = self.wal_of.noop(3 * PAGE_SIZE)
        while self.wal_of.end < _START + 8 * SIZE:
            self.wal_of.fill_segment()
        self.store(self.wal_of)
        self.flip(_START + 4 * SIZE + 1000)
        found = self.verify()
        self.assertEqual([each.position for each in found], [crossing.lsn])

    def test_before_the_end_mark(self) -> None:
        """A .partial is WAL up to there, or acknowledged WAL was lost."""
        self.build(1)
        self.wal_of.noop(1000)
        bad = self.wal_of.noop(1000)
        self.wal_of.noop(1000)
        self.store(self.wal_of, partial=True)
        self.mark(self.wal_of.end)
        path = self.path / (self.name(2) + ".partial")
        content = bytearray(path.read_bytes())
        content[SIZE.offset(bad.lsn) + 100] ^= 1
        path.write_bytes(content)
        self.assertEqual(self.faults(), [("damage", path.name)])
        path.write_bytes(bytes(SIZE))
        self.assertEqual(self.faults(), [("damage", path.name)])

    def test_unreadable(self) -> None:
        """What the disk does not give is as bad as damage."""
        self.build(3)
        name, read = self.name(2), FileSystem.pread

        def pread(files: FileSystem, fd: int, size: int, offset: int) -> bytes:
            if os.readlink(f"/proc/self/fd/{fd}").endswith(name):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return read(files, fd, size, offset)

        self.patch(FileSystem, "pread", pread)
        self.assertEqual(self.faults(), [("unreadable", name)])


class TimelineTests(_Case):
    """Histories, and segments that do not agree with them."""

    def build_two(self) -> None:
        """Two timelines; the second leaves the first inside segment 3."""
        self.build(2)
        self.wal_of.noop(300_000)
        self.at = self.wal_of.end
        self.child = self.wal_of.branch(2)
        self.child.noop(SIZE)
        self.child.fill_segment()
        self.store(self.wal_of, partial=True)
        self.store(self.child)
        self.put_history(2, (1, self.at))
        self.assertEqual([each for each in self.verify() if each.is_fault], [])

    def test_missing_history(self) -> None:
        """Nothing can follow across a promotion without it."""
        self.build_two()
        (self.path / history_file_name(2)).unlink()
        self.assertIn(("history", history_file_name(2)), self.faults())

    def test_damaged_history(self) -> None:
        """It must be one."""
        self.build_two()
        (self.path / history_file_name(2)).write_bytes(b"1\tnonsense\n")
        self.assertIn("damage", [kind for kind, _ in self.faults()])

    def test_missing_ancestor(self) -> None:
        """The history of each ancestor has to be there."""
        self.build(1)
        child = self.wal_of.branch(3)
        child.fill_segment()
        self.store(child)
        self.put_history(3, (1, _START + 100), (2, self.wal_of.end))
        self.assertIn(("history", history_file_name(2)), self.faults())

    def test_histories_that_differ(self) -> None:
        """Two servers were promoted to the same timeline."""
        self.build_two()
        self.put_history(3, (1, self.at - 8), (2, self.child.end))
        self.assertIn(("history", history_file_name(3)), self.faults())

    def test_switch_point_and_pages_differ(self) -> None:
        """The pages say on which timeline they were begun."""
        self.build_two()
        self.put_history(2, (1, self.at + 3 * PAGE_SIZE))
        self.assertIn(("damage", self.name(3, 2)), self.faults())

    def test_missing_between_two_timelines(self) -> None:
        """The segment of the switch point belongs to the new one."""
        self.build_two()
        (self.path / self.name(3, 2)).unlink()
        self.assertEqual(self.faults(), [("gap", self.name(3, 2))])

    def test_the_copy_of_the_old_timelines_wal(self) -> None:
        """The new timeline's first segment is looked at from its beginning, across the border."""
        self.build_two()
        self.change(3, 2 * PAGE_SIZE + 100, b"\0\1\2", timeline=2)
        (finding,) = [each for each in self.verify() if each.is_fault]
        # The record began in the segment before, which is all right.
        self.assertIn(f"the record up to {self.at}", finding.what)

    def test_a_finished_end_of_the_old_timeline(self) -> None:
        """What the old primary wrote after the switch is WAL of its own timeline, and checked."""
        self.build_two()
        self.wal_of.fill_segment()
        self.store(self.wal_of)
        (self.path / (self.name(3) + ".partial")).unlink()
        self.assertEqual(self.verify(), [])
        self.change(3, SIZE - 5000, b"\0\1\2")
        self.assertEqual(self.faults(), [("damage", self.name(3))])

    def test_before_its_timeline(self) -> None:
        """A timeline has no segments before it began."""
        self.build_two()
        content = (self.path / self.name(2)).read_bytes()
        (self.path / self.name(2, 2)).write_bytes(content)
        self.assertIn(("history", self.name(2, 2)), self.faults())


class ScopeTests(_Case):
    """A part of an archive."""

    def test_from_and_to(self) -> None:
        """Segments that have a byte in between are looked at, and no others."""
        self.build(6)
        for number in (2, 5):
            self.change(number, 20 * PAGE_SIZE + 500, b"\xff\x00\xff")
        scope = Scope(start=SIZE.start(3), end=SIZE.start(5))
        self.assertEqual(self.faults(scope), [])
        self.assertEqual(self.summary.segments, 2)
        scope = Scope(start=SIZE.start(3) - 1, end=SIZE.start(5) + 1)
        self.assertEqual(len(self.faults(scope)), 2)

    def test_gaps_outside(self) -> None:
        """They do not count."""
        self.build(6)
        (self.path / self.name(2)).unlink()
        self.assertEqual(self.faults(Scope(start=SIZE.start(3))), [])
        self.assertEqual(self.faults(Scope(end=SIZE.start(3))), [("gap", self.name(2))])

    def test_one_timeline(self) -> None:
        """Of others nothing is read."""
        self.build(3)
        self.change(2, 20 * PAGE_SIZE + 500, b"\xff\x00\xff")
        self.assertEqual(self.faults(Scope(timeline=2)), [])
        self.assertEqual(self.summary.segments, 0)


class ArchiveTests(_Case):
    """What can be looked at at all."""

    def test_a_servers_own_directory(self) -> None:
        """It is no archive."""
        (self.path / "archive_status").mkdir()
        self.assertRaises(ArchiveError, self.verify)

    def test_no_directory(self) -> None:
        """Then there is nothing to say."""
        self.path.rmdir()
        self.assertRaises(OSError, self.verify)

    def test_damaged_identity(self) -> None:
        """The segments tell, too."""
        self.build(2)
        self.mark(_START + 2 * SIZE)
        (self.path / ".walstream" / "identity.json").write_text("{")
        found = self.verify()
        self.assertEqual([each.kind for each in found], ["damage"])
        self.assertEqual(self.summary.segments, 2)

    def test_damaged_newest_segment(self) -> None:
        """Whose WAL it is, others tell."""
        self.build(3)
        self.change(3, 0, bytes(40))
        self.assertEqual(self.faults(), [("damage", self.name(3))])

    def test_a_segment_that_goes_away(self) -> None:
        """Whoever removes WAL does not wait for us."""
        self.build(8)
        verification = Verification(FileSystem(), self.paths)
        (self.path / self.name(2)).unlink()
        found = list(verification.findings())
        self.assertEqual([(each.kind, each.subject) for each in found], [("note", self.name(2))])

    def test_a_partial_that_is_finished_meanwhile(self) -> None:
        """It is read under its new name, compressed or not."""
        self.build(1)
        self.wal_of.fill_segment()
        self.store(self.wal_of, partial=True)
        self.mark(self.wal_of.end - 1000)
        verification = Verification(FileSystem(), self.paths)
        path = self.path / (self.name(2) + ".partial")
        (self.path / (self.name(2) + ".gz")).write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        self.assertEqual(list(verification.findings()), [])

    def test_what_is_given_out_is_short(self) -> None:
        """One line each."""
        self.build(2)
        self.change(2, 500, b"\xff\x00\xff")
        for finding in self.verify():
            self.assertNotIn("\n", finding.what + finding.remedy)


class AcceptedGapTests(_Case):
    """Gaps that the operator accepted."""

    def test_it_is_a_note(self) -> None:
        """With what was durable before it, and everything behind it, verified."""
        self.build(2)
        self.wal_of.noop(1000)
        before = self.wal_of.end
        self.store(self.wal_of, partial=True)
        behind = WALBuilder(segment_size=SIZE, start=SIZE.start(6))
        behind.fill_segment()
        self.store(behind)
        self.mark(behind.end)
        start, end = WALPosition(1, before), WALPosition(1, behind.start)
        ledger = Ledger(SYSTEM_IDENTIFIER, SIZE).begun(WALPosition(1, _START))
        ledger = ledger.gap_accepted(start, end, "2026-11-25T20:00:00Z")
        change_ledger(FileSystem(), self.paths, lambda _: ledger)
        found = self.verify()
        self.assertEqual([each.is_fault for each in found], [False])
        self.assertIn("accepted on 2026-11-25", found[0].what)
        path = self.path / (self.name(3) + ".partial")
        content = bytearray(path.read_bytes())
        content[SIZE.offset(before) - 100] ^= 1
        path.write_bytes(content)
        self.assertEqual(self.faults(), [("damage", path.name)])
