"""Tests for `walstream.protocols.acknowledgement`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.unit.log_capture import capture_log
from walstream.errors import SinkFailed
from walstream.formats.segments import SegmentSize
from walstream.interfaces import IReportPolicy, ReportLimits, SystemIdentity
from walstream.protocols.acknowledgement import Acknowledgement, AcknowledgementSettings
from walstream.protocols.status_line import StatusLine
from walstream.testing.memory import MemorySink
from walstream.testing.wal import SYSTEM_IDENTIFIER
from walstream.wire.copydata import StandbyStatus, parse_standby_message, pg_time

IDENTITY = SystemIdentity(SYSTEM_IDENTIFIER, SegmentSize(1 << 20), "18.6")
START = IDENTITY.segment_size.start(3)
NOW = 1_763_900_000.25


class Wire:
    """All that a status line needs of a transport that is no plain connection."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write


class AcknowledgementCase(SynchronousTestCase):
    """A stream into a `MemorySink` whose disk is the test."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.sink = MemorySink(IDENTITY, auto_flush=False)
        self.successResultOf(self.sink.begin(1, START))
        self.sent: list[tuple[float, StandbyStatus]] = []
        self.given_up: list[float] = []
        self.failures: list[Failure] = []

    def begin(
        self,
        *,
        interval: float = 10,
        reports_flush: bool = False,
        synchronous: bool = False,
        reports_apply: bool = False,
        receive_timeout: float = 0,
        policy: IReportPolicy | None = None,
    ) -> Acknowledgement:
        """Begin to report."""
        reports_flush = reports_flush or synchronous
        line = StatusLine(
            cast(Any, Wire(self.send)),
            self.clock.seconds,
            reports_flush=reports_flush,
            reports_apply=reports_apply,
        )
        self.acknowledgement = Acknowledgement(
            self.sink,
            AcknowledgementSettings(
                interval=interval,
                reports_flush=reports_flush,
                heartbeat=20.0,
                receive_timeout=receive_timeout,
            ),
            self.clock,
            line,
            lambda: self.given_up.append(self.clock.seconds() - NOW),
            self.failures.append,
            synchronous=synchronous,
            timeline=1,
            policy=policy,
        )
        self.acknowledgement.start()
        self.addCleanup(self.check_stop)
        return self.acknowledgement

    def check_stop(self) -> None:
        """Whatever happened: once it is stopped no timer is left, and nothing more is said."""
        self.acknowledgement.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def send(self, message: bytes) -> None:
        kind, size, payload = message[:1], message[1:5], message[5:]
        self.assertEqual((kind, int.from_bytes(size, "big")), (b"d", len(payload) + 4))
        status = parse_standby_message(payload)
        assert isinstance(status, StandbyStatus)
        self.sent.append((self.clock.seconds() - NOW, status))

    def receive(self, size: int) -> None:
        """The stream brings a batch of WAL of *size* bytes."""
        self.acknowledgement.received()
        self.sink.write(self.sink.written, memoryview(bytes(size)))
        self.acknowledgement.batch_over(0)

    def pass_time(self, seconds: int) -> None:
        self.clock.pump([1] * seconds)

    @property
    def times(self) -> list[float]:
        """When something was sent."""
        return [seconds for seconds, _ in self.sent]

    @property
    def positions(self) -> list[tuple[int, int]]:
        """The write and the flush position of each status, from START on; 0 is 0."""
        return [
            (status.write - START, status.flush and status.flush - START) for _, status in self.sent
        ]

    def lose_the_connection_with_all_durable(self) -> None:
        """A hundred bytes have come, and the segment is about to come again from its start."""
        self.receive(100)
        self.sink.complete_flush()
        self.acknowledgement.stop()
        self.successResultOf(self.sink.finish())
        self.successResultOf(self.sink.begin(1, START))
        self.sent.clear()


class ReportTests(AcknowledgementCase):
    """What a report says, and when one is due."""

    def test_begins_with_a_report(self) -> None:
        """As standbys do, it says at once where it stands: from nothing but the start on."""
        self.begin()
        self.assertEqual(
            self.sent, [(0, StandbyStatus(START, 0, 0, pg_time(self.clock.seconds()), False))]
        )

    def test_interval(self) -> None:
        """A report is due in each interval."""
        self.begin()
        self.pass_time(35)
        self.assertEqual(self.times, [0, 10, 20, 30])

    def test_interval_counts_from_the_last_report(self) -> None:
        """An answer in between puts the next report off."""
        self.begin()
        self.pass_time(7)
        self.acknowledgement.answer()
        self.pass_time(12)
        self.assertEqual(self.times, [0, 7, 17])

    def test_no_interval(self) -> None:
        """With interval 0 nothing is said but the first word and what is asked for."""
        self.begin(interval=0)
        self.pass_time(100)
        self.acknowledgement.answer()
        self.pass_time(100)
        self.assertEqual(self.times, [0, 100])

    def test_written_is_not_flushed(self) -> None:
        """What is only written is never called durable. (L12)"""
        self.begin(reports_flush=True)
        self.receive(100)
        self.pass_time(10)
        self.assertEqual(self.positions, [(0, 0), (100, 0)])

    def test_flush_is_reported_once_it_is_done(self) -> None:
        """The flush position is the sink's, as far as the disk has it."""
        self.begin(reports_flush=True)
        self.receive(100)
        flushed = self.sink.flush()
        self.receive(50)
        self.sink.complete_flush()
        self.successResultOf(flushed)
        self.pass_time(10)
        self.assertEqual(self.positions[-1], (150, 100))

    def test_flush_is_not_reported_without_need(self) -> None:
        """Without slot and ``--synchronous`` the flush position is 0: no synchronous standby."""
        self.begin()
        self.receive(100)
        self.sink.complete_flush()
        self.pass_time(10)
        self.acknowledgement.answer()
        self.assertEqual(self.positions, [(0, 0), (100, 0), (100, 0)])

    def test_write_is_never_behind_flush(self) -> None:
        """After a reconnect the segment comes again, but what is durable was written."""
        self.begin(reports_flush=True)
        self.lose_the_connection_with_all_durable()
        self.begin(reports_flush=True)
        self.assertEqual(self.positions, [(100, 100)])

    def test_nothing_after_stop(self) -> None:
        """A stopped one still reports when told to, but never again of its own accord."""
        self.begin(reports_flush=True, receive_timeout=30)
        self.acknowledgement.stop()
        self.acknowledgement.report()
        self.acknowledgement.pause()
        self.acknowledgement.resume()
        self.acknowledgement.received()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.pass_time(100)
        self.assertEqual(self.times, [0, 0])


