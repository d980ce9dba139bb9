"""Tests for walstream.services.worker_pool: workers start, die, are replaced, and end."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.log_capture import capture_log
from tests.unit.workers import FakeWorker
from walstream.errors import ArchiveError
from walstream.services.retry import Backoff
from walstream.services.worker_pool import WorkerPool


class WorkerPoolTests(SynchronousTestCase):
    """`WorkerPool` of two."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.made: list[FakeWorker] = []
        self.lost: list[FakeWorker] = []
        self.news = 0
        self.log = capture_log(self)
        self.pool: WorkerPool[FakeWorker] = WorkerPool(
            self.make, 2, self.clock, self.lose, self.hear, backoff=Backoff(longest=5.0)
        )

    def make(self, number: int) -> FakeWorker:
        self.made.append(FakeWorker(number))
        return self.made[-1]

    def lose(self, worker: FakeWorker) -> int:
        self.lost.append(worker)
        return 3

    def hear(self) -> None:
        self.news += 1

    def open(self) -> tuple[FakeWorker, FakeWorker]:
        """Both have started."""
        opened = self.pool.open()
        for worker in self.made:
            self.assertNoResult(opened)
            worker.started()
        self.successResultOf(opened)
        one, two = self.made
        self.addCleanup(self.close)
        return one, two

    def close(self) -> None:
        """Close it, if it isn't; nothing is left."""
        self.successResultOf(self.pool.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual((self.pool.ready, self.pool.available), ([], []))

    def test_open(self) -> None:
        """It is open when all have started."""
        one, two = self.open()
        self.assertEqual([one.number, two.number], [1, 2])
        self.assertEqual(self.pool.available, [one, two])
        self.assertEqual(self.log, ["worker 1 is process 1001", "worker 2 is process 1002"])

    def test_one_cannot_start(self) -> None:
        """Then none is left, and what is said is why."""
        opened = self.pool.open()
        one, two = self.made
        one.started()
        two.starting.errback(ArchiveError("too few inotify instances"))
        self.failureResultOf(opened, ArchiveError)
        self.assertIn("leave", one.calls)
        self.assertEqual(two.calls, ["kill"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """All are let go of, and waited for; that is no loss to speak of."""
        one, two = self.open()
        self.log.clear()
        one.ends_when_told = False
        closed = self.pool.close()
        self.assertNoResult(closed)
        one.end("it ended by itself")
        self.successResultOf(closed)
        self.assertEqual((one.calls, two.calls), (["leave"], ["leave"]))
        self.assertEqual(self.log, [])

    def test_one_does_not_end(self) -> None:
        """It is killed."""
        one, _ = self.open()
        one.ends_when_told = False
        closed = self.pool.close()
        self.clock.advance(4.9)
        self.assertNoResult(closed)
        self.clock.advance(0.2)
        self.successResultOf(closed)
        self.assertEqual(one.calls[-2:], ["leave", "kill"])
        self.assertIn("worker 1 does not end: killed", self.log)

    def test_one_dies(self) -> None:
        """Its sessions are over, the log says so, and another one takes its place."""
        one, two = self.open()
        one.end("process ended by signal 9.")
        self.assertEqual((self.lost, self.pool.available), ([one], [two]))
        words = "worker 1 has ended, and 3 connections with it: process ended by signal 9."
        self.assertEqual(self.log[-1], words)
        self.clock.advance(0.1)
        self.assertEqual(self.made[2].number, 1)
        self.assertEqual((self.pool.available, self.news), ([two], 0))
        self.made[2].started()
        self.assertEqual((self.pool.available, self.news), ([two, self.made[2]], 1))
        self.assertEqual(two.calls, [])

    def test_one_dies_again_and_again(self) -> None:
        """It is started less and less often, until it has lived for a while."""
        self.open()
        self.made[0].end("it crashed")
        for seconds in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0):
            count = len(self.made)
            self.clock.advance(seconds / 2 - 0.01)
            self.assertEqual(len(self.made), count, seconds)
            self.clock.advance(seconds / 2 + 0.02)
            self.assertEqual(len(self.made), count + 1, seconds)
            self.made[-1].started()
            self.made[-1].end("it crashed")
        self.clock.advance(5.1)
        self.made[-1].started()
        self.clock.pump([1.0] * 6)
        count = len(self.made)
        self.made[-1].end("it crashed")
        self.clock.advance(0.11)
        self.assertEqual(len(self.made), count + 1)

    def test_one_cannot_be_started_again(self) -> None:
        """It is tried until it can; the same reason is said once a minute."""
        _, two = self.open()
        self.made[0].end("it crashed")
        for _ in range(20):
            self.clock.advance(5.0)
            worker = self.made[-1]
            if worker is not two:
                worker.starting.errback(ArchiveError("the disk is gone"))
        reasons = [line for line in self.log if "the disk is gone" in line]
        self.assertEqual(len(reasons), 2)
        self.assertEqual(reasons[0], "cannot start worker 1; trying again: the disk is gone")
        self.clock.advance(5.0)
        self.made[-1].started()
        self.assertEqual(len(self.pool.available), 2)

    def test_close_while_one_waits_to_be_started(self) -> None:
        """It is not."""
        self.open()
        self.made[0].end("it crashed")
        self.close()
        self.clock.advance(10)
        self.assertEqual(len(self.made), 2)

    def test_close_while_one_starts(self) -> None:
        """It is killed."""
        self.open()
        self.made[0].end("it crashed")
        self.clock.advance(0.1)
        self.close()
        self.assertEqual(self.made[2].calls, ["kill", "kill"])

    def test_one_does_not_answer(self) -> None:
        """It gets no clients until it does."""
        one, two = self.open()
        one.on_beat = lambda: setattr(one, "missed", one.missed + 1)
        self.clock.pump([1.0] * 2)
        self.assertEqual(self.pool.available, [one, two])
        self.clock.advance(1.0)
        self.assertEqual((self.pool.available, self.news), ([two], 0))
        self.assertIn("worker 1 (process 1001) does not answer", self.log[-1])
        one.on_beat = lambda: setattr(one, "missed", 0)
        self.clock.advance(1.0)
        self.assertEqual((self.pool.available, self.news), ([one, two], 1))
        self.assertEqual(self.log[-1], "worker 1 answers again")

    def test_one_never_answers_again(self) -> None:
        """It is killed, and replaced as any that dies."""
        one, _ = self.open()
        one.on_beat = lambda: setattr(one, "missed", one.missed + 1)
        self.clock.pump([1.0] * 59)
        self.assertNotIn("kill", one.calls)
        self.clock.advance(1.0)
        self.assertEqual(one.calls.count("kill"), 1)
        self.assertIn("worker 1 has not answered for 60 s: killed", self.log)
        self.assertEqual(self.lost, [one])

    def test_the_channel_is_closed_before_the_process_ends(self) -> None:
        """It gets no clients in between."""
        one, two = self.open()
        one.is_open = False
        self.assertEqual(self.pool.available, [two])
