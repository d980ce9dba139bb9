"""Tests for walstream.archive.retention, holds and backup_starts: what may go, and what stays."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from pathlib import Path

from tests.unit.archives import IDENTITY, SIZE, DirectoryCase
from walstream.archive import retention
from walstream.archive.backup_starts import read_backup_start
from walstream.archive.coverage import find_gaps
from walstream.archive.inventory import take_inventory
from walstream.archive.ledger import Ledger, change_ledger, load_ledger
from walstream.archive.readers import ReaderFile
from walstream.archive.retention import Plan, RetentionPolicy, make_plan, prune
from walstream.archive.slot_files import SlotFiles
from walstream.errors import FormatError, RetentionRefused
from walstream.formats.lsn import LSN
from walstream.formats.segments import backup_history_name
from walstream.interfaces import Slot, WALPosition
from walstream.testing.wal import SYSTEM_IDENTIFIER

NOW = 1_800_000_000.0
DAY = 86400.0
LABEL = """START WAL LOCATION: {lsn} (file {segment})
CHECKPOINT LOCATION: {lsn}
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-23 10:50:12 UTC
LABEL: nightly
START TIMELINE: {timeline}
"""

# A policy that keeps nothing by itself.
NOTHING = RetentionPolicy(keep_from="readers")


class RetentionCase(DirectoryCase):
    """An archive of segments 3 to 9; each is a day younger than the one before, 9 is new."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(3, 10):
            path = self.put_segment(number)
            os.utime(path, (NOW - (9 - number) * DAY, NOW - (9 - number) * DAY))

    def plan(self, policy: RetentionPolicy) -> Plan:
        """What would go."""
        return make_plan(self.files, self.paths, policy, NOW)

    def first_kept(self, policy: RetentionPolicy) -> int:
        """The number of the first segment that stays."""
        kept = self.plan(policy).next_kept
        assert kept is not None
        return int(kept[16:24], 16)

    def refusal(self, policy: RetentionPolicy = NOTHING) -> str:
        """Why nothing goes."""
        with self.assertRaises(RetentionRefused) as caught:
            prune(self.files, self.paths, policy, NOW)
        return str(caught.exception)

    def numbers(self) -> list[int]:
        """Which segments there are."""
        return sorted(int(name[16:24], 16) for name in self.names() if len(name) == 24)

    def put_slot(self, name: str, number: int) -> None:
        """A slot that stands in a segment."""
        restart = WALPosition(1, LSN(SIZE.start(number) + 0x28))
        slots = SlotFiles(self.files, self.paths.slots)
        slots.store(Slot(name, temporary=False, restart=restart, active_pid=None))

    def label(self, number: int, timeline: int = 1) -> str:
        """The backup_label of a backup that began in a segment."""
        lsn = LSN(SIZE.start(number) + 0x28)
        return LABEL.format(lsn=lsn, segment=self.name(number, timeline), timeline=timeline)

    def put_backup_history(self, number: int, timeline: int = 1) -> str:
        """The history file of a backup that began in a segment; its name."""
        name = backup_history_name(timeline, LSN(SIZE.start(number) + 0x28), SIZE)
        (self.path / name).write_text(self.label(number, timeline))
        return name