class AnswerTests(AcknowledgementCase):
    """The server asks for a reply."""

    def test_at_once(self) -> None:
        """It gets one in the same moment, however slow the disk."""
        self.begin(reports_flush=True)
        self.receive(100)
        self.acknowledgement.answer()
        self.assertEqual(self.positions, [(0, 0), (100, 0)])

    def test_again_when_it_is_durable(self) -> None:
        """As soon as what was written is durable, it is told."""
        self.begin(reports_flush=True)
        self.receive(100)
        self.acknowledgement.answer()
        self.pass_time(3)
        self.sink.complete_flush()
        self.assertEqual(self.positions[-1], (100, 100))
        self.assertEqual(self.times[-1], 3)

    def test_nothing_to_flush(self) -> None:
        """If all is durable, one answer is enough."""
        self.begin(reports_flush=True)
        self.acknowledgement.answer()
        self.assertEqual(self.times, [0, 0])
        self.assertFalse(self.sink.needs_flush)

    def test_no_flush_without_need(self) -> None:
        """Who does not report a flush position does not flush for an answer."""
        self.begin()
        self.receive(100)
        self.acknowledgement.answer()
        self.assertFalse(self.sink.needs_flush)

    def test_asked_while_it_flushes(self) -> None:
        """Each question is answered at once, but one flush at a time is enough."""
        self.begin(reports_flush=True)
        self.receive(100)
        for _ in range(3):
            self.acknowledgement.answer()
        self.sink.complete_flush()
        self.assertFalse(self.sink.needs_flush)
        self.assertEqual(self.positions, [(0, 0), *[(100, 0)] * 3, (100, 100)])


