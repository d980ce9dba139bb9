"""What the slots of a walsender promise: PostgreSQL's rules, and that they outlive a crash."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from walstream.archive.paths import ArchivePaths
from walstream.archive.slot_files import SlotFiles
from walstream.archive.slot_possession import stored_slots
from walstream.archive.slots import DirectorySlots
from walstream.errors import ArchiveError, CommandError
from walstream.formats.lsn import LSN
from walstream.interfaces import ISlotStore, Slot, WALPosition
from walstream.testing.disk import ManualLane, ScriptedFiles

from .log_capture import capture_log

HERE = WALPosition(1, LSN(0x3000000))
THERE = WALPosition(2, LSN(0x16B374D848))

#: What is done to the disk when the first slot, s1, is made.
FIRST_STORE = [
    "fsync .",
    "fsync .walstream",
    "create .walstream/slots/incoming",
    "fsync .walstream/slots/incoming",
    "rename .walstream/slots/incoming",
    "fsync .walstream/slots",
]
STORE = FIRST_STORE[2:]
REMOVE = ["unlink .walstream/slots/s1.json", "fsync .walstream/slots"]


class SlotCase(SynchronousTestCase):
    """Has slots in a directory, and two sessions, 7 and 8."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.path.mkdir()
        self.root = self.path
        self.files = ScriptedFiles(str(self.path))
        self.lane = ManualLane()
        self.clock = Clock()
        self.slots = self.begin()

    def begin_again(self, **options: Any) -> None:
        """The process is killed, and another one begins."""
        self.slots._possession.release()
        self.slots = self.begin(**options)

    def begin(self, **options: Any) -> DirectorySlots:
        """A process begins, whose slots these are."""
        slots = self.make_store(**options)
        self.successResultOf(slots.open())
        return slots

    def make_store(self, **options: Any) -> DirectorySlots:
        """A process has begun, and has not looked for slots yet."""
        paths = ArchivePaths(os.path.abspath(self.root))
        slots = DirectorySlots(paths, self.files, self.lane, self.clock, **options)
        self.addCleanup(slots._possession.release)
        return slots

    def make(
        self,
        name: str = "s1",
        pid: int = 7,
        *,
        temporary: bool = False,
        restart: WALPosition | None = HERE,
    ) -> Slot:
        """Make a slot."""
        return self.successResultOf(
            self.slots.create(name, pid, temporary=temporary, restart=restart)
        )

    def read(self, name: str) -> Slot | None:
        """A slot, if there is one of that name."""
        return self.successResultOf(self.slots.read(name))

    def acquire(self, name: str, pid: int) -> Slot:
        """Use a slot in a session."""
        return self.successResultOf(self.slots.acquire(name, pid))

    @property
    def directory(self) -> Path:
        """Where the slots' files are."""
        return self.root / ".walstream" / "slots"

    def stored(self) -> list[Slot]:
        """The slots that would be there after a crash at this moment."""
        return list(SlotFiles(self.files, str(self.directory)).load())

    def refusal(self, result: Deferred[Any]) -> CommandError:
        """The error that a client is shown."""
        error = self.failureResultOf(result, CommandError).value
        assert isinstance(error, CommandError)
        return error

    def assert_refused(self, result: Deferred[Any], sqlstate: str, message: str) -> None:
        """It ends with that error."""
        error = self.refusal(result)
        self.assertEqual((error.sqlstate, error.message), (sqlstate, message))


