"""Cutting a stream of bytes into protocol messages, and putting a message's header on a body.

Knows the two shapes that a message can have (PostgreSQL's documentation, "Message Formats"): the
typed message, and the startup packet, which has no type byte. Knows how long each type may be,
and nothing of what is inside.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple

from walstream.errors import ProtocolViolation

__all__ = [
    "Backend",
    "Frame",
    "FrameReader",
    "Frontend",
    "StartupPacket",
    "StartupReader",
    "authentication_limit",
    "backend_limit",
    "frame",
    "frontend_limit",
    "greeting_limit",
]


class Backend(IntEnum):
    """The type bytes of the messages that a server sends."""

    AUTHENTICATION = ord("R")
    BACKEND_KEY_DATA = ord("K")
    COMMAND_COMPLETE = ord("C")
    COPY_BOTH_RESPONSE = ord("W")
    COPY_DATA = ord("d")
    COPY_DONE = ord("c")
    COPY_IN_RESPONSE = ord("G")
    COPY_OUT_RESPONSE = ord("H")
    DATA_ROW = ord("D")
    EMPTY_QUERY_RESPONSE = ord("I")
    ERROR_RESPONSE = ord("E")
    FUNCTION_CALL_RESPONSE = ord("V")
    NEGOTIATE_PROTOCOL_VERSION = ord("v")
    NOTICE_RESPONSE = ord("N")
    NOTIFICATION_RESPONSE = ord("A")
    PARAMETER_STATUS = ord("S")
    READY_FOR_QUERY = ord("Z")
    ROW_DESCRIPTION = ord("T")


class Frontend(IntEnum):
    """The type bytes of the messages that a client sends."""

    BIND = ord("B")
    CLOSE = ord("C")
    COPY_DATA = ord("d")
    COPY_DONE = ord("c")
    COPY_FAIL = ord("f")
    DESCRIBE = ord("D")
    EXECUTE = ord("E")
    FLUSH = ord("H")
    FUNCTION_CALL = ord("F")
    PARSE = ord("P")
    PASSWORD = ord("p")
    QUERY = ord("Q")
    SYNC = ord("S")
    TERMINATE = ord("X")


class Frame(NamedTuple):
    """A typed message: *kind* is the number of its type byte, *body* what follows its length."""

    kind: int
    body: bytes


class StartupPacket(NamedTuple):
    """A packet without a type byte: *code* is a protocol version or a request code."""

    code: int
    body: bytes


_HEADER: Final = struct.Struct("!BI")
_LENGTH: Final = struct.Struct("!I")
_STARTUP: Final = struct.Struct("!II")
_LENGTH_SIZE: Final = 4

# PostgreSQL counts the four bytes of the length itself in all of these.
_SMALL: Final = 10_000 - _LENGTH_SIZE  # PQ_SMALL_MESSAGE_LIMIT
_PASSWORD: Final = 65_535 - _LENGTH_SIZE  # PG_MAX_AUTH_TOKEN_LENGTH
_PLAUSIBLE: Final = 30_000 - _LENGTH_SIZE  # libpq's doubt about all types but the long ones
_GREETING: Final = 2_000 - _LENGTH_SIZE  # libpq, before authentication

# PostgreSQL believes a gigabyte for the types below, which one hostile peer could make us hold, or
# read through. The longest that replication has a use for is far shorter: a client's Query is a
# command of some hundred bytes and its CopyData 34 or 64 KiB (UPLOAD_MANIFEST), a server's CopyData
# 128 KiB, or 8 MiB in the form of January 2010; all of a history file is one DataRow, and errors
# are some lines of text.
_LONG_FROM_CLIENT: Final = 1 << 17
_LONG_FROM_SERVER: Final = 1 << 20
_LONGEST_COPY_DATA: Final = 1 << 24
_LONGEST_TEXT: Final = 1 << 16

_LONG_FRONTEND: Final = frozenset(
    {Frontend.QUERY, Frontend.COPY_DATA, Frontend.PARSE, Frontend.BIND, Frontend.FUNCTION_CALL}
)
_LONG_BACKEND: Final = frozenset(
    {
        Backend.ROW_DESCRIPTION,
        Backend.DATA_ROW,
        Backend.FUNCTION_CALL_RESPONSE,
        Backend.NOTIFICATION_RESPONSE,
    }
)
_TEXTS: Final = frozenset({Backend.ERROR_RESPONSE, Backend.NOTICE_RESPONSE})

# Int32 length without the length itself: `ProcessStartupPacket`, MAX_STARTUP_PACKET_LENGTH.
_SHORTEST_STARTUP: Final = 4
_LONGEST_STARTUP: Final = 10_000


def frontend_limit(kind: int) -> int:
    """The longest body, in bytes, of a client's message once it is authenticated."""
    if kind in _LONG_FRONTEND:
        return _LONG_FROM_CLIENT
    return _PASSWORD if kind == Frontend.PASSWORD else _SMALL


