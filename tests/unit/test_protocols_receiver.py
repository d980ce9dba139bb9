"""Tests for `walstream.protocols.receiver`: conversations with a scripted server."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.unit.conversation import (
    COPY_BOTH,
    COPY_DONE,
    COPY_OUT,
    IDENTITY,
    NOW,
    READY_FOR_QUERY,
    SHUT_DOWN,
    SIZE,
    START,
    STREAMING_COMPLETE,
    error,
    keepalive,
    records,
    status,
    wal,
    wal_message,
)
from walstream.errors import (
    Disconnected,
    Discontinuity,
    ProtocolViolation,
    ServerError,
    SinkFailed,
    TimelineMismatch,
    WalstreamError,
    WALUnavailable,
    WrongSystem,
)
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE
from walstream.interfaces import SystemIdentity, WALPosition
from walstream.protocols.login import Login
from walstream.protocols.phases import ReceiverPhase
from walstream.protocols.questions import Answer
from walstream.protocols.receiver import Dialect, ReceiverSettings, StreamEnd, WALReceiver
from walstream.protocols.receiver_settings import OnSynchronous, ReportApply
from walstream.testing.memory import MemorySink
from walstream.testing.peers import ScriptedPeer, every_cut
from walstream.testing.transport import FlowTransport
from walstream.wire.messages import (
    Column,
    ColumnType,
    authentication_ok,
    command_complete,
    copy_data,
    data_row,
    notice_response,
    parameter_status,
    query,
    row_description,
    terminate,
)

LET_IN = authentication_ok() + parameter_status("server_version", "18.6") + READY_FOR_QUERY
SYSTEM = str(IDENTITY.system_identifier).encode()


def result(*values: bytes | None) -> bytes:
    """One row of text, and the end of a command."""
    columns = [Column(f"column{index}", ColumnType.TEXT) for index in range(len(values))]
    return row_description(columns) + data_row(values) + command_complete("X") + READY_FOR_QUERY


def next_timeline(timeline: int, position: int) -> bytes:
    """What a server says when a timeline has ended, after both CopyDones."""
    columns = [Column("next_tli", ColumnType.INT8), Column("next_tli_startpos", ColumnType.TEXT)]
    row = [str(timeline).encode(), str(LSN(position)).encode()]
    return row_description(columns) + data_row(row) + STREAMING_COMPLETE


def history(timeline: int, position: int) -> bytes:
    """The history of the timeline that followed *timeline* at *position*."""
    return f"{timeline}\t{LSN(position)}\tno recovery target specified\n".encode()


class WatchedReceiver(WALReceiver):
    """Keeps the answers that it waited for, to see whether any error was left unhandled."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.answers: list[Deferred[Answer]] = []

    def expect_answer(self) -> Deferred[Answer]:
        """As a receiver."""
        self.answers.append(super().expect_answer())
        return self.answers[-1]


class ReceiverCase(SynchronousTestCase):
    """A `WALReceiver` that has connected to a scripted server, and fills a `MemorySink`."""

    kind: ClassVar[Literal["tcp", "tls"]] = "tcp"
    direct: ClassVar[bool] = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.sink = MemorySink()

    def connect(self, **settings: Any) -> WALReceiver:
        """Connect to the server, which sees the startup packet.

        Unless told otherwise neither durable nor applied WAL is reported, so that transcripts show
        what a test is about. What is reported by default has its tests in
        `tests.unit.test_protocols_synchronous`.
        """
        quiet = {"on_synchronous": OnSynchronous.REFUSE, "report_apply": ReportApply.NONE}
        settings = quiet | settings
        self.receiver = WatchedReceiver(
            self.sink, Login("alice"), ReceiverSettings(**settings), self.clock
        )
        self.transport = FlowTransport(self.kind, self.clock)
        self.transport.connect(self.receiver, direct=self.direct)
        self.server = ScriptedPeer(self.transport, plays="server")
        self.server.expect_startup({"user": "alice", "replication": "on"})
        self.addCleanup(self.check_nothing_is_left, self.receiver, self.transport)
        return self.receiver

    def check_nothing_is_left(self, receiver: WatchedReceiver, transport: FlowTransport) -> None:
        """When it is over nothing is left: timers, connection, producer, or an unhandled error."""
        if not receiver.finished.called:
            self.sink.resume()
            transport.peer_closed()
            self.complete_flushes()
        self.assertTrue(receiver.finished.called)
        receiver.finished.addErrback(lambda _: None)
        while transport.take():
            pass
        if transport.connected:
            transport.peer_closed()
        self.assertFalse(transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.sink.producer)
        for answer in receiver.answers:
            self.assertNotIsInstance(getattr(answer, "result", None), Failure)

    def complete_flushes(self) -> None:
        """The disk gets done with all that was asked of it."""
        while self.sink.needs_flush:
            self.sink.complete_flush()

    def identify(self, end: int, timeline: int = 1) -> None:
        """The server lets us in, and answers the first two questions."""
        self.server.send(LET_IN)
        self.server.expect(query("IDENTIFY_SYSTEM"))
        position = str(LSN(end)).encode()
        self.server.send(result(SYSTEM, str(timeline).encode(), position, None))
        self.server.expect(query("SHOW wal_segment_size"))
        self.server.send(result(b"1MB"))

    def ask_for_stream(self, end: int = START, **settings: Any) -> None:
        """Everything up to the receiver's START_REPLICATION for the segment of *end*."""
        self.connect(**settings)
        self.identify(end)
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.server.send(result(b"1min"))
        self.tell_demands()
        self.server.expect(query(f"START_REPLICATION {LSN(SIZE.floor(end))} TIMELINE 1"))

    def tell_demands(self, names: bytes = b"", commit: bytes = b"on") -> None:
        """The server tells what it demands of its standbys."""
        self.server.expect(query("SHOW synchronous_standby_names"))
        self.server.send(result(names))
        self.server.expect(query("SHOW synchronous_commit"))
        self.server.send(result(commit))

    def begin_stream(self, end: int = START, **settings: Any) -> None:
        """Everything up to the receiver's first status update."""
        self.ask_for_stream(end, **settings)
        self.server.send(COPY_BOTH)
        flush = self.sink.flushed if settings.get("synchronous") else 0
        self.server.expect(status(max(self.sink.written, flush), flush))

    def stream(self, start: int, data: bytes) -> None:
        """The server sends WAL in one message."""
        self.server.send(wal_message(start, data, start + len(data)))

    def failure(self) -> WalstreamError:
        """The error with which it is over."""
        failure = self.failureResultOf(self.receiver.finished, WalstreamError).value
        assert isinstance(failure, WalstreamError)
        return failure

    def stored(self, timeline: int = 1) -> bytes:
        """What the sink has of a timeline from START on."""
        return self.sink.stored(timeline, START, 1 << 30)


