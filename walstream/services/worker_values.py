"""What the main process and its workers tell each other, as bytes: slots, positions, refusals.

JSON, since a worker reads what strangers send, and its main process should not have to trust it
with more than values. What has other values than it should raises ValueError.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from typing import Final

from twisted.protocols import amp

from walstream.errors import CommandError
from walstream.formats.lsn import LSN
from walstream.interfaces import Slot, WALPosition

__all__ = ["Name", "Position", "Refused", "SlotValue", "in_pieces", "is_number"]

_LARGEST: Final = (1 << 64) - 1

# AMP's limit for a value, and what is left unused of it.
_MOST_BYTES = 0xFFFF - 1024


def is_number(value: object) -> bool:
    """Whether it is a number without a sign, of 64 bits at most."""
    return type(value) is int and 0 <= value <= _LARGEST


class _Value(amp.Argument):
    def __init__(self, *, optional: bool = False) -> None:
        super().__init__(optional)  # type: ignore[no-untyped-call]


class Name(_Value):
    """What a client calls something, which may be no UTF-8, in an AMP box."""

    def toString(self, name: str) -> bytes:  # noqa: N802
        """As AMP asks for it."""
        return name.encode("utf-8", "surrogateescape")

    def fromString(self, data: bytes) -> str:  # noqa: N802
        """As AMP asks for it."""
        return data.decode("utf-8", "surrogateescape")


class Position(_Value):
    """A `WALPosition` in an AMP box."""

    def toString(self, position: WALPosition) -> bytes:  # noqa: N802
        """As AMP asks for it."""
        return b"%d %d" % (position.timeline, position.lsn)

    def fromString(self, data: bytes) -> WALPosition:  # noqa: N802
        """As AMP asks for it."""
        timeline, lsn = map(int, data.split())
        if not (is_number(timeline) and is_number(lsn)):
            raise ValueError(f"there is no position {data!r}")
        return WALPosition(timeline, LSN(lsn))


class SlotValue(_Value):
    """A `Slot` in an AMP box."""

    def toString(self, slot: Slot) -> bytes:  # noqa: N802
        """As AMP asks for it."""
        return json.dumps(astuple(slot)).encode()

    def fromString(self, data: bytes) -> Slot:  # noqa: N802
        """As AMP asks for it."""
        name, temporary, restart, *rest = json.loads(data)
        if restart is not None:
            restart = WALPosition(restart[0], LSN(restart[1]))
        return Slot(name, temporary, restart, *rest)


class Refused(Exception):
    """A `CommandError` on its way from one process to another; its text is all that AMP sends."""

    @classmethod
    def of(cls, error: CommandError) -> Refused:
        """The error, to be sent."""
        return cls(json.dumps([error.sqlstate, error.message, error.detail, error.hint]))

    def error(self) -> CommandError:
        """The error that was sent."""
        sqlstate, message, detail, hint = json.loads(str(self))
        return CommandError(sqlstate, message, detail=detail, hint=hint)


def in_pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The *lines*, none of which has a newline in it, in as few values of AMP's as will do."""
    piece: list[bytes] = []
    size = 0
    for line in lines:
        if piece and size + len(line) + 1 > _MOST_BYTES:
            yield b"\n".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(line) + 1
    if piece:
        yield b"\n".join(piece)