class PolicyTests(RetentionCase):
    """What each of the policies keeps."""

    def test_nothing_is_kept_but_the_newest(self) -> None:
        """It is where a stream goes on."""
        plan = self.plan(NOTHING)
        self.assertEqual(len(plan.removed), 6)
        self.assertEqual(plan.next_kept, self.name(9))
        self.assertIn("newest", plan.reason)
        self.assertEqual(plan.bytes, 6 * SIZE)

    def test_a_policy_is_needed(self) -> None:
        """Nobody wants all of it gone by leaving an option out."""
        self.assertIn("no policy", self.refusal(RetentionPolicy()))

    def test_age(self) -> None:
        """The oldest that is young enough, and all behind it."""
        self.assertEqual(self.first_kept(RetentionPolicy(keep_age=2.5 * DAY)), 7)
        self.assertEqual(self.first_kept(RetentionPolicy(keep_age=1000 * DAY)), 3)
        self.assertIn("2 d ago", self.plan(RetentionPolicy(keep_age=2.5 * DAY)).reason)

    def test_a_clock_that_was_wrong(self) -> None:
        """A young one stays, wherever it is, and so does what is behind it."""
        os.utime(self.path / self.name(4), (NOW + DAY, NOW + DAY))
        self.assertEqual(self.first_kept(RetentionPolicy(keep_age=DAY)), 4)

    def test_size(self) -> None:
        """As many of the newest as there is room for."""
        self.assertEqual(self.first_kept(RetentionPolicy(keep_size=3 * SIZE)), 7)
        self.assertEqual(self.first_kept(RetentionPolicy(keep_size=3 * SIZE + 1)), 7)
        self.assertEqual(self.first_kept(RetentionPolicy(keep_size=3 * SIZE - 1)), 8)
        self.assertEqual(self.first_kept(RetentionPolicy(keep_size=100 * SIZE)), 3)
        self.assertEqual(self.first_kept(RetentionPolicy(keep_size=0)), 9)

    def test_size_on_disk_counts(self) -> None:
        """Of what is compressed, what it takes."""
        for number in range(3, 9):
            (self.path / self.name(number)).unlink()
            (self.path / f"{self.name(number)}.gz").write_bytes(b"small")
        self.assertEqual(self.first_kept(RetentionPolicy(keep_size=SIZE + 15)), 6)

    def test_from(self) -> None:
        """A segment's name, a position, a slot, a backup history file, a backup."""
        self.put_slot("standby", 6)
        name = self.put_backup_history(5)
        backup = Path(self.mktemp())
        backup.mkdir()
        (backup / "backup_label").write_text(self.label(4))
        for what, number in (
            (self.name(7), 7),
            (f"{self.name(7)}.gz", 7),
            (str(LSN(SIZE.start(5) + 77)), 5),
            (name, 5),
            (str(backup), 4),
        ):
            SlotFiles(self.files, self.paths.slots).remove("standby")
            self.assertEqual(self.first_kept(RetentionPolicy(keep_from=what)), number, what)
        self.put_slot("standby", 6)
        self.assertEqual(self.first_kept(RetentionPolicy(keep_from="slot:standby")), 6)

    def test_from_what_is_not_there(self) -> None:
        """A mistyped name must not be taken for a wish to keep little."""
        for what in ("slot:none", "nonsense", "FF/0", self.name(4000)):
            self.assertIn(what, self.refusal(RetentionPolicy(keep_from=what)))
        self.assertEqual(self.numbers(), list(range(3, 10)))

    def test_backups(self) -> None:
        """The newest so many; if fewer are known, everything."""
        for number in (4, 6, 8):
            self.put_backup_history(number)
        for count, number in ((1, 8), (2, 6), (3, 4), (4, 3)):
            policy = RetentionPolicy(keep_backups=count)
            self.assertEqual(self.first_kept(policy), number)
        self.assertIn("3 are known", self.plan(RetentionPolicy(keep_backups=4)).reason)

    def test_backups_that_cannot_be_restored_do_not_count(self) -> None:
        """Their first segment has gone, or they are of a timeline that was given up."""
        self.put_backup_history(2)
        self.put_backup_history(5)
        self.put_backup_history(7, timeline=2)
        self.assertEqual(self.first_kept(RetentionPolicy(keep_backups=1)), 5)
        self.assertIn("1 are known", self.plan(RetentionPolicy(keep_backups=2)).reason)

    def test_whatever_one_keeps_stays(self) -> None:
        """Policies add up."""
        policy = RetentionPolicy(keep_age=DAY * 3.5, keep_size=2 * SIZE, keep_from=self.name(8))
        self.assertEqual(self.first_kept(policy), 6)