class BeginTests(ReceiverCase):
    """Up to the stream."""

    def test_is_a_push_producer(self) -> None:
        """A receiver is its sink's producer."""
        verifyObject(IPushProducer, self.connect())

    def test_transcript(self) -> None:
        """The questions, the stream, the first status: byte by byte what standbys say."""
        self.connect()
        streaming = self.receiver.streaming()
        self.identify(START + 500)
        self.assertEqual(self.sink.identity, IDENTITY)
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.server.send(result(b"1min"))
        self.tell_demands()
        self.server.expect(b"Q\x00\x00\x00\x2aSTART_REPLICATION 0/300000 TIMELINE 1\x00")
        self.assertNoResult(streaming)
        self.server.send(COPY_BOTH)
        self.server.expect(status(START))
        self.successResultOf(streaming)
        self.successResultOf(self.receiver.streaming())
        self.assertIs(self.receiver.phase, ReceiverPhase.STREAMING)
        self.assertEqual(self.sink.begun, [WALPosition(1, START)])
        self.assertIs(self.sink.producer, self.receiver)

    def test_slot(self) -> None:
        """A slot's position is asked, and the slot named; its flush position is reported."""
        self.connect(slot="s")
        self.identify(START + 3 * SIZE)
        self.server.expect(query('READ_REPLICATION_SLOT "s"'))
        self.server.send(result(b"physical", str(LSN(START + 5)).encode(), b"1"))
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.server.send(result(b"1min"))
        self.tell_demands()
        self.server.expect(query('START_REPLICATION SLOT "s" 0/300000 TIMELINE 1'))
        self.server.send(COPY_BOTH)
        self.server.expect(status(START, 0))

    def test_server_that_is_refused(self) -> None:
        """WAL of another system is refused before a stream is asked for."""
        self.sink = MemorySink(SystemIdentity(1, SIZE, "18.6"))
        self.connect()
        self.identify(START)
        self.assertIsInstance(self.failure(), WrongSystem)
        self.server.expect(terminate())
        self.server.expect_closed()
        self.assertEqual(self.sink.begun, [])

    def test_waits_for_the_sink(self) -> None:
        """Nothing more is asked before the sink has adopted the system."""
        adopted: Deferred[None] = Deferred()
        self.sink.adopt = lambda identity: adopted  # type: ignore[method-assign]
        self.connect()
        self.identify(START)
        self.server.expect_silence()
        self.sink.identity = IDENTITY
        adopted.callback(None)
        self.server.expect(query("SHOW wal_sender_timeout"))

    def test_sink_cannot_begin(self) -> None:
        """A sink that has no place for WAL ends it before a stream is asked for."""
        self.connect()
        broken = SinkFailed("no space left on device")
        self.sink.begin = lambda timeline, start: fail(broken)  # type: ignore[method-assign]
        self.identify(START)
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.server.send(result(b"1min"))
        self.tell_demands()
        self.assertIs(self.failure(), broken)
        self.server.expect(terminate())
        self.server.expect_closed()

    def test_stream_is_refused(self) -> None:
        """A server that does not have the WAL is told as it says it."""
        for answer in (b"", COPY_BOTH):
            self.setUp()
            self.ask_for_stream()
            refusal = error("ERROR", "58P01", "requested WAL segment … has already been removed")
            self.transport.deliver(answer + refusal + READY_FOR_QUERY)
            failure = self.failure()
            assert isinstance(failure, ServerError)
            self.assertEqual(failure.sqlstate, "58P01")

    def test_login_is_refused(self) -> None:
        """So is one that does not let us in."""
        self.connect()
        streaming = self.receiver.streaming()
        self.server.send(error("FATAL", "28000", "no pg_hba.conf entry"))
        self.failureResultOf(streaming, ServerError)
        self.assertIsInstance(self.failure(), ServerError)
        self.failureResultOf(self.receiver.streaming(), ServerError)

    def test_waiting_for_the_stream_is_given_up(self) -> None:
        """Who waits for the stream may stop waiting."""
        self.connect()
        streaming = self.receiver.streaming()
        streaming.addErrback(lambda _: None)
        streaming.cancel()
        self.transport.peer_closed()
        self.assertIsInstance(self.failure(), Disconnected)

    def test_wrong_dialect(self) -> None:
        """A server that answers in the other dialect is told from a broken one."""
        for dialect, answer, name in (
            (Dialect.MODERN, COPY_OUT, "CopyOutResponse"),
            (Dialect.DESIGN_2009, COPY_BOTH, "CopyBothResponse"),
        ):
            self.setUp()
            if dialect is Dialect.MODERN:
                self.ask_for_stream()
            else:
                self.ask_for_stream_2009()
            self.server.send(answer)
            failure = self.failure()
            self.assertIsInstance(failure, ProtocolViolation)
            self.assertIn(name, str(failure))

    def ask_for_stream_2009(self) -> None:
        self.connect(
            dialect=Dialect.DESIGN_2009, segment_size=SIZE, start_position=LSN(START + 0x28)
        )
        self.server.send(LET_IN)
        for question, answer in (
            ("GET_SYSTEM_IDENTIFIER", result(SYSTEM)),
            ("GET_TIMELINE", result(b"1")),
            ("GET_BACKUP_HISTORY_FILE 0/300028", error("ERROR", "58P01", "none") + READY_FOR_QUERY),
        ):
            self.server.expect(query(question))
            self.server.send(answer)
        self.server.expect(query("START REPLICATION: 0/300000"))