class RuleTests(SlotCase):
    """Who may do what with a slot; the words are PostgreSQL's."""

    def test_interface(self) -> None:
        """It is what a walsender asks for."""
        verifyObject(ISlotStore, self.slots)

    def test_created_slot_is_free(self) -> None:
        """A new slot is not in use, and has the position that it was made with, or none."""
        self.assertEqual(self.make(), Slot("s1", False, HERE, None))
        self.assertEqual(self.make("s2", restart=None), Slot("s2", False, None, None))
        self.assertEqual(self.read("s1"), Slot("s1", False, HERE, None))
        self.assertEqual([slot.name for slot in self.slots.slots()], ["s1", "s2"])

    def test_missing_slot_is_none(self) -> None:
        """To read a slot that does not exist is no error."""
        self.assertIsNone(self.read("s1"))

    def test_name_is_unique(self) -> None:
        """A name is taken by slots of either kind, and from the moment that one is being made."""
        self.make()
        self.make("t1", temporary=True)
        self.lane.is_held = True
        self.slots.create("s2", 7, temporary=False, restart=None)
        for name in ("s1", "t1", "s2"):
            for temporary in (False, True):
                self.assert_refused(
                    self.slots.create(name, 8, temporary=temporary, restart=None),
                    "42710",
                    f'replication slot "{name}" already exists',
                )

    def test_bad_names_never_touch_the_disk(self) -> None:
        """Anything but lower case letters, digits and underscores is refused, with a hint."""
        for name in ("Bad-Name", "../../etc/passwd", "a/b", "a.json", "s1\n", "\u00e4", "\u0661"):
            for temporary in (False, True):
                result = self.slots.create(name, 7, temporary=temporary, restart=None)
                error = self.refusal(result)
                self.assertEqual(error.sqlstate, "42602")
                self.assertEqual(
                    error.message, f'replication slot name "{name}" contains invalid character'
                )
                self.assertEqual(
                    error.hint,
                    "Replication slot names may only contain lower case letters, numbers, "
                    "and the underscore character.",
                )
        self.assertEqual(self.files.calls, [])
        self.assertEqual(os.listdir(self.path), [])

    def test_length_of_names(self) -> None:
        """From 1 to 63 characters."""
        self.make("a" * 63)
        self.assert_refused(
            self.slots.create("", 7, temporary=False, restart=None),
            "42602",
            'replication slot name "" is too short',
        )
        self.assert_refused(
            self.slots.create("a" * 64, 7, temporary=False, restart=None),
            "42622",
            f'replication slot name "{"a" * 64}" is too long',
        )

    def test_number_of_slots_is_bounded(self) -> None:
        """After so many there is no more; one that is dropped makes room."""
        self.begin_again(most=10)
        for number in range(10):
            self.make(f"s{number}", temporary=number % 2 == 0)
        error = self.refusal(self.slots.create("x", 7, temporary=True, restart=None))
        self.assertEqual(
            (error.sqlstate, error.message), ("53400", "all replication slots are in use")
        )
        self.assertEqual(error.hint, 'Free one or increase "max_replication_slots".')
        self.successResultOf(self.slots.drop("s6", wait=False, pid=7))
        self.make("x", temporary=True)

    def test_slot_is_used_by_one_session(self) -> None:
        """Another session is refused until the first one has released the slot."""
        self.make()
        self.assertEqual(self.acquire("s1", 7), Slot("s1", False, HERE, 7))
        self.assertEqual(self.acquire("s1", 7).active_pid, 7)
        words = 'replication slot "s1" is active for PID 7'
        self.assert_refused(self.slots.acquire("s1", 8), "55006", words)
        self.assert_refused(self.slots.drop("s1", wait=False), "55006", words)
        self.slots.release("s1", 7)
        self.assertEqual(self.acquire("s1", 8).active_pid, 8)

    def test_only_its_user_releases_a_slot(self) -> None:
        """A release by another session, of a free slot or of none, changes nothing."""
        self.make()
        self.acquire("s1", 7)
        self.slots.release("s1", 8)
        self.slots.release("s2", 7)
        self.assertEqual(self.read("s1"), Slot("s1", False, HERE, 7))

    def test_slots_that_do_not_exist(self) -> None:
        """They can be neither used nor dropped; whoever moves one comes too late."""
        self.slots.advance("x", HERE)
        self.assertIsNone(self.read("x"))
        words = 'replication slot "x" does not exist'
        self.assert_refused(self.slots.acquire("x", 7), "42704", words)
        for wait in (False, True):
            self.assert_refused(self.slots.drop("x", wait=wait), "42704", words)

    def test_slot_goes_where_its_user_says(self) -> None:
        """Forward, to another timeline, and back: PostgreSQL does not compare."""
        self.make()
        for restart in (THERE, HERE):
            self.slots.advance("s1", restart)
            self.assertEqual(self.read("s1"), Slot("s1", False, restart, None))

    def test_drop_waits_for_the_user(self) -> None:
        """With WAIT a slot is dropped as soon as it is free; who waited too finds none."""
        self.make()
        self.acquire("s1", 7)
        first, second = (self.slots.drop("s1", wait=True) for _ in range(2))
        self.assertNoResult(first)
        self.slots.release("s1", 7)
        self.successResultOf(first)
        self.assert_refused(second, "42704", 'replication slot "s1" does not exist')
        self.assertIsNone(self.read("s1"))

    def test_waiting_drop_can_be_given_up(self) -> None:
        """A session that ends while it waits drops nothing."""
        self.make()
        self.acquire("s1", 7)
        dropped = self.slots.drop("s1", wait=True)
        dropped.addErrback(lambda _: None)
        dropped.cancel()
        self.assertEqual(self.slots._waiting, {"s1": []})
        self.slots.release("s1", 7)
        self.assertIsNotNone(self.read("s1"))

    def test_dropped_name_is_free_again(self) -> None:
        """A slot of the same name may be made at once, also while the old file is removed."""
        self.make()
        self.lane.is_held = True
        dropped = self.slots.drop("s1", wait=False)
        made = self.slots.create("s1", 8, temporary=False, restart=THERE)
        self.lane.release()
        self.successResultOf(dropped)
        self.successResultOf(made)
        self.assertEqual(self.stored(), [Slot("s1", False, THERE, None)])