class HoldTests(RetentionCase):
    """What stays whatever a policy says."""

    def test_slots(self) -> None:
        """What its user may still need. (L15)"""
        self.put_slot("standby", 5)
        plan = self.plan(NOTHING)
        self.assertEqual(plan.next_kept, self.name(5))
        self.assertIn("slot standby needs WAL from 0/500028", plan.reason)

    def test_a_damaged_slot(self) -> None:
        """Nobody knows then what is needed."""
        self.put_slot("standby", 5)
        Path(self.paths.slots, "standby.json").write_text("{")
        self.assertIn("damaged", self.refusal())
        self.assertEqual(self.numbers(), list(range(3, 10)))

    def test_readers(self) -> None:
        """What a process serves to its clients, until it ends. (L15)"""
        reader = ReaderFile(self.files, self.paths)
        reader.begin(WALPosition(1, SIZE.start(5)))
        plan = self.plan(NOTHING)
        self.assertEqual(plan.next_kept, self.name(5))
        self.assertIn(f"process {os.getpid()} serves WAL from 0/500000", plan.reason)
        reader.move(WALPosition(1, SIZE.start(6)))
        self.assertEqual(self.first_kept(NOTHING), 6)
        reader.close()
        self.assertEqual(self.first_kept(NOTHING), 9)

    def test_a_reader_that_cannot_be_understood(self) -> None:
        """It needs something, so nothing goes."""
        reader = ReaderFile(self.files, self.paths)
        self.addCleanup(reader.close)
        reader.begin(WALPosition(1, SIZE.start(5)))
        (path,) = Path(self.paths.readers).iterdir()
        path.write_bytes(b"torn")
        self.assertIn("does not tell", self.refusal())

    def test_kept_backups(self) -> None:
        """They need everything from their beginning on."""
        backup = Path(self.mktemp())
        backup.write_text(self.label(4))
        plan = self.plan(RetentionPolicy(keep_size=0, keep_backup=(str(backup),)))
        self.assertEqual(plan.next_kept, self.name(4))
        self.assertIn("backup", plan.reason)

    def test_a_backup_of_another_cluster(self) -> None:
        """Says nothing about this archive."""
        backup = Path(self.mktemp())
        backup.write_text(manifest(SIZE.start(4), SYSTEM_IDENTIFIER + 1))
        self.assertIn(
            "is a backup of system", self.refusal(RetentionPolicy(keep_backup=(str(backup),)))
        )
        backup.write_text(manifest(SIZE.start(4), SYSTEM_IDENTIFIER))
        self.assertEqual(self.first_kept(RetentionPolicy(keep_backup=(str(backup),))), 4)

    def test_a_backup_that_is_gone(self) -> None:
        """Was moved, perhaps: nobody knows then what it needs."""
        self.assertIn("/none", self.refusal(RetentionPolicy(keep_backup=("/none",))))

    def test_other_timelines(self) -> None:
        """Whoever needs WAL needs nothing of a smaller number, on whatever timeline it lies."""
        self.put_history(2, (1, SIZE.start(6) + 800))
        for number in range(6, 11):
            self.put_segment(number, timeline=2)
        self.put_slot("standby", 7)
        gone = [held.name for held in self.plan(NOTHING).removed]
        expected = [self.name(n) for n in (3, 4, 5, 6)] + [self.name(6, 2)]
        self.assertEqual(sorted(gone), sorted(expected))


class DoubtTests(RetentionCase):
    """When it is not sure, nothing goes."""

    def test_a_gap(self) -> None:
        """The older part may be the only one that can be restored from."""
        (self.path / self.name(6)).unlink()
        self.assertIn(f"gap, from {self.name(6)} to {self.name(6)}", self.refusal())

    def test_an_accepted_gap(self) -> None:
        """Is known."""
        (self.path / self.name(6)).unlink()
        start, end = WALPosition(1, SIZE.start(6)), WALPosition(1, SIZE.start(7))
        empty = Ledger(IDENTITY.system_identifier, IDENTITY.segment_size)
        accepted = empty.gap_accepted(start, end, "2026-11-23")
        change_ledger(self.files, self.paths, lambda _: accepted)
        self.assertEqual(self.first_kept(NOTHING), 9)

    def test_a_missing_history(self) -> None:
        """Nobody knows then where the timeline came from."""
        self.put_segment(10, timeline=2)
        self.assertIn("00000002.history is missing", self.refusal())

    def test_no_archive(self) -> None:
        """A directory that holds nothing of the kind is a mistake."""
        for path in self.path.iterdir():
            path.unlink()
        self.assertIn("is it an archive?", self.refusal())


