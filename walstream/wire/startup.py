"""The packets that open a connection, both sides, and the choice of the protocol's version.

Source: PostgreSQL's documentation, "Message Flow", Start-up, and ``ProcessStartupPacket`` for what
a server makes of each. What a server believes about a user is not known here.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

from walstream.errors import CommandError, ProtocolViolation
from walstream.wire.fields import FieldReader, cstring
from walstream.wire.frames import frame

__all__ = [
    "CANCEL_REQUEST_CODE",
    "GSSENC_REQUEST_CODE",
    "PROTOCOL_3_0",
    "PROTOCOL_3_2",
    "SSL_REQUEST_CODE",
    "ReplicationMode",
    "check_protocol_version",
    "legacy_error",
    "negotiate_protocol_version",
    "parse_startup",
    "replication_mode",
    "startup_message",
    "unknown_extensions",
]

PROTOCOL_3_0: Final = 3 << 16
"""The version's major number in the upper 16 bits, its minor number in the lower."""

PROTOCOL_3_2: Final = 3 << 16 | 2
"""What PostgreSQL 18 speaks if it is asked to: keys of CancelRequests are longer."""

CANCEL_REQUEST_CODE: Final = 1234 << 16 | 5678
SSL_REQUEST_CODE: Final = 1234 << 16 | 5679
GSSENC_REQUEST_CODE: Final = 1234 << 16 | 5680

_EXTENSION: Final = "_pq_."
_PACKET: Final = struct.Struct("!II")
_INT32: Final = struct.Struct("!i")
_NOT_UTF8: Final = "surrogateescape"


class ReplicationMode(Enum):
    """What the startup parameter ``replication`` asks for."""

    NONE = "an ordinary session"
    PHYSICAL = "a walsender"
    DATABASE = "a walsender that is connected to a database"


def startup_message(parameters: Mapping[str, str]) -> bytes:
    """The startup packet of protocol 3.0.

    :raises FormatError: if a name or a value contains a zero character.
    """
    pairs = b"".join(cstring(name) + cstring(value) for name, value in parameters.items())
    body = pairs + b"\0"
    return _PACKET.pack(_PACKET.size + len(body), PROTOCOL_3_0) + body


def parse_startup(body: bytes) -> dict[str, str]:
    """The parameters of a startup packet, *body* being what follows the version.

    A name that comes twice has its last value. Bytes that are not UTF-8 become lone surrogates
    (``surrogateescape``), so that nothing is lost.

    :raises CommandError: for a body that does not end where its parameters do (08P01), or that
        names no user (28000). Both are FATAL: the connection does not go on.
    """
    parameters = _parse_pairs(body)
    if not parameters.get("user"):
        raise CommandError("28000", "no PostgreSQL user name specified in startup packet")
    return parameters


def _parse_pairs(body: bytes) -> dict[str, str]:
    reader = FieldReader(body)
    parameters: dict[str, str] = {}
    try:
        while name := reader.cstring():
            value = reader.cstring()
            parameters[name.decode("utf-8", _NOT_UTF8)] = value.decode("utf-8", _NOT_UTF8)
        reader.end()
    except ProtocolViolation as error:
        raise CommandError(
            "08P01", "invalid startup packet layout: expected terminator as last byte"
        ) from error
    return parameters


def replication_mode(value: str) -> ReplicationMode:
    """What a value of the startup parameter ``replication`` means.

    ``database``, in just these letters, or a boolean in any case of letters, of which an
    unambiguous beginning is enough.

    :raises CommandError: 22023, with PostgreSQL's hint, for anything else.
    """
    if value == "database":
        return ReplicationMode.DATABASE
    wanted = _boolean(value.lower())
    if wanted is None:
        raise CommandError(
            "22023",
            f'invalid value for parameter "replication": "{value}"',
            hint='Valid values are: "false", 0, "true", 1, "database".',
        )
    return ReplicationMode.PHYSICAL if wanted else ReplicationMode.NONE


def _boolean(value: str) -> bool | None:
    # As `parse_bool_with_len`: of "on" and "off" one letter is not enough to tell.
    if value == "1" or value == "on" or _begins(value, "true", "yes"):
        return True
    if value == "0" or value in ("of", "off") or _begins(value, "false", "no"):
        return False
    return None


def _begins(value: str, *words: str) -> bool:
    return value != "" and any(word.startswith(value) for word in words)


def check_protocol_version(code: int, newest: int = PROTOCOL_3_0) -> int:
    """The version that a session goes on with when a client asks for *code*.

    A minor version above the newest is answered by NegotiateProtocolVersion.

    :raises CommandError: 0A000, FATAL, for another major version.
    """
    if code >> 16 != newest >> 16:
        raise CommandError(
            "0A000",
            f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: "
            f"server supports {PROTOCOL_3_0 >> 16}.0 to {newest >> 16}.{newest & 0xFFFF}",
        )
    return min(code, newest)


def legacy_error(message: str) -> bytes:
    """A FATAL error as clients of protocol versions 1 and 2 understand it; not a typed message."""
    return b"E" + cstring(f"FATAL:  {message}\n")


def unknown_extensions(parameters: Mapping[str, str]) -> list[str]:
    """The protocol extensions that a client asked for: all are unknown to us."""
    return [name for name in parameters if name.startswith(_EXTENSION)]


def negotiate_protocol_version(newest: int, unknown: Sequence[str]) -> bytes:
    """NegotiateProtocolVersion, which precedes the first Authentication message.

    :param newest: the version that the session goes on with, as `PROTOCOL_3_0`.
    :param unknown: the names of the protocol extensions that will not be had.
    """
    names = b"".join(map(cstring, unknown))
    return frame(b"v", _INT32.pack(newest) + _INT32.pack(len(unknown)) + names)
