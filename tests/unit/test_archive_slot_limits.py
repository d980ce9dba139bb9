"""Tests of what slots are held by, and when they are lost: possession, limits, idle time."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.internet.task import Clock

from tests.unit.archives import SIZE, DirectoryCase
from tests.unit.log_capture import capture_log
from walstream.archive.holds import holding_slots
from walstream.archive.inventory import take_inventory
from walstream.archive.ledger import Ledger, change_ledger
from walstream.archive.lock import LockHeld, ProcessLock, is_locked
from walstream.archive.retention import Plan, RetentionPolicy, make_plan, prune
from walstream.archive.slot_files import SlotFiles
from walstream.archive.slot_keeper import INTERVAL, SlotKeeper
from walstream.archive.slot_limit import read_request, release_obsolete
from walstream.archive.slot_possession import LOCK, SlotPossession, stored_slots
from walstream.archive.slot_status import WALStatus, wal_status
from walstream.archive.slots import DirectorySlots
from walstream.errors import ArchiveLost, CommandError, RetentionRefused
from walstream.formats.lsn import LSN
from walstream.interfaces import Slot, WALPosition
from walstream.testing.disk import ManualLane

NOW = 1_800_000_000.0
# Keeps nothing by itself, and lets slots hold back two segments before the one of the end.
TWO = RetentionPolicy(keep_from="readers", max_slot_wal_keep_size=2 * SIZE + SIZE // 2)


def inside(number: int) -> WALPosition:
    """A position in a segment."""
    return WALPosition(1, LSN(SIZE.start(number) + 0x28))


class LimitCase(DirectoryCase):
    """An archive of segments 3 to 9, which ends behind 9, and a process that has its slots."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(3, 10):
            self.put_segment(number)
        self.clock = Clock()
        self.lane = ManualLane()
        self.log = capture_log(self)
        self.terminated: list[int] = []
        self.slots = self.begin()
        self.slots.watch_terminations(self.terminate)

    def begin(self) -> DirectorySlots:
        """A process that serves the archive begins."""
        slots = DirectorySlots(self.paths, self.files, self.lane, self.clock)
        self.addCleanup(slots._possession.release)
        self.successResultOf(slots.open())
        return slots

    def end(self) -> None:
        """It is killed."""
        self.slots._possession.release()

    def terminate(self, pid: int) -> None:
        """End a session."""
        self.terminated.append(pid)
        self.slots.end_session(pid)

    def make(self, name: str, number: int | None, *, temporary: bool = False) -> None:
        """Make a slot that stands in a segment, or holds nothing."""
        restart = None if number is None else inside(number)
        self.successResultOf(self.slots.create(name, 7, temporary=temporary, restart=restart))

    def stored(self) -> dict[str, Slot]:
        """The slots as others see them."""
        return {slot.name: slot for slot in stored_slots(self.files, self.paths)}

    def refusal(self, name: str = "s", slots: DirectorySlots | None = None) -> CommandError:
        """Why a slot cannot be made."""
        result = (slots or self.slots).create(name, 7, temporary=False, restart=None)
        error = self.failureResultOf(result, CommandError).value
        assert isinstance(error, CommandError)
        return error


