"""What `FlowTransport` is made of: Twisted's TCP transport in memory, and the face it shows.

`MemoryConnection` is the transport itself, `TransportFace` the ITCPTransport that a protocol sees
of it or of the TLS transport on top of it, `Relay` what Twisted sees of the protocol, and
`TCPPeer` the other end. When anything happens is not decided here but in
`walstream.testing.sockets`, and by the test.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, cast

from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import (
    IConsumer,
    IHandshakeListener,
    IProducer,
    IProtocol,
    IPushProducer,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.testing.sockets import MemorySocket, Turns

__all__ = ["MemoryConnection", "Peer", "Relay", "TCPPeer", "TransportFace"]


class Peer(Protocol):
    """What the two kinds of peer have in common."""

    handshake: bytes
    close_notify: bytes
    plain: bytearray
    closed: bool

    def encode(self, data: bytes) -> bytes: ...
    def absorb(self, wire: bytes) -> None: ...
    def peek(self, wire: bytes) -> bytes: ...
    def appetite(self, wire: bytes, wanted: int) -> int: ...


class TCPPeer:
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


class MemoryConnection(tcp.Connection):
    """Twisted's TCP transport over a socket in memory."""

    aborted = paused = False

    def __init__(
        self,
        memory: MemorySocket,
        protocol: IProtocol,
        turns: Turns,
        addresses: tuple[IPv4Address, IPv4Address],
    ) -> None:
        super().__init__(cast(Any, memory), protocol, cast(Any, turns))
        self._addresses = addresses
        self.connected = 1
        turns.unsent = self.unsent

    def unsent(self) -> bytes:
        # The one look into Twisted's private data: its two write buffers, which it never shows.
        return b"".join([self.dataBuffer[self.offset :], *self._tempDataBuffer])

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()  # type: ignore[no-untyped-call]

    def pauseProducing(self) -> None:
        self.paused = True
        super().pauseProducing()  # type: ignore[no-untyped-call]

    def resumeProducing(self) -> None:
        self.paused = False
        super().resumeProducing()  # type: ignore[no-untyped-call]

    def getHost(self) -> IPv4Address:
        return self._addresses[0]

    def getPeer(self) -> IPv4Address:
        return self._addresses[1]


@implementer(IHandshakeListener)
class Relay(TwistedProtocol):
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
class TransportFace:
    """A transport as a protocol sees it: every call goes to Twisted's own."""

    # Any: Twisted's TLS transport has most of its methods by __getattr__ only.
    _transport: Any
    _tcp: MemoryConnection

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
        self._transport.abortConnection()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """As `twisted.internet.interfaces.IConsumer`."""
        self._transport.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        """As `twisted.internet.interfaces.IConsumer`."""
        self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Stop reading from the peer."""
        self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on reading from the peer, when the clock moves."""
        self._transport.resumeProducing()

    def stopProducing(self) -> None:
        """As `twisted.internet.interfaces.IProducer`: close the connection."""
        self._transport.stopProducing()

    def getHost(self) -> IPv4Address:
        """As `twisted.internet.interfaces.ITransport`: our address."""
        return self._tcp.getHost()

    def getPeer(self) -> IPv4Address:
        """As `twisted.internet.interfaces.ITransport`: the peer's address."""
        return self._tcp.getPeer()

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
