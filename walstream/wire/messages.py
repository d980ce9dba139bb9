"""The messages of the PostgreSQL protocol, version 3, that replication has a use for.

Builders return complete messages, ready to be sent; parsers take the body of a message as
`walstream.wire.frames` gives it. Source of every layout: PostgreSQL's documentation, "Message
Formats" and "Error and Notice Message Fields". When a message may be sent is not known here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from walstream.errors import ServerError
from walstream.formats.log_text import shown
from walstream.wire.fields import FieldReader, cstring, text
from walstream.wire.frames import frame

__all__ = [
    "AuthenticationCode",
    "Column",
    "ColumnType",
    "authentication_cleartext",
    "authentication_md5",
    "authentication_ok",
    "authentication_sasl",
    "authentication_sasl_continue",
    "authentication_sasl_final",
    "backend_key_data",
    "command_complete",
    "copy_both_response",
    "copy_data",
    "copy_done",
    "copy_fail",
    "copy_in_response",
    "copy_out_response",
    "data_row",
    "error_response",
    "notice_response",
    "parameter_status",
    "parse_authentication",
    "parse_backend_key_data",
    "parse_command_complete",
    "parse_data_row",
    "parse_error",
    "parse_parameter_status",
    "parse_query",
    "parse_row_description",
    "password_message",
    "query",
    "ready_for_query",
    "row_description",
    "sasl_initial_response",
    "sasl_response",
    "terminate",
]


class AuthenticationCode(IntEnum):
    """What an Authentication message (``R``) says or asks for."""

    OK = 0
    KERBEROS_V5 = 2
    CLEARTEXT_PASSWORD = 3
    MD5_PASSWORD = 5
    GSS = 7
    GSS_CONTINUE = 8
    SSPI = 9
    SASL = 10
    SASL_CONTINUE = 11
    SASL_FINAL = 12


class ColumnType(Enum):
    """A column's data type: its OID in ``pg_type``, and the size of its values or -1."""

    BYTEA = (17, -1)
    INT8 = (20, 8)
    INT4 = (23, 4)
    TEXT = (25, -1)
    OID = (26, 4)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result; all values travel in text format.

    :ivar modifier: the type modifier, -1 for none. PostgreSQL up to 9.6 said 0 here.
    """

    name: str
    type: ColumnType
    modifier: int = -1


_INT16: Final = struct.Struct("!h")
_INT32: Final = struct.Struct("!i")
_UINT32: Final = struct.Struct("!I")
# Table OID, attribute number, type OID, type size, type modifier, format.
_COLUMN: Final = struct.Struct("!IhIhih")
# Overall format (text), number of columns: a replication stream is not divided into columns.
_COPY_FORMAT: Final = b"\x00\x00\x00"
_NULL: Final = -1


# --- what a server sends


def authentication_ok() -> bytes:
    """AuthenticationOk."""
    return _authentication(AuthenticationCode.OK)


def authentication_cleartext() -> bytes:
    """AuthenticationCleartextPassword."""
    return _authentication(AuthenticationCode.CLEARTEXT_PASSWORD)


def authentication_md5(salt: bytes) -> bytes:
    """AuthenticationMD5Password; *salt* is four bytes."""
    return _authentication(AuthenticationCode.MD5_PASSWORD, salt)


def authentication_sasl(mechanisms: Sequence[str]) -> bytes:
    """AuthenticationSASL, the server's preferred mechanism first."""
    names = b"".join(map(cstring, mechanisms))
    return _authentication(AuthenticationCode.SASL, names + b"\0")


def authentication_sasl_continue(data: bytes) -> bytes:
    """AuthenticationSASLContinue."""
    return _authentication(AuthenticationCode.SASL_CONTINUE, data)


def authentication_sasl_final(data: bytes) -> bytes:
    """AuthenticationSASLFinal."""
    return _authentication(AuthenticationCode.SASL_FINAL, data)


def parameter_status(name: str, value: str) -> bytes:
    """ParameterStatus."""
    return frame(b"S", cstring(name) + cstring(value))


def backend_key_data(pid: int, key: bytes) -> bytes:
    """BackendKeyData; *key* is four bytes in protocol 3.0, 4 to 256 in 3.2."""
    return frame(b"K", _UINT32.pack(pid) + key)


def ready_for_query(status: bytes = b"I") -> bytes:
    """ReadyForQuery; *status* is ``I``, as replication knows no transactions."""
    return frame(b"Z", status)


def row_description(columns: Sequence[Column]) -> bytes:
    """RowDescription."""
    return frame(b"T", _INT16.pack(len(columns)) + b"".join(map(_column, columns)))


def data_row(values: Sequence[bytes | None]) -> bytes:
    """DataRow; None is NULL."""
    return frame(b"D", _INT16.pack(len(values)) + b"".join(map(_value, values)))


def command_complete(tag: str) -> bytes:
    """CommandComplete."""
    return frame(b"C", cstring(tag))


def copy_both_response() -> bytes:
    """CopyBothResponse."""
    return frame(b"W", _COPY_FORMAT)


def copy_out_response() -> bytes:
    """CopyOutResponse."""
    return frame(b"H", _COPY_FORMAT)


