"""Tests for walstream.services.receive."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.unit.conversation import IDENTITY, SIZE, START, wal
from tests.unit.log_capture import capture_log
from tests.unit.upstream_server import Network, Server, upstream
from walstream.errors import (
    ArchiveError,
    Disconnected,
    FormatError,
    ProtocolViolation,
    ServerError,
    SinkFailed,
    UpstreamBehind,
    WrongSystem,
)
from walstream.formats.lsn import LSN
from walstream.protocols.receiver import ReceiverSettings, StreamEnd
from walstream.services.endpoint import UpstreamEndpoint
from walstream.services.receive import ReceiverService
from walstream.services.retry import Backoff
from walstream.testing.memory_sink import MemorySink
from walstream.wire.messages import command_complete, copy_done, error_response, ready_for_query

END = START + 0x8000


class ReceiveCase(SynchronousTestCase):
    """A service on a network in memory, with a sink in memory."""

    def setUp(self) -> None:
        self.network = Network()
        self.clock = self.network.reactor
        self.sink = MemorySink()
        self.log = capture_log(self)

    def start(
        self, settings: ReceiverSettings | None = None, *, hosts: int = 1, **options: Any
    ) -> None:
        """Start to receive; the service stops with the test."""
        addresses = [f"10.0.0.{number + 1}" for number in range(hosts)]
        endpoint = UpstreamEndpoint(self.clock, upstream(*addresses), in_thread=maybeDeferred)
        self.run_on(endpoint, settings, **options)

    def run_on(
        self,
        endpoint: IStreamClientEndpoint,
        settings: ReceiverSettings | None = None,
        **options: Any,
    ) -> None:
        """Start to receive over any endpoint."""
        settings = settings or ReceiverSettings(synchronous=True)
        self.service = ReceiverService(endpoint, self.sink, settings, self.clock, **options)
        self.service.startService()
        self.finished = self.service.finished()
        self.finished.addErrback(lambda failure: failure)
        self.addCleanup(self.check_nothing_is_left)

    def check_nothing_is_left(self) -> None:
        """A service that is over has no timers, and the sink no producer."""
        if not self.finished.called:
            stopped = self.service.stopService()
            self.pass_time(15)
            self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.sink.producer)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in steps in which everything happens that is due."""
        self.clock.pump([0.05] * round(seconds / 0.05))

    def stream(self) -> Server:
        """The last connection that was asked for streams, from the start."""
        server = self.network.accept()
        server.stream(START, END)
        return server

    def stored(self) -> bytes:
        """What the sink holds."""
        return self.sink.stored(1, START, self.sink.written - START)