class PossessionTests(LimitCase):
    """One process at a time has an archive's slots."""

    def test_the_second_process_has_none(self) -> None:
        """It says so at once, and to each client that wants one, with the way out. (L15)"""
        self.make("s", 5)
        second = self.begin()
        self.assertIn(
            f"in use elsewhere, so that clients cannot use any here: locked by process "
            f"{os.getpid()}",
            self.log[0],
        )
        for result in (
            second.create("t", 7, temporary=True, restart=None),
            second.acquire("s", 7),
            second.drop("s", wait=False),
            second.read("s"),
        ):
            error = self.failureResultOf(result, CommandError).value
            assert isinstance(error, CommandError)
            self.assertEqual(
                (error.sqlstate, error.message),
                (
                    "55006",
                    f"the replication slots of this archive are in use by process {os.getpid()}",
                ),
            )
            self.assertIn("Use them where that process listens", str(error.hint))

    def test_it_takes_over_from_one_that_has_ended(self) -> None:
        """With the slots as they are then."""
        self.make("s", 5)
        second = self.begin()
        self.slots.advance("s", inside(6))
        self.successResultOf(self.slots.close())
        self.assertEqual(
            self.successResultOf(second.acquire("s", 7)), Slot("s", False, inside(6), 7)
        )

    def test_without_slots_nothing_is_taken(self) -> None:
        """A process that only serves leaves no trace, and stands in nobody's way."""
        self.assertFalse(os.path.exists(self.paths.own))
        self.assertIsNone(self.successResultOf(self.slots.read("s")))
        self.assertFalse(os.path.exists(self.paths.own))
        self.make_in(self.begin(), "s")
        self.refusal("t")

    def make_in(self, slots: DirectorySlots, name: str) -> None:
        """Another process makes a slot."""
        self.successResultOf(slots.create(name, 7, temporary=False, restart=None))

    def test_a_moment_of_somebody_who_looks(self) -> None:
        """Whether the slots are in use; it is not taken for a process that has them."""
        self.make("t", 5, temporary=True)
        self.end()
        self.assertEqual(self.stored(), {})
        possession = SlotPossession(self.files, self.paths, lambda: None)
        self.assertEqual(possession.take(make=False), [])
        self.assertEqual(possession.take(make=False), [])
        other = SlotPossession(self.files, self.paths, lambda: None)
        with self.assertRaises(LockHeld):
            other.take(make=True)
        possession.release()

    def test_a_mount_point_is_left_alone(self) -> None:
        """Where the archive is not where it was, no place for slots is made."""
        os.rename(self.path, f"{self.path}.elsewhere")
        Path(self.path).mkdir()
        error = self.refusal()
        self.assertEqual(error.sqlstate, "58030")
        self.assertIn("is gone: another directory, or none", error.message)
        self.assertEqual(os.listdir(self.path), [])

    def test_an_archive_that_is_gone_and_comes_back(self) -> None:
        """Slots are not written elsewhere meanwhile, and then are, where they were."""
        self.make("s", 5)
        elsewhere = f"{self.path}.elsewhere"
        os.rename(self.path, elsewhere)
        Path(self.path).mkdir()
        self.slots.advance("s", inside(7))
        self.clock.pump([1] * 3)
        self.assertEqual(os.listdir(self.path), [])
        Path(self.path).rmdir()
        os.rename(elsewhere, self.path)
        self.clock.advance(1)
        self.assertEqual(self.stored()["s"].restart, inside(7))
        self.refusal("t", self.begin())

    def test_a_directory_of_slots_that_was_removed(self) -> None:
        """By mistake: where the slots stand is written again."""
        self.make("s", 5)
        for path in Path(self.paths.slots).iterdir():
            path.unlink()
        Path(self.paths.slots).rmdir()
        self.slots.advance("s", inside(7))
        self.clock.advance(1)
        self.assertEqual(self.stored()["s"].restart, inside(7))

    def test_who_does_not_own_the_archive_says_so(self) -> None:
        """A hub goes by what it knows of its archive."""

        def assure() -> None:
            raise ArchiveLost("the archive is gone: the test wants it")

        slots = DirectorySlots(self.paths, self.files, self.lane, self.clock, assure=assure)
        self.successResultOf(slots.open())
        self.assertIn("the test wants it", self.refusal("s", slots).message)
        self.assertFalse(os.path.exists(self.paths.own))

    def test_an_archive_that_cannot_be_written(self) -> None:
        """Temporary slots work all the same, since nobody removes WAL there either."""
        self.files.make_directory = read_only  # type: ignore[method-assign]
        self.assertEqual(self.refusal().sqlstate, "58030")
        self.make("t", 5, temporary=True)
        self.slots.advance("t", inside(6))
        self.clock.advance(1)
        self.slots.end_session(7)
        self.assertEqual(self.log, [])

    def test_an_archive_that_can_be_written_again(self) -> None:
        """Slots have files from then on, also one whose name a temporary one had."""
        make_directory = self.files.make_directory
        self.files.make_directory = read_only  # type: ignore[method-assign]
        self.make("t", 5, temporary=True)
        self.slots.end_session(7)
        self.assertEqual(self.slots._unwritten, set())
        self.make("u", 5, temporary=True)
        self.files.make_directory = make_directory  # type: ignore[method-assign]
        self.make("t", 5)
        self.assertEqual(list(self.stored()), ["t"])
        self.assertFalse(self.slots._possession.is_read_only)

    def test_slots_that_can_be_written_again(self) -> None:
        """They are locked before anything is written: another process may have them."""
        self.make("s", 5)
        self.end()
        take = ProcessLock.take
        self.patch(ProcessLock, "take", read_only)
        self.slots = self.begin()
        self.slots.advance("s", inside(7))
        self.patch(ProcessLock, "take", take)
        lock = os.path.join(self.paths.slots, LOCK)
        other = take(lock)
        self.clock.advance(1)
        self.assertEqual(self.stored()["s"].restart, inside(5))
        other.release()
        self.clock.advance(1)
        self.assertEqual(self.stored()["s"].restart, inside(7))
        self.assertTrue(is_locked(self.files, lock))