def copy_in_response() -> bytes:
    """CopyInResponse."""
    return frame(b"G", _COPY_FORMAT)


def error_response(
    severity: str,
    sqlstate: str,
    message: str,
    detail: str | None = None,
    hint: str | None = None,
) -> bytes:
    """ErrorResponse; *severity* is ``ERROR``, ``FATAL`` or ``PANIC``."""
    return frame(b"E", _fields(severity, sqlstate, message, detail, hint))


def notice_response(
    severity: str,
    sqlstate: str,
    message: str,
    detail: str | None = None,
    hint: str | None = None,
) -> bytes:
    """NoticeResponse; *severity* is ``WARNING``, ``NOTICE``, ``INFO``, ``LOG`` or ``DEBUG``."""
    return frame(b"N", _fields(severity, sqlstate, message, detail, hint))


def _authentication(code: AuthenticationCode, data: bytes = b"") -> bytes:
    return frame(b"R", _INT32.pack(code) + data)


def _column(column: Column) -> bytes:
    oid, size = column.type.value
    return cstring(column.name) + _COLUMN.pack(0, 0, oid, size, column.modifier, 0)


def _value(value: bytes | None) -> bytes:
    return _INT32.pack(_NULL) if value is None else _INT32.pack(len(value)) + value


def _fields(
    severity: str, sqlstate: str, message: str, detail: str | None, hint: str | None
) -> bytes:
    # In the order in which PostgreSQL sends them; V is the severity that is never translated.
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": message, "D": detail, "H": hint}
    return b"".join(_field(code, value) for code, value in fields.items() if value) + b"\0"


def _field(code: str, value: str) -> bytes:
    # The text may quote what a peer sent or an operating system said, so nothing may make it fail.
    return (code + value.replace("\0", " ")).encode("utf-8", "replace") + b"\0"


# --- what both send


def copy_data(payload: bytes) -> bytes:
    """CopyData."""
    return frame(b"d", payload)


def copy_done() -> bytes:
    """CopyDone."""
    return frame(b"c")


# --- what a client sends


def query(command: str) -> bytes:
    """Query."""
    return frame(b"Q", cstring(command))


def password_message(data: bytes) -> bytes:
    """PasswordMessage; *data* is the password or its hash, without the zero byte that ends it."""
    return frame(b"p", data + b"\0")


def sasl_initial_response(mechanism: str, data: bytes) -> bytes:
    """SASLInitialResponse."""
    return frame(b"p", cstring(mechanism) + _INT32.pack(len(data)) + data)


def sasl_response(data: bytes) -> bytes:
    """SASLResponse."""
    return frame(b"p", data)


def terminate() -> bytes:
    """Terminate."""
    return frame(b"X")


def copy_fail(reason: str) -> bytes:
    """CopyFail."""
    return frame(b"f", cstring(reason))


# --- parsers; each raises ProtocolViolation for a body that has not its layout


def parse_error(body: bytes) -> ServerError:
    """An ErrorResponse or a NoticeResponse, for people; fields of unknown codes are skipped."""
    fields = _parse_fields(body)
    return ServerError(
        fields.get("V") or fields.get("S", "ERROR"),
        fields.get("C", "XX000"),
        fields.get("M", "the server gave no message"),
        detail=fields.get("D"),
        hint=fields.get("H"),
    )


def _parse_fields(body: bytes) -> dict[str, str]:
    reader = FieldReader(body)
    fields: dict[str, str] = {}
    while code := reader.byte():
        fields[chr(code)] = shown(reader.cstring())
    return fields


def parse_row_description(body: bytes) -> list[str]:
    """The names of the columns."""
    reader = FieldReader(body)
    names = []
    for _ in range(reader.int16()):
        names.append(text(reader.cstring()))
        reader.take(_COLUMN.size)
    reader.end()
    return names


def parse_data_row(body: bytes) -> list[bytes | None]:
    """The values of a row; None is NULL."""
    reader = FieldReader(body)
    values = [_parse_value(reader) for _ in range(reader.int16())]
    reader.end()
    return values


def _parse_value(reader: FieldReader) -> bytes | None:
    size = reader.int32()
    return None if size == _NULL else reader.take(size)


def parse_parameter_status(body: bytes) -> tuple[str, str]:
    """A parameter's name and value, for people."""
    reader = FieldReader(body)
    name, value = shown(reader.cstring()), shown(reader.cstring())
    reader.end()
    return name, value


def parse_authentication(body: bytes) -> tuple[int, bytes]:
    """The code (see `AuthenticationCode`), and the data that belongs to it."""
    reader = FieldReader(body)
    return reader.int32(), reader.rest()


def parse_backend_key_data(body: bytes) -> tuple[int, bytes]:
    """The number of the server process, and the key that a CancelRequest needs."""
    reader = FieldReader(body)
    return reader.int32(), reader.rest()


def parse_command_complete(body: bytes) -> str:
    """The command's tag."""
    return text(_parse_cstring(body))


def parse_query(body: bytes) -> bytes:
    """The text of a Query, as the client encoded it."""
    return _parse_cstring(body)


def _parse_cstring(body: bytes) -> bytes:
    reader = FieldReader(body)
    value = reader.cstring()
    reader.end()
    return value
