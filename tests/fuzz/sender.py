"""Target: a `WALSender`, and a client that says and does anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock, deferLater
from zope.interface import implementer

from tests.fuzz.conversation import Conversation, saying
from tests.fuzz.recordings import client_frames, client_streams
from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.watch import checked_phases, held_bytes, no_failure_logged, no_timers
from tests.unit.conversation import IDENTITY, SIZE, START, STARTUP, MemorySlots, status, wal
from walstream.access.scram import ScramExchange
from walstream.errors import CommandError
from walstream.formats.lsn import LSN
from walstream.formats.timelines import TimelineHistory
from walstream.gates import Admission, Applicant, IGate, IPermit
from walstream.interfaces import BackupHistoryFile, IWALCursor, WALPosition
from walstream.protocols.entering import Entering
from walstream.protocols.phases import ENTRY_TRANSITIONS, SENDER_TRANSITIONS, SenderPhase
from walstream.protocols.sender import WALSender
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.session import Session
from walstream.protocols.settings import SenderSettings
from walstream.testing.memory import MemoryProvider
from walstream.wire.frames import frame, frontend_limit
from walstream.wire.messages import query, sasl_initial_response, sasl_response
from walstream.wire.scram_server import ScramServerExchange
from walstream.wire.scram_verifier import ScramVerifier
from walstream.wire.startup import (
    CANCEL_REQUEST_CODE,
    GSSENC_REQUEST_CODE,
    SSL_REQUEST_CODE,
    startup_message,
)

# What a sender does of its own accord: see protocols/phases.py.
_STREAMS = ("STREAMING", "STREAMING_2009", "DRAINING", "SHUTTING_DOWN")
_OWN_ENTRY = {
    ("STARTUP", "ENCRYPTING"),
    ("ENCRYPTING", "STARTUP"),
    ("STARTUP", "ADMITTING"),
    ("ADMITTING", "AUTHENTICATING"),
}
_OWN = {
    ("ENTERING", "READY"),
    ("ANSWERING", "READY"),
    ("ANSWERING", "STREAMING"),
    ("ANSWERING", "STREAMING_2009"),
    ("STREAMING", "SHUTTING_DOWN"),
    ("STREAMING", "DRAINING"),
    ("SHUTTING_DOWN", "DRAINING"),
    *((stream, "READY") for stream in _STREAMS),
}
# A message, what is being written, and the answer to a message that came while it was.
_MOST_UNSENT = 512 * 1024

_VERIFIER = ScramVerifier.of("pencil", iterations=4096, salt=b"0123456789abcdef")
_BEGIN = LSN(START + SIZE - 0x4000)
_WAL = wal(_BEGIN, 0x6028)

_COMMANDS = (
    "IDENTIFY_SYSTEM",
    "SHOW wal_segment_size",
    "SHOW ALL",
    "TIMELINE_HISTORY 2",
    "TIMELINE_HISTORY 7",
    "START_REPLICATION 0/3FC000 TIMELINE 1",
    "START_REPLICATION 0/402028",
    "START_REPLICATION 0/402028 TIMELINE 2",
    "START_REPLICATION SLOT a 0/402000",
    "START_REPLICATION 0/100000",
    "START_REPLICATION 0/500000",
    "START_REPLICATION FFFFFFFF/FFFFFFFF",
    "START REPLICATION: 0/3FC000",
    "GET_TIMELINE",
    "GET_SYSTEM_IDENTIFIER",
    "GET_BACKUP_HISTORY_FILE 0/3FC020",
    "CREATE_REPLICATION_SLOT a PHYSICAL",
    "CREATE_REPLICATION_SLOT b TEMPORARY PHYSICAL RESERVE_WAL",
    "READ_REPLICATION_SLOT a",
    "ALTER_REPLICATION_SLOT a (failover)",
    "DROP_REPLICATION_SLOT a",
    "DROP_REPLICATION_SLOT b WAIT",
    "BASE_BACKUP (LABEL 'x')",
    "UPLOAD_MANIFEST",
    "SELECT 1",
)


class _GuardedProvider(MemoryProvider):
    """WAL that nobody may ask for whom the session has not let in."""

    def __init__(self) -> None:
        super().__init__(IDENTITY, WALPosition(1, _BEGIN))
        self.session: WALSender | None = None

    def _check(self) -> None:
        assert self.session is not None
        assert self.session.phase is not SenderPhase.ENTERING, "asked for by a stranger"

    def open(self, timeline: int, start: LSN) -> Deferred[IWALCursor]:
        self._check()
        return super().open(timeline, start)

    def history(self, timeline: int) -> Deferred[TimelineHistory]:
        self._check()
        return super().history(timeline)

    def history_file(self, timeline: int) -> Deferred[bytes]:
        self._check()
        return super().history_file(timeline)

    def backup_history(self, start: LSN) -> Deferred[BackupHistoryFile | None]:
        self._check()
        return super().backup_history(start)


@implementer(IGate)
class _Locked:
    """Asks everybody for a password, which nobody knows who says random things."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def admit(self, applicant: Applicant) -> Deferred[Admission]:
        verifier = _VERIFIER if applicant.user == "postgres" else None
        server = ScramServerExchange(applicant.user, verifier, b"secret")
        return deferLater(self._clock, 0.1, ScramExchange, server, self._settle)

    def _settle(self, error: CommandError | None) -> Deferred[IPermit]:
        assert error is not None, "let in without the password"
        late: Any = deferLater(self._clock, 1.0, fail, error)
        settled: Deferred[IPermit] = late
        return settled