class StreamTests(ReceiverCase):
    """WAL comes."""

    def test_wal(self) -> None:
        """What the server sends is what the sink gets, position by position."""
        self.begin_stream()
        self.stream(START, wal(START, 8016))
        self.stream(START + 8016, wal(START + 8016, 131_072))
        self.stream(START + 139_088, b"")
        self.assertEqual(self.sink.written, START + 139_088)
        self.assertEqual(self.stored(), wal(START, 139_088))

    def test_any_cut(self) -> None:
        """However the stream is cut, the sink gets the same, and replies are sent."""
        messages = wal_message(START, wal(START, 40), START + 90)
        messages += keepalive(START + 40, reply_requested=True)
        messages += wal_message(START + 40, wal(START + 40, 30), START + 90)
        messages += parameter_status("a", "b") + notice_response("NOTICE", "00000", "hello")
        messages += wal_message(START + 70, wal(START + 70, 20), START + 90)
        for pieces in every_cut(COPY_BOTH + messages):
            self.setUp()
            self.ask_for_stream()
            for piece in pieces:
                self.transport.deliver(piece)
            self.assertEqual(self.stored(), wal(START, 90), len(pieces[0]))
            self.server.expect(status(START), status(START + 40))
            self.server.expect_silence()
            self.assertEqual(self.receiver.parameters["a"], "b")
            self.transport.peer_closed()
            self.failure()

    def test_across_segments(self) -> None:
        """A message may go over a segment's end."""
        self.begin_stream(START)
        self.stream(START, wal(START, SIZE + 100))
        self.assertEqual(self.stored(), wal(START, SIZE + 100))

    def test_discontinuity(self) -> None:
        """WAL that does not continue is refused; what was good is kept."""
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.stream(START + 101, b"x")
        failure = self.failure()
        assert isinstance(failure, Discontinuity)
        self.assertEqual((failure.expected, failure.received), (START + 100, START + 101))
        self.assertEqual(self.sink.flushed, START + 100)
        self.assertTrue(self.transport.aborted)

    def test_keepalive(self) -> None:
        """A keepalive is answered when it asks for it, with how far we are."""
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.server.send(keepalive(START + 100, reply_requested=False))
        self.server.expect_silence()
        self.server.send(keepalive(START + 100, reply_requested=True))
        self.server.expect(status(START + 100))

    def test_broken_stream(self) -> None:
        """Messages that do not belong into a stream end the connection."""
        for message in (
            copy_data(b"x"),
            copy_data(b"k"),
            copy_data(b""),
            READY_FOR_QUERY,
            COPY_BOTH,
            data_row([]),
            b"d\0\0\0\3",
        ):
            self.setUp()
            self.begin_stream()
            self.transport.deliver(message)
            self.assertIsInstance(self.failure(), ProtocolViolation)
            self.assertTrue(self.transport.aborted)

    def test_server_is_shut_down(self) -> None:
        """A server that shuts down ends the stream; all that came is durable."""
        self.sink.auto_flush = False
        self.begin_stream(slot=None)
        self.stream(START, wal(START, 100))
        self.server.send(SHUT_DOWN)
        self.assertNoResult(self.receiver.finished)
        self.sink.complete_flush()
        failure = self.failure()
        self.assertEqual(str(failure), "replication stream was terminated by the server")
        self.assertEqual(self.sink.flushed, START + 100)

    def test_shutdown_handshake(self) -> None:
        """The question at its end is answered at once, and again when all is durable."""
        self.sink.auto_flush = False
        self.begin_stream(synchronous=True)
        self.stream(START, wal(START, 120))
        self.server.send(keepalive(START + 120, reply_requested=True))
        self.server.expect(status(START + 120, 0, reply_requested=True))
        self.sink.complete_flush()
        self.server.expect(status(START + 120, START + 120))
        self.server.send(SHUT_DOWN)
        self.assertIsInstance(self.failure(), Disconnected)

    def test_error_in_the_stream(self) -> None:
        """A stream that the server breaks off ends with the server's error."""
        self.begin_stream()
        self.stream(START, wal(START, 100))
        broken_off = error("ERROR", "57014", "canceling statement due to user request")
        self.server.send(broken_off)
        self.assertNoResult(self.receiver.finished)
        self.server.send(READY_FOR_QUERY)
        failure = self.failure()
        assert isinstance(failure, ServerError)
        self.assertEqual(failure.sqlstate, "57014")
        self.server.expect(terminate())
        self.server.expect_closed()
        self.assertEqual(self.sink.flushed, START + 100)

    def test_error_in_the_stream_and_a_slow_disk(self) -> None:
        """Nothing is sent to a stream that is over when the disk gets done."""
        self.sink.auto_flush = False
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.transport.deliver(error("ERROR", "57014", "canceled") + READY_FOR_QUERY)
        self.assertNoResult(self.receiver.finished)
        self.sink.complete_flush()
        self.assertIsInstance(self.failure(), ServerError)
        self.server.expect(terminate())
        self.server.expect_closed()

    def test_fatal_error_in_the_stream(self) -> None:
        """After a fatal error nothing more is waited for: a server may be slow to hang up."""
        self.begin_stream()
        self.server.send(error("FATAL", "57P01", "terminating connection"))
        self.server.expect(terminate())
        self.server.expect_closed()
        failure = self.failure()
        assert isinstance(failure, ServerError)
        self.assertEqual(failure.sqlstate, "57P01")

    def test_connection_is_lost(self) -> None:
        """A lost connection ends the stream; all that came is durable."""
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.transport.peer_closed(ConnectionLost)
        self.assertIsInstance(self.failure(), Disconnected)
        self.assertEqual(self.sink.flushed, START + 100)

    def test_half_a_message(self) -> None:
        """Of a message that was cut off by the connection's end, the whole pages are kept."""
        self.begin_stream()
        size = 3 * PAGE_SIZE
        self.transport.deliver(wal_message(START, wal(START, size), START + size)[:-40])
        self.transport.peer_closed()
        self.failure()
        self.assertEqual(self.sink.flushed, START + 2 * PAGE_SIZE)


