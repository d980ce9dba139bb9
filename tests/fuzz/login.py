"""Target: a client at the real gate, with a password that it knows, or a certificate, or neither.

It says the right thing, or nearly. Whoever is let in has to have proved what its rule wants.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from tests.fuzz.conversation import Conversation
from tests.fuzz.script import Script
from tests.fuzz.sender import check_held, watched_sessions
from tests.fuzz.target import Target
from tests.fuzz.watch import no_timers
from tests.unit.conversation import IDENTITY, START, STARTUP, MemorySlots
from walstream.access.gate import AccessGate
from walstream.access.policy import AccessFiles
from walstream.access.role_store import RoleStore
from walstream.access.throttle import Throttle
from walstream.errors import ProtocolViolation
from walstream.formats.lsn import LSN
from walstream.formats.role_file import Role, parse_limits, with_role
from walstream.interfaces import WALPosition
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.settings import SenderSettings
from walstream.testing.memory import MemoryProvider
from walstream.wire.encryption import Encryption, Subject
from walstream.wire.frames import Frame, FrameReader, frame
from walstream.wire.messages import query, sasl_initial_response, sasl_response
from walstream.wire.scram_verifier import ScramVerifier
from walstream.wire.startup import startup_message

T = TypeVar("T")

_PASSWORD: Final = b"pencil"
_NONCE: Final = b"rOprNGfwEbeRWgbNEkqO"
_END_POINT: Final = b"\x07" * 32
_RULES: Final = """
host    replication good,late,nobody  all  scram-sha-256
hostssl replication trusted  all  trust
hostssl replication certified  all  cert
hostssl replication both  all  scram-sha-256 clientcert=verify-full
host    replication turned_away  all  reject
local   replication all  peer
"""
_USERS: Final = ("good", "late", "nobody", "trusted", "certified", "both", "turned_away", "x")
_BY_PASSWORD: Final = ("good", "late", "both")
_BY_CERTIFICATE: Final = ("certified", "both")
_IN: Final = ("READY", "ANSWERING", "STREAMING", "SKIPPING")


class _Lane:
    """Has no threads."""

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        return maybeDeferred(job)

    def close(self) -> Deferred[None]:
        return maybeDeferred(lambda: None)


class _Now(Clock):
    """The time of the conversation of this moment: all have one gate."""

    clock = Clock()

    def seconds(self) -> float:
        return self.clock.seconds()

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        return self.clock.callLater(delay, callable, *args, **kw)


@cache
def _gate() -> tuple[AccessGate, _Now, TemporaryDirectory[str]]:
    """The gate, its time, and the directory of its files, for as long as the process lives."""
    directory = TemporaryDirectory(prefix="walstream-fuzz-")
    hba, roles = Path(directory.name, "hba"), Path(directory.name, "roles")
    hba.write_text(_RULES)
    store = RoleStore(str(roles))
    verifier = str(ScramVerifier.of(_PASSWORD.decode(), iterations=4096, salt=b"0123456789abcdef"))
    for name, limits in (("good", ()), ("late", ("timelines=2-",)), ("both", ("connections=0",))):
        role = Role(name, verifier, parse_limits(limits))
        store.change(partial(_with_role, role, store.path))
    now = _Now()
    gate = AccessGate(
        AccessFiles(str(hba), None, str(roles)),
        now,
        _Lane(),
        _Lane(),
        has_tls=True,
        has_authorities=True,
        near=lambda: (),
    )
    opened = gate.open()
    assert opened.called, "nothing of it waits"
    return gate, now, directory


def _with_role(role: Role, path: str, text: str) -> str:
    return with_role(text, role, path)


@cache
def _salted(salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", _PASSWORD, salt, iterations)


class _Prover:
    """A client's side of SCRAM (RFC 5802), with the right password."""

    def __init__(self, *, binds: bool) -> None:
        self._header = b"p=tls-server-end-point,," if binds else b"n,,"
        self._binding = self._header + (_END_POINT if binds else b"")
        self._mechanism = "SCRAM-SHA-256-PLUS" if binds else "SCRAM-SHA-256"
        self._bare = b"n=,r=" + _NONCE

    def first(self) -> bytes:
        return sasl_initial_response(self._mechanism, self._header + self._bare)

    def final(self, server_first: bytes) -> bytes:
        fields = dict(part.split(b"=", 1) for part in server_first.split(b","))
        key = hmac.digest(
            _salted(b64decode(fields[b"s"]), int(fields[b"i"])), b"Client Key", "sha256"
        )
        bare = b"c=" + b64encode(self._binding) + b",r=" + fields[b"r"]
        said = b",".join((self._bare, server_first, bare))
        signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return sasl_response(bare + b",p=" + b64encode(proof))