@contextmanager
def watched_sessions() -> Iterator[None]:
    """Sessions keep to their tables of phases, and nothing is logged of them that is a fault."""
    with (
        no_failure_logged(),
        checked_phases(Session, SENDER_TRANSITIONS, _OWN, SenderPhase.CLOSED),
        checked_phases(Entering, ENTRY_TRANSITIONS, _OWN_ENTRY),
    ):
        yield


def check_held(session: Session) -> None:
    """See that no more of a client's messages is kept than one may have."""
    held = held_bytes(session)
    if (entering := session.entering) is not None:
        held += held_bytes(entering._welcome) + len(entering._unread)
    assert held <= frontend_limit(ord("Q")) + 65536 + 5, f"{held} bytes of a message are kept"


class _Conversation(Conversation):
    """A client's conversation with a sender."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        variant = script.number()
        self._provider = _GuardedProvider()
        self._provider.append(_WAL)
        self._slots = MemorySlots()
        self._settings = SenderSettings(
            hold_ahead=60.0 if variant & 1 else 0.0,
            max_rate=16384 if variant & 2 else 0,
            delays={"late": 10.0} if variant & 4 else {},
            max_clients=1 if variant & 8 else 1000,
            wall_clock=self._clock.seconds,
            monotonic=self._clock.seconds,
        )
        self._is_locked = bool(variant & 16)
        self._factory = WALSenderFactory(
            self._provider,
            self._slots,
            self._settings,
            self._clock,
            gate=_Locked(self._clock) if self._is_locked else None,
        )
        self._factory.startFactory()
        session = self._factory.buildProtocol(None)
        assert session is not None
        self._session = self._provider.session = session
        self._transport.connect(session)

    def _check(self) -> None:
        unsent = len(self._transport.unread)
        assert unsent <= _MOST_UNSENT, f"{unsent} bytes wait for the client"
        check_held(self._session)
        assert len(self._provider.cursors) <= 1
        if self._is_locked:
            assert self._session.phase in (SenderPhase.ENTERING, SenderPhase.CLOSED), "let in"
            assert self._session.client is None

    def _close(self) -> None:
        if self._transport.connected:
            while self._transport.take():
                pass
        if self._transport.connected:
            self._transport.peer_closed()
            # While somebody finds out who it is, nothing is read: it is noticed behind that.
            for _ in range(20):
                self._transport.take()
                self._clock.advance(self._settings.close_timeout)
        assert not self._transport.connected, "it does not close"
        self._factory.drain(1.0)
        self._factory.stopFactory()
        no_timers(self._clock)
        assert self._session.phase is SenderPhase.CLOSED
        assert not self._factory.sessions
        assert self._provider.cursors == []
        for slot in self._slots.slots():
            assert slot.active_pid is None
            assert not slot.temporary

    # What a client does.

    def say_long(self) -> None:
        kind, size = self._script.number(), self._script.number() * 1024
        piece = self._script.piece() or b" "
        self._transport.deliver(frame(bytes([kind]), (piece * (size // len(piece) + 1))[:size]))

    def start_up(self) -> None:
        extra = self._script.piece().replace(b"\0", b"").decode("utf-8", "surrogateescape")
        name, _, value = extra.partition("=")
        self._transport.deliver(startup_message({**STARTUP, **({name: value} if name else {})}))

    def request(self) -> None:
        code = (SSL_REQUEST_CODE, GSSENC_REQUEST_CODE, CANCEL_REQUEST_CODE, 3 << 16, 2 << 16)[
            self._script.number() % 5
        ]
        body = code.to_bytes(4, "big") + self._script.piece()
        self._transport.deliver((len(body) + 4).to_bytes(4, "big") + body)

    def ask(self) -> None:
        self._transport.deliver(query(_COMMANDS[self._script.number() % len(_COMMANDS)]))

    def report(self) -> None:
        write, flush = self._script.number(), self._script.number()
        self._transport.deliver(
            status(_BEGIN + write * 0x800, _BEGIN + flush * 0x800, reply_requested=bool(write & 1))
        )

    def read(self) -> None:
        size = self._script.number()
        self._transport.take(size * 256 or None)

    def end(self) -> None:
        match self._script.number() % 4:
            case 0:
                self._transport.peer_closed(ConnectionDone)
            case 1:
                self._transport.peer_closed(ConnectionLost)
            case 2:
                self._factory.drain(5.0)
                return
            case 3:
                self._session.terminate()
                return
        self._ended = True

    def other(self) -> None:
        """What happens on our side."""
        provider, how = self._provider, self._script.number()
        match how % 6:
            case 0:
                provider.append(wal(provider.end().lsn, (how >> 3) * 512 + 8))
            case 1:
                if provider.end().timeline < 5:
                    provider.end_timeline()
            case 2:
                provider.drop_before(START + SIZE)
            case 3:
                provider.hold_back()
            case 4:
                provider.let_go()
            case 5:
                self._factory.cancel(self._session.pid, self._session.key or b"")


_DOES: tuple[Callable[[_Conversation], None], ...] = (
    _Conversation.say,
    _Conversation.say_frame,
    _Conversation.start_up,
    _Conversation.ask,
    _Conversation.report,
    _Conversation.read,
    _Conversation.wait,
    _Conversation.other,
    _Conversation.end,
    _Conversation.drip,
    _Conversation.request,
    _Conversation.say_long,
)
_OPCODE = {does: bytes([number]) for number, does in enumerate(_DOES)}


def _run(data: bytes) -> None:
    with watched_sessions():
        _Conversation(Script(data)).run(_DOES)


_says = partial(saying, _OPCODE[_Conversation.say])


def _seeds() -> Iterator[bytes]:
    do = _OPCODE.__getitem__
    start = do(_Conversation.start_up)
    for stream in client_streams():
        yield b"\0" + _says(stream[:1500]) + do(_Conversation.read) + b"\0"
    for number in range(len(_COMMANDS)):
        ask = do(_Conversation.ask) + bytes([number])
        yield b"\1" + start + b"\0" + ask + do(_Conversation.report) + b"\x09\x09" + ask
        yield b"\7" + start + b"\x15application_name=late" + ask + do(_Conversation.wait) + b"\5"
    for frame_ in client_frames()[:60]:
        if len(frame_.body) < 256:
            body = bytes([frame_.kind, len(frame_.body)]) + frame_.body
            yield b"\0" + start + b"\0" + do(_Conversation.say_frame) + body
    yield b"\0" + b"".join(do(_Conversation.request) + bytes([kind, 0]) for kind in range(5))
    for other in range(6):
        stream_ = start + b"\0" + do(_Conversation.ask) + b"\5"
        happens = do(_Conversation.other) + bytes([other])
        done = do(_Conversation.say_frame) + b"c\0" + do(_Conversation.read) + b"\0"
        yield b"\0" + stream_ + happens + done + happens
    first = sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc")
    final = sasl_response(b"c=biws,r=abc,p=" + b"A" * 43 + b"=")
    for user in (b"", b"user=nobody"):
        begun = start + bytes([len(user)]) + user + do(_Conversation.wait) + b"\3" + _says(first)
        yield b"\x10" + begun + _says(final) + do(_Conversation.wait) + b"\5"
    yield b"\0" + start + b"\0" + do(_Conversation.say_long) + b"Q\xff\1x" + do(_Conversation.end)


_P = "walstream.protocols."

TARGETS = (
    Target(
        "sender",
        _run,
        tuple(
            map(
                partial("{}{}".format, _P),
                (
                    "session",
                    "sender",
                    "welcome",
                    "entering",
                    "error_words",
                    "session_log",
                    "session_slot",
                    "line",
                    "outgoing",
                    "pump",
                    "answers",
                    "hold",
                    "patience",
                ),
            )
        ),
        _seeds,
        longest=1024,
    ),
)