class SynchronousTests(AcknowledgementCase):
    """``--synchronous``: each batch is made durable, and then reported, as it comes."""

    def test_each_batch(self) -> None:
        """A batch is flushed at once, and reported when that is done, not before."""
        self.begin(synchronous=True)
        self.receive(100)
        self.assertEqual(self.positions, [(0, 0)])
        self.sink.complete_flush()
        self.assertEqual(self.positions, [(0, 0), (100, 100)])

    def test_nothing_came(self) -> None:
        """A read that brought no WAL, to a sink that holds nothing yet, is no reason to flush."""
        self.begin(synchronous=True)
        self.receive(0)
        self.acknowledgement.answer()
        self.assertFalse(self.sink.needs_flush)
        self.assertEqual(self.positions, [(0, 0), (0, 0)])

    def test_what_comes_meanwhile(self) -> None:
        """What comes while a flush is under way is flushed by the next one."""
        self.begin(synchronous=True)
        for _ in range(3):
            self.receive(100)
        self.sink.complete_flush()
        self.assertEqual(self.positions[-1], (300, 100))
        self.sink.complete_flush()
        self.assertEqual(self.positions[-1], (300, 300))
        self.assertFalse(self.sink.needs_flush)

    def test_prompt_disk(self) -> None:
        """A sink that makes durable at once is reported after each batch."""
        self.sink.auto_flush = True
        self.begin(synchronous=True)
        self.receive(100)
        self.receive(1)
        self.assertEqual(self.positions, [(0, 0), (100, 100), (101, 101)])

    def test_without_it(self) -> None:
        """A batch alone is no reason to flush."""
        self.begin(reports_flush=True)
        self.receive(100)
        self.assertFalse(self.sink.needs_flush)

    def test_flush_that_ends_after_the_stream(self) -> None:
        """When the stream is over, the end of a flush is nobody's business any more."""
        self.begin(synchronous=True)
        self.receive(100)
        self.acknowledgement.stop()
        self.sink.complete_flush()
        self.assertEqual(len(self.sent), 1)

    def test_no_flush_after_stop(self) -> None:
        """A batch that ends after the stream was stopped is not flushed from here."""
        self.begin(synchronous=True)
        self.acknowledgement.stop()
        self.receive(100)
        self.assertFalse(self.sink.needs_flush)

    def test_flush_fails(self) -> None:
        """A failed flush is told, once, and nothing is reported because of it."""
        self.begin(synchronous=True)
        self.receive(100)
        self.sink.fail()
        (failure,) = self.failures
        failure.trap(SinkFailed)
        self.assertEqual(len(self.sent), 1)

    def test_flush_fails_after_stop(self) -> None:
        """A flush that fails after the stream is over is told by the sink itself, not here."""
        self.begin(synchronous=True)
        self.receive(100)
        self.acknowledgement.stop()
        self.sink.fail()
        self.assertEqual(self.failures, [])


