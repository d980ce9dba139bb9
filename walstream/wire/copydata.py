"""The payloads inside CopyData while WAL is streamed, PostgreSQL 9.3 to 18.

Source: PostgreSQL's documentation, "Streaming Replication Protocol", START_REPLICATION. All
integers are in network order, all times are microseconds since 2000-01-01 00:00 UTC. What is
answered to which of them, and when, is not known here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from walstream.errors import ProtocolViolation

__all__ = [
    "WAL_DATA_HEADER_SIZE",
    "HotStandbyFeedback",
    "Keepalive",
    "StandbyStatus",
    "UnknownStandbyMessage",
    "parse_keepalive",
    "parse_standby_message",
    "pg_time",
    "status_message",
    "unix_time",
    "wal_data_header",
]

_WAL_DATA: Final = struct.Struct("!cQQq")
_KEEPALIVE: Final = struct.Struct("!cQqB")
_STATUS: Final = struct.Struct("!cQQQqB")
_FEEDBACK: Final = struct.Struct("!cqIIII")
_STATUS_MESSAGE: Final = struct.Struct("!cicQQQqB")

WAL_DATA_HEADER_SIZE: Final = _WAL_DATA.size
"""What precedes the WAL in an XLogData payload, in bytes: 25."""

# 2000-01-01 minus 1970-01-01.
_EPOCH_MICROSECONDS: Final = 946_684_800_000_000


class UnknownStandbyMessage(ProtocolViolation):
    """A standby sent a payload of an unknown type.

    PostgreSQL closes the connection at this without a word to the client, whereas a message that
    is too short is an ERROR which ends the stream and not the session.
    """


@dataclass(frozen=True, slots=True)
class Keepalive:
    """Primary keepalive message (``k``).

    :ivar end: the byte position up to which WAL has been sent.
    :ivar reply_requested: the receiver is to answer with a `StandbyStatus` at once.
    """

    end: int
    send_time: int
    reply_requested: bool

    def pack(self) -> bytes:
        """The payload."""
        return _KEEPALIVE.pack(b"k", self.end, self.send_time, self.reply_requested)


@dataclass(frozen=True, slots=True)
class StandbyStatus:
    """Standby status update (``r``): byte positions up to which WAL is safe, or 0 for unknown.

    :ivar reply_requested: the sender is to answer with a `Keepalive` at once.
    """

    write: int
    flush: int
    apply: int
    send_time: int
    reply_requested: bool

    def pack(self) -> bytes:
        """The payload."""
        return _STATUS.pack(
            b"r", self.write, self.flush, self.apply, self.send_time, self.reply_requested
        )


@dataclass(frozen=True, slots=True)
class HotStandbyFeedback:
    """Hot standby feedback message (``h``) as PostgreSQL 10 and later send it.

    :ivar xmin: the oldest transaction that a query on the standby still sees, or 0 for none.
    :ivar xmin_epoch: the upper 32 bits of that transaction's full number.
    """

    send_time: int
    xmin: int
    xmin_epoch: int
    catalog_xmin: int
    catalog_xmin_epoch: int

    def pack(self) -> bytes:
        """The payload."""
        return _FEEDBACK.pack(
            b"h",
            self.send_time,
            self.xmin,
            self.xmin_epoch,
            self.catalog_xmin,
            self.catalog_xmin_epoch,
        )


def wal_data_header(start: int, end: int, send_time: int) -> bytes:
    """The header of an XLogData payload (``w``); the WAL follows it.

    :param start: the position of the first byte of WAL that follows.
    :param end: the position up to which the sender could send.
    """
    return _WAL_DATA.pack(b"w", start, end, send_time)


def status_message(
    write: int, flush: int, apply: int, unix_seconds: float, reply_requested: bool
) -> bytes:
    """A `StandbyStatus` as a whole CopyData message: one for each commit that waits for it."""
    return _STATUS_MESSAGE.pack(
        b"d",
        _STATUS_MESSAGE.size - 1,
        b"r",
        write,
        flush,
        apply,
        pg_time(unix_seconds),
        reply_requested,
    )


def parse_keepalive(payload: bytes) -> Keepalive:
    """A `Keepalive`, which is 18 bytes.

    :raises ProtocolViolation: for any other length, in a standby's words.
    """
    if len(payload) != _KEEPALIVE.size or payload[:1] != b"k":
        raise ProtocolViolation("invalid keepalive message received from primary")
    _, end, send_time, reply = _KEEPALIVE.unpack(payload)
    return Keepalive(end, send_time, bool(reply))


def parse_standby_message(payload: bytes) -> StandbyStatus | HotStandbyFeedback:
    """What a standby sent while it receives; bytes after the last field are ignored.

    :raises ProtocolViolation: for a payload that is too short, in PostgreSQL's words.
    :raises UnknownStandbyMessage: for one that is neither ``r`` nor ``h``.
    """
    match payload[:1]:
        case b"r":
            return _parse_status(payload)
        case b"h":
            return _parse_feedback(payload)
        case b"":
            raise ProtocolViolation("no data left in message")
        case other:
            raise UnknownStandbyMessage(f"unexpected message type {ascii(other)[1:]}")


def _parse_status(payload: bytes) -> StandbyStatus:
    # PostgreSQL reads the last field, a byte, by another function, which has other words.
    if len(payload) == _STATUS.size - 1:
        raise ProtocolViolation("no data left in message")
    _require(payload, _STATUS.size)
    _, write, flush, apply, send_time, reply = _STATUS.unpack_from(payload)
    return StandbyStatus(write, flush, apply, send_time, bool(reply))


def _parse_feedback(payload: bytes) -> HotStandbyFeedback:
    _require(payload, _FEEDBACK.size)
    _, send_time, xmin, epoch, catalog_xmin, catalog_epoch = _FEEDBACK.unpack_from(payload)
    return HotStandbyFeedback(send_time, xmin, epoch, catalog_xmin, catalog_epoch)


def _require(payload: bytes, size: int) -> None:
    if len(payload) < size:
        raise ProtocolViolation("insufficient data left in message")


def pg_time(unix_seconds: float) -> int:
    """A Unix time, in seconds, as PostgreSQL's time: microseconds since 2000-01-01 UTC."""
    return round(unix_seconds * 1_000_000) - _EPOCH_MICROSECONDS


def unix_time(pg_time: int) -> float:
    """PostgreSQL's time as a Unix time, in seconds."""
    return (pg_time + _EPOCH_MICROSECONDS) / 1_000_000