class AcknowledgementTests(ReceiverCase):
    """Status updates."""

    def test_interval(self) -> None:
        """A status is sent in each interval, with what is written."""
        self.begin_stream(status_interval=10)
        self.stream(START, wal(START, 100))
        self.clock.advance(9.9)
        self.server.expect_silence()
        self.clock.advance(0.1)
        (message,) = self.server.expect(is_status)
        self.assertEqual(message.body[1:9], (START + 100).to_bytes(8, "big"))

    def test_synchronous(self) -> None:
        """With ``--synchronous`` what one read brought is flushed, then reported."""
        self.sink.auto_flush = False
        self.begin_stream(synchronous=True)
        self.stream(START, wal(START, 100))
        self.server.expect_silence()
        self.sink.complete_flush()
        self.server.expect(status(START + 100, START + 100, reply_requested=True))

    def test_server_is_silent(self) -> None:
        """A silent server is asked, then given up."""
        self.begin_stream(status_interval=0, receive_timeout=60)
        self.clock.advance(30)
        (message,) = self.server.expect(is_status)
        self.assertEqual(message.body[-1], 1)
        self.clock.advance(30)
        self.transport.turn()
        self.assertEqual(str(self.failure()), "the server has been silent for too long")
        self.assertEqual(self.transport.peer_saw, "reset")

    def test_server_sends_a_byte_a_second(self) -> None:
        """That is not much better: a message, or a page of WAL, has to be whole in time."""
        self.begin_stream(status_interval=0, receive_timeout=60)
        began = self.clock.seconds()
        for byte in wal_message(START, wal(START, 1000), START + 1000):
            if not self.transport.aborted:
                self.clock.advance(1)
                self.transport.deliver(bytes([byte]))
        self.assertEqual(str(self.failure()), "the server has been silent for too long")
        self.assertLess(self.clock.seconds() - began, 100)

    def test_sink_makes_us_wait(self) -> None:
        """While the sink takes no more, the server is read no more, but told that we live."""
        self.begin_stream(status_interval=0, receive_timeout=60)
        self.sink.pause()
        self.server.expect(status(START))
        self.assertTrue(self.transport.paused)
        self.transport.deliver(wal_message(START, wal(START, 100), START + 100))
        self.assertEqual(self.sink.writes, [])
        for _ in range(5):
            self.clock.advance(20)
            self.server.expect(is_status)
        self.sink.resume()
        self.transport.turn()
        self.assertEqual(self.stored(), wal(START, 100))
        self.assertFalse(self.transport.paused)

    def test_servers_timeout_decides_the_heartbeat(self) -> None:
        """The heartbeat is a third of the server's own timeout."""
        self.connect(status_interval=0)
        self.identify(START)
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.server.send(result(b"3s"))
        self.tell_demands()
        self.server.send(COPY_BOTH)
        self.sink.pause()
        self.server.expect(
            query("START_REPLICATION 0/300000 TIMELINE 1"), status(START), status(START)
        )
        self.clock.advance(1)
        self.server.expect(is_status)

    def test_sink_pauses_in_a_write(self) -> None:
        """The rest of a read still goes to a sink that has enough."""
        self.sink = MemorySink(high_mark=100, auto_flush=False)
        self.begin_stream()
        messages = b"".join(
            wal_message(START + offset, wal(START + offset, 60), START + 600)
            for offset in range(0, 600, 60)
        )
        self.transport.deliver(messages)
        self.assertTrue(self.transport.paused)
        self.assertEqual(self.stored(), wal(START, 600))
        self.sink.complete_flush()
        self.assertFalse(self.transport.paused)