class StreamTests(ReceiveCase):
    """What is received, and how it ends."""

    def test_receives(self) -> None:
        """What the server sends goes to the sink."""
        self.start()
        server = self.stream()
        server.send_wal(START, 5000)
        server.send_wal(START + 5000, 3000)
        self.assertEqual(self.stored(), wal(START, 8000))
        self.assertNoResult(self.finished)

    def test_end_position(self) -> None:
        """With an end position it is over when WAL beyond it has come: that is the result."""
        self.start(ReceiverSettings(end_position=LSN(START + 4000)))
        server = self.stream()
        server.send_wal(START, 5000)
        self.end_stream(server)
        self.assertIs(self.successResultOf(self.finished), StreamEnd.END_POSITION)
        self.assertEqual(self.sink.flushed, START + 5000)
        self.pass_time(30)
        self.assertEqual(len(self.network.asked), 1)

    def end_stream(self, server: Server) -> None:
        """The server answers the end of the stream in order, and the client leaves."""
        while server.transport.take():
            pass
        server.peer.send(copy_done(), command_complete("START_REPLICATION"), ready_for_query())
        server.transport.take()
        server.lose()

    def test_finished_for_many(self) -> None:
        """Any number may ask how it ended, also afterwards."""
        self.start()
        other = self.service.finished()
        self.successResultOf(self.service.stopService())
        for asked in (self.finished, other, self.service.finished()):
            self.assertIs(self.successResultOf(asked), StreamEnd.STOPPED)

    def test_verbose(self) -> None:
        """With verbose=True each finished segment is logged."""
        self.start(verbose=True)
        server = self.stream()
        server.send_wal(START, SIZE // 2)
        self.pass_time(1)
        server.send_wal(START + SIZE // 2, SIZE // 2)
        server.send_wal(START + SIZE, 10)
        self.pass_time(1)
        self.assertIn("finished segment at 0/400000 (timeline 1)", self.log)

    def test_wrong_endpoint(self) -> None:
        """An endpoint that does not tell the login is a fault that the log shows in full."""
        self.run_on(TCP4ClientEndpoint(self.clock, "10.0.0.1", 5432), retry=False)
        factory = self.clock.tcpClients[-1][2]
        self.assertIsNone(factory.buildProtocol(IPv4Address("TCP", "10.0.0.1", 5432)))
        self.failureResultOf(self.finished)
        (fault,) = self.flushLoggedErrors()
        self.assertIn("UpstreamAddress", fault.getErrorMessage())


class ReconnectTests(ReceiveCase):
    """A connection that is lost."""

    def test_reconnects(self) -> None:
        """The first retry comes well within a second, and the stream goes on where it was."""
        self.start()
        server = self.stream()
        server.send_wal(START, 5000)
        server.lose(reset=True)
        self.pass_time(0.2)
        self.assertEqual(len(self.network.asked), 2)
        again = self.stream()
        again.send_wal(START, 6000)
        self.assertEqual(self.stored(), wal(START, 6000))

    def test_says_so(self) -> None:
        """The log says what happened and when it is tried again."""
        self.start()
        self.stream().lose()
        said = self.log[-1]
        self.assertIn("disconnected; trying again in 0.", said)
        self.assertIn(" s: ", said)

    def test_lost_at_each_phase(self) -> None:
        """Wherever in the conversation the connection is lost, there is another one."""
        phases: list[tuple[Callable[[Server], object], ...]] = [
            (),
            (Server.let_in,),
            (Server.let_in, lambda server: server.identify(END)),
            (lambda server: server.stream(START, END),),
            (lambda server: server.stream(START, END), lambda server: server.send_wal(START, 9)),
        ]
        self.start()
        for number, phase in enumerate(phases, 1):
            server = self.network.accept()
            for step in phase:
                step(server)
            server.lose()
            self.pass_time(5)
            self.assertEqual(len(self.network.asked), number + 1)
            self.assertNoResult(self.finished)

    def test_waits_longer_each_time(self) -> None:
        """Attempts that fail come less and less often, and never less than every five seconds."""
        self.start()
        times = []
        for number in range(1, 12):
            self.network.refuse()
            begun = self.clock.seconds()
            while len(self.network.asked) == number:
                self.pass_time(0.05)
            times.append(self.clock.seconds() - begun)
        longest = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, 5.0, 5.0]
        for waited, most in zip(times, longest, strict=True):
            self.assertLess(waited, most + 0.1)
            self.assertGreater(waited, most / 2 - 0.1)

    def test_good_connection_is_forgiven(self) -> None:
        """After a stream that lasted, the first retry comes at once again."""
        self.start(backoff=Backoff(first=0.1, longest=5.0))
        for _ in range(8):
            self.network.refuse()
            self.pass_time(5)
        server = self.stream()
        for _ in range(12):
            self.pass_time(0.5)
            server.transport.take()
        before = len(self.network.asked)
        server.lose()
        self.pass_time(0.15)
        self.assertEqual(len(self.network.asked), before + 1)

    def test_cut_off(self) -> None:
        """When a stream that lasted a second is cut off, the next attempt comes at once."""
        self.start()
        for number in range(2, 6):
            server = self.stream()
            self.pass_time(1.2)
            server.lose()
            self.clock.advance(0)
            self.assertEqual(len(self.network.asked), number)

    def test_own_fault(self) -> None:
        """A sink that fails is not tried again at once, however long the stream was."""
        self.start()
        server = self.stream()
        self.pass_time(2)
        self.sink.fail("no space left on device")
        server.transport.turn()
        self.clock.advance(0.04)
        self.assertEqual(len(self.network.asked), 1)

    def test_stream_that_breaks_off_at_once(self) -> None:
        """A server that lets us in only to break off is not asked ten times a second."""
        self.start()
        for _ in range(8):
            self.stream().lose()
            self.pass_time(5)
        before = len(self.network.asked)
        self.stream().lose()
        self.pass_time(2)
        self.assertEqual(len(self.network.asked), before)

    def test_several_hosts(self) -> None:
        """A host that is down is passed over without waiting."""
        self.start(hosts=2)
        self.network.refuse()
        self.stream()
        self.assertEqual(self.network.asked, ["10.0.0.1", "10.0.0.2"])

    def test_host_passed_over(self) -> None:
        """A host that did not let us in leaves no error behind that nobody has handled."""
        self.start(hosts=2)
        self.network.accept().turn_away("57P03", "the database system is starting up")
        self.network.refuse()
        self.clock.tcpClients.clear()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_sink_that_fails(self) -> None:
        """A sink that has failed gets another chance: a disk may have room again."""
        self.start()
        server = self.stream()
        server.send_wal(START, 5000)
        self.sink.fail("no space left on device")
        server.transport.turn()
        self.assertEqual(server.transport.peer_saw, "reset")
        self.sink.recover()
        self.pass_time(0.5)
        self.stream().send_wal(START, 6000)
        self.assertEqual(self.stored(), wal(START, 6000))

    def test_prepared(self) -> None:
        """What has to be done before each attempt is done, server or not, and may fail it."""
        outcomes: list[Deferred[None]] = [fail(SinkFailed("no archive")), *map(succeed, [None] * 9)]
        self.start(prepare=lambda: outcomes.pop(0))
        self.assertEqual(self.network.asked, [])
        self.assertIn("no archive", self.log[-1])
        self.pass_time(0.2)
        self.network.refuse()
        self.pass_time(0.3)
        self.assertEqual((len(self.network.asked), len(outcomes)), (2, 7))

    def test_no_loop(self) -> None:
        """With retry=False the first error is the end, and the result."""
        self.start(retry=False)
        self.stream().lose()
        self.failureResultOf(self.finished, Disconnected)
        self.pass_time(30)
        self.assertEqual(len(self.network.asked), 1)
        self.assertIn("receiving ended: ", self.log[-1])

    def test_no_loop_and_no_server(self) -> None:
        """With retry=False a server that cannot be reached is the end."""
        self.start(retry=False)
        self.network.refuse()
        self.assertIn("10.0.0.1:5432", self.failureResultOf(self.finished).getErrorMessage())


@implementer(IStreamClientEndpoint)
class FailingEndpoint:
    """Fails with the same error each time."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.attempts = 0

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        self.attempts += 1
        return fail(self.error)


class VerdictTests(ReceiveCase):
    """Which errors are the end."""

    def test_given_up(self) -> None:
        """What would only happen again is the end at once, and the result."""
        for error in (WrongSystem("x"), ArchiveError("x"), FormatError("x")):
            endpoint = FailingEndpoint(error)
            self.run_on(endpoint)
            self.assertIs(self.failureResultOf(self.finished).value, error)
            self.pass_time(10)
            self.assertEqual(endpoint.attempts, 1)

    def test_tried_again(self) -> None:
        """What may pass is tried again."""
        for error in (
            Disconnected("x"),
            ServerError("FATAL", "28000", "x"),
            ProtocolViolation("x"),
            UpstreamBehind("x"),
            SinkFailed("x"),
        ):
            endpoint = FailingEndpoint(error)
            self.run_on(endpoint)
            self.pass_time(1)
            self.assertGreater(endpoint.attempts, 1)
            self.assertNoResult(self.finished)
            self.successResultOf(self.service.stopService())

    def test_fault_in_the_program(self) -> None:
        """Any other exception is tried again as well, and logged with its traceback."""
        endpoint = FailingEndpoint(RuntimeError("oops"))
        self.run_on(endpoint)
        self.pass_time(1)
        self.assertGreater(endpoint.attempts, 1)
        self.successResultOf(self.service.stopService())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), endpoint.attempts)

    def test_another_system(self) -> None:
        """A server whose WAL does not belong into the sink is the end."""
        self.sink = MemorySink(IDENTITY)
        self.start()
        server = self.network.accept()
        server.let_in()
        server.identify(END, system=IDENTITY.system_identifier + 1)
        server.transport.take()
        server.lose()
        self.failureResultOf(self.finished, WrongSystem)
        self.assertEqual(self.sink.writes, [])

    def test_server_that_is_behind(self) -> None:
        """A server that is behind may catch up."""
        self.start()
        server = self.stream()
        server.send_wal(START, 5000)
        server.lose()
        self.pass_time(0.5)
        server = self.network.accept()
        server.let_in()
        server.identify(START + 4000)
        server.transport.take()
        server.lose()
        self.assertNoResult(self.finished)
        self.assertIn("trying again", self.log[-1])
        self.pass_time(1)
        self.assertEqual(len(self.network.asked), 3)

    def test_another_host_may_do(self) -> None:
        """After a host whose WAL is not ours the next one is tried, and then all from the first."""
        self.start(hosts=3)
        server = self.stream()
        server.send_wal(START, 5000)
        server.lose()
        self.pass_time(0.5)
        for _ in range(3):
            server = self.network.accept()
            server.let_in()
            server.identify(START + 4000)
            server.transport.take()
            server.lose()
            self.pass_time(1)
        expected = ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]
        self.assertEqual(self.network.asked, expected)

    def test_refused_stream(self) -> None:
        """A server that has not the WAL is asked again, and what it says is in the log."""
        self.start()
        server = self.stream()
        server.peer.send(error_response("ERROR", "58P01", "requested WAL segment is removed"))
        server.transport.take()
        server.lose()
        self.pass_time(0.3)
        self.assertEqual(len(self.network.asked), 2)
        self.assertTrue(any("requested WAL segment is removed" in text for text in self.log))


class StopTests(ReceiveCase):
    """A service that is told to stop, whatever it is doing."""

    def stop(self) -> Deferred[None]:
        """Tell it."""
        return self.service.stopService()

    def assert_stopped(self, stopped: Deferred[None]) -> None:
        """It has stopped, well, and for good."""
        self.successResultOf(stopped)
        self.assertIs(self.successResultOf(self.finished), StreamEnd.STOPPED)
        before = len(self.network.asked)
        self.pass_time(20)
        self.assertEqual(len(self.network.asked), before)

    def test_never_started(self) -> None:
        """A service that was not started has nothing to stop."""
        endpoint = UpstreamEndpoint(self.clock, upstream("10.0.0.1"), in_thread=maybeDeferred)
        service = ReceiverService(endpoint, self.sink, ReceiverSettings(), self.clock)
        self.successResultOf(service.stopService())

    def test_while_connecting(self) -> None:
        """An attempt to connect is given up."""
        self.start(hosts=2)
        self.assert_stopped(self.stop())
        self.assertTrue(self.clock.connectors[0].stoppedConnecting)

    def test_during_login(self) -> None:
        """A login is cut off."""
        self.start()
        server = self.network.accept()
        stopped = self.stop()
        server.transport.turn()
        self.assert_stopped(stopped)
        self.assertEqual(server.transport.peer_saw, "reset")

    def test_during_questions(self) -> None:
        """Before a stream has begun, the connection is closed in order."""
        self.start()
        server = self.network.accept()
        server.let_in()
        stopped = self.stop()
        server.transport.take()
        server.transport.turn()
        self.assert_stopped(stopped)
        self.assertEqual(server.transport.peer_saw, "end")

    def test_while_streaming(self) -> None:
        """A stream ends in order: all that came is durable before it is over."""
        self.sink = MemorySink(auto_flush=False)
        self.start(ReceiverSettings())
        server = self.stream()
        server.send_wal(START, 5000)
        stopped = self.stop()
        self.assertNoResult(stopped)
        self.sink.complete_flush()
        server.transport.take()
        server.peer.send(copy_done(), command_complete("START_REPLICATION"), ready_for_query())
        server.transport.take()
        server.lose()
        self.assert_stopped(stopped)
        self.assertEqual(self.sink.flushed, START + 5000)

    def test_while_waiting(self) -> None:
        """A wait for the next attempt ends at once."""
        self.start()
        self.network.refuse()
        self.assert_stopped(self.stop())

    def test_server_that_does_not_answer(self) -> None:
        """A server that does not end the stream is cut off when the time of grace is over."""
        self.start(grace=3.0)
        server = self.stream()
        server.send_wal(START, 5000)
        stopped = self.stop()
        self.pass_time(2.5)
        self.assertNoResult(stopped)
        self.pass_time(1)
        server.transport.turn()
        self.assertEqual(server.transport.peer_saw, "reset")
        self.assert_stopped(stopped)
        self.assertTrue(any("within 3.0 s" in text for text in self.log))
        self.assertEqual(self.sink.flushed, START + 5000)

    def test_connection_lost_meanwhile(self) -> None:
        """A connection that is lost while it stops is no failure."""
        self.start()
        server = self.stream()
        stopped = self.stop()
        server.lose(reset=True)
        self.assert_stopped(stopped)

    def test_sink_that_fails_meanwhile(self) -> None:
        """A sink that cannot keep what came is a failure, for it is not durable."""
        self.sink = MemorySink(auto_flush=False)
        self.start()
        server = self.stream()
        server.send_wal(START, 5000)
        stopped = self.stop()
        self.sink.fail()
        server.transport.take()
        server.lose()
        self.pass_time(2)
        self.successResultOf(stopped)
        self.failureResultOf(self.finished, SinkFailed)

    def test_twice(self) -> None:
        """It may be told more than once."""
        self.start()
        self.successResultOf(self.stop())
        self.assert_stopped(self.stop())


class RecordTests(ReceiveCase):
    """What became of the connection, for whoever looks."""

    def told(self) -> tuple[object, ...]:
        """What there is to see."""
        record = self.service.record
        return record.state.value, record.host, record.connected, record.streaming, record.error

    def test_record(self) -> None:
        """From the first attempt to the end."""
        settings = ReceiverSettings(synchronous=True, wall_clock=lambda: 1.5)
        self.start(settings)
        self.assertEqual(self.told(), ("connecting", None, None, None, None))
        self.assertIsNone(self.service.progress)
        server = self.network.accept()
        server.let_in()
        self.assertEqual(self.told(), ("starting", "10.0.0.1:5432", 1.5, None, None))
        self.assertIsNone(self.service.progress)
        server.begin_stream(START, END)
        self.assertEqual(self.told(), ("streaming", "10.0.0.1:5432", 1.5, 1.5, None))
        server.send_wal(START, 5000)
        self.pass_time(0.5)
        progress = self.service.progress
        assert progress is not None
        self.assertEqual((progress.write, progress.flush, progress.apply), (START + 5000,) * 3)
        self.assertGreaterEqual(progress.server_end, START + 5000)
        self.assertAlmostEqual(progress.silence, 0.5)
        server.lose()
        state, host, connected, streaming, error = self.told()
        self.assertEqual((state, host), ("waiting", "10.0.0.1:5432"))
        self.assertEqual((connected, streaming), (None, None))
        self.assertIn("connection", str(error))
        self.assertIsNone(self.service.progress)
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.told()[0], "stopped")

    def test_an_error_for_good(self) -> None:
        """Is told as well."""
        self.start(retry=False)
        self.stream().lose()
        self.failureResultOf(self.finished)
        state, *_, error = self.told()
        self.assertEqual(state, "stopped")
        self.assertIn("connection", str(error))
