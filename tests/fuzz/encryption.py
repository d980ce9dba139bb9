"""Targets: how a connection comes to TLS, at both ends. The cryptography is a toy.

What is sent in the clear behind the switch must never be taken for the peer's (CVE-2021-23214,
CVE-2021-23222), and nothing may pass before the handshake is over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITLSTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.fuzz.watch import held_bytes, no_failure_logged, no_timers
from tests.unit.conversation import IDENTITY, NOW, START, MemorySlots
from walstream.errors import HandshakeFailed, ServerNotTrusted, WalstreamError
from walstream.formats.lsn import LSN
from walstream.interfaces import WALPosition
from walstream.protocols.opening import Opening
from walstream.protocols.phases import SenderPhase
from walstream.protocols.sender_factory import WALSenderFactory
from walstream.protocols.settings import SenderSettings
from walstream.testing.memory import MemoryProvider
from walstream.wire.encryption import Encryption, Subject
from walstream.wire.messages import query
from walstream.wire.startup import (
    GSSENC_REQUEST_CODE,
    SSL_REQUEST_CODE,
    startup_message,
)

_HELLO: Final = b"\x16\x03\x01"  # how TLS begins
_SIZE: Final = 8  # of the toy's handshake in bytes; the last one says what comes of it
_ENCRYPTION: Final = Encryption("TLSv1.3", "toy", 256, b"\x07" * 32)
_TIMES: Final = (0.0, 0.1, 1.0, 10.0, 61.0)


class _Context:
    """What comes of a handshake is what its last byte says."""

    is_verified = False

    def encryption(self, connection: Any) -> Encryption:
        if connection.outcome % 8 == 1:
            raise ValueError("SSL certificate's name contains embedded null")
        subject = Subject("inside", "CN=inside") if connection.outcome % 8 == 2 else None
        return Encryption("TLSv1.3", "toy", 256, None, subject)

    def finish(self, connection: Any) -> Encryption:
        if connection.outcome % 8 == 1:
            raise ServerNotTrusted("the server has no certificate")
        return _ENCRYPTION

    def chose_protocol(self, connection: Any) -> bool:
        return bool(connection.outcome & 16)

    def failure(self, connection: Any, error: BaseException) -> str:
        return str(error)


class _Server:
    context = _Context()


class _ToyTLS(Protocol):
    """In the place of `TLSMemoryBIOProtocol`: eight bytes of handshake, and then what is said."""

    def __init__(self, wrapped: Any, transport: _Transport) -> None:
        self.wrappedProtocol = wrapped  # Twisted's name
        self.outcome = -1
        self.said = b""
        self._line = transport

    def dataReceived(self, data: bytes) -> None:
        if self.outcome < 0:
            self.said += data
            if len(self.said) < _SIZE:
                return
            handshake, data = self.said[:_SIZE], self.said[_SIZE:]
            if not handshake.startswith(_HELLO) or handshake[-1] % 8 == 0:
                self._line.lose(Failure(SSL.Error([("", "", "wrong version number")])))
                return
            self.outcome = handshake[-1]
            self.wrappedProtocol.handshakeCompleted()
        if data and self._line.connected:
            self.wrappedProtocol.dataReceived(data)


class _Transport:
    """A socket's transport, as far as it matters here.

    :ivar clear: what was written before there was TLS.
    :ivar tls: what has been put on it, if it has.
    """

    def __init__(self, clock: Clock) -> None:
        self.connected = True
        self.protocol: Any = None
        self.clear = self.hidden = b""
        self.tls: _ToyTLS | None = None
        self._clock = clock
        self._paused = False
        self._inbox: list[bytes] = []
        directlyProvides(self, ITLSTransport)  # as far as it is asked for

    # The session calls.

    def startTLS(self, context: object) -> None:  # noqa: N802
        assert self.tls is None, "TLS on top of TLS"
        self.tls = self.protocol = _ToyTLS(self.protocol, self)

    def write(self, data: bytes) -> None:
        if not self.connected:
            return
        if self.tls is None:
            self.clear += data
        else:
            assert self.tls.outcome >= 0, "said before the handshake was over"
            self.hidden += data

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 5432)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 40001)

    def getHandle(self) -> object:
        return self.tls

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def registerProducer(self, producer: object, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False

    def loseConnection(self) -> None:
        self.lose(connectionDone)

    def abortConnection(self) -> None:
        self.lose(connectionDone)

    def lose(self, reason: Failure) -> None:
        """The connection is gone, which is told in the next turn."""
        if self.connected:
            self.connected = False
            self._clock.callLater(0, self._lost, reason)

    # The peer does.

    def deliver(self, data: bytes) -> None:
        """Something arrives, if it is read."""
        if data:
            self._inbox.append(data)
        while self._inbox and self.connected and not self._paused:
            self.protocol.dataReceived(self._inbox.pop(0))
            self._clock.advance(0)

    def _lost(self, reason: Failure) -> None:
        protocol = self.protocol if self.tls is None else self.tls.wrappedProtocol
        protocol.connectionLost(reason)


class _Client:
    """A client, or who is between it and us, says anything to a sender that has TLS."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._clock = Clock()
        self._clock.advance(NOW)
        self._factory = WALSenderFactory(
            MemoryProvider(IDENTITY, WALPosition(1, LSN(START))),
            MemorySlots(),
            SenderSettings(wall_clock=self._clock.seconds, monotonic=self._clock.seconds),
            self._clock,
            tls=None if script.number() & 1 else _Server(),
        )
        session: Any = self._factory.buildProtocol(None)
        self._session = session
        self._transport = _Transport(self._clock)
        self._transport.protocol = session
        session.makeConnection(self._transport)
        self._in_clear = b""

    def run(self) -> None:
        while self._script and self._transport.connected:
            self._do(self._script.number() % 9)
            self._check()
        self._transport.lose(Failure(ConnectionDone()))
        self._clock.advance(0)
        self._factory.drain(1.0)
        self._clock.advance(0)
        no_timers(self._clock)
        assert self._session.phase is SenderPhase.CLOSED
        assert not self._factory.sessions

    def _do(self, what: int) -> None:
        user = "clear" if self._transport.tls is None else "inside"
        match what:
            case 0:
                self._say(startup_message({"user": user, "replication": "true"}))
            case 1 | 2:
                code = (SSL_REQUEST_CODE, GSSENC_REQUEST_CODE)[what - 1]
                self._say((8).to_bytes(4, "big") + code.to_bytes(4, "big"))
            case 3:
                self._say(_HELLO + b"\0" * (_SIZE - 4) + bytes([self._script.number()]))
            case 4:
                self._say(self._script.piece())
            case 5:
                for byte in self._script.piece():
                    self._say(bytes([byte]))
            case 6:
                # Two things in one piece: who is in between puts its own behind the client's.
                request = (8).to_bytes(4, "big") + SSL_REQUEST_CODE.to_bytes(4, "big")
                injected = startup_message({"user": "clear", "replication": "true"})
                self._say(request + injected[: self._script.number() * 2 or None])
            case 7:
                self._say(query("IDENTIFY_SYSTEM"))
            case 8:
                self._clock.advance(_TIMES[self._script.number() % len(_TIMES)])

    def _say(self, data: bytes) -> None:
        self._transport.deliver(data)

    def _check(self) -> None:
        tls, entering = self._transport.tls, self._session.entering
        client, held = self._session.client, held_bytes(self._session)
        if entering is not None:
            client = entering._welcome.client
            held += held_bytes(entering._welcome) + len(entering._unread)
        assert held <= 10_000 + 65536, f"{held} bytes are kept"
        answers = self._transport.clear.count(b"S", 0, 2)
        if tls is None:
            assert not self._transport.hidden
            return
        assert answers <= 1, "two ways into TLS"
        if tls.outcome < 0:
            assert client is None, "taken before the handshake was over"
            return
        assert client is None or client.user != "clear", "what was sent in the clear is believed"
        if not answers and self._session.client is not None:
            assert tls.outcome & 16, "let in without ALPN"


