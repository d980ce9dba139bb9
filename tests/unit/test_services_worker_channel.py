"""Tests for what a worker and its main process tell each other: slots, standbys, sessions."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.channels import ChannelPair
from tests.unit.conversation import FailingSlots, MemorySlots
from walstream.access.throttle import Throttle
from walstream.errors import CommandError
from walstream.formats.lsn import LSN
from walstream.interfaces import Slot, WALPosition
from walstream.protocols.standbys import Standby, StandbyState
from walstream.services.worker_channel import (
    Beat,
    Cancel,
    Channel,
    SentSoFar,
    SessionEnded,
    StandbysChanged,
)
from walstream.services.worker_host import MainEnd
from walstream.services.worker_reports import Reports
from walstream.services.worker_roles import RemotePlaces, RemoteThrottle
from walstream.services.worker_sessions import WorkerSessions
from walstream.services.worker_slots import RemoteSlots
from walstream.services.worker_standbys import pack_standby

HERE, THERE = WALPosition(1, LSN(0x300000)), WALPosition(1, LSN(0x400000))


class FakeWorker:
    """Notes what is asked of its sessions."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int] | tuple[str, int, bytes]] = []

    def cancel(self, pid: int, key: bytes) -> None:
        self.asked.append(("cancel", pid, key))

    def terminate(self, pid: int) -> None:
        self.asked.append(("terminate", pid))


class Watcher:
    """Notes what each client has reported."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def standby_changed(self, standby: Standby) -> None:
        self.heard.append((standby.pid, standby.flush))

    def standby_left(self, standby: Standby) -> None:
        self.heard.append((standby.pid, "left"))


class ChannelCase(SynchronousTestCase):
    """A worker's slots and reports, and the main process's."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.store = MemorySlots()
        self.sessions: WorkerSessions[Any] = WorkerSessions(
            self.store, Throttle(self.clock.seconds, first=0.5)
        )
        self.sessions.standbys.watch(watcher := Watcher())
        self.heard = watcher.heard
        self.host = FakeWorker()
        self.lost: list[object] = []
        self.worker = Channel()  # type: ignore[no-untyped-call]
        self.main = MainEnd(self.sessions, lambda: self.lost.append(None))
        self.pair = ChannelPair(self.main, self.worker)
        self.reports = Reports(self.worker, self.clock)
        self.slots = RemoteSlots(self.worker, self.reports)

    def begin(self) -> Standby:
        """A client of the worker's, let in."""
        pid = self.sessions.begin(self.host)
        return Standby(pid, "u", f"s{pid}", None, 0.0, StandbyState.STREAMING)

    def report(self, standby: Standby, flush: int) -> None:
        """The client reports something."""
        standby.flush = flush
        self.reports.standby_changed(standby)

    def turn(self) -> None:
        """A turn of the reactor."""
        self.clock.advance(0)
        self.pair.deliver()


class TwoWorkersCase(ChannelCase):
    """Another worker beside the first."""

    def setUp(self) -> None:
        super().setUp()
        self.other_main = MainEnd(self.sessions, lambda: None)
        self.other_worker = Channel()  # type: ignore[no-untyped-call]
        self.other_pair = ChannelPair(self.other_main, self.other_worker)


class RemoteThrottleTests(TwoWorkersCase):
    """`RemoteThrottle`, answered by `MainEnd`: all workers' wrong passwords count together."""

    def settle(self, throttle: RemoteThrottle, address: str, *, is_wrong: bool) -> float:
        """How late the answer is to be."""
        settled = throttle.settle(address, is_wrong=is_wrong)
        self.assertNoResult(settled)
        self.pair.deliver()
        self.other_pair.deliver()
        return self.successResultOf(settled)

    def test_together(self) -> None:
        """Who tries at one worker waits at the other, and nobody else does."""
        one, other = RemoteThrottle(self.worker), RemoteThrottle(self.other_worker)
        late = [self.settle(each, "192.0.2.7", is_wrong=True) for each in (one, other, one)]
        self.assertEqual(late, [0.5, 1, 2])
        self.assertEqual(self.settle(other, "192.0.2.7", is_wrong=False), 2)
        self.assertEqual(self.settle(other, "2001:db8::/64", is_wrong=False), 0)

    def test_the_main_process_is_gone(self) -> None:
        """Nobody is let in any more."""
        throttle = RemoteThrottle(self.worker)
        settled = throttle.settle("192.0.2.7", is_wrong=False)
        self.pair.cut()
        self.failureResultOf(settled, ConnectionDone)
        self.failureResultOf(throttle.settle("192.0.2.7", is_wrong=False), ConnectionLost)


