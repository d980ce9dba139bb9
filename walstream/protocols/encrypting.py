"""TLS on a connection that a walsender serves: how a client comes to it, and what may go wrong.

A client asks for it by an SSLRequest, or begins with it (PostgreSQL 17). The cryptography is the
transport's: Twisted puts it under the session, which goes on as if nothing were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import ITLSTransport

from walstream.errors import ProtocolViolation
from walstream.protocols.handshake import Handshake
from walstream.protocols.turns import Turns
from walstream.wire.encryption import Encryption

__all__ = ["Encrypting", "TLSContext", "TLSServer", "begins_handshake"]

# The first byte of TLS, the record type "handshake". No startup packet is long enough for it.
_HANDSHAKE = 0x16


class TLSContext(Protocol):
    """What there is to say about connections that have begun with it.

    It is also Twisted's `IOpenSSLServerConnectionCreator`. *connection* is pyOpenSSL's.
    """

    def encryption(self, connection: Any) -> Encryption:
        """What came of the handshake.

        :raises ValueError: if the client's certificate has a name that is none.
        """

    def chose_protocol(self, connection: Any) -> bool:
        """Whether both have said that they speak PostgreSQL's protocol (ALPN)."""

    def failure(self, connection: Any, error: BaseException) -> str:
        """Why a handshake came to nothing."""


class TLSServer(Protocol):
    """Where the context of this moment comes from."""

    @property
    def context(self) -> TLSContext:
        """For the connections that begin now."""


def begins_handshake(data: bytes) -> bool:
    """Whether *data*, the first that comes of a client, is TLS at once."""
    return data[:1] == bytes([_HANDSHAKE])


class Encrypting:
    """One connection's way to encryption.

    :ivar encryption: None until the handshake is over, and for a connection without.
    :param tls: None if there is no TLS.
    :param turns: when a handshake goes on.
    :param regulate: called when `is_waiting` has changed.
    """

    def __init__(
        self, tls: TLSServer | None, turns: Turns, regulate: Callable[[], None] = lambda: None
    ) -> None:
        self.encryption: Encryption | None = None
        self._tls = tls
        self._turns = turns
        self._regulate = regulate
        self._handshake: Handshake | None = None
        self._context: TLSContext | None = None
        self._is_direct = False

    def is_possible(self, transport: Any) -> bool:
        """Whether a client that asks for it gets it: over TCP, as with PostgreSQL."""
        return (
            self._tls is not None
            and isinstance(transport.getHost(), IPv4Address | IPv6Address)
            and ITLSTransport.providedBy(transport)
        )

    def start(self, transport: Any, first: bytes = b"") -> None:
        """Go on encrypted, once what was written is out.

        :param first: what has come of the handshake, if nothing but that has come.
        """
        assert self._tls is not None, "it was possible"
        self._context = self._tls.context
        self._is_direct = bool(first)
        transport.startTLS(self._context)
        self._handshake = Handshake(transport.protocol, self._turns, self._regulate)
        if first:
            self._handshake.received(first)

    @property
    def is_waiting(self) -> bool:
        """Whether the handshake waits for its turn: nothing of the client is wanted until then."""
        return self._handshake is not None and self._handshake.is_waiting

    def stop(self) -> None:
        """The handshake is over, or nobody wants it any more."""
        if self._handshake is not None:
            self._handshake.end()

    def finish(self, transport: Any) -> None:
        """The handshake is over: `encryption` tells what has come of it.

        :raises ProtocolViolation: if it will not do, in PostgreSQL's words.
        """
        assert self._context is not None, "it was started"
        connection = transport.getHandle()
        if self._is_direct and not self._context.chose_protocol(connection):
            raise ProtocolViolation(
                "received direct SSL connection request without ALPN protocol negotiation extension"
            )
        try:
            self.encryption = self._context.encryption(connection)
        except ValueError as error:
            raise ProtocolViolation(str(error)) from error

    def failure(self, transport: Any, error: BaseException) -> str:
        """Why the handshake did not come to its end, for the log."""
        assert self._context is not None, "it was started"
        return self._context.failure(transport.getHandle(), error)
