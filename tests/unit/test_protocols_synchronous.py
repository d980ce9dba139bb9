"""Tests for walstream.protocols.synchronous, and for what a receiver makes of it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import (
    COPY_BOTH,
    COPY_DONE,
    NOW,
    READY_FOR_QUERY,
    START,
    error,
    keepalive,
    status,
    wal,
)
from tests.unit.log_capture import capture_log
from tests.unit.test_protocols_receiver import LET_IN, ReceiverCase, result
from walstream.errors import Disconnected, NotSynchronous
from walstream.formats.lsn import LSN
from walstream.formats.synchronous_standby_names import SynchronousStandbyNames
from walstream.protocols.questions import Answer, Questions
from walstream.protocols.receiver_settings import OnSynchronous, ReceiverSettings, ReportApply
from walstream.protocols.synchronous import StandbyDemands, SynchronousDuty, ask_demands
from walstream.wire.messages import parameter_status, query


def demands(names: str, commit: str = "on", *, is_primary: bool = True) -> StandbyDemands:
    """What a server with these settings demands."""
    return StandbyDemands(SynchronousStandbyNames.parse(names), commit, is_primary)


class DutyTests(SynchronousTestCase):
    """What a receiver owes to its server's commits."""

    def setUp(self) -> None:
        self.log = capture_log(self)

    def duty(self, **settings: Any) -> SynchronousDuty:
        return SynchronousDuty(ReceiverSettings(**settings))

    def test_at_first(self) -> None:
        """Before a server was asked it is what the options say."""
        refuse, none = OnSynchronous.REFUSE, ReportApply.NONE
        for settings, expected in (
            ({}, (False, True, True)),
            ({"synchronous": True}, (True, True, True)),
            ({"on_synchronous": refuse}, (False, False, True)),
            ({"on_synchronous": refuse, "slot": "s"}, (False, True, True)),
            ({"on_synchronous": refuse, "synchronous": True}, (True, True, True)),
            ({"report_apply": none}, (False, True, False)),
        ):
            duty = self.duty(**settings)
            found = (duty.is_synchronous, duty.reports_flush, duty.reports_apply)
            self.assertEqual(found, expected, settings)

    def test_switches(self) -> None:
        """Named, it is synchronous; no longer named, it is not; each change is said once."""
        duty = self.duty()
        for names, expected, said in (
            ("other", False, 0),
            ("other, WALstream", True, 1),
            ("ANY 1 (walstream, other)", True, 1),
            ("*", True, 1),
            ("other", False, 2),
            ("", False, 2),
            ("*", True, 3),
        ):
            duty.learn(demands(names), "walstream")
            self.assertEqual((duty.is_synchronous, len(self.log)), (expected, said), names)
        self.assertIn("synchronous_standby_names is FIRST 1 (other, WALstream)", self.log[0])
        self.assertIn("--synchronous", self.log[0])
        self.assertIn("does not wait for this receiver any more", self.log[1])

    def test_told_to_be_synchronous(self) -> None:
        """With --synchronous there is nothing to change, and nothing to say."""
        duty = self.duty(synchronous=True)
        for names in ("walstream", ""):
            duty.learn(demands(names), "walstream")
            self.assertTrue(duty.is_synchronous)
        self.assertEqual(self.log, [])
        self.assertFalse(duty.depends_on_demands)
        self.assertTrue(self.duty().depends_on_demands)
        self.assertTrue(
            self.duty(synchronous=True, report_apply=ReportApply.NONE).depends_on_demands
        )

    def test_refuses(self) -> None:
        """With --on-synchronous=refuse it ends, and names both settings and the remedy."""
        duty = self.duty(on_synchronous=OnSynchronous.REFUSE)
        duty.learn(demands("other"), "walstream")
        refused = self.assertRaises(NotSynchronous, duty.learn, demands("*"), "walstream")
        for words in (
            "synchronous_standby_names is 'FIRST 1 (*)'",
            "'walstream'",
            "without --synchronous",
            "--on-synchronous=refuse",
            "start it with --synchronous",
        ):
            self.assertIn(words, str(refused))
        self.assertFalse(duty.is_synchronous)
        duty = self.duty(on_synchronous=OnSynchronous.REFUSE, synchronous=True)
        duty.learn(demands("*"), "walstream")

    def test_standby_upstream(self) -> None:
        """A server that is a standby itself makes no commits, whatever its settings say."""
        duty = self.duty(on_synchronous=OnSynchronous.REFUSE)
        duty.learn(demands("*", is_primary=False), "walstream")
        self.assertFalse(duty.is_synchronous)

    def test_remote_apply(self) -> None:
        """It is said once what remote_apply comes to, and it is an error if commits then hang."""
        duty = self.duty(synchronous=True)
        duty.learn(demands("other", "remote_apply"), "walstream")
        self.assertEqual(self.log, [])
        for _ in range(2):
            duty.learn(demands("walstream", "remote_apply"), "walstream")
        self.assertEqual(len(self.log), 1)
        self.assertIn("what is durable in it is reported as applied", self.log[0])
        duty = self.duty(synchronous=True, report_apply=ReportApply.NONE)
        for _ in range(2):
            duty.learn(demands("walstream", "remote_apply"), "walstream")
        self.assertEqual(len(self.log), 2)
        self.assertIn("wait for ever. Use --report-apply=flush", self.log[1])

    def test_remote_apply_of_standbys(self) -> None:
        """It is said who has to have applied it."""
        duty = SynchronousDuty(ReceiverSettings(synchronous=True), "ANY 1 (s1)")
        duty.learn(demands("walstream", "remote_apply"), "walstream")
        self.assertIn("as applied when it is by ANY 1 (s1), and durable here", self.log[0])

    def test_not_told(self) -> None:
        """A server that does not tell changes nothing; it is said once."""
        duty = self.duty()
        duty.learn(demands("*"), "walstream")
        for _ in range(2):
            duty.learn(None, "walstream")
        self.assertTrue(duty.is_synchronous)
        self.assertEqual(len(self.log), 2)


