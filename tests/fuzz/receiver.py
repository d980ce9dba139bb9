"""Target: a `WALReceiver`, and a server that says and does anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

from tests.fuzz.conversation import Conversation, saying
from tests.fuzz.recordings import server_frames, server_streams
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.watch import checked_phases, held_bytes, no_failure_logged, no_timers
from tests.unit.conversation import IDENTITY, SIZE, START, keepalive, wal, wal_message
from walstream.errors import Disconnected, WalstreamError
from walstream.formats.lsn import LSN
from walstream.protocols.client import ReplicationClient
from walstream.protocols.login import Login
from walstream.protocols.phases import RECEIVER_TRANSITIONS, ReceiverPhase
from walstream.protocols.receiver import Dialect, ReceiverSettings, WALReceiver
from walstream.testing.memory import MemorySink
from walstream.wire.frames import FrameReader, frame
from walstream.wire.messages import (
    Column,
    ColumnType,
    authentication_ok,
    command_complete,
    copy_both_response,
    copy_done,
    copy_out_response,
    data_row,
    error_response,
    parameter_status,
    ready_for_query,
    row_description,
)

T = TypeVar("T")

# What a receiver does of its own accord: see protocols/phases.py.
_OWN = {("AUTHENTICATING", "STARTING"), ("READY", "QUERYING"), ("STREAMING", "STOPPING")}

# What is kept of a server's answers besides one message.
_MOST_HELD = (1 << 24) + 65536 + 5


def result(*values: bytes | None) -> bytes:
    """One row of text, and the end of a command."""
    columns = [Column(f"c{index}", ColumnType.TEXT) for index in range(len(values))]
    return row_description(columns) + data_row(values) + command_complete("X") + ready_for_query()


class _Receiver(WALReceiver):
    """One that has no thread to compute in."""

    def in_thread(self, job: Callable[[], T]) -> Deferred[T]:
        assert isinstance(job, partial), "with what the server has sent"
        if job.args[-1].count(b"i=4096") == 1:
            return maybeDeferred(job)
        return fail(Disconnected("too much work for a test"))


class _Conversation(Conversation):
    """A server's conversation with a receiver."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        variant = script.number()
        self._modern = not variant & 1
        self._sink = MemorySink(
            auto_flush=not variant & 2, high_mark=65536 if variant & 4 else None
        )
        self._receiver = _Receiver(
            self._sink,
            Login("alice", "secret" if variant & 8 else None),
            ReceiverSettings(
                slot="s" if variant & 16 else None,
                synchronous=bool(variant & 32),
                dialect=Dialect.MODERN if self._modern else Dialect.DESIGN_2009,
                start_position=None if self._modern else LSN(START),
                end_position=LSN(START + 0x10000) if variant & 64 else None,
                accept_gap=LSN(START + 0x2000) if variant & 128 else None,
                segment_size=SIZE,
            ),
            self._clock,
        )
        self._position = int(START)
        self._timeline = 1
        self._queries = FrameReader(lambda _: 1 << 20)
        self._unread = b""
        self._transport.connect(self._receiver)
        self._transport.take()
        self._outcome: list[object] = []
        self._receiver.finished.addBoth(self._outcome.append)

    def _check(self) -> None:
        held = held_bytes(self._receiver)
        assert held <= _MOST_HELD, f"{held} bytes of a message are kept"
        kept = sum(len(key) + len(value) for key, value in self._receiver.parameters.items())
        assert kept <= 8 << 20, f"{kept} bytes of parameters are kept"

    def _close(self) -> None:
        self._transport.peer_closed()
        # What was sent while the sink was full is read first, a part of it at a time.
        for _ in range(20 + self._transport.unreceived // 4096):
            self._sink.resume()
            self._complete_flushes()
            self._transport.take()
            if not self._transport.connected and self._outcome:
                break
        assert not self._transport.connected, "it does not close"
        assert self._outcome, "nobody is told that it is over"
        if isinstance(self._outcome[0], Failure):
            assert self._outcome[0].check(WalstreamError), self._outcome[0]
        assert self._receiver.phase is ReceiverPhase.CLOSED
        no_timers(self._clock)
        assert self._sink.producer is None

    def _complete_flushes(self) -> None:
        for _ in range(100):
            if not self._sink.needs_flush:
                break
            self._sink.complete_flush()

    # What a server does.

    def let_in(self) -> None:
        version = self._script.piece().replace(b"\0", b"").decode("latin-1") or "18.6"
        self._transport.deliver(
            authentication_ok() + parameter_status("server_version", version) + ready_for_query()
        )

    def row(self) -> None:
        values = self._script.piece().split(b"|")
        self._transport.deliver(result(*(value if value != b"-" else None for value in values)))

    def answer(self) -> None:
        """What a good server answers to what was asked last."""
        how = self._script.number()
        self._queries.feed(self._transport.take())
        while (asked := self._queries.next()) is not None:
            if asked.kind == ord("Q"):
                self._transport.deliver(self._good_answer(asked.body, how))

    def _good_answer(self, asked: bytes, how: int) -> bytes:
        text = asked.rstrip(b"\0").decode("latin-1")
        system = str(IDENTITY.system_identifier).encode()
        end = str(LSN(START + 0x2000 + how * 16)).encode()
        timeline = str(self._timeline + (how >> 6)).encode()
        answers = {
            "IDENTIFY_SYSTEM": (system, timeline, end, None),
            "GET_SYSTEM_IDENTIFIER": (system,),
            "GET_TIMELINE": (timeline,),
            "SHOW wal_segment_size": (b"1MB",),
            "SHOW wal_sender_timeout": (b"1min",),
            "SHOW synchronous_commit": (b"on",),
            "SHOW synchronous_standby_names": (b"walstream" if how & 1 else b"",),
        }
        if text in answers:
            return result(*answers[text])
        if text.startswith("TIMELINE_HISTORY"):
            history = b"1\t" + end + b"\tno recovery target specified\n"
            return result(b"0000000%b.history" % timeline, history)
        if text.startswith("READ_REPLICATION_SLOT"):
            return result(b"physical", str(LSN(START)).encode(), b"1")
        if text.startswith("START"):
            return copy_both_response() if self._modern else copy_out_response()
        return error_response("ERROR", "58P01", "there is none") + ready_for_query()

    def stream(self) -> None:
        """WAL that continues, or nearly."""
        size, jump = self._script.number() * 128, self._script.number()
        if jump % 8 == 7:
            self._position += (jump >> 3) * 8 - 64
        start = max(self._position, 0)
        data = wal(start, size)
        if self._modern:
            self._transport.deliver(wal_message(start, data, start + size))
        else:
            self._transport.deliver(frame(b"d", start.to_bytes(8, "big") + data))
        self._position = start + size

    def keep_alive(self) -> None:
        how = self._script.number()
        self._transport.deliver(keepalive(self._position, reply_requested=bool(how & 1)))

    def end_stream(self) -> None:
        next_timeline = result(str(self._timeline + 1).encode(), str(LSN(self._position)).encode())
        match self._script.number() % 4:
            case 0:
                self._transport.deliver(copy_done())
            case 1:
                self._transport.deliver(next_timeline)
                self._timeline += 1
            case 2:
                self._transport.deliver(command_complete("COPY 0"))
            case 3:
                self._transport.deliver(error_response("ERROR", "58P01", "removed"))
                self._transport.deliver(ready_for_query())

    def read(self) -> None:
        self._queries.feed(self._transport.take(self._script.number() * 16 or None))

    def other(self) -> None:
        """What happens on our side."""
        match self._script.number() % 6:
            case 0 | 1:
                if self._sink.needs_flush:
                    self._sink.complete_flush()
            case 2:
                self._sink.pause()
            case 3:
                self._sink.resume()
            case 4:
                self._sink.fail()
            case 5:
                self._receiver.stop()

    def end(self) -> None:
        reset = self._script.number() % 2
        self._transport.peer_closed(ConnectionLost if reset else ConnectionDone)
        self._ended = True


_DOES: tuple[Callable[[_Conversation], None], ...] = (
    _Conversation.say,
    _Conversation.say_frame,
    _Conversation.let_in,
    _Conversation.answer,
    _Conversation.row,
    _Conversation.stream,
    _Conversation.keep_alive,
    _Conversation.end_stream,
    _Conversation.read,
    _Conversation.wait,
    _Conversation.other,
    _Conversation.end,
    _Conversation.drip,
)
_OPCODE = {does: bytes([number]) for number, does in enumerate(_DOES)}


def _run(data: bytes) -> None:
    with (
        no_failure_logged(),
        checked_phases(ReplicationClient, RECEIVER_TRANSITIONS, _OWN, ReceiverPhase.CLOSED),
    ):
        _Conversation(Script(data)).run(_DOES)


_says = partial(saying, _OPCODE[_Conversation.say])


def _seeds() -> Iterator[bytes]:
    do = _OPCODE.__getitem__
    answer = do(_Conversation.answer) + b"\0"
    begun = do(_Conversation.let_in) + b"\0" + answer * 7
    wal_comes = do(_Conversation.stream) + b"\x40\0"
    for stream in server_streams():
        yield b"\0" + _says(stream[:800])
    for variant in (0, 1, 2, 4, 16, 32, 64, 128, 0x76):
        yield bytes([variant]) + begun + wal_comes * 3 + do(_Conversation.keep_alive) + b"\1"
        for how in range(4):
            ends = do(_Conversation.end_stream) + bytes([how])
            yield bytes([variant]) + begun + wal_comes + ends + answer + ends + answer * 4
    for what in range(6):
        yield b"\6" + begun + wal_comes * 2 + do(_Conversation.other) + bytes([what]) + wal_comes
    for frame_ in server_frames()[:60]:
        if len(frame_.body) < 256:
            body = bytes([frame_.kind, len(frame_.body)]) + frame_.body
            yield b"\0" + do(_Conversation.say_frame) + body
            yield b"\0" + begun + do(_Conversation.say_frame) + body
    row = b"7423190665107412305|2|0/400000|-"
    yield b"\0" + do(_Conversation.let_in) + b"\0" + do(_Conversation.row) + bytes([len(row)]) + row
    first = b"r=x,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    login = frame(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0") + frame(b"R", b"\0\0\0\x0b" + first)
    yield b"\x08" + _says(login)


_P = "walstream.protocols."

TARGETS = (
    Target(
        "receiver",
        _run,
        tuple(
            _P + name
            for name in (
                "receiver",
                "client",
                "stream_client",
                "questions",
                "start",
                "acknowledgement",
                "gap",
                "synchronous",
                "status_line",
            )
        ),
        _seeds,
        (b"SCRAM-SHA-256\0", b"server_version\0"),
        longest=1024,
    ),
)