def authentication_limit(kind: int) -> int:
    """The longest body, in bytes, of a client's message while it authenticates."""
    return _PASSWORD if kind == Frontend.PASSWORD else _SMALL


def backend_limit(kind: int) -> int:
    """The longest body, in bytes, of a server's message after AuthenticationOk."""
    if kind == Backend.COPY_DATA:
        return _LONGEST_COPY_DATA
    if kind in _TEXTS:
        return _LONGEST_TEXT
    return _LONG_FROM_SERVER if kind in _LONG_BACKEND else _PLAUSIBLE


def greeting_limit(kind: int) -> int:
    """The longest body, in bytes, of a server's message up to AuthenticationOk."""
    return _PLAUSIBLE if kind == Backend.ERROR_RESPONSE else _GREETING


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """The message of type *kind* with this *body*, as it goes on the wire."""
    return _HEADER.pack(kind[0], len(body) + _LENGTH_SIZE) + body


class _Buffer:
    # Bytes that are not yet a whole message. A bytearray grows in place and gives up its front
    # without moving the rest, so the cost stays linear however the stream is cut.

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        """Append bytes as they were received, cut anywhere."""
        self._buffer += data

    @property
    def has_begun(self) -> bool:
        """Whether there is a message of which not all has come, once `next` has none."""
        return bool(self._buffer)

    def take_rest(self) -> bytes:
        """Give up the bytes that were not read as messages, for the reader that comes next."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _take(self, start: int, end: int) -> bytes:
        # The bytes from start to end; the buffer then begins at end.
        with memoryview(self._buffer) as view:
            taken = bytes(view[start:end])
        del self._buffer[:end]
        return taken


class FrameReader(_Buffer):
    """Typed messages out of a stream of bytes, whatever the pieces it comes in.

    :ivar limit: the longest body allowed for a type byte; may be replaced between messages, as
        when a client has authenticated.
    """

    def __init__(self, limit: Callable[[int], int]) -> None:
        super().__init__()
        self.limit = limit

    def next(self) -> Frame | None:
        """The next whole message, or None until more has been fed.

        :raises ProtocolViolation: for a length that is impossible or over the limit, as soon as
            the header is there. The stream cannot be read further; the same error comes again.
        """
        if len(self._buffer) < _HEADER.size:
            return None
        kind, length = _HEADER.unpack_from(self._buffer)
        self._check(kind, length)
        end = 1 + length
        if len(self._buffer) < end:
            return None
        return Frame(kind, self._take(_HEADER.size, end))

    def _check(self, kind: int, length: int) -> None:
        if length < _LENGTH_SIZE:
            raise ProtocolViolation(
                f"message of type {_shown(kind)} has length {length}, "
                f"which is less than {_LENGTH_SIZE}"
            )
        longest = self.limit(kind) + _LENGTH_SIZE
        if length > longest:
            raise ProtocolViolation(
                f"message of type {_shown(kind)} has length {length}, "
                f"which is more than the {longest} allowed"
            )


class StartupReader(_Buffer):
    """Startup packets, which have no type byte, out of a stream of bytes."""

    def next(self) -> StartupPacket | None:
        """The next whole packet, or None until more has been fed.

        :raises ProtocolViolation: for a length outside 8 to 10004. PostgreSQL closes the
            connection at this without an answer, since the peer may speak any protocol.
        """
        if len(self._buffer) < _LENGTH_SIZE:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if not _SHORTEST_STARTUP <= length - _LENGTH_SIZE <= _LONGEST_STARTUP:
            raise ProtocolViolation(
                f"startup packet has length {length}, allowed are "
                f"{_SHORTEST_STARTUP + _LENGTH_SIZE} to {_LONGEST_STARTUP + _LENGTH_SIZE}"
            )
        if len(self._buffer) < length:
            return None
        _, code = _STARTUP.unpack_from(self._buffer)
        return StartupPacket(code, self._take(_STARTUP.size, length))


def _shown(kind: int) -> str:
    # A type byte for a person: the letter where there is one.
    return f'"{chr(kind)}"' if 0x20 < kind < 0x7F else f"0x{kind:02X}"