class _Conversation(Conversation):
    """One client at the gate."""

    times = (0.0, 0.25, 0.5, 1.0, 5.0, 31.0, 61.0)

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        variant = script.number()
        self._user = _USERS[variant % len(_USERS)]
        self._is_encrypted = bool(variant & 8)
        shows = ("", "certified", "both", "other")[variant >> 4 & 3] if self._is_encrypted else ""
        self._shows = shows
        gate, now, _ = _gate()
        now.clock = self._clock
        gate._throttle = Throttle(self._clock.seconds)
        self._settings = SenderSettings(
            max_clients=1 if variant & 64 else 0,
            wall_clock=self._clock.seconds,
            monotonic=self._clock.seconds,
        )
        self._factory = WALSenderFactory(
            MemoryProvider(IDENTITY, WALPosition(1, LSN(START))),
            MemorySlots(),
            self._settings,
            self._clock,
            gate=gate,
        )
        session = self._factory.buildProtocol(None)
        assert session is not None
        self._session = session
        entering = session.entering
        assert entering is not None
        if self._is_encrypted:
            subject = Subject(shows, f"CN={shows}") if shows else None
            entering._encrypting.encryption = Encryption("TLSv1.3", "", 256, _END_POINT, subject)
        self._transport.connect(session)
        self._frames = FrameReader(lambda _: 1 << 20)
        self._prover = _Prover(binds=self._is_encrypted)
        self._asked: list[Frame] = []
        self._has_proved = self._is_spoilt = False

    def _check(self) -> None:
        check_held(self._session)
        if self._session.client is None:
            assert self._session.phase.name not in _IN
            return
        user = self._session.client.user
        if user in _BY_PASSWORD:
            assert self._has_proved and not self._is_spoilt, "let in without the password"
        if user in _BY_CERTIFICATE:
            assert self._shows == user, "let in without the certificate"
        assert user in (*_BY_PASSWORD, *_BY_CERTIFICATE, "trusted"), "let in"
        assert user != "trusted" or self._is_encrypted, "let in by a rule for others"

    def _close(self) -> None:
        for _ in range(20):
            self._transport.peer_closed(ConnectionDone)
            self._transport.take()
            self._clock.advance(self._settings.close_timeout)
        assert not self._transport.connected, "it does not close"
        self._factory.drain(1.0)
        no_timers(self._clock)
        assert not self._factory.sessions
        places: Any = _gate()[0]._places
        assert not places._counts, "it still has its place"

    def _spoil(self) -> None:
        """What is said now is wrong, if it is a part of the login."""
        self._is_spoilt = self._is_spoilt or self._session.client is None

    def _listen(self) -> None:
        self._frames.feed(self._transport.take())
        # The answer to an SSLRequest is no message, nor is an error in the form of protocol 2.
        with suppress(ProtocolViolation):
            while (said := self._frames.next()) is not None:
                if said.kind == ord("R"):
                    self._asked.append(said)

    # What a client does.

    def start_up(self) -> None:
        extra = self._script.piece().replace(b"\0", b"").decode("utf-8", "surrogateescape")
        name, _, value = extra.partition("=")
        parameters = {**STARTUP, "user": self._user, **({name: value} if name else {})}
        self._transport.deliver(startup_message(parameters))

    def prove(self) -> None:
        """The right answer to what was asked last."""
        self._prove(lambda answer: answer)

    def nearly_prove(self) -> None:
        """One that is wrong in one place."""
        at, what = self._script.number(), self._script.number() or 1

        def spoil(answer: bytes) -> bytes:
            place = 5 + at % (len(answer) - 5)
            return answer[:place] + bytes([answer[place] ^ what]) + answer[place + 1 :]

        self._prove(spoil, is_right=False)

    def lengthen(self) -> None:
        """One that is right, and goes on."""
        more = self._script.piece() or b"x"
        self._prove(lambda answer: frame(answer[:1], answer[5:] + more), is_right=False)

    def _prove(self, change: Callable[[bytes], bytes], *, is_right: bool = True) -> None:
        self._listen()
        if not self._asked:
            return
        if not is_right:
            self._spoil()
        asked = self._asked.pop(0).body
        code, data = int.from_bytes(asked[:4], "big"), asked[4:]
        if code == 10:
            self._transport.deliver(change(self._prover.first()))
        elif code == 11 and data.count(b"i="):
            self._has_proved = True
            self._transport.deliver(change(self._prover.final(data)))

    def say(self) -> None:
        if piece := self._script.piece():
            self._spoil()
            self._transport.deliver(piece)

    def say_frame(self) -> None:
        self._spoil()
        super().say_frame()

    def ask(self) -> None:
        text = ("IDENTIFY_SYSTEM", "START_REPLICATION 0/300000 TIMELINE 1")
        self._spoil()
        self._transport.deliver(query(text[self._script.number() % len(text)]))

    def wait(self) -> None:
        self._listen()
        super().wait()
        self._listen()

    def end(self) -> None:
        if self._script.number() % 2:
            self._factory.drain(5.0)
        else:
            self._transport.peer_closed(ConnectionDone)
            self._ended = True


