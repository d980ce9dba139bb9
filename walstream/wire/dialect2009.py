"""The replication commands of the design of December 2009, and the payload of its CopyData.

The design is Fujii Masao's, in a message of 2009-12-18 to pgsql-hackers ("Streaming replication
and non-blocking I/O"). It lived in a private branch and was in no release: PostgreSQL 9.0 has
IDENTIFY_SYSTEM and START_REPLICATION in its place. What the message fixes:

* the client asks for replication in the startup packet, by ``replication=on``;
* the commands ``GET_SYSTEM_IDENTIFIER``, ``GET_TIMELINE`` and ``GET_BACKUP_HISTORY_FILE X/X``,
  each of them answered by a row, and ``START REPLICATION: X/X``, answered by CopyOutResponse and
  CopyData without end;
* the client sends nothing while it receives.

What it leaves open, and what walstream does there:

* A position is written as PostgreSQL writes one, ``%X/%X``; either case of hexadecimal digits is
  read, with or without blanks around it.
* A CopyData payload is the position of its first byte of WAL, then the WAL, as in the first
  commit (2010-01-15, 40f908bdcdc7). There the position was a struct of two native 32-bit
  integers; here it is one 64-bit integer in network order, as everywhere else in the protocol.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from walstream.errors import CommandError, FormatError, ProtocolViolation
from walstream.formats.lsn import LSN

__all__ = [
    "WAL_PAYLOAD_HEADER_SIZE",
    "Command2009",
    "GetBackupHistoryFile",
    "GetSystemIdentifier",
    "GetTimeline",
    "StartReplication2009",
    "parse_2009",
    "parse_wal_payload_header",
    "wal_payload_header",
]

_POSITION: Final = struct.Struct("!Q")

WAL_PAYLOAD_HEADER_SIZE: Final = _POSITION.size
"""What precedes the WAL in a CopyData payload, in bytes: 8."""


@dataclass(frozen=True, slots=True)
class GetSystemIdentifier:
    """Item 1: the cluster's system identifier."""

    def text(self) -> str:
        """The command as a client sends it."""
        return "GET_SYSTEM_IDENTIFIER"


@dataclass(frozen=True, slots=True)
class GetTimeline:
    """Item 2: the current timeline."""

    def text(self) -> str:
        """The command as a client sends it."""
        return "GET_TIMELINE"


@dataclass(frozen=True, slots=True)
class GetBackupHistoryFile:
    """Item 3: the contents of the backup history file of the backup that began at *start*."""

    start: LSN

    def text(self) -> str:
        """The command as a client sends it."""
        return f"GET_BACKUP_HISTORY_FILE {self.start}"


@dataclass(frozen=True, slots=True)
class StartReplication2009:
    """Item 4: the WAL from *start* on, without end."""

    start: LSN

    def text(self) -> str:
        """The command as a client sends it."""
        return f"START REPLICATION: {self.start}"


Command2009 = GetSystemIdentifier | GetTimeline | GetBackupHistoryFile | StartReplication2009

_BLANKS: Final = " \t\n\r\f\v"
# What begins like a command of this dialect is one, well written or not. The colon is what tells
# START REPLICATION from today's START_REPLICATION.
_NAME: Final = re.compile(
    r"START REPLICATION:|(?:GET_SYSTEM_IDENTIFIER|GET_TIMELINE|GET_BACKUP_HISTORY_FILE)(?![\w$])"
)
_PLAIN: Final[Mapping[str, Callable[[], Command2009]]] = {
    "GET_SYSTEM_IDENTIFIER": GetSystemIdentifier,
    "GET_TIMELINE": GetTimeline,
}
_POSITIONED: Final[Mapping[str, Callable[[LSN], Command2009]]] = {
    "GET_BACKUP_HISTORY_FILE": GetBackupHistoryFile,
    "START REPLICATION:": StartReplication2009,
}


def parse_2009(text: bytes) -> Command2009 | None:
    """The command that *text* is, or None if it does not begin like one of this dialect.

    :raises CommandError: 42601 if it begins like one and goes on otherwise.
    """
    command = text.decode("latin-1").strip(_BLANKS)
    match = _NAME.match(command)
    if match is None:
        return None
    name, argument = match[0], command[match.end() :].removesuffix(";").strip(_BLANKS)
    if name in _POSITIONED:
        return _POSITIONED[name](_position(argument))
    if argument:
        raise CommandError("42601", f"syntax error: {name} takes no argument")
    return _PLAIN[name]()


def _position(argument: str) -> LSN:
    try:
        return LSN.parse(argument)
    except FormatError as error:
        raise CommandError(
            "42601", "syntax error: expected a WAL position X/X, such as 16/B374D848"
        ) from error


def wal_payload_header(start: int) -> bytes:
    """The header of a CopyData payload: the position of the first byte of WAL behind it."""
    return _POSITION.pack(start)


def parse_wal_payload_header(payload: bytes | memoryview) -> LSN:
    """The position of the first byte of WAL in a CopyData payload.

    :raises ProtocolViolation: if the payload is shorter than that.
    """
    if len(payload) < _POSITION.size:
        raise ProtocolViolation(
            f"CopyData of {len(payload)} bytes is too short for a WAL position of {_POSITION.size}"
        )
    return LSN(_POSITION.unpack_from(payload)[0])
