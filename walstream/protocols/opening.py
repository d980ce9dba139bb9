"""How a client brings a new connection to TLS, before the first word is said on it.

(PostgreSQL documentation, "SSL Session Encryption"; ``PQconnectPoll`` in libpq.) What comes in the
clear behind the server's answer is not from this server, as far as one can tell, and is refused
(CVE-2021-23222).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.errors import Disconnected, HandshakeFailed, ServerNotTrusted, WalstreamError
from walstream.wire.encryption import Encryption
from walstream.wire.startup import SSL_REQUEST_CODE

__all__ = ["Opening", "TLSClient"]

_SSL_REQUEST: Final = struct.pack("!II", 8, SSL_REQUEST_CODE)


class TLSClient(Protocol):
    """The TLS of one attempt to connect. *connection* is pyOpenSSL's.

    It is also Twisted's `IOpenSSLClientConnectionCreator`.
    """

    @property
    def is_verified(self) -> bool:
        """Whether a server whose certificate is not known fails."""

    def finish(self, connection: Any) -> Encryption:
        """What came of the handshake.

        :raises ServerNotTrusted: if it will not do.
        """

    def failure(self, connection: Any, error: BaseException) -> str:
        """Why a handshake came to nothing."""


@implementer(IHandshakeListener)
class Opening(TwistedProtocol):
    """The first steps on a connection, after which another protocol takes over.

    :ivar done: fires when they are done, with what came of them: None if the server has no TLS, and
        the connection is as it was.
    :param is_direct: TLS is spoken from the first byte on.
    :param prepare: called with the transport while it is nothing but a socket's.
    """

    def __init__(
        self, tls: TLSClient, is_direct: bool, prepare: Callable[[Any], None] = lambda _: None
    ) -> None:
        self.done: Deferred[Encryption | None] = Deferred(self._given_up)
        self._tls = tls
        self._is_direct = is_direct
        self._prepare = prepare
        self._is_encrypting = False
        self._is_over = False

    def hand_over(self, protocol: TwistedProtocol) -> None:
        """Have *protocol* go on."""
        transport: Any = self.transport
        if self._is_encrypting:
            transport.protocol.wrappedProtocol = protocol
        else:
            transport.protocol = protocol
        protocol.makeConnection(transport)

    def give_up(self) -> None:
        """Close the connection, of which nothing more is wanted."""
        transport: Any = self.transport
        transport.loseConnection()

    # What Twisted calls.

    def connectionMade(self) -> None:
        """Ask for TLS, or begin with it."""
        transport: Any = self.transport
        self._prepare(transport)
        if self._is_direct:
            self._start()
        else:
            transport.write(_SSL_REQUEST)

    def dataReceived(self, data: bytes) -> None:
        """Take the server's answer, which is one byte, and nothing else."""
        if self._is_over:
            return
        answer = data[:1]
        if answer in b"SN" and len(data) > 1:
            self._fail(ServerNotTrusted("received unencrypted data after SSL response"))
        elif answer == b"S":
            self._start()
        elif answer == b"N":
            self._succeed(None)
        elif answer == b"E":
            # What it says is not to be trusted: nobody knows yet who it is.
            self._fail(Disconnected("server sent an error response during SSL exchange"))
        else:
            shown = ascii(answer.decode("latin-1"))[1:-1]
            self._fail(Disconnected(f"received invalid response to SSL negotiation: {shown}"))

    def handshakeCompleted(self) -> None:
        """The connection is encrypted; whether that is enough is another question."""
        if self._is_over:
            return
        transport: Any = self.transport
        try:
            encryption = self._tls.finish(transport.getHandle())
        except ServerNotTrusted as error:
            self._fail(HandshakeFailed(str(error)))
        else:
            self._succeed(encryption)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server does not want to, or there is no agreement."""
        if self._is_over:
            return
        self._is_over = True
        transport: Any = self.transport
        if self._is_encrypting and reason.value is not None:
            why = self._tls.failure(transport.getHandle(), reason.value)
            self.done.errback(HandshakeFailed(why))
        else:
            self.done.errback(Disconnected("the server closed the connection"))

    # Inside.

    def _start(self) -> None:
        transport: Any = self.transport
        self._is_encrypting = True
        transport.startTLS(self._tls)

    def _succeed(self, encryption: Encryption | None) -> None:
        self._is_over = True
        self.done.callback(encryption)

    def _fail(self, error: WalstreamError) -> None:
        self._is_over = True
        transport: Any = self.transport
        transport.abortConnection()
        self.done.errback(error)

    def _given_up(self, _: Deferred[Encryption | None]) -> None:
        self._is_over = True
        transport: Any = self.transport
        transport.abortConnection()
