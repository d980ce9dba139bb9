"""What a walsender sends while it streams, cut into WAL and everything else.

A stream is a run of CopyData messages, nearly all of them WAL of 128 KiB each. Putting each of
them together before passing it on would copy every byte once more, so WAL leaves here as it
comes: in pieces, views of whatever was read from the connection, each with the position of its
first byte. Every other message is small and leaves whole, as a `Frame`.

A piece ends where its message does, or else at a page's end; what lies behind waits for the rest
of its page. For the end of a piece may become the end of what a standby is sent, and a standby
takes it that no record is cut off within a page: of one that goes on behind the page it would not
look at the first part again (`XLogDecodeNextRecord` in PostgreSQL's xlogreader.c), and find its
checksum wrong. Servers keep to that (`XLogSendPhysical` in walsender.c), so their messages do.

Both dialects differ only in what precedes the WAL inside a CopyData message: see `WALPayload`.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from struct import Struct

from walstream.errors import ProtocolViolation
from walstream.formats.pages import PAGE_SIZE
from walstream.wire.frames import Frame, backend_limit

__all__ = ["StreamReader", "WALPayload", "WALPiece", "wal_message_head"]

WALPiece = tuple[int, memoryview]
"""The position of the first byte, and the bytes. The view is valid until the next read."""

_FRAME = Struct(">BI")
_COPY_DATA = ord("d")
_XLOG_DATA = ord("w")

# CopyData's type and length, then what stands before the WAL.
_MODERN = Struct(">BIBQQq")
_DESIGN_2009 = Struct(">BIQ")

# The largest CopyData message that PostgreSQL's own clients take (PqGetMsgLength, 1 GiB - 1).
_LONGEST_COPY_DATA = (1 << 30) - 1


class WALPayload(Enum):
    """What a CopyData message of a stream consists of."""

    MODERN = "modern"
    """A type byte; behind ``w`` position, server's end and time, then WAL (9.3 and later)."""

    DESIGN_2009 = "2009"
    """An 8-byte position in network order, then WAL, always (our choice: `dialect2009`)."""


