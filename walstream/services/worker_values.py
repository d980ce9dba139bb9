"""What the main process and its workers tell each other, as bytes: slots, standbys, refusals.

JSON, since a worker reads what strangers send, and its main process should not have to trust it
with more than values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import astuple, fields
from typing import Any

from twisted.protocols import amp

from walstream.errors import CommandError
from walstream.formats.lsn import LSN
from walstream.interfaces import Slot, WALPosition
from walstream.protocols.lag import Lags
from walstream.protocols.standbys import Standby, StandbyState
from walstream.wire.copydata import HotStandbyFeedback

__all__ = ["Position", "Refused", "SlotValue", "in_pieces", "pack_standby", "standby_values"]

_STANDBY_FIELDS = tuple(field.name for field in fields(Standby))

# AMP's limit for a value, and what is left unused of it.
_MOST_BYTES = 0xFFFF - 1024


class _Value(amp.Argument):
    def __init__(self, *, optional: bool = False) -> None:
        super().__init__(optional)  # type: ignore[no-untyped-call]


class Position(_Value):
    """A `WALPosition` in an AMP box."""

    def toString(self, position: WALPosition) -> bytes:  # noqa: N802
        """As AMP asks for it."""
        return b"%d %d" % (position.timeline, position.lsn)

    def fromString(self, data: bytes) -> WALPosition:  # noqa: N802
        """As AMP asks for it."""
        timeline, lsn = map(int, data.split())
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


def pack_standby(standby: Standby) -> bytes:
    """A client as it is at this moment. No line of it is longer than a startup packet allows."""
    values: dict[str, Any] = {name: getattr(standby, name) for name in _STANDBY_FIELDS}
    values["state"] = standby.state.value
    if standby.feedback is not None:
        values["feedback"] = astuple(standby.feedback)
    return json.dumps(values).encode()


def standby_values(data: bytes) -> dict[str, Any]:
    """The attributes of what `pack_standby` packed."""
    values: dict[str, Any] = json.loads(data)
    values["state"] = StandbyState(values["state"])
    values["lags"] = Lags(*values["lags"])
    if values["address"] is not None:
        values["address"] = tuple(values["address"])
    if values["feedback"] is not None:
        values["feedback"] = HotStandbyFeedback(*values["feedback"])
    return values


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