class SessionTests(SlotCase):
    """What ends with a session."""

    def test_end_of_session_frees_its_slots(self) -> None:
        """Only those that it uses."""
        for name, pid in (("s1", 7), ("s2", 8)):
            self.make(name)
            self.acquire(name, pid)
        self.slots.end_session(7)
        self.assertEqual(
            [slot.active_pid for slot in self.slots.slots()],
            [None, 8],
        )

    def test_temporary_slots_end_with_their_session(self) -> None:
        """All of them, used or not, and none of another session's."""
        self.make("t1", 7, temporary=True)
        self.make("t2", 7, temporary=True)
        self.make("t3", 8, temporary=True)
        self.acquire("t2", 7)
        self.slots.end_session(7)
        self.assertEqual([slot.name for slot in self.slots.slots()], ["t3"])

    def test_temporary_slot_is_its_session_s(self) -> None:
        """From its making on, in use or not, no other session can use or drop it."""
        self.assertEqual(self.make("t1", 7, temporary=True), Slot("t1", True, HERE, 7))
        self.acquire("t1", 7)
        self.slots.release("t1", 7)
        words = 'replication slot "t1" is active for PID 7'
        self.assert_refused(self.slots.acquire("t1", 8), "55006", words)
        self.assert_refused(self.slots.drop("t1", wait=False), "55006", words)
        self.assert_refused(self.slots.drop("t1", wait=False, pid=8), "55006", words)
        self.acquire("t1", 7)

    def test_session_drops_its_own_temporary_slot(self) -> None:
        """With or without WAIT, which would else wait for itself."""
        for wait in (False, True):
            self.make("t1", 7, temporary=True)
            self.successResultOf(self.slots.drop("t1", wait=wait, pid=7))
            self.assertIsNone(self.read("t1"))

    def test_waiting_drop_of_a_temporary_slot_finds_none(self) -> None:
        """The slot ends with its session, and whoever waited for it is told so."""
        self.make("t1", 7, temporary=True)
        dropped = self.slots.drop("t1", wait=True)
        self.slots.end_session(7)
        self.assert_refused(dropped, "42704", 'replication slot "t1" does not exist')

    def test_whoever_removes_wal_knows_of_temporary_slots(self) -> None:
        """They have files for as long as they are there, and their process too."""
        paths = ArchivePaths(os.path.abspath(self.root))
        self.make("t1", 7, temporary=True)
        self.acquire("t1", 7)
        self.slots.advance("t1", THERE)
        self.clock.advance(10)
        self.assertEqual(stored_slots(self.files, paths), [Slot("t1", True, THERE, None)])
        self.make("t2", 7, temporary=True)
        self.slots.end_session(7)
        self.assertEqual(stored_slots(self.files, paths), [])
        self.assertEqual(self.stored(), [])

    def test_temporary_slots_of_a_process_that_was_killed(self) -> None:
        """Hold nothing from that moment on, and are gone with the next process."""
        paths = ArchivePaths(os.path.abspath(self.root))
        self.make("t1", 7, temporary=True)
        self.make("s1")
        self.slots._possession.release()
        self.assertEqual(stored_slots(self.files, paths), [Slot("s1", False, HERE, None)])
        self.begin_again()
        self.assertEqual([slot.name for slot in self.slots.slots()], ["s1"])
        self.assertEqual(self.stored(), [Slot("s1", False, HERE, None)])


