"""Past Twisted's TLS, for gigabytes: many records are encrypted in one call, and sent in another.

Twisted has OpenSSL make one record of 16 KiB at a time, takes it out, and copies it three times on
its way to the socket. Here a batch of messages is joined once, encrypted at once (see the mode that
`walstream.tls.context` sets), and goes to the socket as `walstream.protocols.direct` has it. What
Twisted itself writes, before, after or in between, stays in order: TLS counts its records, and
these are made in the order in which they are sent.

What is received is decrypted record by record into one buffer that is used again and again, and
delivered when all that has come is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Connection

from walstream.protocols.direct import DirectReader, DirectWriter, direct_connection

__all__ = ["TLSReader", "TLSWriter", "reader_for", "writer_for"]

# What one read may bring, and a record of TLS at most, without what encryption adds.
_READ_SIZE = 1 << 18
_RECORD = 1 << 14

# More than a batch of messages becomes.
_LARGEST = 1 << 20


class TLSWriter(DirectWriter):
    """Encrypts, and sends on a connection's socket; as `DirectWriter`, if Twisted's TLS is on it.

    :param send_buffer: the size to give the socket's send buffer, in bytes.
    """

    # A quarter of a mebibyte. OpenSSL keeps room for the largest batch that it has seen, for each
    # connection; measured: more gains nothing.
    batch = 2

    def __init__(self, transport: Connection, send_buffer: int) -> None:
        super().__init__(transport, send_buffer)
        tls: Any = transport.protocol
        self._tls = tls

    def may_write(self) -> bool:
        """See `DirectWriter.may_write`. What Twisted has gathered of small messages goes first."""
        self._tls._aggregator.flush()
        return super().may_write() and not self._tls._appSendBuffer

    def write(self, parts: Sequence[bytes | memoryview]) -> int:
        """Encrypt and send *parts*, all of them: see `DirectWriter.write`."""
        data = b"".join(parts)
        connection = self._tls._tlsConnection
        try:
            connection.send(data)
            encrypted = connection.bio_read(_LARGEST)
        except Exception:
            # OpenSSL wants to hear from the other end first, or the connection is gone: Twisted
            # finds out which, and keeps what it has to.
            self._tls._write(data)
            return len(data)
        return super().write([encrypted])


class TLSReader(DirectReader):
    """Reads a connection's socket and decrypts: as `DirectReader`, if Twisted's TLS is on it.

    :param deliver: called with a view of what was read; the view is valid until it returns.
    """

    def __init__(self, transport: Connection, deliver: Callable[[memoryview], None]) -> None:
        super().__init__(transport, deliver, _READ_SIZE)
        tls: Any = transport.protocol
        self._tls = tls
        # A record may have begun before this read.
        self._clear = memoryview(bytearray(_READ_SIZE + _RECORD))

    def _take(self, received: memoryview) -> None:
        self._tls._tlsConnection.bio_write(received)
        clear = self._decrypted()
        if clear:
            self._deliver(clear)
        if self._tls._tlsConnection is not None:
            # If something else than data has come, Twisted is told of it a second time, and does
            # what is to be done.
            self._tls._flushReceiveBIO()

    def _decrypted(self) -> memoryview:
        """All that can be by now."""
        filled, connection = 0, self._tls._tlsConnection
        try:
            while True:
                filled += connection.recv_into(self._clear[filled:], _RECORD)
        except Exception:
            return self._clear[:filled]  # mostly: OpenSSL wants to read more


def reader_for(
    transport: ITransport | None, deliver: Callable[[memoryview], None]
) -> DirectReader | None:
    """What reads from *transport* past Twisted; None if that cannot be."""
    connection = direct_connection(transport)
    if connection is not None:
        return DirectReader(connection, deliver)
    encrypted = _encrypted(transport)
    return None if encrypted is None else TLSReader(encrypted, deliver)


def writer_for(transport: ITransport | None, send_buffer: int) -> DirectWriter | None:
    """What writes on *transport* past Twisted; None if that cannot be."""
    connection = direct_connection(transport)
    if connection is not None:
        return DirectWriter(connection, send_buffer)
    encrypted = _encrypted(transport)
    return None if encrypted is None else TLSWriter(encrypted, send_buffer)


def _encrypted(transport: Any) -> Connection | None:
    """The transport, if it has the TLS of Twisted's that this is made for, past its handshake."""
    tls: Any = getattr(transport, "protocol", None)
    if not isinstance(transport, Connection) or getattr(tls, "_lostTLSConnection", True):
        return None
    if not getattr(tls, "_handshakeDone", False):
        return None
    names = ("_aggregator", "_appSendBuffer", "_tlsConnection", "_write", "_flushReceiveBIO")
    return transport if all(hasattr(tls, name) for name in names) else None