def is_status(message: object) -> bool:
    """a standby status update"""
    return getattr(message, "body", b"")[:1] == b"r"


class SinkFailureTests(ReceiverCase):
    """A sink that cannot go on."""

    def test_stops_its_producer(self) -> None:
        """A sink that takes no more ends the connection, and tells why."""
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.sink.fail()
        failure = self.failure()
        self.assertIsInstance(failure, SinkFailed)
        self.assertIn("no space left on device", str(failure))
        self.assertTrue(self.transport.aborted)
        self.server.expect_silence()

    def test_fails_in_a_write(self) -> None:
        """So does one whose write fails; nothing more of the read is given to it."""
        self.begin_stream()
        write = self.sink.write

        def break_down(start: int, data: memoryview) -> None:
            self.sink.write = write  # type: ignore[method-assign]
            self.sink.fail()
            raise SinkFailed("could not write WAL: no space left on device")

        self.sink.write = break_down  # type: ignore[method-assign]
        messages = wal_message(START, b"abc", START + 6) + wal_message(START + 3, b"def", START + 6)
        self.transport.deliver(messages + keepalive(START + 6, reply_requested=True))
        self.assertIsInstance(self.failure(), SinkFailed)
        self.assertEqual(self.sink.writes, [])

    def test_stops_its_producer_in_a_write(self) -> None:
        """A sink may call `stopProducing` within its write, and raise nothing."""
        self.begin_stream()

        def write(start: int, data: memoryview) -> None:
            self.sink.fail()

        self.sink.write = write  # type: ignore[method-assign]
        messages = wal_message(START, b"abc", START + 6) + wal_message(START + 3, b"def", START + 6)
        self.transport.deliver(messages + keepalive(START + 6, reply_requested=True))
        failure = self.failure()
        self.assertIsInstance(failure, SinkFailed)
        self.assertIn("no space left on device", str(failure))

    def test_fails_when_it_should_finish(self) -> None:
        """A failure at the very end is told, and is the only one."""
        self.sink.auto_flush = False
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.receiver.stop()
        self.sink.fail()
        self.assertIsInstance(self.failure(), SinkFailed)
        self.server.expect(terminate())
        self.server.expect_closed()

    def test_flush_fails(self) -> None:
        """A flush that fails ends the connection, and nothing is acknowledged."""
        self.sink.auto_flush = False
        self.begin_stream(synchronous=True)
        self.stream(START, wal(START, 100))
        self.sink.fail("input/output error")
        failure = self.failure()
        self.assertIsInstance(failure, SinkFailed)
        self.assertIn("input/output error", str(failure))
        self.server.expect_silence()

    def test_fault_of_the_sink(self) -> None:
        """An error that is none of ours is logged, and ends the connection."""
        self.begin_stream()

        def write(start: int, data: memoryview) -> None:
            raise ZeroDivisionError("a mistake")

        self.sink.write = write  # type: ignore[method-assign]
        self.stream(START, b"abc")
        self.transport.turn()
        self.assertIn("a mistake", str(self.failure()))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_fault_of_the_sink_elsewhere(self) -> None:
        """So is one outside of a stream, which is told as it is."""
        self.connect()
        self.sink.begin = lambda timeline, start: fail(  # type: ignore[method-assign]
            ZeroDivisionError("a mistake")
        )
        self.identify(START)
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.server.send(result(b"1min"))
        self.tell_demands()
        self.failureResultOf(self.receiver.finished, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failed_before_it_began(self) -> None:
        """A sink that has failed already stops a new producer at once."""
        self.connect()
        self.identify(START)
        self.sink.begin = lambda timeline, start: self.broken_begin()  # type: ignore[method-assign]
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.server.send(result(b"1min"))
        self.tell_demands()
        self.assertIsInstance(self.failure(), SinkFailed)

    def broken_begin(self) -> Deferred[None]:
        self.sink.fail()
        begun: Deferred[None] = Deferred()
        begun.callback(None)
        return begun


class StopTests(ReceiverCase):
    """`WALReceiver.stop` at any time."""

    def test_in_the_stream(self) -> None:
        """All that came is made durable and reported, the stream ended, the line closed."""
        self.sink.auto_flush = False
        self.begin_stream(synchronous=True)
        self.stream(START, wal(START, 100))
        stopped = self.receiver.stop()
        self.server.expect_silence()
        self.complete_flushes()
        self.server.expect(status(START + 100, START + 100, reply_requested=True), COPY_DONE)
        self.assertNoResult(stopped)
        self.server.send(COPY_DONE + STREAMING_COMPLETE)
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)
        self.server.expect(terminate())
        self.server.expect_closed()
        self.successResultOf(stopped)

    def test_what_still_comes(self) -> None:
        """What the server sends after that is not taken any more, and not acknowledged."""
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.receiver.stop()
        self.stream(START + 100, wal(START + 100, 100))
        self.server.send(keepalive(START + 200, reply_requested=True))
        self.server.expect(status(START + 100), COPY_DONE)
        self.server.send(COPY_DONE + STREAMING_COMPLETE)
        self.assertEqual(self.sink.written, START + 100)
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)

    def test_in_the_middle_of_a_message(self) -> None:
        """A stop in the middle of a message keeps the whole pages that came of it."""
        self.begin_stream()
        size = 3 * PAGE_SIZE
        message = wal_message(START, wal(START, size), START + size)
        self.transport.deliver(message[:-40])
        self.receiver.stop()
        self.transport.deliver(message[-40:] + COPY_DONE + STREAMING_COMPLETE)
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)
        self.assertEqual(self.sink.flushed, START + 2 * PAGE_SIZE)

    def test_while_paused(self) -> None:
        """A stop while the sink makes us wait reads on, so that the server can end."""
        self.sink.auto_flush = False
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.sink.pause()
        self.receiver.stop()
        self.assertTrue(self.transport.paused)
        self.sink.complete_flush()
        self.assertFalse(self.transport.paused)
        self.server.expect(status(START + 100), status(START + 100), COPY_DONE)
        self.server.send(COPY_DONE + STREAMING_COMPLETE)
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)

    def test_before_the_stream(self) -> None:
        """A stop before a stream has begun closes at once, whatever was asked."""
        self.connect()
        stopped = self.receiver.stop()
        self.server.expect(terminate())
        self.server.expect_closed()
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)
        self.successResultOf(stopped)
        self.setUp()
        self.ask_for_stream()
        self.receiver.stop()
        self.server.expect(terminate())
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)

    def test_twice(self) -> None:
        """Each caller is told when it is over."""
        self.begin_stream()
        waiters = [self.receiver.stop(), self.receiver.stop()]
        self.server.expect(status(START), COPY_DONE)
        self.server.send(COPY_DONE + STREAMING_COMPLETE)
        self.server.expect(terminate())
        self.server.expect_closed()
        waiters.append(self.receiver.stop())
        for waiter in waiters:
            self.successResultOf(waiter)

    def test_waiting_is_given_up(self) -> None:
        """A caller that gives up waiting may cut the connection; that is a stop as well."""
        self.begin_stream()
        stopped = self.receiver.stop()
        stopped.addErrback(lambda _: None)
        stopped.cancel()
        self.receiver.abort(Disconnected("not in time"))
        self.transport.turn()
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)
        self.successResultOf(self.receiver.stop())

    def test_after_the_end(self) -> None:
        """What is over need not be stopped."""
        self.begin_stream()
        self.transport.peer_closed()
        self.successResultOf(self.receiver.stop())
        self.failure()

    def test_server_ends_at_once(self) -> None:
        """A server that shuts down in that moment does not make it an error."""
        self.begin_stream()
        self.receiver.stop()
        self.server.send(SHUT_DOWN)
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)

    def test_server_ends_its_half_first(self) -> None:
        """A timeline that ends in that moment is not followed."""
        self.sink.auto_flush = False
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.receiver.stop()
        self.server.send(COPY_DONE)
        self.sink.complete_flush()
        self.server.expect(status(START + 100), COPY_DONE)
        self.server.send(next_timeline(2, START + 100))
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)

    def test_between_streams(self) -> None:
        """A stop after the server has ended a stream closes; what came is durable."""
        self.sink.auto_flush = False
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.server.send(COPY_DONE)
        self.receiver.stop()
        self.assertNoResult(self.receiver.finished)
        self.sink.complete_flush()
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)
        self.assertEqual(self.sink.flushed, START + 100)

    def test_error_in_that_moment(self) -> None:
        """An error that breaks off the stream in that moment is told."""
        self.sink.auto_flush = False
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.receiver.stop()
        self.transport.deliver(error("ERROR", "57014", "canceled") + READY_FOR_QUERY)
        self.sink.complete_flush()
        self.assertIsInstance(self.failure(), ServerError)
        self.server.expect(terminate())
        self.server.expect_closed()