class ReservationTests(LimitCase):
    """WAL that is reserved is there."""

    def test_what_was_removed_meanwhile(self) -> None:
        """Is refused, and the slot is not made. (L15)"""
        size = SIZE
        removed = Ledger(1, size).removed(size.start(6))
        change_ledger(self.files, self.paths, lambda _: removed)
        result = self.slots.create("s", 7, temporary=False, restart=inside(5))
        error = self.failureResultOf(result, CommandError).value
        assert isinstance(error, CommandError)
        self.assertEqual(
            (error.sqlstate, error.message),
            ("58P01", f"requested WAL segment {self.name(5)} has already been removed"),
        )
        self.clock.advance(1)
        self.assertEqual(self.stored(), {})
        self.make("s", 6)

    def test_who_removes_is_waited_for(self) -> None:
        """A prune that has looked at the slots already, and removes now, is over first."""
        self.lane.is_held = True
        made = self.slots.create("s", 7, temporary=False, restart=inside(5))
        self.lane.work(2)  # it is durable by now
        self.assertIn("s", self.stored())
        self.assertNoResult(made)
        self.lane.work()
        self.successResultOf(made)

    def test_the_first_position_is_written_at_once(self) -> None:
        """Before that the slot holds nothing, and its user may leave at any moment."""
        self.make("s", None)
        self.slots.advance("s", inside(5))
        self.assertEqual(self.stored()["s"].restart, inside(5))
        self.slots.advance("s", inside(4))
        self.assertEqual(self.stored()["s"].restart, inside(4), "so is one further back")

    def test_temporary_slots_hold_wal_back(self) -> None:
        """As others do, until their process ends. (L15)"""
        self.make("t", 5, temporary=True)
        policy = RetentionPolicy(keep_from="readers")
        self.assertIn("slot t needs WAL", make_plan(self.files, self.paths, policy, NOW).reason)
        self.end()
        self.assertIn("newest", make_plan(self.files, self.paths, policy, NOW).reason)


class KeeperCase(LimitCase):
    """Beside the slots, there is somebody who sees to their limits."""

    def setUp(self) -> None:
        super().setUp()
        self.keep(0.0)
        self.waited = 0.0

    def keep(self, idle_timeout: float) -> None:
        """See to the limits from now on."""
        self.keeper = SlotKeeper(
            self.slots, self.paths, self.files, self.lane, self.clock, idle_timeout=idle_timeout
        )
        self.successResultOf(self.keeper.open())
        self.addCleanup(self.keeper.close)

    def wait(self, seconds: float) -> None:
        """Time passes while somebody waits for the slots' process."""
        self.waited += seconds
        self.clock.advance(seconds)

    def prune(self, policy: RetentionPolicy = TWO) -> Plan:
        """Remove what may go, in another process."""
        return prune(self.files, self.paths, policy, NOW, wait=self.wait)

    def numbers(self) -> list[int]:
        """Which segments there are."""
        return sorted(int(name[16:24], 16) for name in self.names() if len(name) == 24)


