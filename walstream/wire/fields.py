"""The fields inside a message's body: integers in network order, C strings, counted bytes.

Knows how fields lie behind one another, and PostgreSQL's words for a body that ends too soon or
too late (``pqformat.c``); knows no message.
"""

from __future__ import annotations

import struct
from typing import Final

from walstream.errors import FormatError, ProtocolViolation

__all__ = ["FieldReader", "cstring", "text"]

_INT16: Final = struct.Struct("!h")
_INT32: Final = struct.Struct("!i")


def cstring(value: str) -> bytes:
    """*value* in UTF-8 with the zero byte that ends it.

    :raises FormatError: if it contains a zero character, which would end it early.
    """
    if "\0" in value:
        raise FormatError(f"a text on the wire cannot contain a zero character: {value!r}")
    return value.encode("utf-8", "surrogateescape") + b"\0"


def text(value: bytes) -> str:
    """*value* as a text to be shown; bytes that are not UTF-8 become U+FFFD."""
    return value.decode("utf-8", "replace")


class FieldReader:
    """Takes one field after the other from a body.

    Every method raises `ProtocolViolation` when the body does not hold what is asked for.
    """

    __slots__ = ("_body", "_offset")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._offset = 0

    def byte(self) -> int:
        """An unsigned byte."""
        if self._offset >= len(self._body):
            raise ProtocolViolation("no data left in message")
        return self.take(1)[0]

    def int16(self) -> int:
        """A signed 16-bit integer."""
        (value,) = _INT16.unpack(self.take(_INT16.size))
        return int(value)

    def int32(self) -> int:
        """A signed 32-bit integer."""
        (value,) = _INT32.unpack(self.take(_INT32.size))
        return int(value)

    def take(self, size: int) -> bytes:
        """Exactly *size* bytes."""
        end = self._offset + size
        if size < 0 or end > len(self._body):
            raise ProtocolViolation("insufficient data left in message")
        taken = self._body[self._offset : end]
        self._offset = end
        return taken

    def cstring(self) -> bytes:
        """The bytes up to the next zero byte, which is taken too."""
        end = self._body.find(b"\0", self._offset)
        if end < 0:
            raise ProtocolViolation("invalid string in message")
        taken = self._body[self._offset : end]
        self._offset = end + 1
        return taken

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._body) - self._offset)

    def end(self) -> None:
        """Nothing may be left."""
        if self._offset != len(self._body):
            raise ProtocolViolation("invalid message format")