class AskTests(SynchronousTestCase):
    """The questions."""

    def ask(self, **answers: Deferred[Answer]) -> Deferred[StandbyDemands | None]:
        parameters = {"in_hot_standby": "on"}
        questions = Questions(lambda text: answers[text.removeprefix("SHOW ")], parameters)
        return Deferred.fromCoroutine(ask_demands(questions, parameters))

    def answer(self, value: str) -> Deferred[Answer]:
        return succeed(Answer(["x"], [[value.encode()]]))

    def test_answers(self) -> None:
        """Both settings, and whether it is a standby."""
        asked = self.ask(
            synchronous_standby_names=self.answer("2 (a, b)"),
            synchronous_commit=self.answer("remote_write"),
        )
        self.assertEqual(
            self.successResultOf(asked), demands("2 (a, b)", "remote_write", is_primary=False)
        )

    def test_unknown_syntax(self) -> None:
        """A syntax that is not known is no reason to give up."""
        asked = self.ask(
            synchronous_standby_names=self.answer("SOME (a)"), synchronous_commit=self.answer("on")
        )
        self.assertIsNone(self.successResultOf(asked))

    def test_lost(self) -> None:
        """A connection that ends is."""
        asked = self.ask(synchronous_standby_names=fail(Disconnected("gone")))
        self.failureResultOf(asked, Disconnected)


