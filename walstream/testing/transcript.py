"""Protocol messages in words, for people who read a failed test.

`describe` never fails: a message that has not its layout is shown as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Literal

from walstream.errors import WalstreamError
from walstream.formats.lsn import LSN
from walstream.wire.copydata import parse_keepalive, parse_standby_message
from walstream.wire.frames import Backend, Frame, Frontend, StartupPacket
from walstream.wire.messages import (
    AuthenticationCode,
    parse_authentication,
    parse_command_complete,
    parse_data_row,
    parse_error,
    parse_parameter_status,
    parse_query,
    parse_row_description,
)
from walstream.wire.startup import PROTOCOL_3_0, SSL_REQUEST_CODE, parse_startup

__all__ = ["Role", "describe", "describe_startup"]

#: Who sent a message: the same letter is another message from the other side.
Role = Literal["client", "server"]

_SHOWN = 60  # bytes of a body that are shown
_WAL_DATA = struct.Struct("!BQQq")


def describe(message: Frame, sender: Role) -> str:
    """A message that *sender* sent, in a line."""
    kinds: type[Backend | Frontend] = Backend if sender == "server" else Frontend
    if message.kind not in list(kinds):
        return f"message of unknown type {bytes((message.kind,))!r} {_shown(message.body)}".rstrip()
    kind = kinds(message.kind)
    try:
        words = _WORDS[sender].get(kind, _shown)(message.body)
    except (WalstreamError, struct.error):
        words = f"malformed: {_shown(message.body)}"
    return f"{_name(kind)} {words}".rstrip()


def describe_startup(packet: StartupPacket) -> str:
    """A startup packet in a line."""
    if packet.code == SSL_REQUEST_CODE:
        return "SSLRequest"
    if packet.code != PROTOCOL_3_0:
        return f"startup packet of code {packet.code}, {_shown(packet.body)}"
    try:
        return f"StartupMessage {parse_startup(packet.body)}"
    except WalstreamError:
        return f"StartupMessage malformed: {_shown(packet.body)}"


def _name(kind: Backend | Frontend) -> str:
    """As in PostgreSQL's "Message Formats": COPY_DATA is CopyData."""
    return "".join(word.capitalize() for word in kind.name.split("_"))


def _shown(body: bytes) -> str:
    if not body:
        return ""
    more = f" … {len(body)} bytes" if len(body) > _SHOWN else ""
    return f"{body[:_SHOWN]!r}{more}"


def _authentication(body: bytes) -> str:
    code, data = parse_authentication(body)
    known = code in list(AuthenticationCode)
    return f"{AuthenticationCode(code).name if known else code} {_shown(data)}"


def _copy_data(body: bytes) -> str:
    match body[:1]:
        case b"w":
            _, start, end, _ = _WAL_DATA.unpack_from(body)
            size = len(body) - _WAL_DATA.size
            return f"WAL {LSN(start)} + {size} bytes, server's end {LSN(end)}"
        case b"k" if len(body) == 18:
            keepalive = parse_keepalive(body)
            asks = ", asks for a reply" if keepalive.reply_requested else ""
            return f"keepalive, end {LSN(keepalive.end)}{asks}"
        case b"r" | b"h":
            return repr(parse_standby_message(body))
    return _shown(body)


# By sender, since the two enumerations are numbers and equal where the letters are.
_WORDS: dict[Role, dict[int, Callable[[bytes], str]]] = {
    "server": {
        Backend.AUTHENTICATION: _authentication,
        Backend.COMMAND_COMPLETE: lambda body: repr(parse_command_complete(body)),
        Backend.COPY_DATA: _copy_data,
        Backend.DATA_ROW: lambda body: repr(parse_data_row(body)),
        Backend.ERROR_RESPONSE: lambda body: str(parse_error(body)),
        Backend.NOTICE_RESPONSE: lambda body: str(parse_error(body)),
        Backend.PARAMETER_STATUS: lambda body: "{} = {!r}".format(*parse_parameter_status(body)),
        Backend.ROW_DESCRIPTION: lambda body: ", ".join(parse_row_description(body)),
    },
    "client": {
        Frontend.COPY_DATA: _copy_data,
        Frontend.PASSWORD: lambda body: f"{len(body)} bytes",
        Frontend.QUERY: lambda body: repr(parse_query(body).decode("utf-8", "backslashreplace")),
    },
}