class RemotePlacesTests(TwoWorkersCase):
    """`RemotePlaces`, answered by `MainEnd`: all workers' connections count together."""

    def setUp(self) -> None:
        super().setUp()
        self.places = RemotePlaces(self.worker)
        self.others = RemotePlaces(self.other_worker)

    def enter(self, places: RemotePlaces, number: int, role: str = "r\udce9") -> bool:
        """Whether a connection gets a place."""
        entered = places.enter(number, role, 2)
        self.assertNoResult(entered)
        self.turn()
        self.other_pair.deliver()
        refused: list[CommandError] = []

        def note(failure: Failure) -> None:
            assert isinstance(failure.value, CommandError)
            refused.append(failure.value)

        entered.addErrback(note)
        self.successResultOf(entered)
        for error in refused:
            self.assertEqual(
                (error.sqlstate, error.message),
                ("53300", f'too many connections for role "{role}"'),
            )
        return not refused

    def test_together(self) -> None:
        """Numbers are each worker's own."""
        self.assertTrue(self.enter(self.places, 1))
        self.assertTrue(self.enter(self.others, 1))
        self.assertFalse(self.enter(self.places, 2))
        self.assertTrue(self.enter(self.places, 3, "another"))
        self.places.leave(2)
        self.turn()
        self.assertFalse(self.enter(self.others, 2))
        self.places.leave(1)
        self.turn()
        self.assertTrue(self.enter(self.others, 2))

    def test_a_number_twice(self) -> None:
        """A worker that has lost its senses keeps no place for ever. (Found by fuzzing.)"""
        self.enter(self.others, 1)
        self.enter(self.others, 1)
        self.assertTrue(self.enter(self.places, 1))
        self.other_main.connectionLost()
        self.assertTrue(self.enter(self.places, 2))

    def test_a_worker_that_ends(self) -> None:
        """Leaves nobody behind."""
        self.enter(self.others, 1)
        self.enter(self.others, 2)
        self.other_main.connectionLost()
        self.assertTrue(self.enter(self.places, 1))


class RemoteSlotsTests(ChannelCase):
    """`RemoteSlots`, answered by `MainEnd`."""

    def result(self, asked: Deferred[Any]) -> Any:
        """What comes of it."""
        self.assertNoResult(asked)
        self.turn()
        return self.successResultOf(asked)

    def test_a_slot_s_life(self) -> None:
        """Made, read, used, moved, released, dropped: the main process's store has it all."""
        made = self.result(self.slots.create("s", 7, temporary=False, restart=HERE))
        self.assertEqual(made, Slot("s", False, HERE, None))
        self.assertEqual(self.result(self.slots.read("s")), made)
        self.assertIsNone(self.result(self.slots.read("t")))
        self.assertEqual(self.result(self.slots.acquire("s", 7)), Slot("s", False, HERE, 7))
        self.slots.advance("s", THERE)
        self.slots.release("s", 7)
        self.assertIsNone(self.result(self.slots.drop("s", wait=True)))
        self.assertEqual(
            self.store.calls,
            [
                ("create", "s", 7, False, HERE),
                ("acquire", "s", 7),
                ("advance", "s", THERE),
                ("release", "s", 7),
                ("drop", "s", True),
            ],
        )

    def test_a_refusal(self) -> None:
        """The words are the store's."""
        refused = self.slots.acquire("s", 7)
        self.turn()
        error = self.failureResultOf(refused, CommandError).value
        assert isinstance(error, CommandError)
        words = 'replication slot "s" does not exist'
        self.assertEqual((error.sqlstate, error.message), ("42704", words))

    def test_a_name_that_is_no_utf_8(self) -> None:
        """It arrives as it came, and is shown as it came: clients may send any."""
        name = b"\xff".decode("utf-8", "surrogateescape")
        self.assertIsNone(self.result(self.slots.read(name)))
        refused = self.slots.acquire(name, 7)
        self.turn()
        error = self.failureResultOf(refused, CommandError).value
        self.assertEqual(str(error), f'replication slot "{name}" does not exist')

    def test_a_fault(self) -> None:
        """A fault of the store's is in the main process's log, and the worker lives on."""
        self.main = MainEnd(WorkerSessions(FailingSlots()), lambda: None)
        self.worker = Channel()  # type: ignore[no-untyped-call]
        self.pair = ChannelPair(self.main, self.worker)
        self.slots = RemoteSlots(self.worker, Reports(self.worker, self.clock))
        failed = self.slots.create("s", 7, temporary=False, restart=None)
        self.turn()
        error = self.failureResultOf(failed, CommandError).value
        assert isinstance(error, CommandError)
        self.assertEqual(error.sqlstate, "XX000")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertFalse(any(transport.is_closing for _, transport in self.pair.ends))

    def test_nothing_overtakes(self) -> None:
        """What a session has reported arrives before its end does."""
        standby = self.begin()
        self.store.create("s", standby.pid, temporary=False, restart=HERE)
        self.store.acquire("s", standby.pid)
        self.store.calls.clear()
        self.report(standby, 5)
        self.slots.advance("s", THERE)
        self.slots.end_session(standby.pid)
        self.pair.deliver()
        self.assertEqual(self.heard, [(standby.pid, 5)])
        self.assertEqual(self.store.calls, [("advance", "s", THERE), ("end_session", standby.pid)])

    def test_the_channel_is_lost(self) -> None:
        """Whoever asks is told, and whoever tells is not held up."""
        asked = self.slots.read("s")
        self.pair.cut()
        self.failureResultOf(asked, ConnectionDone)
        self.failureResultOf(self.slots.read("s"), ConnectionLost)
        self.slots.release("s", 7)
        self.assertEqual(len(self.lost), 1)