class LazyTests(AcknowledgementCase):
    """Without ``--synchronous``: durable and reported within a second."""

    def test_within_a_second(self) -> None:
        """What came is flushed a second after its first byte came, and then reported."""
        self.begin(reports_flush=True)
        self.pass_time(3)
        self.receive(100)
        self.clock.advance(0.9)
        self.receive(100)
        self.assertFalse(self.sink.needs_flush)
        self.clock.advance(0.1)
        self.assertTrue(self.sink.needs_flush)
        self.sink.complete_flush()
        self.assertEqual(self.positions[-1], (200, 200))
        self.assertEqual(self.times[-1], 4)

    def test_again(self) -> None:
        """What comes later has a second of its own, also while a flush is under way."""
        self.begin(interval=0, reports_flush=True)
        self.receive(100)
        self.pass_time(1)
        self.receive(100)
        self.pass_time(3)
        self.assertEqual(self.positions, [(0, 0)])
        self.sink.complete_flush()
        self.assertEqual(self.positions[-1], (200, 100))
        self.pass_time(1)
        self.sink.complete_flush()
        self.assertEqual(self.positions[-1], (200, 200))
        self.pass_time(100)
        self.assertFalse(self.sink.needs_flush)

    def test_what_is_durable_by_itself(self) -> None:
        """A segment that was finished meanwhile is reported within the second too."""
        self.begin(interval=0, reports_flush=True)
        self.receive(100)
        self.sink.complete_flush()
        self.pass_time(1)
        self.assertEqual(self.positions, [(0, 0), (100, 100)])
        self.assertFalse(self.sink.needs_flush)

    def test_not_without_need(self) -> None:
        """Who does not report a flush position need not flush."""
        self.begin(interval=0)
        self.receive(100)
        self.pass_time(10)
        self.assertFalse(self.sink.needs_flush)

    def test_becomes_synchronous(self) -> None:
        """From one moment to the next it is as with ``--synchronous``, and back."""
        self.begin(interval=0, reports_flush=True)
        self.receive(100)
        self.acknowledgement.be_synchronous(True)
        self.sink.complete_flush()
        self.assertEqual(self.positions[-1], (100, 100))
        self.receive(100)
        self.sink.complete_flush()
        self.assertEqual(self.positions[-1], (200, 200))
        self.acknowledgement.be_synchronous(False)
        self.receive(100)
        self.assertFalse(self.sink.needs_flush)
        self.pass_time(1)
        self.assertTrue(self.sink.needs_flush)

    def test_applied(self) -> None:
        """What is durable is reported as applied, if anything is."""
        self.begin(reports_flush=True, reports_apply=True)
        self.receive(100)
        self.pass_time(1)
        self.sink.complete_flush()
        self.assertEqual(self.sent[-1][1].apply, START + 100)


class RepeatTests(AcknowledgementCase):
    """A report that the server may have read too early to let a commit go for it."""

    def catch_up(self, size: int) -> None:
        """The stream brings the last WAL that the server has."""
        self.sink.write(self.sink.written, memoryview(bytes(size)))
        self.acknowledgement.batch_over(self.sink.written)

    def asked(self) -> list[bool]:
        """Which of the reports asked for a reply."""
        return [status.reply_requested for _, status in self.sent]

    def test_caught_up(self) -> None:
        """The first flush after all WAL has come is reported, and again when that was seen."""
        self.begin(synchronous=True)
        self.acknowledgement.batch_over(0)
        self.receive(50)
        self.sink.complete_flush()
        self.catch_up(50)
        self.assertEqual(self.asked(), [False, False])
        self.sink.complete_flush()
        self.acknowledgement.replied()
        self.acknowledgement.replied()
        self.assertEqual(self.asked(), [False, False, True, False])
        self.assertEqual(self.positions[-2:], [(100, 100)] * 2)
        self.catch_up(50)
        self.sink.complete_flush()
        self.assertEqual(self.asked()[-1], False)

    def test_all_is_durable_already(self) -> None:
        """After a reconnect what comes again is reported when it has come."""
        self.begin(synchronous=True)
        self.lose_the_connection_with_all_durable()
        self.begin(synchronous=True)
        self.catch_up(100)
        self.acknowledgement.replied()
        self.assertEqual(self.asked(), [False, True, False])
        self.assertEqual(self.positions, [(100, 100)] * 3)

    def test_nothing_will_come(self) -> None:
        """If all is durable at the start, the first report is the one to repeat."""
        self.receive_before(100)
        self.begin(synchronous=True)
        self.acknowledgement.replied()
        self.assertEqual(self.asked(), [True, False])

    def receive_before(self, size: int) -> None:
        self.sink.write(self.sink.written, memoryview(bytes(size)))
        self.sink.complete_flush()

    def test_not_without_need(self) -> None:
        """Without a flush position there is nothing to repeat."""
        self.begin()
        self.catch_up(100)
        self.acknowledgement.replied()
        self.assertEqual(self.asked(), [False])


