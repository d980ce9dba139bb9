"""`FlowTransport`: a transport in memory that pauses, resumes and closes as TCP and TLS do.

`twisted.internet.testing.StringTransport` and `iosim` never pause a producer, and close when they
are told to. Real transports do neither: see the pauses on every write past the mark, the two ways
in which ``loseConnection`` waits for a producer, the reads that still arrive after a pause. So
this transport is made of Twisted's own classes, `twisted.internet.tcp.Connection` and
`twisted.protocols.tls.BufferingTLSTransport`; only what is below them, the socket and the reactor,
and for TLS the cryptography, is in memory and in the test's hands.

What it does not have is the kernel's buffers: nothing that is written leaves the transport before
the test, as the peer, takes it. On a real connection the first some hundred kilobytes leave at
once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, Literal, Protocol, TypeVar, cast

from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHandshakeListener,
    IProducer,
    IProtocol,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.testing.sockets import MemorySocket, Turns

__all__ = ["FlowTransport"]

P = TypeVar("P", bound=IProtocol)

_HOST = IPv4Address("TCP", "127.0.0.1", 5432)
_PEER = IPv4Address("TCP", "127.0.0.1", 40001)


class _Peer(Protocol):
    """What the two kinds of peer have in common."""

    handshake: bytes
    close_notify: bytes
    plain: bytearray
    closed: bool

    def encode(self, data: bytes) -> bytes: ...
    def absorb(self, wire: bytes) -> None: ...
    def peek(self, wire: bytes) -> bytes: ...
    def appetite(self, wire: bytes, wanted: int) -> int: ...


class _TCPPeer:
    """The peer of a plain connection: the bytes on the wire are the data."""

    handshake = close_notify = b""
    closed = False

    def __init__(self) -> None:
        self.plain = bytearray()

    def encode(self, data: bytes) -> bytes:
        return data

    def absorb(self, wire: bytes) -> None:
        self.plain += wire

    def peek(self, wire: bytes) -> bytes:
        return wire

    def appetite(self, wire: bytes, wanted: int) -> int:
        return max(0, wanted - len(self.plain))


class _Connection(tcp.Connection):
    """Twisted's TCP transport over a socket in memory."""

    def __init__(self, memory: MemorySocket, protocol: IProtocol, turns: Turns) -> None:
        super().__init__(cast(Any, memory), protocol, cast(Any, turns))
        self.connected = 1
        turns.unsent = self.unsent

    def unsent(self) -> bytes:
        # The one look into Twisted's private data: its two write buffers, which it never shows.
        return b"".join([self.dataBuffer[self.offset :], *self._tempDataBuffer])


@implementer(IHandshakeListener)
class _Relay(TwistedProtocol):
    """Passes Twisted's calls on to the protocol under test, which sees the `FlowTransport`."""

    target: IProtocol | None = None

    def dataReceived(self, data: bytes) -> None:
        if self.target is not None:
            self.target.dataReceived(data)

    def handshakeCompleted(self) -> None:
        listener = IHandshakeListener(self.target, None)
        if listener is not None:
            listener.handshakeCompleted()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.target is not None:
            self.target.connectionLost(reason)


