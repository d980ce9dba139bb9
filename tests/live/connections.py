"""Two connections with one face: `FlowTransport`'s, and a real one on loopback.

A scenario drives either of them and cannot tell which; what the protocol and the producer under
test were told is in `Connection.events`.
"""

from __future__ import annotations

import abc
import datetime
import ipaddress
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor, ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.testing.transport import FlowTransport

Kind = Literal["tcp", "tls"]

PATIENCE_SECONDS = 30.0
# A real connection is quiet when nothing has happened in so many turns of the reactor, at least
# so long apart. Both ends live in one reactor, so that a slow machine slows the counting too.
QUIET_TURNS = 8
QUIET_SECONDS = 0.004


@implementer(IHandshakeListener)
class Subject(Protocol):
    """The protocol under test: records what it is told, and does what a scenario wants."""

    def __init__(self, events: list[object]) -> None:
        self.events = events
        self.lost = False
        self.ready: Deferred[None] = Deferred()
        self.on_made: Callable[[], None] = lambda: None
        self.on_data: Callable[[bytes], None] = lambda data: None

    def connectionMade(self) -> None:
        self.on_made()

    def handshakeCompleted(self) -> None:
        self.ready.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.events.append(("data", len(data)))
        self.on_data(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        self.events.append(("lost", type(reason.value).__name__))


@implementer(IPushProducer)
class Producer:
    """The producer under test: records what it is told."""

    def __init__(self, events: list[object]) -> None:
        self.events = events
        self.on_resume: Callable[[], None] = lambda: None

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")
        self.on_resume()

    def stopProducing(self) -> None:
        self.events.append("stop")


class Connection(abc.ABC):
    """The connection of a scenario.

    :ivar transport: the transport under test, as its protocol has it.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.events: list[object] = []
        self.subject = Subject(self.events)
        self.producer = Producer(self.events)

    @property
    def transport(self) -> Any:
        return self.subject.transport

    @abc.abstractmethod
    async def open(self) -> None:
        """Connect; the peer reads nothing but the handshake."""

    @abc.abstractmethod
    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait until something is so."""

    @abc.abstractmethod
    async def quiet(self) -> None:
        """Wait until nothing happens any more."""

    @abc.abstractmethod
    async def peer_reads(self, total: int) -> None:
        """The peer reads until it has had about *total* bytes since the start."""

    @abc.abstractmethod
    def peer_listens(self) -> None:
        """The peer reads whatever comes, from now on."""

    @abc.abstractmethod
    async def peer_sends(self, data: bytes) -> None:
        """The peer sends; all of it has left when this returns."""

    @abc.abstractmethod
    def peer_closes(self) -> None:
        """The peer closes in order."""

    @abc.abstractmethod
    def peer_resets(self) -> None:
        """The peer resets the connection."""

    @property
    @abc.abstractmethod
    def peer_got(self) -> bytes:
        """What the peer has read."""

    @abc.abstractmethod
    async def end(self) -> None:
        """Leave nothing behind."""

    async def lost(self) -> None:
        await self.until(lambda: self.subject.lost)


class DoubleConnection(Connection):
    """A `FlowTransport`."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self._flow = FlowTransport(kind)
        self._got = bytearray()
        self._listens = False
        # What a peer that never reads does about a closing handshake.
        self._flow.mute = True

    async def open(self) -> None:
        self._flow.connect(self.subject)
        self._flow.turn()

    async def until(self, happened: Callable[[], bool]) -> None:
        await self.quiet()
        assert happened(), self.events

    async def quiet(self) -> None:
        self._flow.turn()
        while self._listens and self._flow.unread:
            self._got += self._flow.take()

    async def peer_reads(self, total: int) -> None:
        self._got += self._flow.take(total - len(self._got))

    def peer_listens(self) -> None:
        self._listens = True
        self._flow.mute = False

    async def peer_sends(self, data: bytes) -> None:
        self._flow.deliver(data)

    def peer_closes(self) -> None:
        self._flow.peer_closed()

    def peer_resets(self) -> None:
        self._flow.peer_closed(ConnectionLost)

    @property
    def peer_got(self) -> bytes:
        return bytes(self._got)

    async def end(self) -> None:
        assert self._flow.clock.getDelayedCalls() == []


@implementer(IHandshakeListener)
class _Peer(Protocol):
    """The other end of a real connection."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.wanted = 0
        self.sent = True
        self.lost = False
        self.ready: Deferred[None] = Deferred()

    def handshakeCompleted(self) -> None:
        self.ready.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.got += data
        if len(self.got) >= self.wanted:
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True

    # A producer of one piece, to learn when it has left.

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        self.sent = True

    def stopProducing(self) -> None:
        pass


class RealConnection(Connection):
    """Twisted's own transports over loopback; the transport under test is the server's."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(kind)
        self._peer = _Peer()
        self._port: Any = None

    async def open(self) -> None:
        factory: Any = Factory.forProtocol(lambda: self.subject)
        if self.kind == "tls":
            factory = TLSMemoryBIOFactory(_certificate().options(), False, factory)
        server = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self._port = await server.listen(factory)
        client: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", self._port.getHost().port)
        if self.kind == "tls":
            client = wrapClientTLS(ssl.optionsForClientTLS("localhost", _certificate()), client)
        await client.connect(Factory.forProtocol(lambda: self._peer))
        if self.kind == "tls":
            await self.until(lambda: self._peer.ready.called or self._peer.lost)
            await self.until(lambda: self.subject.ready.called or self.subject.lost)
        else:
            await self.until(lambda: self.subject.connected == 1)
        self._peer.transport.pauseProducing()  # type: ignore[union-attr]

    async def until(self, happened: Callable[[], bool]) -> None:
        give_up = reactor.seconds() + PATIENCE_SECONDS
        while not happened():
            assert reactor.seconds() < give_up, self.events
            await deferLater(reactor, 0.001)

    async def quiet(self) -> None:
        turns, seen = 0, (0, 0)
        while turns < QUIET_TURNS:
            await deferLater(reactor, QUIET_SECONDS)
            now = (len(self.events), len(self._peer.got))
            turns, seen = (turns + 1, seen) if now == seen else (0, now)

    async def peer_reads(self, total: int) -> None:
        self._peer.wanted = total
        self._peer.transport.resumeProducing()  # type: ignore[union-attr]
        await self.until(lambda: len(self._peer.got) >= total)

    def peer_listens(self) -> None:
        self._peer.wanted = 2**62
        self._peer.transport.resumeProducing()  # type: ignore[union-attr]

    async def peer_sends(self, data: bytes) -> None:
        transport: Any = self._peer.transport
        self._peer.sent = False
        transport.registerProducer(self._peer, True)
        # More than the mark, so that the transport says when all of it has left.
        assert len(data) > transport.bufferSize
        transport.write(data)
        await self.until(lambda: self._peer.sent)
        transport.unregisterProducer()

    def peer_closes(self) -> None:
        self._peer.transport.loseConnection()  # type: ignore[union-attr]

    def peer_resets(self) -> None:
        self._peer.transport.abortConnection()  # type: ignore[union-attr]

    @property
    def peer_got(self) -> bytes:
        return bytes(self._peer.got)

    async def end(self) -> None:
        await self._port.stopListening()
        for protocol in (self._peer, self.subject):
            transport: Any = protocol.transport
            if transport is not None and not protocol.lost:
                transport.abortConnection()
        await self.quiet()


@cache
def _certificate() -> ssl.PrivateCertificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM) + private
    loaded: ssl.PrivateCertificate = ssl.PrivateCertificate.loadPEM(pem)
    return loaded
