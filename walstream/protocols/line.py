"""A server's end of a connection: when it reads, when it writes, and how it closes.

The order of closing is the point of this module. Any other order than the one in `close` loses
bytes or leaks connections, on TCP or on TLS (Twisted issues 4719, 5344, 6461, 8992).
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

__all__ = ["Line", "probe"]

# A peer whose machine or network is gone is noticed within two minutes, not the two hours that are
# the kernel's default: an idle session has no other way to end. Seconds, seconds, and probes.
_PROBES = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6))


class Line(Protocol):
    """A protocol that is its transport's push producer, and closes in order.

    A subclass implements IPushProducer.

    :ivar close_reason: why the connection ended, for the log.
    """

    def __init__(self, clock: IReactorTime, close_timeout: float) -> None:
        self.close_reason = "the client closed the connection"
        self._clock = clock
        self._close_timeout = close_timeout
        self._reading_paused = False
        self._is_closed = False
        self._is_lost = False
        self._timer: IDelayedCall | None = None

    def open(self, startup_timeout: float) -> None:
        """The connection is there; it is closed again unless `let_in` follows in time (seconds)."""
        transport = self._transport()
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
            handle: Any = transport
            probe(handle.getHandle())
        transport.registerProducer(self, True)
        self._timer = self._clock.callLater(startup_timeout, self.close, "authentication timeout")

    def let_in(self) -> None:
        """The peer has said who it is: it may stay."""
        self.stop_timer()

    def peer_address(self) -> tuple[str, int] | None:
        """Where the peer comes from, and its port; None if it has no such address."""
        peer = self._transport().getPeer()
        return (peer.host, peer.port) if isinstance(peer, IPv4Address | IPv6Address) else None

    def send(self, data: bytes) -> None:
        """Write to the peer; what comes after the last word is dropped."""
        if not self._is_closed:
            self._transport().write(data)

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""
        if not self._reading_paused:
            self._reading_paused = True
            self._transport().pauseProducing()

    def resume_reading(self) -> None:
        """Read on."""
        if self._reading_paused:
            self._reading_paused = False
            self._transport().resumeProducing()

    def close(self, reason: str) -> None:
        """Let what was written out, then close; abort if the peer takes too long."""
        if self._is_lost:
            return
        self.close_reason = reason
        self._is_closed = True
        self.stop_timer()
        transport = self._transport()
        transport.unregisterProducer()
        self.resume_reading()
        transport.loseConnection()
        self._timer = self._clock.callLater(self._close_timeout, transport.abortConnection)

    def abort(self, reason: str) -> None:
        """Close at once, whatever was not yet sent."""
        if self._is_lost:
            return  # a TLS transport would take it amiss
        self.close_reason = reason
        self._is_closed = True
        self.stop_timer()
        transport = self._transport()
        transport.unregisterProducer()
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone: no timer is left behind."""
        self._is_lost = self._is_closed = True
        self.stop_timer()

    def stop_timer(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _transport(self) -> Any:
        # ITransport does not say that a transport is a consumer and a producer. All of ours are.
        return self.transport


def probe(handle: object) -> None:
    """Have the kernel ask a silent peer whether it is there; on this machine it knows."""
    if not isinstance(handle, socket.socket) or handle.family == socket.AF_UNIX:
        return
    for name, value in _PROBES:
        if (option := getattr(socket, name, None)) is not None:
            handle.setsockopt(socket.IPPROTO_TCP, option, value)