@implementer(IReportPolicy)
class Policy:
    """A policy that the test moves."""

    applied = ""

    def __init__(self, position: int) -> None:
        self.limits = ReportLimits(flush=position)
        self.calls: list[object] = []
        self._changed: Callable[[], None] | None = None

    def begin(self, timeline: int, changed: Callable[[], None]) -> None:
        self.calls.append(timeline)
        self._changed = changed

    def end(self) -> None:
        self.calls.append("end")
        self._changed = None

    def move(self, position: int) -> None:
        """Now so much may be reported as flushed."""
        self.limits = ReportLimits(flush=position)
        if self._changed is not None:
            self._changed()


class PolicyTests(AcknowledgementCase):
    """What is reported waits for others."""

    def begin_held_back(self) -> None:
        """A hundred bytes are durable here, and nowhere else."""
        self.policy = Policy(START)
        self.begin(interval=0, synchronous=True, policy=self.policy)
        self.receive(100)
        self.sink.complete_flush()
        self.sent.clear()

    def test_waits(self) -> None:
        """What is durable here is not flushed yet; what is written is written."""
        self.policy = Policy(START + 20)
        self.begin(interval=0, synchronous=True, policy=self.policy)
        self.receive(100)
        self.sink.complete_flush()
        self.assertEqual(self.positions, [(0, 0), (100, 20)])

    def test_goes_on_at_once(self) -> None:
        """In the same moment, one report for each move; not beyond what is durable here."""
        self.begin_held_back()
        self.policy.move(START + 50)
        self.policy.move(START + 50)
        self.policy.move(START + 900)
        self.policy.move(START + 950)
        self.assertEqual(self.positions, [(100, 50), (100, 100)])

    def test_never_ahead_of_the_disk(self) -> None:
        """Others may have it before us: then it is told when our disk has it. (L12)"""
        self.begin_held_back()
        self.policy.move(START + 900)
        self.receive(100)
        self.acknowledgement.report()
        self.assertEqual(self.positions[-1], (200, 100))
        self.sink.complete_flush()
        self.assertEqual(self.positions[-1], (200, 200))

    def test_while_it_makes_us_wait(self) -> None:
        """Also when nothing is read."""
        self.begin_held_back()
        self.acknowledgement.pause()
        self.policy.move(START + 50)
        self.assertEqual(self.positions[-1], (100, 50))

    def test_begins_and_ends(self) -> None:
        """With the stream, and its timeline."""
        self.begin_held_back()
        self.acknowledgement.stop()
        self.policy.move(START + 50)
        self.assertEqual((self.policy.calls, self.sent), ([1, "end"], []))

    def test_the_server_shuts_down(self) -> None:
        """It asks again in the moment of our answer: then it need not wait for others."""
        log = capture_log(self)
        self.begin_held_back()
        self.acknowledgement.answer(5_000_000)
        for time in (6_000_000, 7_000_000):
            self.assertEqual(self.positions[-1], (100, 0))
            self.assertTrue(self.sent[-1][1].reply_requested)
            self.acknowledgement.replied(time)
            self.acknowledgement.answer(time + 20)
        self.assertEqual(self.positions[-1], (100, 100))
        self.assertFalse(self.sent[-1][1].reply_requested)
        self.assertIn("the server is shutting down", log[-1])
        self.assertEqual(self.policy.calls, [1, "end"])

    def test_the_server_shuts_down_before_it_is_durable(self) -> None:
        """Our own disk is waited for, and nobody else."""
        self.begin_held_back()
        self.receive(50)
        for time in (5_000_000, 6_000_000, 7_000_000):
            self.acknowledgement.replied(time)
            self.acknowledgement.answer(time)
        self.assertEqual(self.positions[-1], (150, 100))
        self.sink.complete_flush()
        self.assertEqual(self.positions[-1], (150, 150))

    def test_the_server_wants_a_sign_of_life(self) -> None:
        """That alone changes nothing, however often."""
        self.begin_held_back()
        for time in range(0, 100_000_000, 500_000):
            self.acknowledgement.answer(time)
            self.acknowledgement.replied(time + 100)
        self.assertEqual(self.positions[-1], (100, 0))

    def test_asks_only_if_it_matters(self) -> None:
        """A server is not asked back when nothing is held back."""
        self.begin_held_back()
        self.policy.move(START + 100)
        self.acknowledgement.answer(1)
        self.assertFalse(self.sent[-1][1].reply_requested)