class _Answer:
    """A server, or who is between it and us, answers a client that wants TLS."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._clock = Clock()
        self._direct = bool(script.number() & 1)
        self._opening = Opening(_Context(), self._direct)
        self._outcome: list[object] = []
        self._opening.done.addBoth(self._outcome.append)
        self._transport = _Transport(self._clock)
        self._transport.protocol = self._opening
        self._heard: list[bytes] = []
        self._opening.makeConnection(self._transport)  # type: ignore[no-untyped-call]

    def run(self) -> None:
        while self._script and self._transport.connected and not self._outcome:
            match self._script.number() % 6:
                case 0:
                    self._transport.deliver(b"S")
                case 1:
                    self._transport.deliver(b"N")
                case 2:
                    self._transport.deliver(self._script.piece())
                case 3:
                    hello = _HELLO + b"\0" * (_SIZE - 4) + bytes([self._script.number()])
                    self._transport.deliver(hello)
                case 4:
                    self._transport.deliver(b"S" + self._script.piece())
                case 5:
                    if self._script.number() & 1:
                        self._opening.done.cancel()
                    self._transport.lose(Failure(ConnectionDone()))
            self._clock.advance(0)
        self._finish()

    def _finish(self) -> None:
        if not self._outcome:
            self._transport.lose(Failure(ConnectionDone()))
            self._clock.advance(0)
        (outcome,) = self._outcome
        tls = self._transport.tls
        if isinstance(outcome, Failure):
            assert (
                outcome.check(WalstreamError)
                or not outcome.check(Exception)
                or _is_cancelled(outcome)
            ), outcome
            if tls is None:
                assert not outcome.check(HandshakeFailed)
        elif outcome is None:
            assert tls is None, "in the clear, behind S"
            assert not self._direct
        else:
            assert tls is not None and tls.outcome >= 0, "said to be encrypted"
        no_timers(self._clock)


def _is_cancelled(failure: Failure) -> bool:
    return failure.check(CancelledError) is not None


def _run_sender(data: bytes) -> None:
    with no_failure_logged():
        _Client(Script(data)).run()


def _run_opening(data: bytes) -> None:
    with no_failure_logged():
        _Answer(Script(data)).run()


def _sender_seeds() -> Iterator[bytes]:
    for outcome in (1, 2, 3, 8, 17, 18, 19):
        hello = b"\x03" + bytes([outcome])
        for rest in (b"\0", b"\0\7", b"\1", b"\x06\0", b"\x05\x04abcd", b"\x08\4"):
            yield b"\0" + hello + rest
            yield b"\0\1" + hello + rest
            yield b"\0\2\1" + hello + rest
            yield b"\0\1\2" + hello + rest
    for variant in b"\0", b"\1":
        yield variant + b"\x06\0"
        yield variant + b"\x06\4\3\x13\0"
        yield variant + b"\0\7\1"
        yield variant + b"\1\0\x08\4"
        yield variant + b"\4\1\x16\4\2\3\1\4\5\0\0\0\0\x13\0"
        yield variant + b"\2\2\1\1"


def _opening_seeds() -> Iterator[bytes]:
    for outcome in (0, 1, 2, 3, 19):
        yield b"\0\0\3" + bytes([outcome])
        yield b"\1\3" + bytes([outcome])
    for answer in (b"\1", b"\2\1E", b"\2\1x", b"\4\2xx", b"\2\2NN", b"\5\0", b"\5\1", b"\0\5\0"):
        yield b"\0" + answer
        yield b"\1" + answer


_P = "walstream.protocols."
_RUN: tuple[Callable[[bytes], object], ...] = (_run_sender, _run_opening)

TARGETS = (
    Target(
        "tls-client",
        _RUN[0],
        tuple(_P + name for name in ("encrypting", "handshake", "turns", "welcome", "entering")),
        _sender_seeds,
        (b"\x16\3\1", b"\0\0\0\x08\x04\xd2\x16\x2f", b"\0\0\0\x08\x04\xd2\x16\x30", b"user\0"),
        256,
    ),
    Target("tls-server", _RUN[1], (_P + "opening",), _opening_seeds, (b"\x16\3\1",), 128),
)