_DOES: tuple[Callable[[_Conversation], None], ...] = (
    _Conversation.start_up,
    _Conversation.prove,
    _Conversation.nearly_prove,
    _Conversation.lengthen,
    _Conversation.say_frame,
    _Conversation.wait,
    _Conversation.say,
    _Conversation.ask,
    _Conversation.end,
)


def _run(data: bytes) -> None:
    with watched_sessions():
        _Conversation(Script(data)).run(_DOES)


def _seeds() -> Iterator[bytes]:
    do = {does: bytes([number]) for number, does in enumerate(_DOES)}.__getitem__
    start, prove = do(_Conversation.start_up) + b"\0", do(_Conversation.prove)
    ask = do(_Conversation.ask)
    for variant in range(128):
        yield bytes([variant]) + start + prove * 2 + ask + b"\0" + ask + b"\1"
    for variant in (0, 1, 2, 8, 0x2D):
        begun = bytes([variant]) + start
        wait = do(_Conversation.wait) + b"\3"
        for place in (0, 1, 14, 20, 40, 60):
            spoil = do(_Conversation.nearly_prove) + bytes([place, 1])
            yield begun + spoil + prove + wait
            yield begun + prove + spoil + wait + prove
        more = do(_Conversation.lengthen) + b"\2,x"
        yield begun + more + prove + wait
        yield begun + prove + more + wait
        yield begun + prove + do(_Conversation.end) + b"\0"
        yield begun + do(_Conversation.say_frame) + b"p\x0eSCRAM-SHA-256\0" + wait
        yield begun + do(_Conversation.say_frame) + b"Q\1\0" + wait
        yield begun + do(_Conversation.wait) + b"\6"


_P = "walstream."

TARGETS = (
    Target(
        "login",
        _run,
        tuple(
            _P + name
            for name in (
                "access.gate",
                "access.permit",
                "access.proof",
                "access.scram",
                "access.throttle",
                "protocols.entering",
                "protocols.session",
                "protocols.welcome",
                "wire.scram_server",
            )
        ),
        _seeds,
        (b"user=good", b"user=both", b"SCRAM-SHA-256\0", b"SCRAM-SHA-256-PLUS\0", b"n,,n=,r="),
        512,
    ),
)