class LimitTests(KeeperCase):
    """Slots that hold back more than they may are lost, before anything is removed."""

    def test_lost(self) -> None:
        """Those that lag more; durably; and then what they held back goes."""
        for name, number in (("a", 4), ("b", 7), ("c", 8), ("d", None)):
            self.make(name, number)
        plan = self.prune()
        self.assertEqual([slot.name for slot in plan.lost], ["a", "b"])
        self.assertEqual(self.numbers(), [8, 9])
        stored = self.stored()
        for name in ("a", "b"):
            self.assertEqual(stored[name], Slot(name, False, None, None, "wal_removed"))
        self.assertEqual(stored["c"], Slot("c", False, inside(8), None))
        self.assertEqual(
            self.log[0],
            'invalidating obsolete replication slot "a": The slot\'s restart_lsn 0/400028 exceeds '
            'the limit by 4194264 bytes. You might need to increase "max_slot_wal_keep_size".',
        )
        self.assertLess(self.waited, 2 * INTERVAL + 0.2)

    def test_what_is_kept_anyway_counts_for_nobody(self) -> None:
        """A slot is lost for WAL that is removed, not for its lag."""
        self.make("a", 5)
        policy = RetentionPolicy(keep_from=self.name(5), max_slot_wal_keep_size=0)
        self.assertEqual(self.prune(policy).lost, ())
        self.assertEqual(self.numbers(), [5, 6, 7, 8, 9])

    def test_without_a_limit(self) -> None:
        """They hold back what they need."""
        self.make("a", 4)
        self.assertEqual(self.prune(RetentionPolicy(keep_from="readers")).lost, ())
        self.assertEqual(self.numbers(), [4, 5, 6, 7, 8, 9])

    def test_its_session_is_ended(self) -> None:
        """First that, then it is lost; a temporary one is gone with it."""
        self.make("a", 4)
        self.successResultOf(self.slots.acquire("a", 11))
        self.successResultOf(self.slots.create("t", 12, temporary=True, restart=inside(5)))
        self.make("c", 9)
        self.successResultOf(self.slots.acquire("c", 13))
        self.prune()
        self.assertEqual(self.terminated, [11, 12])
        self.assertEqual(set(self.stored()), {"a", "c"})
        self.assertTrue(
            self.log[0].startswith('terminating process 11 to release replication slot "a": The')
        )
        self.assertTrue(self.log[1].startswith('invalidating obsolete replication slot "a": '))
        self.assertTrue(self.log[2].startswith("terminating process 12 "))
        self.assertEqual(self.numbers(), [9])

    def test_a_session_that_takes_its_time(self) -> None:
        """In another process, say: nothing is removed before it has ended."""
        self.slots.watch_terminations(self.terminated.append)
        self.make("a", 4)
        self.successResultOf(self.slots.acquire("a", 11))

        def wait(seconds: float) -> None:
            self.wait(seconds)
            if len(self.terminated) == 3:
                self.assertEqual(len(self.numbers()), 7)
                self.slots.end_session(11)

        prune(self.files, self.paths, TWO, NOW, wait=wait)
        self.assertEqual(self.numbers(), [9])

    def test_nobody_answers(self) -> None:
        """A process that has the slots and does not let go: nothing is removed."""
        self.successResultOf(self.keeper.close())
        self.make("a", 4)
        with self.assertRaisesRegex(RetentionRefused, "did not let go of those that need WAL"):
            self.prune()
        self.assertEqual(len(self.numbers()), 7)
        self.assertIsNone(read_request(self.files, self.paths), "nobody waits any more")
        self.assertEqual(self.stored()["a"].restart, inside(4))

    def test_nobody_has_them(self) -> None:
        """Then whoever removes WAL does it."""
        self.make("a", 4)
        self.end()
        self.prune()
        self.assertEqual(self.waited, 0)
        self.assertEqual(self.stored()["a"], Slot("a", False, None, None, "wal_removed"))
        self.assertEqual(self.numbers(), [9])
        self.begin()

    def test_the_process_ends_meanwhile(self) -> None:
        """What it did not do is done here."""
        self.make("a", 4)

        def wait(_: float) -> None:
            self.end()

        release_obsolete(self.files, self.paths, LSN(SIZE.start(7)), wait)
        self.assertEqual(self.stored()["a"].invalidation, "wal_removed")
        self.assertIsNone(read_request(self.files, self.paths))

    def test_nothing_goes_that_could_not_be_made_durable(self) -> None:
        """A slot that is lost in memory only would be there again after a crash. (L15)"""
        self.make("a", 4)
        self.files.fail("fsync .walstream/slots/incoming", errno.EIO)
        self.prune()
        self.assertEqual(self.numbers(), [4, 5, 6, 7, 8, 9])
        self.files.heal()
        self.clock.advance(2)
        self.prune()
        self.assertEqual(self.numbers(), [9])

    def test_a_request_of_long_ago(self) -> None:
        """Whoever made it does not wait any more, so nobody loses a slot for it."""
        self.make("a", 4)
        Path(self.paths.slots, "request").write_text("0/900000\n")
        self.successResultOf(self.keeper.close())
        self.keep(0.0)
        self.clock.pump([INTERVAL] * 3)
        self.assertIsNone(self.stored()["a"].invalidation)

    def test_lost_slots(self) -> None:
        """Stay lost after a restart, hold nothing, and can be dropped."""
        self.make("a", 4)
        self.prune()
        self.end()
        self.slots = self.begin()
        self.assertEqual(holding_slots(self.files, self.paths), [])
        lost = self.successResultOf(self.slots.read("a"))
        self.assertEqual(lost, Slot("a", False, None, None, "wal_removed"))
        self.successResultOf(self.slots.drop("a", wait=False))
        self.assertEqual(self.stored(), {})

    def test_a_lost_slot_that_is_used_again(self) -> None:
        """As up to PostgreSQL 17: by a client that asks for WAL that there is."""
        self.make("a", 4)
        self.prune()
        self.successResultOf(self.slots.acquire("a", 11))
        self.slots.advance("a", inside(9))
        self.assertEqual(self.stored()["a"], Slot("a", False, inside(9), None))
        self.assertIn("holds WAL back again", self.log[-1])

    def test_a_plan_shows_them(self) -> None:
        """And does nothing to them."""
        self.make("a", 4)
        plan = make_plan(self.files, self.paths, TWO, NOW)
        self.assertEqual([slot.name for slot in plan.lost], ["a"])
        self.assertEqual(plan.next_kept, self.name(9))
        self.assertEqual(self.stored()["a"].restart, inside(4))