class ReportsTests(ChannelCase):
    """`Reports`, heard by `WorkerSessions`."""

    def test_all_reports_of_a_turn_go_out_together(self) -> None:
        """In the next turn, in the order in which each client made them, in one box."""
        one, two = self.begin(), self.begin()
        for standby, flush in ((one, 1), (two, 2), (one, 3)):
            self.report(standby, flush)
        self.assertEqual(self.pair.on_its_way(1), b"")
        self.clock.advance(0)
        self.assertEqual(self.pair.on_its_way(1).count(b"_command"), 1)
        self.pair.deliver()
        self.assertEqual(self.heard, [(one.pid, 1), (one.pid, 3), (two.pid, 2)])

    def test_no_timer_stands_in_between(self) -> None:
        """A commit may be waiting."""
        self.report(self.begin(), 1)
        (call,) = self.clock.getDelayedCalls()
        self.assertEqual(call.getTime(), self.clock.seconds())

    def test_a_main_process_that_is_slow(self) -> None:
        """Of each client only the newest report is kept, and of each slot the position."""
        standby = self.begin()
        self.store.create("s", standby.pid, temporary=False, restart=HERE)
        self.store.calls.clear()
        self.reports.pauseProducing()
        for flush in range(1, 1000):
            self.report(standby, flush)
            self.slots.advance("s", WALPosition(1, LSN(flush)))
            self.clock.advance(0)
        self.assertEqual(self.pair.on_its_way(1), b"")
        self.reports.resumeProducing()
        self.pair.deliver()
        self.assertEqual(self.heard, [(standby.pid, 999)])
        self.assertEqual(self.store.calls, [("advance", "s", WALPosition(1, LSN(999)))])

    def test_a_pause_in_a_turn(self) -> None:
        """What is to go out when the pause comes waits for its end."""
        standby = self.begin()
        self.report(standby, 1)
        self.reports.pauseProducing()
        self.turn()
        self.assertEqual(self.heard, [])
        self.reports.resumeProducing()
        self.pair.deliver()
        self.assertEqual(self.heard, [(standby.pid, 1)])

    def test_hundreds_report_at_once(self) -> None:
        """More than one box of AMP's can carry."""
        standbys = [self.begin() for _ in range(500)]
        for standby in standbys:
            self.report(standby, standby.pid)
        self.turn()
        self.assertEqual(self.heard, [(each.pid, each.pid) for each in standbys])

    def test_a_client_leaves(self) -> None:
        """After its last report."""
        standby = self.begin()
        self.report(standby, 1)
        self.reports.standby_left(standby)
        self.pair.deliver()
        self.assertEqual(self.heard, [(standby.pid, 1), (standby.pid, "left")])

    def test_how_far_each_was_sent_to(self) -> None:
        """It is known to who looks, and no news."""
        standby, other = self.begin(), self.begin()
        standby.timeline, other.timeline = 1, 0
        self.report(standby, 1)
        self.report(other, 1)
        self.turn()
        standby.sent = other.sent = 77
        self.reports.sent_so_far([standby, other])
        self.turn()
        self.assertEqual([each.sent for each in self.sessions.standbys], [77, 0])
        self.assertEqual(len(self.heard), 2)

    def test_a_watcher_fails(self) -> None:
        """It is in the log; the other clients of the worker are not cut off for it."""

        class Failing(Watcher):
            def standby_changed(self, standby: Standby) -> None:
                raise RuntimeError("the watcher has broken down")

        self.sessions.standbys.watch(Failing())
        self.report(self.begin(), 1)
        self.turn()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertFalse(any(transport.is_closing for _, transport in self.pair.ends))


