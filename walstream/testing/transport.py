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
from typing import Any, Literal, TypeVar, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from walstream.testing.connection import MemoryConnection, Peer, Relay, TCPPeer, TransportFace
from walstream.testing.sockets import MemorySocket, Turns

__all__ = ["FlowTransport"]

P = TypeVar("P", bound=IProtocol)

_HOST = IPv4Address("TCP", "127.0.0.1", 5432)
_PEER = IPv4Address("TCP", "127.0.0.1", 40001)


class FlowTransport(TransportFace):
    """A connection whose one end is the protocol under test and whose other end is the test.

    To the protocol it is an ITCPTransport, IConsumer and IPushProducer; those methods, which
    `TransportFace` lists, are Twisted's. The methods here are the test's.

    :ivar clock: the time of the connection; what Twisted does in the reactor's next turn happens
        when it is advanced, also by 0.
    :ivar mute: a TLS peer leaves the closing handshake unanswered for as long as this is set.
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
        self.mute = False
        self._addresses = host, peer
        self._handshake = handshake
        self._wanted = 0
        self._peer_closing = False
        self._relay = Relay()
        self._socket = MemorySocket(self._room, self._absorb)
        self._turns = Turns(self.clock, self._socket)
        self._turns.drained = self._drained
        self._peer: Peer = TCPPeer()
        if kind == "tcp":
            self._transport = self._tcp = self._connection(self._relay)
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
        self._tcp = self._connection(transport)
        transport.makeConnection(self._tcp)
        return transport

    def _connection(self, protocol: IProtocol) -> MemoryConnection:
        return MemoryConnection(self._socket, protocol, self._turns, self._addresses)

    def connect(self, protocol: P, *, direct: bool = False) -> P:
        """Make the connection: *protocol* has ``connectionMade``, then the handshake completes.

        :param direct: *protocol* gets Twisted's own `twisted.internet.tcp.Connection`, for code
            that goes past a transport to its socket.
        :raises ValueError: if *direct* is asked for with TLS.
        """
        if direct and self._transport is not self._tcp:
            raise ValueError("a TLS connection has no socket of its own")
        self._relay.target = protocol
        self._tcp.startReading()
        protocol.makeConnection(self._tcp if direct else self)
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
            self._peer_closing = True
            self._socket.inbox += self._peer.close_notify
        else:
            self._socket.ended = True
        self.turn()

    def turn(self) -> None:
        """Let everything happen that is due, as the reactor does when it is idle."""
        self._answer()
        self._turns.schedule()
        self.clock.advance(0)

    @property
    def aborted(self) -> bool:
        """Whether the protocol has called ``abortConnection``."""
        return self._tcp.aborted

    @property
    def paused(self) -> bool:
        """Whether the protocol has called ``pauseProducing``, and not ``resumeProducing`` since."""
        return self._tcp.paused

    @property
    def unread(self) -> bytes:
        """What the transport holds for the peer. A small TLS write joins it with the next turn."""
        wire = self._tcp.unsent() if self._tcp.connected else b""
        return bytes(self._peer.plain) + self._peer.peek(wire)

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
        if not self._socket.ended and not self._peer_closing:
            self._socket.inbox += wire
        self.turn()

    def _room(self) -> int:
        if self._peer_closing:
            return sys.maxsize  # it waits for our close_notify, and reads whatever is before it
        return self._peer.appetite(self._tcp.unsent(), self._wanted)

    def _absorb(self, wire: bytes) -> None:
        self._peer.absorb(wire)
        self._answer()

    def _answer(self) -> None:
        # A TLS peer says close_notify once, first or in answer.
        if self._peer.closed and not self.mute and not self._peer_closing:
            self._peer_closing = True
            self._socket.inbox += self._peer.close_notify

    def _drained(self) -> None:
        self._wanted = 0
