"""What does not belong on a connection: answered as by PostgreSQL, byte by byte."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.integration.test_send import archive_of
from tests.servers import Clusters, every_version
from tests.servers.daemon import Serving
from walstream.errors import ProtocolViolation
from walstream.wire.frames import Frame, FrameReader, frame
from walstream.wire.messages import copy_data, parse_error, query, terminate
from walstream.wire.startup import (
    CANCEL_REQUEST_CODE,
    SSL_REQUEST_CODE,
    startup_message,
)

_USER: Final = {"user": "postgres", "replication": "true"}
_LOGIN: Final = startup_message(_USER)


def packet(code: int, body: bytes = b"", length: int | None = None) -> bytes:
    """A packet without a type, of that length or of the right one."""
    size = len(body) + 8 if length is None else length
    return size.to_bytes(4, "big") + code.to_bytes(4, "big") + body


def version(major: int, minor: int, **parameters: str) -> bytes:
    """A startup packet for a version of the protocol, with these parameters besides."""
    body = startup_message({**_USER, **parameters})[8:]
    return packet(major << 16 | minor, body)


# What is sent at once, before anything is read. Then the session, if there is one, is ended.
STRANGE: Final[dict[str, bytes]] = {
    **{f"a length of {length}": packet(3 << 16, length=length) for length in range(8)},
    "a length of 10005": packet(3 << 16, length=10005),
    "a length of 2 GiB": packet(3 << 16, length=0x7FFFFFFF),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no parameters at all": packet(3 << 16),
    "no user": packet(3 << 16, b"database\0x\0\0"),
    "no terminator": packet(3 << 16, b"user\0postgres\0replication\0true\0"),
    "more behind the terminator": packet(3 << 16, b"user\0postgres\0\0x"),
    "a name without a value": packet(3 << 16, b"user\0postgres\0replication\0"),
    "the longest startup packet": packet(
        3 << 16, _LOGIN[8:-1] + b"application_name\0" + b"x" * (9_996 - len(_LOGIN) - 9) + b"\0\0"
    ),
    "replication=o": version(3, 0, replication="o"),
    "replication=2": version(3, 0, replication="2"),
    "replication=": version(3, 0, replication=""),
    "SSLRequest": packet(SSL_REQUEST_CODE) + _LOGIN,
    "SSLRequest twice": packet(SSL_REQUEST_CODE) * 2,
    "CancelRequest": packet(CANCEL_REQUEST_CODE, b"\0\0\x7f\xff" + b"\0" * 4),
    "CancelRequest, too short": packet(CANCEL_REQUEST_CODE, b"\0\0"),
    "CancelRequest, long": packet(CANCEL_REQUEST_CODE, b"\0\0\x7f\xff" + b"\0" * 32),
    "CancelRequest, too long": packet(CANCEL_REQUEST_CODE, b"\0\0\x7f\xff" + b"\0" * 300),
    "3.1": version(3, 1),
    "3.2": version(3, 2),
    "3.7": version(3, 7),
    "3.9999": version(3, 9999),
    "an extension": version(3, 0, **{"_pq_.foo": "x"}),
    "2.0": version(2, 0),
    "1.0": version(1, 0),
    "0.0": packet(0, b"\0"),
    "4.0": version(4, 0),
    "an unknown type": _LOGIN + frame(b"?", b"x"),
    "a type of zero": _LOGIN + frame(b"\0"),
    "a password": _LOGIN + frame(b"p", b"secret\0"),
    "a message of length 3": _LOGIN + b"Q\0\0\0\3",
    "a message of length 0": _LOGIN + b"X\0\0\0\0",
    "a negative length": _LOGIN + b"Q\xff\xff\xff\xff",
    "a CopyDone of 20000 bytes": _LOGIN + frame(b"c", b"x" * 20_000),
    "a Query of 2 GiB": _LOGIN + b"Q\x7f\xff\xff\xff",
    "a Query without an end": _LOGIN + frame(b"Q", b"IDENTIFY_SYSTEM"),
    "a Query with two ends": _LOGIN + frame(b"Q", b"IDENTIFY_SYSTEM\0\0"),
    "an empty Query": _LOGIN + query(""),
    "a Query that is not text": _LOGIN + frame(b"Q", b"\xff\xfe\0"),
    "commands in one piece": _LOGIN + query("SHOW wal_segment_size") * 3,
    "CopyData outside of a stream": _LOGIN + copy_data(b"r" * 34) + query("SHOW wal_level"),
    "CopyDone and CopyFail": _LOGIN + frame(b"c") + frame(b"f", b"x\0"),
    "Sync and Flush": _LOGIN + frame(b"S") + frame(b"H"),
    "Parse": _LOGIN + frame(b"P", b"\0SELECT 1\0\0\0") + query("SHOW wal_level") + frame(b"S"),
    "Parse, and no Sync": _LOGIN + frame(b"B") + frame(b"E") + query("SHOW wal_level"),
    "FunctionCall": _LOGIN + frame(b"F", b"\0" * 8) + frame(b"S"),
    "a stream's message that is too short": _LOGIN
    + query("START_REPLICATION 0/AAAAAAAA")
    + copy_data(b"r"),
    "a stream's message of no type": _LOGIN
    + query("START_REPLICATION 0/AAAAAAAA")
    + copy_data(b""),
    "a stream's message of an unknown type": _LOGIN
    + query("START_REPLICATION 0/AAAAAAAA")
    + copy_data(b"?"),
    "a Query in a stream": _LOGIN + query("START_REPLICATION 0/AAAAAAAA") + query("SHOW x"),
}

# Where the answers may differ, and why.
DIFFERENT: Final[dict[str, str]] = {}


def answer(port: int, sent: bytes) -> list[object]:
    """What comes back until the connection is closed, without what is each session's own."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.settimeout(10)
        received = b""
        with suppress(ConnectionError):
            connection.sendall(sent + terminate())
            while data := connection.recv(65536):
                received += data
    return list(_normalized(received))