class PauseTests(AcknowledgementCase):
    """The sink makes us wait."""

    def test_heartbeat(self) -> None:
        """While nothing can be read, a report comes at once and then in each heartbeat."""
        self.begin(interval=60)
        self.pass_time(5)
        self.acknowledgement.pause()
        self.pass_time(50)
        self.assertEqual(self.times, [0, 5, 25, 45])

    def test_heartbeat_without_interval(self) -> None:
        """Also if no reports were wanted: it is what keeps the connection alive."""
        self.begin(interval=0)
        self.acknowledgement.pause()
        self.pass_time(45)
        self.assertEqual(self.times, [0, 0, 20, 40])

    def test_shorter_interval_stays(self) -> None:
        """An interval that is shorter than the heartbeat holds while paused."""
        self.begin(interval=8)
        self.acknowledgement.pause()
        self.pass_time(25)
        self.assertEqual(self.times, [0, 0, 8, 16, 24])

    def test_heartbeat_tells_what_became_durable(self) -> None:
        """A report while paused has the positions of its moment."""
        self.begin(reports_flush=True)
        self.receive(100)
        self.acknowledgement.pause()
        self.sink.complete_flush()
        self.pass_time(20)
        self.assertEqual(self.positions[-1], (100, 100))

    def test_after_resume(self) -> None:
        """Reading again, the interval holds again."""
        self.begin(interval=60)
        self.acknowledgement.pause()
        self.pass_time(21)
        self.acknowledgement.resume()
        self.pass_time(200)
        self.assertEqual(self.times, [0, 0, 20, 81, 141, 201])

    def test_after_resume_without_interval(self) -> None:
        """With interval 0 the heartbeats end when reading goes on."""
        self.begin(interval=0)
        self.acknowledgement.pause()
        self.pass_time(21)
        self.acknowledgement.resume()
        self.pass_time(200)
        self.assertEqual(self.times, [0, 0, 20])

    def test_paused_again_and_again(self) -> None:
        """Pauses in quick succession do not put the reports off."""
        self.begin(interval=60)
        for _ in range(50):
            self.pass_time(1)
            self.acknowledgement.pause()
            self.acknowledgement.resume()
        self.assertGreaterEqual(len(self.sent), 3)


class ReceiveTimeoutTests(AcknowledgementCase):
    """A server that says nothing."""

    def test_asks_then_gives_up(self) -> None:
        """After half of the timeout it is asked for a reply, once; after all it is given up."""
        self.begin(interval=0, receive_timeout=60)
        self.pass_time(100)
        self.assertEqual(
            [(seconds, status.reply_requested) for seconds, status in self.sent],
            [(0, False), (30, True)],
        )
        self.assertEqual(self.given_up, [60])

    def test_anything_counts(self) -> None:
        """Whatever arrives is a sign of life."""
        self.begin(interval=0, receive_timeout=60)
        for _ in range(10):
            self.pass_time(29)
            self.acknowledgement.received()
        self.assertEqual(self.times, [0])

    def test_not_while_paused(self) -> None:
        """While we do not read, the server's silence means nothing."""
        self.begin(interval=0, receive_timeout=60)
        self.acknowledgement.pause()
        self.pass_time(300)
        self.assertEqual(self.given_up, [])
        self.assertFalse(any(status.reply_requested for _, status in self.sent))

    def test_again_after_a_pause(self) -> None:
        """Once we read again, the whole timeout holds."""
        self.begin(interval=0, receive_timeout=60)
        self.acknowledgement.pause()
        self.pass_time(100)
        self.acknowledgement.resume()
        self.pass_time(59)
        self.assertEqual(self.given_up, [])
        self.pass_time(1)
        self.assertEqual(self.given_up, [160])

    def test_none(self) -> None:
        """A timeout of 0 waits for ever."""
        self.begin(interval=0, receive_timeout=0)
        self.pass_time(1000)
        self.assertEqual((self.times, self.given_up), ([0], []))
