"""TLS without the cryptography, for `walstream.testing.transport`.

`PlainTLSConnection` stands where Twisted's TLS transport expects an `OpenSSL.SSL.Connection`, and
`TLSPeer` is the other end. They exchange records of TLS 1.3's size and kinds whose payload is
readable: handshake, application data, the close_notify alert. So every pause, buffer and closing
step is Twisted's own, at the byte counts of the real thing, and only the secrecy is missing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import cast

from OpenSSL.SSL import Connection, Error, SysCallError, WantReadError, ZeroReturnError
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

__all__ = ["PlainTLSConnection", "PlainTLSCreator", "TLSPeer"]

MAX_PLAINTEXT = 2**14  # RFC 8446 section 5.1

_ALERT, _HANDSHAKE, _DATA = 21, 22, 23
_HEADER = struct.Struct(">BHH")
# RFC 8446 section 5.2: the record's true kind and the 16 bytes of AES-GCM's tag follow the data.
_TRAILER_SIZE = 17


def _record(kind: int, payload: bytes = b"") -> bytes:
    header = _HEADER.pack(kind, 0x0303, len(payload) + _TRAILER_SIZE)
    return header + payload + bytes(_TRAILER_SIZE)


def _data_records(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), MAX_PLAINTEXT):
        yield _record(_DATA, data[start : start + MAX_PLAINTEXT])


def _record_size(wire: bytes | bytearray) -> int:
    """The size of the first record in *wire*; 0 while its header is incomplete."""
    if len(wire) < _HEADER.size:
        return 0
    return _HEADER.size + int(_HEADER.unpack_from(wire)[2])


def _take_record(wire: bytearray) -> tuple[int, bytes] | None:
    size = _record_size(wire)
    if not size or len(wire) < size:
        return None
    kind, payload = wire[0], bytes(wire[_HEADER.size : size - _TRAILER_SIZE])
    del wire[:size]
    return kind, payload


class PlainTLSConnection:
    """The methods of `OpenSSL.SSL.Connection` that Twisted calls, in its words and exceptions."""

    def __init__(self) -> None:
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._handshaken = False
        self._close_sent = False
        self._close_received = False
        self._at_end = False

    def set_accept_state(self) -> None:
        """Be the server; here both ends are the same."""

    def set_app_data(self, data: object) -> None:
        """Twisted leaves its protocol here for the certificate checks, which there are none of."""

    def do_handshake(self) -> None:
        """Finish once the peer's handshake record is there."""
        if not self._handshaken:
            record = _take_record(self._incoming)
            if record is None:
                raise WantReadError
            self._handshaken = record[0] == _HANDSHAKE

    def send(self, data: bytes) -> int:
        """Turn *data* into a record."""
        if not self._handshaken:
            raise WantReadError
        if self._close_sent:
            raise Error([("SSL routines", "", "protocol is shutdown")])
        self._outgoing += _record(_DATA, data)
        return len(data)

    def recv(self, size: int) -> bytes:
        """Give the data of one record, which is less than Twisted asks for."""
        record = _take_record(self._incoming)
        if record is not None and record[0] == _DATA:
            return record[1]
        if record is not None:
            self._close_received = True
        if self._close_received:
            raise ZeroReturnError
        if self._at_end:
            raise SysCallError(-1, "Unexpected EOF")
        raise WantReadError

    def shutdown(self) -> bool:
        """Send close_notify, once; True when the peer's has been received."""
        if not self._handshaken:
            raise Error([])
        if not self._close_sent:
            self._close_sent = True
            self._outgoing += _record(_ALERT, b"\x01\x00")
        return self._close_received

    def bio_read(self, size: int) -> bytes:
        """Give bytes for the wire."""
        if not self._outgoing:
            raise WantReadError
        data = bytes(self._outgoing[:size])
        del self._outgoing[:size]
        return data

    def bio_write(self, data: bytes) -> int:
        """Take bytes from the wire."""
        self._incoming += data
        return len(data)

    def bio_shutdown(self) -> None:
        """Nothing more will come from the wire."""
        self._at_end = True

    def get_peer_certificate(self) -> None:
        """There are no certificates."""

    def get_alpn_proto_negotiated(self) -> bytes:
        """No application protocol was negotiated."""
        return b""


@implementer(IOpenSSLServerConnectionCreator)
class PlainTLSCreator:
    """What Twisted asks for the connection object of a TLS server."""

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> Connection:
        """As `twisted.internet.interfaces.IOpenSSLServerConnectionCreator`."""
        return cast(Connection, PlainTLSConnection())


class TLSPeer:
    """The peer's end: encodes what it sends, decodes what it reads.

    :ivar plain: what was read and decoded, and the test has not taken.
    :ivar closed: the transport's close_notify has been read.
    """

    handshake = _record(_HANDSHAKE)
    close_notify = _record(_ALERT, b"\x01\x00")

    def __init__(self) -> None:
        self.plain = bytearray()
        self.closed = False
        self._incoming = bytearray()

    def encode(self, data: bytes) -> bytes:
        """The records that carry *data*."""
        return b"".join(_data_records(data))

    def absorb(self, wire: bytes) -> None:
        """Read bytes from the wire."""
        self._incoming += wire
        while (record := _take_record(self._incoming)) is not None:
            if record[0] == _DATA:
                self.plain += record[1]
            else:
                self.closed = True

    def peek(self, wire: bytes) -> bytes:
        """The data in *wire*, which follows what was read; an unfinished record has none."""
        peer = TLSPeer()
        peer.absorb(bytes(self._incoming) + wire)
        return bytes(peer.plain)

    def appetite(self, wire: bytes, wanted: int) -> int:
        """How many bytes of *wire* to read next in order to have *wanted* bytes of data.

        An alert is read at once when no data is before it, by any TLS library that waits.
        """
        size = _record_size(wire)
        if size and (wire[0] != _DATA or len(self.plain) < wanted):
            return size
        return 0