class EndPositionTests(ReceiverCase):
    """``--endpos``."""

    def test_beyond(self) -> None:
        """The stream ends once WAL beyond the position was received, not at it."""
        self.begin_stream(end_position=LSN(START + 100))
        self.stream(START, wal(START, 100))
        self.assertIs(self.receiver.phase, ReceiverPhase.STREAMING)
        self.stream(START + 100, wal(START + 100, 8))
        self.server.expect(status(START + 108), COPY_DONE)
        self.server.send(COPY_DONE + STREAMING_COMPLETE)
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.END_POSITION)
        self.assertEqual(self.sink.flushed, START + 108)

    def test_much_more_comes(self) -> None:
        """Whatever the server sends until it hears of the end is dropped."""
        self.begin_stream(end_position=LSN(START + 100))
        for offset in range(0, 10_000, 1000):
            self.stream(START + offset, wal(START + offset, 1000))
        self.server.expect(status(START + 1000), COPY_DONE)
        self.server.send(COPY_DONE + STREAMING_COMPLETE)
        self.assertEqual(self.sink.flushed, START + 1000)


class TimelineTests(ReceiverCase):
    """The server's timeline ends."""

    def end_timeline(self, end: int) -> None:
        """The server ends its stream, and says what follows."""
        self.server.send(COPY_DONE)
        self.server.expect(status(end), COPY_DONE)
        self.server.send(next_timeline(2, end))

    def test_switch(self) -> None:
        """The new history is fetched, and the new timeline streamed from its segment's start."""
        self.begin_stream()
        end = START + 0x1F88
        self.stream(START, wal(START, 0x1F88))
        self.end_timeline(end)
        self.server.expect(query("TIMELINE_HISTORY 2"))
        self.server.send(result(b"00000002.history", history(1, end)))
        self.tell_demands()
        self.server.expect(query("START_REPLICATION 0/300000 TIMELINE 2"))
        self.assertEqual(self.sink.history_files, {2: history(1, end)})
        self.server.send(COPY_BOTH)
        self.server.expect(is_status)
        self.stream(START, wal(START, 0x2000))
        self.assertEqual(self.stored(1), wal(START, 0x1F88))
        self.assertEqual(self.stored(2), wal(START, 0x2000))
        self.assertEqual(self.sink.begun, [WALPosition(1, START), WALPosition(2, START)])
        self.assertIs(self.sink.producer, self.receiver)

    def test_any_cut(self) -> None:
        """However the end of the timeline is cut."""
        end = START + 100
        first = wal_message(START, wal(START, 100), end) + COPY_DONE
        for pieces in every_cut(first):
            self.setUp()
            self.begin_stream()
            for piece in pieces:
                self.transport.deliver(piece)
            self.server.expect(status(end), COPY_DONE)
            for piece in pieces and [next_timeline(2, end)[:9], next_timeline(2, end)[9:]]:
                self.transport.deliver(piece)
            self.server.expect(query("TIMELINE_HISTORY 2"))
            self.transport.peer_closed()
            self.failure()

    def test_keepalive_behind_copy_done(self) -> None:
        """A server that waits for our CopyDone may send keepalives, as PostgreSQL's do."""
        self.sink.auto_flush = False
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.server.send(COPY_DONE, keepalive(START + 100, reply_requested=True))
        self.sink.complete_flush()
        self.server.expect(status(START + 100), COPY_DONE)
        self.server.send(keepalive(START + 100, reply_requested=False))
        self.server.send(next_timeline(2, START + 100))
        self.server.expect(query("TIMELINE_HISTORY 2"))

    def test_slow_disk(self) -> None:
        """Our CopyDone waits until what came is durable."""
        self.sink.auto_flush = False
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.server.send(COPY_DONE)
        self.server.expect_silence()
        self.sink.complete_flush()
        self.server.expect(status(START + 100), COPY_DONE)

    def test_switch_at_the_end_of_a_segment(self) -> None:
        """The new timeline begins where the old one's last segment ends."""
        self.begin_stream()
        self.stream(START, wal(START, SIZE))
        self.end_timeline(START + SIZE)
        self.server.expect(query("TIMELINE_HISTORY 2"))
        self.server.send(result(b"00000002.history", history(1, START + SIZE)))
        self.tell_demands()
        self.server.expect(query("START_REPLICATION 0/400000 TIMELINE 2"))

    def test_nothing_more_on_the_old_timeline(self) -> None:
        """A timeline that ends exactly where we go on has no stream: the next one follows. (L8)"""
        self.begin_stream()
        self.stream(START, wal(START, SIZE))
        self.transport.peer_closed()
        self.failure()
        self.connect()
        self.identify(START + SIZE + 500, timeline=2)
        self.server.expect(query("TIMELINE_HISTORY 2"))
        self.server.send(result(b"00000002.history", history(1, START + SIZE)))
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.server.send(result(b"1min"))
        self.tell_demands()
        self.server.expect(query("START_REPLICATION 0/400000 TIMELINE 1"))
        self.server.send(next_timeline(2, START + SIZE))
        self.server.expect(query("TIMELINE_HISTORY 2"))
        self.server.send(result(b"00000002.history", history(1, START + SIZE)))
        self.tell_demands()
        self.server.expect(query("START_REPLICATION 0/400000 TIMELINE 2"))
        self.server.send(COPY_BOTH)
        self.server.expect(is_status)
        self.stream(START + SIZE, wal(START + SIZE, 100))
        self.assertEqual(self.sink.written, START + SIZE + 100)

    def test_forked(self) -> None:
        """A server that names a switch point before our end is on another branch."""
        self.begin_stream()
        self.stream(START, records(START, 1000))
        self.server.send(COPY_DONE)
        self.server.send(next_timeline(2, START + 50))
        self.server.send(result(b"00000002.history", history(1, START + 50)))
        self.assertIsInstance(self.failure(), TimelineMismatch)
        self.assertEqual(self.sink.history_files, {})

    def test_nothing_follows(self) -> None:
        """A server that ends the stream and does not say what follows breaks the protocol."""
        self.begin_stream()
        self.server.send(COPY_DONE)
        self.server.send(STREAMING_COMPLETE)
        self.assertIsInstance(self.failure(), ProtocolViolation)

    def test_nonsense_follows(self) -> None:
        """So does one that says nonsense."""
        for values in ((b"x", b"0/1"), (b"9" * 5000, b"0/1"), (b"2",), (None, None), (b"2", b"0")):
            self.setUp()
            self.begin_stream()
            self.server.send(COPY_DONE)
            self.server.send(result(*values))
            self.failure()

    def test_history_is_missing(self) -> None:
        """Without the new timeline's history it is not followed."""
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.end_timeline(START + 100)
        self.server.send(error("ERROR", "58P01", "no such file") + READY_FOR_QUERY)
        self.assertIsInstance(self.failure(), ServerError)

    def test_history_that_is_held_is_missing(self) -> None:
        """A sink that has lost what it held says so itself."""
        self.begin_stream()
        self.stream(START, wal(START, 100))
        self.end_timeline(START + 100)
        self.sink.history_files[2] = history(1, START + 100)
        self.sink.history = lambda timeline: fail(  # type: ignore[method-assign]
            WALUnavailable("00000002.history")
        )
        self.server.send(result(b"00000002.history", history(1, START + 100)))
        self.assertIsInstance(self.failure(), WALUnavailable)