class RemovalTests(RetentionCase):
    """What is done then."""

    def prune(self, policy: RetentionPolicy = NOTHING) -> Plan:
        """Remove what may go."""
        return prune(self.files, self.paths, policy, NOW)

    def test_it_goes(self) -> None:
        """In all its forms; histories, unfinished segments and backup histories stay."""
        (self.path / f"{self.name(4)}.gz").write_bytes(b"small")
        self.put_segment(10, partial=True)
        self.put_segment(3, partial=True)
        self.put_history(2, (1, SIZE.start(12)))
        backup = self.put_backup_history(4)
        self.prune(RetentionPolicy(keep_from=self.name(7)))
        self.assertEqual(
            self.names(),
            sorted(
                [
                    *(self.name(number) for number in (7, 8, 9)),
                    self.name(10) + ".partial",
                    self.name(3) + ".partial",
                    "00000002.history",
                    backup,
                ]
            ),
        )

    def test_it_is_recorded_before_anything_goes(self) -> None:
        """Whenever it ends, what is left has no gap; and the next time it goes on."""
        for number in (3, 4, 6):
            self.files.fail(f"unlink {self.name(number)}", errno.EIO)
            with self.assertRaises(OSError):
                self.prune()
            self.files.heal()
            self.assertEqual(self.numbers(), list(range(number, 10)))
            self.assertEqual(find_gaps(take_inventory(self.files, self.paths)), [])
        ledger = load_ledger(self.files, self.paths)
        self.assertEqual(ledger and ledger.removed_before, SIZE.start(9))
        (self.path / self.name(7)).unlink()
        self.assertEqual(find_gaps(take_inventory(self.files, self.paths)), [])
        self.prune()
        self.assertEqual(self.numbers(), [9])

    def test_who_comes_meanwhile(self) -> None:
        """Begins to read between two batches, and keeps what is left."""
        self.patch(retention, "_BATCH", 2)
        reader = ReaderFile(self.files, self.paths)
        self.addCleanup(reader.close)

        def advance(_: int) -> None:
            if self.numbers() == [5, 6, 7, 8, 9]:
                reader.begin(WALPosition(1, SIZE.start(6)))

        plan = prune(self.files, self.paths, NOTHING, NOW, advance)
        self.assertEqual(self.numbers(), [5, 6, 7, 8, 9])
        self.assertEqual([held.number for held in plan.removed], [3, 4])
        self.assertIn("serves WAL", plan.reason)

    def test_what_cannot_be_recorded_does_not_go(self) -> None:
        """On a full disk, say."""
        self.files.fail("fsync .walstream/ledger.incoming", errno.ENOSPC)
        with self.assertRaises(OSError):
            self.prune()
        self.assertEqual(self.numbers(), list(range(3, 10)))

    def test_nothing_to_do(self) -> None:
        """Is no failure, and nothing is recorded."""
        self.prune(RetentionPolicy(keep_age=100 * DAY))
        self.assertEqual(self.numbers(), list(range(3, 10)))

    def test_files_of_dead_readers_are_cleaned_up(self) -> None:
        """Nobody else does it."""
        os.makedirs(self.paths.readers)
        dead = Path(self.paths.readers, "1-0123456789abcdef")
        dead.write_bytes(b"")
        self.prune()
        self.assertFalse(dead.exists())

    def test_a_plan_changes_nothing(self) -> None:
        """Not even by making walstream's directory."""
        self.plan(NOTHING)
        self.assertFalse(os.path.exists(self.paths.own))


class BackupStartTests(RetentionCase):
    """What a backup says of itself."""

    def setUp(self) -> None:
        super().setUp()
        self.backup = Path(self.mktemp())
        self.backup.mkdir()

    def start(self, name: str = "") -> WALPosition:
        """Where the backup begins."""
        return read_backup_start(str(self.backup / name)).position

    def test_label(self) -> None:
        """Of a backup as it is, or the file alone."""
        (self.backup / "backup_label").write_text(self.label(5, 2))
        for name in ("", "backup_label"):
            self.assertEqual(self.start(name), WALPosition(2, LSN(SIZE.start(5) + 0x28)))

    def test_label_before_11(self) -> None:
        """Without a line for the timeline the segment's name tells it."""
        text = self.label(5, 2).replace("START TIMELINE: 2\n", "")
        (self.backup / "backup_label").write_text(text)
        self.assertEqual(self.start().timeline, 2)

    def test_manifest(self) -> None:
        """The smallest of its positions, for one that went over a promotion."""
        (self.backup / "backup_manifest").write_text(manifest(SIZE.start(5)))
        self.assertEqual(self.start(), WALPosition(1, SIZE.start(5)))

    def test_tar(self) -> None:
        """As pg_basebackup -Ft makes it, compressed by gzip or not."""
        content = self.label(6).encode()
        for mode, name in (("w", "base.tar"), ("w:gz", "base.tar.gz")):
            with tarfile.open(self.backup / name, mode) as tar:  # type: ignore[call-overload]
                for member in ("other", "backup_label"):
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
            self.assertEqual(self.start(), WALPosition(1, LSN(SIZE.start(6) + 0x28)))
            (self.backup / name).unlink()

    def test_what_is_none(self) -> None:
        """The path is named."""
        with self.assertRaisesRegex(FormatError, "neither backup_label"):
            self.start()
        for name, content in (("a", "{"), ("b", "{}"), ("c", "nothing")):
            (self.backup / name).write_text(content)
            with self.assertRaisesRegex(FormatError, f"/{name} does not say"):
                self.start(name)
        with tarfile.open(self.backup / "base.tar", "w"):
            pass
        with self.assertRaisesRegex(FormatError, "no backup_label"):
            self.start("base.tar")


def manifest(start: int, system: int | None = None) -> str:
    """A backup manifest, as far as it matters."""
    fields: dict[str, object] = {
        "PostgreSQL-Backup-Manifest-Version": 2,
        "WAL-Ranges": [
            {"Timeline": 2, "Start-LSN": str(LSN(start + 800)), "End-LSN": "1/0"},
            {"Timeline": 1, "Start-LSN": str(LSN(start)), "End-LSN": str(LSN(start + 800))},
        ],
    }
    return json.dumps(fields if system is None else fields | {"System-Identifier": system})