class IdleTests(KeeperCase):
    """A slot that nobody uses for long is lost."""

    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.keeper.close())
        self.keep(60.0)

    def test_idle(self) -> None:
        """Not one that is in use, nor one that holds nothing; used again, it begins anew."""
        for name, number in (("a", 4), ("b", 4), ("c", None), ("d", 4)):
            self.make(name, number)
        self.successResultOf(self.slots.acquire("b", 11))
        self.clock.pump([INTERVAL] * 30)
        self.successResultOf(self.slots.acquire("d", 12))
        self.slots.release("d", 12)
        self.clock.pump([INTERVAL] * 31)
        self.assertEqual(
            {name: slot.invalidation for name, slot in self.stored().items()},
            {"a": "idle_timeout", "b": None, "c": None, "d": None},
        )
        self.assertEqual(self.stored()["a"].restart, inside(4))
        self.assertEqual([slot.name for slot in holding_slots(self.files, self.paths)], ["b", "d"])
        self.assertEqual(
            self.log,
            [
                'invalidating obsolete replication slot "a": The slot\'s idle time of 61s exceeds '
                'the configured "idle_replication_slot_timeout" duration of 60s. '
                'You might need to increase "idle_replication_slot_timeout".'
            ],
        )

    def test_a_slot_that_could_not_be_dropped(self) -> None:
        """Has been idle since somebody tried to."""
        self.make("a", 4)
        self.files.fail("fsync .walstream/slots", errno.EIO)
        self.failureResultOf(self.slots.drop("a", wait=False), CommandError)
        self.files.heal()
        self.clock.pump([INTERVAL] * 62)
        self.assertEqual(self.stored()["a"].invalidation, "idle_timeout")


class StatusTests(LimitCase):
    """`wal_status`, as pg_replication_slots has it."""

    def test_statuses(self) -> None:
        """From reserved to lost."""
        change_ledger(self.files, self.paths, lambda _: Ledger(1, SIZE).removed(SIZE.start(3)))
        found = take_inventory(self.files, self.paths)
        kept_from = SIZE.start(9)
        for number, expected in (
            (9, WALStatus.RESERVED),
            (8, WALStatus.EXTENDED),
            (7, WALStatus.UNRESERVED),
            (3, WALStatus.UNRESERVED),
            (2, WALStatus.LOST),
        ):
            slot = Slot("s", False, inside(number), None)
            status = wal_status(slot, found, limit=2 * SIZE, kept_from=kept_from)
            self.assertIs(status, expected, number)
        slot = Slot("s", False, inside(4), None)
        self.assertIs(wal_status(slot, found), WALStatus.RESERVED, "nothing is removed")
        self.assertIs(wal_status(slot, found, kept_from=kept_from), WALStatus.EXTENDED)
        self.assertIsNone(wal_status(Slot("s", False, None, None), found))
        lost = Slot("s", False, None, None, "wal_removed")
        self.assertIs(wal_status(lost, found), WALStatus.LOST)


class FileTests(LimitCase):
    """What is in a file."""

    def test_everything_comes_back(self) -> None:
        """That there is to a slot."""
        files = SlotFiles(self.files, self.paths.slots)
        slots = [
            Slot("a", False, None, None),
            Slot("b", True, inside(4), None),
            Slot("c", False, inside(4), None, "idle_timeout"),
        ]
        for slot in slots:
            files.store(slot)
        self.assertEqual(list(files.load()), slots)


def read_only(path: str) -> None:
    """A disk that cannot be written to."""
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