class ReceiverTests(ReceiverCase):
    """A receiver in a conversation."""

    def begin(self, names: bytes, commit: bytes = b"on", **settings: Any) -> None:
        """Everything up to the answer about the server's demands."""
        self.log = capture_log(self)
        defaults = {
            "on_synchronous": OnSynchronous.SWITCH,
            "report_apply": ReportApply.FLUSH,
            "wall_clock": lambda: NOW,
        }
        self.connect(**{**defaults, **settings})
        self.identify(START + 0x200)
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.server.send(result(b"1min"))
        self.tell_demands(names, commit)

    def begin_stream_named(self, names: bytes, **settings: Any) -> None:
        """Everything up to the first status update."""
        self.begin(names, **settings)
        self.server.expect(query(f"START_REPLICATION {LSN(START)} TIMELINE 1"))
        self.server.send(COPY_BOTH)
        self.server.expect(status(START))

    def test_named_when_it_connects(self) -> None:
        """It is synchronous from the first byte, and reports what is durable as applied."""
        self.sink.auto_flush = False
        self.begin_stream_named(b"walstream")
        self.stream(START, wal(START, 100))
        self.sink.complete_flush()
        end = START + 100
        self.server.expect(status(end, end, end, reply_requested=True))

    def test_not_named(self) -> None:
        """What comes is durable, and reported, within a second even so."""
        self.begin_stream_named(b"other")
        self.stream(START, wal(START, 100))
        self.clock.advance(0.9)
        self.server.expect_silence()
        self.clock.advance(0.1)
        end = START + 100
        self.server.expect(status(end, end, end, reply_requested=True))

    def test_named_while_it_streams(self) -> None:
        """What is not durable yet is at once; and again what comes, as it comes."""
        self.sink.auto_flush = False
        self.begin_stream_named(b"")
        self.stream(START, wal(START, 100))
        self.receiver.learn(demands("walstream"))
        self.assertTrue(self.sink.needs_flush)
        self.sink.complete_flush()
        end = START + 100
        self.server.expect(status(end, end, end, reply_requested=True))
        self.receiver.learn(demands(""))
        self.stream(START + 100, wal(START + 100, 100))
        self.assertFalse(self.sink.needs_flush)

    def test_the_name_that_the_server_knows(self) -> None:
        """A role's own application_name, say, wins over the one that we gave."""
        self.server_names_us = parameter_status("application_name", "archive")
        self.connect(on_synchronous=OnSynchronous.SWITCH)
        self.server.send(self.server_names_us.join([LET_IN[:-6], READY_FOR_QUERY]))
        self.receiver.learn(demands("walstream"))
        self.assertFalse(self.receiver._duty.is_synchronous)
        self.receiver.learn(demands("archive"))
        self.assertTrue(self.receiver._duty.is_synchronous)

    def test_refuses_before_a_stream(self) -> None:
        """With refuse it ends before a stream is asked for."""
        self.begin(b"*", on_synchronous=OnSynchronous.REFUSE)
        self.assertIsInstance(self.failure(), NotSynchronous)

    def test_refuses_while_it_streams(self) -> None:
        """And from a stream too, in which it never reported anything as durable."""
        self.begin_stream_named(b"other", on_synchronous=OnSynchronous.REFUSE)
        self.stream(START, wal(START, 100))
        self.clock.advance(2)
        self.server.expect_silence()
        self.receiver.learn(demands("walstream"))
        self.transport.turn()
        self.assertIsInstance(self.failure(), NotSynchronous)

    def test_server_that_does_not_tell(self) -> None:
        """An old server, or another program, is none the worse for it."""
        self.log = capture_log(self)
        self.connect()
        self.identify(START)
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.server.send(result(b"1min"))
        self.server.expect(query("SHOW synchronous_standby_names"))
        unknown = error("ERROR", "42704", "unrecognized configuration parameter")
        self.server.send(unknown + READY_FOR_QUERY)
        self.server.expect(query(f"START_REPLICATION {LSN(START)} TIMELINE 1"))
        self.assertTrue(any("does not tell" in text for text in self.log))

    def test_all_is_durable_already(self) -> None:
        """After a reconnect a commit may wait for what was reported to the connection before.

        The report is repeated once the server has sent what there was, and has shown that it knows.
        """
        self.begin_stream_named(b"walstream")
        self.stream(START, wal(START, 100))
        self.transport.peer_closed()
        self.failure()
        end = START + 100
        self.begin(b"walstream")
        self.server.expect(query(f"START_REPLICATION {LSN(START)} TIMELINE 1"))
        self.server.send(COPY_BOTH)
        self.server.expect(status(end, end, end))
        self.stream(START, wal(START, 100))
        self.server.expect(status(end, end, end, reply_requested=True))
        self.server.send(keepalive(end, reply_requested=False))
        self.server.expect(status(end, end, end))
        self.server.send(keepalive(end, reply_requested=False))
        self.server.expect_silence()


class SilenceTests(ReceiverCase):
    """A server that falls silent outside of a stream."""

    def test_silent_when_asked(self) -> None:
        """It is given up after the receive timeout, whatever was asked."""
        self.connect(receive_timeout=60)
        self.identify(START)
        self.clock.advance(59)
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.assertNoResult(self.receiver.finished)
        self.clock.advance(1)
        self.transport.turn()
        self.assertIn("silent for too long", str(self.failure()))
        self.assertEqual(self.transport.peer_saw, "reset")

    def test_an_answer_in_pieces(self) -> None:
        """It is waited for, but not for ever: a byte a second is not what a server sends."""
        for interval, is_waited_for in ((0.5, True), (2.0, False)):
            self.connect(receive_timeout=60)
            self.server.send(LET_IN)
            for byte in result(b"1", b"1", b"0/300000", None)[:100]:
                self.clock.advance(interval)
                self.transport.deliver(bytes([byte]))
            self.assertIs(self.receiver.finished.called, not is_waited_for)
        self.assertIn("silent for too long", str(self.failure()))

    def test_silent_when_a_stream_is_closed(self) -> None:
        """A server that does not answer CopyDone is given up too."""
        self.begin_stream(receive_timeout=60)
        self.receiver.stop()
        self.server.expect(status(START), COPY_DONE)
        self.clock.pump([30, 30])
        self.transport.turn()
        self.assertEqual(self.transport.peer_saw, "reset")
        self.successResultOf(self.receiver.finished)

    def test_never(self) -> None:
        """With 0 it is waited for as long as it takes."""
        self.connect(receive_timeout=0)
        self.identify(START)
        self.clock.advance(10_000)
        self.assertNoResult(self.receiver.finished)

    def test_waiting_for_the_sink(self) -> None:
        """While nothing is asked, the server may be silent: it is the sink that takes its time."""
        adopted: Deferred[None] = Deferred()
        self.sink.adopt = lambda identity: adopted  # type: ignore[method-assign]
        self.connect(receive_timeout=60)
        self.identify(START)
        self.clock.advance(1000)
        self.assertNoResult(self.receiver.finished)
        adopted.errback(Disconnected("the test is over"))


# What came with them is tested in its own module.
del ReceiverCase