class StorageTests(SlotCase):
    """What is on disk, and when."""

    def test_slots_outlive_the_process(self) -> None:
        """With their positions, and free."""
        self.make("s1", restart=THERE)
        self.make("s2", restart=None)
        self.acquire("s1", 7)
        self.assertEqual(
            self.stored(), [Slot("s1", False, THERE, None), Slot("s2", False, None, None)]
        )

    def test_file(self) -> None:
        """A JSON object that a person can read."""
        self.make(restart=THERE)
        self.assertEqual(sorted(os.listdir(self.directory)), ["lock", "s1.json"])
        self.assertEqual(
            json.loads((self.directory / "s1.json").read_text()),
            {"name": "s1", "restart_lsn": "16/B374D848", "restart_tli": 2},
        )

    def test_creation_is_durable_before_it_is_told(self) -> None:
        """File, name and directories are synced, in this order; the slot is busy until then."""
        self.lane.is_held = True
        made = self.slots.create("s1", 7, temporary=False, restart=HERE)
        self.lane.work(1)  # there are no other slots
        self.assertNoResult(made)
        self.assert_refused(
            self.slots.acquire("s1", 8),
            "55006",
            'replication slot "s1" is active for PID 7',
        )
        self.lane.work()
        self.successResultOf(made)
        self.assertEqual(self.files.calls, [*FIRST_STORE, "create .walstream/retention"])

    def test_drop_is_durable_before_it_is_told(self) -> None:
        """The file is removed and its directory synced."""
        self.make()
        self.files.calls.clear()
        self.lane.is_held = True
        dropped = self.slots.drop("s1", wait=False)
        self.assertNoResult(dropped)
        self.lane.work()
        self.successResultOf(dropped)
        self.assertEqual(self.files.calls, REMOVE)
        self.assertEqual(self.stored(), [])

    def test_advance_is_written_once_a_second(self) -> None:
        """However often a slot moves, and with its last position; a slot at rest is not written."""
        self.make()
        self.files.calls.clear()
        for step in range(100):
            self.slots.advance("s1", WALPosition(1, LSN(0x3000000 + step)))
        self.clock.advance(0.99)
        self.assertEqual(self.files.calls, [])
        self.clock.advance(0.01)
        self.assertEqual(self.files.calls, STORE)
        self.assertEqual(self.stored(), [Slot("s1", False, WALPosition(1, LSN(0x3000063)), None)])
        self.slots.advance("s1", WALPosition(1, LSN(0x3000063)))
        self.clock.advance(10)
        self.assertEqual(self.files.calls, STORE)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_position_is_written_when_the_user_leaves(self) -> None:
        """At a release, and at the end of a session, unless it was written already."""
        self.make()
        self.acquire("s1", 7)
        self.slots.advance("s1", THERE)
        self.slots.release("s1", 7)
        self.assertEqual(self.stored(), [Slot("s1", False, THERE, None)])
        self.acquire("s1", 7)
        self.slots.advance("s1", HERE)
        self.slots.end_session(7)
        self.assertEqual(self.stored(), [Slot("s1", False, HERE, None)])
        self.files.calls.clear()
        self.acquire("s1", 7)
        self.slots.release("s1", 7)
        self.clock.advance(10)
        self.assertEqual(self.files.calls, [])

    def test_close_writes_what_is_left(self) -> None:
        """It fires when everything is durable, and leaves no timer behind."""
        self.make()
        self.make("s2")
        self.slots.advance("s1", THERE)
        self.slots.advance("s2", THERE)
        self.lane.is_held = True
        closed = self.slots.close()
        self.lane.work(1)
        self.assertNoResult(closed)
        self.assertFalse(self.lane.is_closed)
        self.lane.work()
        self.successResultOf(closed)
        self.assertTrue(self.lane.is_closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual([slot.restart for slot in self.stored()], [THERE, THERE])

    def test_writes_do_not_overtake_each_other(self) -> None:
        """One is under way at a time, and the next has what the slot is by then."""
        self.make()
        self.lane.is_held = True
        self.slots.advance("s1", WALPosition(1, LSN(0x4000000)))
        self.clock.advance(1)
        self.slots.advance("s1", WALPosition(1, LSN(0x5000000)))
        self.clock.advance(1)
        self.slots.advance("s1", THERE)
        self.assertEqual(self.lane.waiting, 1)
        self.lane.release()
        self.assertEqual(self.stored(), [Slot("s1", False, THERE, None)])

    def test_other_files_are_left_alone(self) -> None:
        """A file that was never finished, and names that no slot has, are not slots."""
        self.make()
        for name in ("incoming", "S2.json", "a.b.json", "notes.txt", ".json", f"{'a' * 64}.json"):
            (self.directory / name).write_text("{")
        self.assertEqual(self.stored(), [Slot("s1", False, HERE, None)])

    def test_damaged_file_is_named(self) -> None:
        """A file that is not what was written is refused, with the way out."""
        self.make()
        path = self.directory / "s1.json"
        for content in (
            b"",
            b"\xff",
            b"{",
            b"[]",
            b'{"restart_lsn": "0/1"}',
            b'{"restart_lsn": 1, "restart_tli": 1}',
            b'{"restart_lsn": "0/1", "restart_tli": "1"}',
            b'{"restart_lsn": "x", "restart_tli": 1}',
        ):
            path.write_bytes(content)
            self.slots._possession.release()
            slots = self.make_store()
            error = self.failureResultOf(slots.open(), ArchiveError).value
            self.assertIn(f"{self.directory}/s1.json is damaged", str(error))
            self.assertIn("remove it, and create the replication slot again", str(error))


class CrashTests(SlotCase):
    """A process that is killed at any step leaves each slot as it was, or as it was to be."""

    def test_creation(self) -> None:
        """Before the rename there is no slot, after it there is one; never half of one."""
        outcomes = []
        for number, call in enumerate([*FIRST_STORE, "write .walstream/slots/incoming"]):
            self.root = self.path / str(number)
            self.root.mkdir()
            self.files = ScriptedFiles(str(self.root))
            self.files.fail(call, errno.EIO)
            self.begin_again()
            self.failureResultOf(
                self.slots.create("s1", 7, temporary=False, restart=HERE), CommandError
            )
            outcomes.append([slot.restart for slot in self.stored()])
        self.assertEqual(outcomes, [[], [], [], [], [], [HERE], []])

    def test_advance(self) -> None:
        """Before the rename a slot stands where it stood, after it where its user said."""
        self.make()
        outcomes = []
        for call in (*STORE, "write .walstream/slots/incoming"):
            self.slots.advance("s1", HERE)
            self.clock.advance(1)
            self.files.fail(call, errno.EIO)
            self.slots.advance("s1", THERE)
            self.clock.advance(1)
            outcomes.append([slot.restart for slot in self.stored()])
            self.files.heal()
            self.clock.advance(1)
        self.assertEqual(outcomes, [[HERE], [HERE], [HERE], [THERE], [HERE]])

    def test_write_of_a_part(self) -> None:
        """A disk that takes a byte at a time gets all of them."""
        self.files.write_at_most = 1
        self.make()
        self.assertEqual(self.stored(), [Slot("s1", False, HERE, None)])

    def test_truncated_file_of_the_process_before(self) -> None:
        """What another process left half written is written over."""
        self.make()
        (self.directory / "incoming").write_bytes(b'{"name": "s1", "restart_lsn": "FF/FF' * 50)
        self.begin_again()
        self.slots.advance("s1", THERE)
        self.clock.advance(1)
        self.assertEqual(self.stored(), [Slot("s1", False, THERE, None)])

    def test_drop(self) -> None:
        """Before the unlink there is the slot, after it there is none."""
        outcomes = []
        for call in REMOVE:
            self.make()
            self.files.fail(call, errno.EIO)
            self.failureResultOf(self.slots.drop("s1", wait=False), CommandError)
            outcomes.append(len(self.stored()))
            self.files.heal()
            self.successResultOf(self.slots.drop("s1", wait=False))
        self.assertEqual(outcomes, [1, 0])


class FailureTests(SlotCase):
    """A disk that fails is told of, and what is in memory and on disk agree in the end."""

    def setUp(self) -> None:
        super().setUp()
        self.log = capture_log(self)

    def test_failed_creation_makes_no_slot(self) -> None:
        """The client is told why, nobody sees the slot, and no file of it stays."""
        for code, sqlstate in ((errno.ENOSPC, "53100"), (errno.EIO, "58030")):
            self.files.fail("fsync .walstream/slots", code)
            self.assert_refused(
                self.slots.create("s1", 7, temporary=False, restart=HERE),
                sqlstate,
                f'could not write replication slot "s1": {os.strerror(code)}',
            )
            self.assertIsNone(self.read("s1"))
            self.files.heal()
            self.clock.advance(1)
            self.assertEqual(self.stored(), [])

    def test_failed_creation_after_the_end_of_its_session(self) -> None:
        """Others may use the slot by then, so it stays, and is written when that is possible."""
        self.lane.is_held = True
        made = self.slots.create("s1", 7, temporary=False, restart=HERE)
        self.lane.work(1)
        self.slots.end_session(7)
        self.acquire("s1", 8)
        self.files.fail("fsync .walstream/slots", errno.EIO)
        self.lane.release()
        self.failureResultOf(made, CommandError)
        self.assertEqual(self.read("s1"), Slot("s1", False, HERE, 8))
        self.files.heal()
        self.clock.advance(1)
        self.assertEqual(self.stored(), [Slot("s1", False, HERE, None)])

    def test_cancelled_creation_is_completed(self) -> None:
        """A client that goes away while its slot is made leaves it there, free."""
        self.lane.is_held = True
        made = self.slots.create("s1", 7, temporary=False, restart=HERE)
        self.lane.work(1)
        made.addErrback(lambda _: None)
        made.cancel()
        self.slots.end_session(7)
        self.lane.release()
        self.assertEqual(self.read("s1"), Slot("s1", False, HERE, None))
        self.assertEqual(self.stored(), [Slot("s1", False, HERE, None)])

    def test_failed_drop_keeps_the_slot(self) -> None:
        """It would come back with the next process, so it is still there in this one."""
        self.make()
        self.files.fail("fsync .walstream/slots", errno.EIO)
        self.assert_refused(
            self.slots.drop("s1", wait=False),
            "58030",
            'could not write replication slot "s1": Input/output error',
        )
        self.assertEqual(self.read("s1"), Slot("s1", False, HERE, None))
        self.files.heal()
        self.clock.advance(1)
        self.assertEqual(self.stored(), [Slot("s1", False, HERE, None)])

    def test_failed_advance_is_tried_again(self) -> None:
        """Each second, until it works; the log says so at the beginning and at the end."""
        self.make()
        self.files.fail("fsync .walstream/slots/incoming", errno.EIO)
        self.slots.advance("s1", THERE)
        for _ in range(5):
            self.clock.advance(1)
        self.assertEqual([slot.restart for slot in self.stored()], [HERE])
        self.files.heal()
        self.clock.advance(1)
        self.assertEqual([slot.restart for slot in self.stored()], [THERE])
        self.assertEqual(
            self.log,
            [
                "could not write replication slot s1: [Errno 5] Input/output error",
                "replication slots can be written again",
            ],
        )

    def test_close_tries_once(self) -> None:
        """A disk that fails does not hold up the end."""
        self.make()
        self.files.fail("fsync .walstream/slots/incoming", errno.EIO)
        self.slots.advance("s1", THERE)
        self.successResultOf(self.slots.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(self.log), 1)