def _normalized(received: bytes) -> Iterator[object]:
    while received[:1] in (b"N", b"G") and received[1:4] != b"\0\0\0":
        yield chr(received[0])
        received = received[1:]
    reader = FrameReader(lambda _: 1 << 20)
    reader.feed(received)
    try:
        while (message := reader.next()) is not None:
            yield from _told(message)
    except ProtocolViolation:
        pass
    yield reader.take_rest()


def _told(message: Frame) -> Iterator[object]:
    match kind := chr(message.kind):
        case "S":
            pass  # tested elsewhere
        case "K":
            yield kind, len(message.body)
        case "d":
            if message.body[:1] not in b"wk":
                yield kind, message.body
        case "E":
            error = parse_error(message.body)
            yield kind, error.severity, error.sqlstate, error.message
        case _:
            yield kind, message.body


@every_version
def test_what_does_not_belong(clusters: Clusters, tmp_path: Path) -> None:
    """Bogus lengths, other protocols, requests twice, junk behind the startup packet."""
    primary = clusters.primary()
    primary.query("SELECT pg_switch_wal()")
    archive = archive_of(primary, tmp_path / "archive")
    different: list[Sequence[object]] = []
    with Serving("send", "-D", archive, log=tmp_path / "log") as sender:
        _, end = sender.end()
        # A segment's start, at most as long as what stands in its place.
        place = f"{int(end.partition('/')[2], 16) & ~0xFFFFF:08X}".encode()
        for name, sent in STRANGE.items():
            said = sent.replace(b"0/AAAAAAAA", b"0/" + place)
            theirs, ours = answer(primary.port, said), answer(sender.port, said)
            if theirs != ours and name not in DIFFERENT:
                different.append((name, theirs, ours))
        assert "Traceback" not in sender.text
    assert not different, "\n".join(map(str, different))