class SessionsTests(ChannelCase):
    """`WorkerSessions`: numbers, ends."""

    def test_numbers_are_unique(self) -> None:
        """Whichever worker gets a session."""
        sessions = [self.sessions.begin(host) for host in (self.host, FakeWorker()) * 5]
        self.assertEqual(sessions, list(range(1, 11)))
        self.assertEqual((len(self.sessions), self.sessions.number(self.host)), (10, 5))

    def test_a_session_ends(self) -> None:
        """Its slots are given back, once; it is no client any more."""
        standby = self.begin()
        self.report(standby, 1)
        self.turn()
        for _ in range(2):
            self.worker.tell(SessionEnded, pid=standby.pid)
        self.pair.deliver()
        self.assertEqual(self.heard, [(standby.pid, 1), (standby.pid, "left")])
        self.assertEqual(self.store.calls, [("end_session", standby.pid)])
        numbers = (self.sessions.number(self.host), self.sessions.clients(self.host))
        self.assertEqual((len(self.sessions), *numbers), (0, 0, 0))

    def test_a_report_comes_too_late(self) -> None:
        """Nobody comes back who has gone."""
        standby = self.begin()
        self.sessions.ended(standby.pid)
        self.report(standby, 1)
        self.turn()
        self.assertEqual(self.heard, [])

    def test_a_worker_is_lost(self) -> None:
        """All its sessions end, and nobody else's."""
        mine, others = self.begin(), FakeWorker()
        pid = self.sessions.begin(others)
        self.report(mine, 1)
        self.turn()
        self.assertEqual(self.sessions.clients(self.host), 1)
        self.assertEqual(self.sessions.lost(self.host), 1)
        self.assertEqual(self.sessions.clients(self.host), 0)
        self.assertEqual(self.heard[1:], [(mine.pid, "left")])
        self.assertEqual(self.store.calls, [("end_session", mine.pid)])
        self.assertEqual(self.sessions.number(others), 1)
        self.assertEqual(pid, 2)

    def test_a_cancel_request_comes_to_another_worker(self) -> None:
        """It reaches the worker of the session that it names, which knows the key."""
        pid = self.sessions.begin(self.host)
        for number in (pid + 1, pid):
            self.worker.tell(Cancel, pid=number, key=b"key!")
        self.pair.deliver()
        self.assertEqual(self.host.asked, [("cancel", pid, b"key!")])

    def test_a_slot_is_taken_away(self) -> None:
        """The worker of the session is told, while there is one."""
        pid = self.sessions.begin(self.host)
        self.store.terminate(pid)
        self.sessions.ended(pid)
        self.store.terminate(pid)
        self.assertEqual(self.host.asked, [("terminate", pid)])

    def test_what_is_not_understood(self) -> None:
        """A question that nobody answers fails, and does not hang."""
        asked = self.main.ask(Beat)
        self.pair.deliver()
        self.failureResultOf(asked)

    def test_what_makes_no_sense(self) -> None:
        """It ends the channel, and with it the worker: nothing else, and nothing is raised."""
        for nonsense in (b"\0\0", b"\0\7_answer\0\1" + b"7\0\0", b"\xff\xff", b"\0\1a\0\0\0\0"):
            main = MainEnd(self.sessions, lambda: None)
            pair = ChannelPair(main, Channel())  # type: ignore[no-untyped-call]
            main.dataReceived(nonsense)
            self.assertTrue(pair.ends[0][1].is_closing, nonsense)
            self.flushLoggedErrors()

    def test_a_broken_report(self) -> None:
        """It is in the log, and nobody hears of it: the others' reports go on."""
        standby = self.begin()
        for broken in (b"", b"[", b"{}", b'{"pid": 1}', pack_standby(Standby(-1, "", "", None, 0))):
            self.worker.tell(StandbysChanged, standbys=broken)
        self.worker.tell(SentSoFar, positions=b"1")
        self.worker.tell(SentSoFar, positions=b"%d %d" % (standby.pid, -1))
        self.pair.deliver()
        self.assertEqual(len(self.flushLoggedErrors()), 7)
        self.report(standby, 1)
        self.turn()
        self.assertEqual(self.heard, [(standby.pid, 1)])
        self.assertFalse(any(transport.is_closing for _, transport in self.pair.ends))