class DesignOf2009Tests(ReceiverCase):
    """The dialect of December 2009, byte by byte."""

    def begin_stream_2009(self, **settings: Any) -> None:
        self.connect(
            dialect=Dialect.DESIGN_2009,
            segment_size=SIZE,
            start_position=LSN(START + 0x28),
            **settings,
        )
        self.server.send(LET_IN)
        self.server.expect(b"Q\x00\x00\x00\x1aGET_SYSTEM_IDENTIFIER\x00")
        self.server.send(result(SYSTEM))
        self.server.expect(b"Q\x00\x00\x00\x11GET_TIMELINE\x00")
        self.server.send(result(b"1"))
        self.server.expect(b"Q\x00\x00\x00\x25GET_BACKUP_HISTORY_FILE 0/300028\x00")
        self.server.send(result(b"000000010000000000000003.00000028.backup", b"contents"))
        self.server.expect(b"Q\x00\x00\x00\x20START REPLICATION: 0/300000\x00")
        self.server.send(COPY_OUT)

    def message(self, start: int, data: bytes) -> bytes:
        return copy_data(start.to_bytes(8, "big") + data)

    def test_transcript(self) -> None:
        """The questions, the stream, and not a word while it lasts."""
        self.begin_stream_2009(status_interval=1, receive_timeout=10, synchronous=True)
        self.server.send(self.message(START, wal(START, 8016)))
        self.server.send(self.message(START + 8016, wal(START + 8016, 100)))
        self.clock.advance(1000)
        self.server.expect_silence()
        self.assertEqual(self.stored(), wal(START, 8116))
        self.assertEqual(
            self.sink.backup_histories, {"000000010000000000000003.00000028.backup": b"contents"}
        )

    def test_any_cut(self) -> None:
        """However the stream is cut."""
        stream = self.message(START, wal(START, 40)) + self.message(START + 40, wal(START + 40, 9))
        for pieces in every_cut(stream):
            self.setUp()
            self.begin_stream_2009()
            for piece in pieces:
                self.transport.deliver(piece)
            self.assertEqual(self.stored(), wal(START, 49))
            self.transport.peer_closed()
            self.failure()

    def test_stop(self) -> None:
        """All that can be said to a stream is Terminate."""
        self.sink.auto_flush = False
        self.begin_stream_2009()
        self.server.send(self.message(START, wal(START, 100)))
        stopped = self.receiver.stop()
        self.server.expect_silence()
        self.sink.complete_flush()
        self.server.expect(terminate())
        self.server.expect_closed()
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.STOPPED)
        self.successResultOf(stopped)

    def test_end_position(self) -> None:
        """So it is at the end position."""
        self.begin_stream_2009(end_position=LSN(START + 50))
        self.server.send(self.message(START, wal(START, 100)))
        self.server.expect(terminate())
        self.server.expect_closed()
        self.assertEqual(self.successResultOf(self.receiver.finished), StreamEnd.END_POSITION)

    def test_server_is_shut_down(self) -> None:
        """A server that shuts down says so as today's do."""
        self.begin_stream_2009()
        self.server.send(self.message(START, wal(START, 100)))
        self.server.send(SHUT_DOWN)
        self.assertEqual(str(self.failure()), "replication stream was terminated by the server")
        self.assertEqual(self.sink.flushed, START + 100)

    def test_error_in_the_stream(self) -> None:
        """A server's error is told as it says it."""
        self.begin_stream_2009()
        refusal = error("ERROR", "58P01", "requested WAL segment … has already been removed")
        self.transport.deliver(refusal + READY_FOR_QUERY)
        failure = self.failure()
        assert isinstance(failure, ServerError)
        self.assertEqual(failure.sqlstate, "58P01")

    def test_fatal_error_in_the_stream(self) -> None:
        """Also if the connection ends with it."""
        self.begin_stream_2009()
        self.server.send(error("FATAL", "57P01", "terminating connection"))
        self.transport.peer_closed()
        self.assertIsInstance(self.failure(), ServerError)

    def test_sink_makes_us_wait(self) -> None:
        """A pause is a pause, in silence."""
        self.begin_stream_2009()
        self.sink.pause()
        self.assertTrue(self.transport.paused)
        self.server.expect_silence()
        self.sink.resume()
        self.server.send(self.message(START, wal(START, 100)))
        self.assertEqual(self.stored(), wal(START, 100))


class DirectStreamTests(StreamTests):
    """The same past the transport."""

    direct = True


class DirectTimelineTests(TimelineTests):
    """The same past the transport."""

    direct = True


class DirectStopTests(StopTests):
    """The same past the transport."""

    direct = True


class DirectSinkFailureTests(SinkFailureTests):
    """The same past the transport."""

    direct = True


class TLSStreamTests(StreamTests):
    """The same over TLS."""

    kind = "tls"


class TLSStopTests(StopTests):
    """The same over TLS."""

    kind = "tls"


class TLSAcknowledgementTests(AcknowledgementTests):
    """The same over TLS."""

    kind = "tls"