@implementer(ITCPTransport, ISystemHandle, IConsumer, IPushProducer)
class FlowTransport:
    """A connection whose one end is the protocol under test and whose other end is the test.

    The first half of the methods is the transport's, as the protocol calls them. The second half
    is the test's: `connect`, `deliver`, `take`, `peer_closed`, `turn`.

    :ivar clock: the time of the connection; what Twisted does in the reactor's next turn happens
        when it is advanced, also by 0.
    :ivar aborted: the protocol has called ``abortConnection``.
    :ivar paused: the protocol has called ``pauseProducing`` and not yet ``resumeProducing``.
    :ivar mute: a TLS peer that never answers the closing handshake.
    """

    def __init__(
        self,
        kind: Literal["tcp", "tls"] = "tcp",
        clock: Clock | None = None,
        *,
        buffer_size: int = 2**16,
        handshake: bool = True,
        host: IPv4Address = _HOST,
        peer: IPv4Address = _PEER,
    ) -> None:
        """Make a connection of one *kind*.

        :param buffer_size: bytes; the mark above which a producer is paused, and the size of a
            read from the socket. Twisted has 64 KiB.
        :param handshake: whether `connect` completes the TLS handshake; as on a real transport it
            is not complete yet in ``connectionMade``. If not, `finish_handshake` does.
        """
        self.clock = clock if clock is not None else Clock()
        self.aborted = self.paused = self.mute = False
        self._addresses = host, peer
        self._handshake = handshake
        self._wanted = 0
        self._relay = _Relay()
        self._socket = MemorySocket(self._room, self._absorb)
        self._turns = Turns(self.clock, self._socket)
        self._turns.drained = self._drained
        self._peer: _Peer = _TCPPeer()
        # Any: Twisted's TLS transport has most of its methods by __getattr__ only.
        self._transport: Any
        if kind == "tcp":
            self._transport = self._tcp = _Connection(self._socket, self._relay, self._turns)
        else:
            self._transport = self._start_tls()
        self._tcp.bufferSize = buffer_size

    def _start_tls(self) -> object:
        # Imported here: it needs pyOpenSSL, and TCP does not.
        from twisted.protocols.tls import TLSMemoryBIOFactory

        from walstream.testing.plain_tls import PlainTLSCreator, TLSPeer

        self._peer = TLSPeer()
        factory = TLSMemoryBIOFactory(PlainTLSCreator(), False, Factory(), cast(Any, self.clock))
        transport = factory.protocol(factory, self._relay)
        self._tcp = _Connection(self._socket, transport, self._turns)
        transport.makeConnection(self._tcp)  # type: ignore[no-untyped-call]
        return transport

    # What the protocol calls.

    def write(self, data: bytes) -> None:
        """As `twisted.internet.interfaces.ITransport`; TypeError for anything but bytes."""
        self._transport.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """As `twisted.internet.interfaces.ITransport`; on TCP a generator sends nothing."""
        self._transport.writeSequence(iovec)

    def loseConnection(self) -> None:
        """As `twisted.internet.interfaces.ITransport`."""
        self._transport.loseConnection()

    def loseWriteConnection(self) -> None:
        """As `twisted.internet.interfaces.ITCPTransport`."""
        self._transport.loseWriteConnection()

    def abortConnection(self) -> None:
        """As `twisted.internet.interfaces.ITCPTransport`; done when the clock moves."""
        self.aborted = True
        self._transport.abortConnection()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """As `twisted.internet.interfaces.IConsumer`."""
        self._transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """As `twisted.internet.interfaces.IConsumer`."""
        self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Stop reading from the peer."""
        self.paused = True
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on reading from the peer, when the clock moves."""
        self.paused = False
        self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """As `twisted.internet.interfaces.IProducer`: close the connection."""
        self._transport.stopProducing()

    def getHost(self) -> IPv4Address:
        """Our address."""
        return self._addresses[0]

    def getPeer(self) -> IPv4Address:
        """The peer's address."""
        return self._addresses[1]

    def getHandle(self) -> object:
        """The socket, or the TLS connection; in memory both."""
        return self._transport.getHandle()

    def getTcpNoDelay(self) -> bool:
        """As `twisted.internet.interfaces.ITCPTransport`."""
        return bool(self._transport.getTcpNoDelay())

    def setTcpNoDelay(self, enabled: bool) -> None:
        """As `twisted.internet.interfaces.ITCPTransport`."""
        self._transport.setTcpNoDelay(enabled)

    def getTcpKeepAlive(self) -> bool:
        """As `twisted.internet.interfaces.ITCPTransport`."""
        return bool(self._transport.getTcpKeepAlive())

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """As `twisted.internet.interfaces.ITCPTransport`."""
        self._transport.setTcpKeepAlive(enabled)

    @property
    def bufferSize(self) -> int:
        """The mark and the read size; on TLS setting it changes neither, as with Twisted's."""
        return int(self._transport.bufferSize)

    @bufferSize.setter
    def bufferSize(self, size: int) -> None:
        self._transport.bufferSize = size

    @property
    def connected(self) -> bool:
        """Whether ``connectionLost`` is still to come."""
        return bool(self._transport.connected)

    @property
    def disconnecting(self) -> bool:
        """Whether ``loseConnection`` was called and took effect."""
        return bool(self._transport.disconnecting)

    # What the test calls.

    def connect(self, protocol: P) -> P:
        """Make the connection: *protocol* has ``connectionMade``, then the handshake completes."""
        self._relay.target = protocol
        self._tcp.startReading()  # type: ignore[no-untyped-call]
        protocol.makeConnection(self)
        if self._handshake:
            self.finish_handshake()
        return protocol

    def finish_handshake(self) -> None:
        """The peer's part of the TLS handshake arrives."""
        self._receive(self._peer.handshake)

    def deliver(self, data: bytes) -> None:
        """The peer sends *data*: it arrives now, or is queued for as long as reading is paused.

        Sent in order after what is queued, and lost when the connection is.
        """
        self._receive(self._peer.encode(data))

    def take(self, size: int | None = None) -> bytes:
        """The peer reads *size* bytes, or whatever was written until now, and gives them.

        When nothing is left to read, a paused producer is resumed; what it writes then is not
        read by this call. A connection that waits for its last bytes to leave is closed.
        """
        self.turn()
        self._wanted = sys.maxsize if size is None else size
        self._turns.run()
        self._drained()
        taken = bytes(self._peer.plain[:size])
        del self._peer.plain[:size]
        return taken

    def peer_closed(
        self, reason: type[ConnectionDone] | type[ConnectionLost] = ConnectionDone
    ) -> None:
        """The peer closes in order, or with ConnectionLost resets the connection.

        As with a real one, the protocol hears of it only while the transport reads or writes.
        """
        if reason is ConnectionLost:
            self._socket.reset = True
        elif self._peer.close_notify:
            self._socket.deaf = True
            self._socket.inbox += self._peer.close_notify
        else:
            self._socket.ended = True
        self.turn()

    def turn(self) -> None:
        """Let everything happen that is due, as the reactor does when it is idle."""
        self._turns.schedule()
        self.clock.advance(0)

    @property
    def unread(self) -> bytes:
        """What the transport holds for the peer. A small TLS write joins it with the next turn."""
        return bytes(self._peer.plain) + self._peer.peek(self._tcp.unsent())

    @property
    def unreceived(self) -> int:
        """How many bytes on the wire the transport has not received, for reading is paused."""
        return len(self._socket.inbox)

    @property
    def peer_saw(self) -> Literal["open", "end", "reset"]:
        """How the connection looks from the peer's side."""
        if not self._socket.closed:
            return "open"
        return "reset" if self._socket.aborted else "end"

    def _receive(self, wire: bytes) -> None:
        if not self._socket.ended and not self._socket.deaf:
            self._socket.inbox += wire
        self.turn()

    def _room(self) -> int:
        return self._peer.appetite(self._tcp.unsent(), self._wanted)

    def _absorb(self, wire: bytes) -> None:
        was_closed = self._peer.closed
        self._peer.absorb(wire)
        if self._peer.closed and not was_closed and not self.mute:
            self._socket.inbox += self._peer.close_notify

    def _drained(self) -> None:
        self._wanted = 0