class StreamReader:
    """Cuts a walsender's stream, in whatever segmentation it arrives.

    :ivar server_end: how far the server had WAL to send, as its last WAL message said (`walEnd`).
    :ivar send_time: when it said so, in microseconds since 2000-01-01; 0 before the first.
    """

    def __init__(self, payload: WALPayload) -> None:
        self._modern = payload is WALPayload.MODERN
        self._head = _MODERN if self._modern else _DESIGN_2009
        self._begun = bytearray()  # a message's beginning, cut off by the end of a read
        self._position = 0
        self._left = 0  # bytes of WAL still to leave of the current message
        self._held = bytearray()  # those at `_position` that wait for the rest of their page
        self._rest: memoryview = memoryview(b"")
        self.server_end = 0
        self.send_time = 0

    def events(self, data: memoryview) -> Iterator[WALPiece | Frame]:
        """Cut what was just read. Stop iterating on a mode switch, and call `take_rest`.

        :raises ProtocolViolation: on a length that no message can have.
        """
        self._rest = data
        while self._rest:
            if self._held:
                if (piece := self._completed_page()) is not None:
                    yield piece
            elif self._left:
                if (piece := self._piece()) is not None:
                    yield piece
            elif (frame := self._next_head()) is not None:
                yield frame

    def take_rest(self) -> bytes:
        """The bytes behind the last event, which belong to the next mode."""
        rest = bytes(self._begun) + bytes(self._rest)
        self._begun.clear()
        self._rest = memoryview(b"")
        return rest

    def _piece(self) -> WALPiece | None:
        """The WAL that may leave of what was read; None if all of it has to wait."""
        size = min(len(self._rest), self._left)
        if size < self._left:
            size -= min((self._position + size) % PAGE_SIZE, size)
        if not size:
            self._held += self._rest
            self._rest = self._rest[len(self._rest) :]
            return None
        piece, self._rest = self._rest[:size], self._rest[size:]
        return self._leaves(piece)

    def _completed_page(self) -> WALPiece | None:
        """Add to a page that an earlier read cut off; None while it stays incomplete."""
        whole = min(PAGE_SIZE - self._position % PAGE_SIZE, self._left)
        missing = whole - len(self._held)
        self._held += self._rest[:missing]
        self._rest = self._rest[missing:]
        if len(self._held) < whole:
            return None
        piece = memoryview(bytes(self._held))
        self._held.clear()
        return self._leaves(piece)

    def _leaves(self, piece: memoryview) -> WALPiece:
        position = self._position
        self._position += len(piece)
        self._left -= len(piece)
        return position, piece

    def _next_head(self) -> Frame | None:
        """Take the head of a WAL message, or a whole other one; None if there was no whole one."""
        if self._begun:
            begun = self._complete_begun()
            return None if begun is None else self._take(begun)
        needed = self._needed(self._rest)
        if needed > len(self._rest):
            self._begun += self._rest
            self._rest = self._rest[len(self._rest) :]
            return None
        source, self._rest = self._rest[:needed], self._rest[needed:]
        return self._take(source)

    def _complete_begun(self) -> bytes | None:
        """Add to a message that an earlier read cut off; None while it stays incomplete."""
        while (missing := self._needed(self._begun) - len(self._begun)) > 0:
            if not self._rest:
                return None
            self._begun += self._rest[:missing]
            self._rest = self._rest[missing:]
        source = bytes(self._begun)
        self._begun.clear()
        return source

    def _needed(self, begun: memoryview | bytearray) -> int:
        """How many bytes from a message's start are needed, as far as *begun* tells."""
        if len(begun) < _FRAME.size:
            return _FRAME.size
        kind, length = _FRAME.unpack_from(begun)
        if kind != _COPY_DATA:
            self._check_length(kind, length, backend_limit(kind))
            return 1 + int(length)
        self._check_length(kind, length, _LONGEST_COPY_DATA)
        if self._modern:
            if length < 5:
                raise ProtocolViolation("empty CopyData message in a replication stream")
            if len(begun) == _FRAME.size:
                return _FRAME.size + 1
            if begun[_FRAME.size] != _XLOG_DATA:
                self._check_length(kind, length, backend_limit(ord("S")))
                return 1 + int(length)
        if length + 1 < self._head.size:
            raise ProtocolViolation(f"WAL message of {length} bytes is too short for its header")
        return self._head.size

    @staticmethod
    def _check_length(kind: int, length: int, limit: int) -> None:
        if not 4 <= length <= limit + 4:
            raise ProtocolViolation(
                f"message of type {chr(kind)!r} with impossible length {length}"
            )

    def _take(self, source: memoryview | bytes) -> Frame | None:
        if source[0] != _COPY_DATA or (self._modern and source[_FRAME.size] != _XLOG_DATA):
            return Frame(source[0], bytes(source[_FRAME.size :]))
        if self._modern:
            _, length, _, position, self.server_end, self.send_time = _MODERN.unpack_from(source)
        else:
            _, length, position = _DESIGN_2009.unpack_from(source)
        self._position = position
        self._left = length + 1 - self._head.size
        return None


def wal_message_head(
    payload: WALPayload, start: int, size: int, server_end: int, send_time: int
) -> bytes:
    """Everything of a WAL message that precedes its *size* bytes of WAL.

    :param start: the position of the first byte of WAL.
    :param server_end: how far the sender has WAL to send; the 2009 design does not tell.
    :param send_time: now, in microseconds since 2000-01-01; likewise.
    """
    if payload is WALPayload.MODERN:
        length = _MODERN.size - 1 + size
        return _MODERN.pack(_COPY_DATA, length, _XLOG_DATA, start, server_end, send_time)
    return _DESIGN_2009.pack(_COPY_DATA, _DESIGN_2009.size - 1 + size, start)
