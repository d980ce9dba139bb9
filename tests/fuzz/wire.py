"""Targets: what reads the bytes of a connection, message by message, in both roles."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import pairwise

from tests.fuzz.recordings import client_frames, client_streams, server_frames, server_streams
from tests.fuzz.target import Target
from walstream.errors import CommandError, ProtocolViolation, ServerNotTrusted
from walstream.wire import commands, copydata, dialect2009, messages, startup
from walstream.wire.authentication import PasswordExchange
from walstream.wire.frames import (
    Frame,
    FrameReader,
    StartupReader,
    authentication_limit,
    backend_limit,
    frontend_limit,
    greeting_limit,
)
from walstream.wire.grammar import parse_command
from walstream.wire.lexer import KEYWORDS
from walstream.wire.scram_server import ScramServerExchange
from walstream.wire.scram_verifier import ScramVerifier
from walstream.wire.stream import StreamReader, WALPayload

_MAJORS = range(14, 19)
_NONCE = "rOprNGfwEbeRWgbNEkqO"
_SECRET = b"nobody knows it"
_VERIFIER = ScramVerifier.of("pencil", iterations=4096, salt=b"0123456789abcdef")


def cut(data: bytes) -> Iterator[bytes]:
    """*data* in pieces, whose sizes it decides itself."""
    at = 0
    for place in sha256(data[:64]).digest():
        yield data[at : at + place]
        at += place
    yield data[at:]


# Frames


def _read_frames(data: bytes) -> None:
    limits = (frontend_limit, authentication_limit, backend_limit, greeting_limit)
    for limit in limits:
        whole, pieces = _frames([data], limit), _frames(cut(data), limit)
        assert whole == pieces, "it depends on how the bytes come"


def _frames(pieces: Iterable[bytes], limit: Callable[[int], int]) -> tuple[list[Frame], str]:
    reader, found = FrameReader(limit), []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (frame := reader.next()) is not None:
                assert len(frame.body) <= limit(frame.kind)
                found.append(frame)
        except ProtocolViolation as error:
            return found, str(error)
    return found, ""


def _read_startup(data: bytes) -> None:
    reader = StartupReader()
    for piece in cut(data):
        reader.feed(piece)
        try:
            while (packet := reader.next()) is not None:
                _startup_packet(packet.code, packet.body)
        except ProtocolViolation:
            return
        except CommandError as error:
            assert startup.legacy_error(error.message)
            assert messages.error_response("FATAL", error.sqlstate, error.message)


def _startup_packet(code: int, body: bytes) -> None:
    version = startup.check_protocol_version(code)
    parameters = startup.parse_startup(body)
    assert parameters["user"]
    assert startup.startup_message(parameters)
    assert startup.negotiate_protocol_version(version, startup.unknown_extensions(parameters))
    startup.replication_mode(parameters.get("replication", ""))


# What a client sends


def _read_command(data: bytes) -> None:
    for major in _MAJORS:
        try:
            command = dialect2009.parse_2009(data) or parse_command(data, major)
        except CommandError as error:
            assert messages.error_response("ERROR", error.sqlstate, error.message)
            continue
        _written_again(command, major)


def _written_again(command: object, major: int) -> None:
    if isinstance(command, dialect2009.Command2009):
        assert dialect2009.parse_2009(command.text().encode()) == command
    elif not isinstance(
        command,
        commands.StartLogicalReplication | commands.AlterReplicationSlot | commands.BaseBackup,
    ):
        text = getattr(command, "text", None)
        if text is not None and getattr(command, "physical", True):
            written = text().encode("utf-8", "surrogateescape")
            assert parse_command(written, major) == command, written


def _read_standby_message(data: bytes) -> None:
    try:
        message = copydata.parse_standby_message(data)
    except ProtocolViolation:
        return
    packed = message.pack()
    assert packed[:-1] == data[: len(packed) - 1] or message == copydata.parse_standby_message(
        packed
    )


def _prove(data: bytes) -> None:
    """A client that logs in: its messages, with their lengths before them."""
    for verifier, end_point in ((_VERIFIER, None), (_VERIFIER, b"\1" * 32), (None, None)):
        exchange = ScramServerExchange(
            data[:8].decode("utf-8", "surrogateescape") or "u",
            verifier,
            _SECRET,
            end_point,
            nonce=_NONCE,
        )
        mechanism, _, rest = data.partition(b"\0")
        first, _, final = rest.partition(b"\0")
        try:
            exchange.begin(mechanism.decode("latin-1"), first)
            exchange.finish(final)
        except CommandError as error:
            assert messages.error_response("FATAL", error.sqlstate, error.message)
        else:
            raise AssertionError("let in without knowing the password")


# What a server sends


def _read_answers(data: bytes) -> None:
    for parse in (
        messages.parse_error,
        messages.parse_row_description,
        messages.parse_data_row,
        messages.parse_parameter_status,
        messages.parse_authentication,
        messages.parse_backend_key_data,
        messages.parse_command_complete,
        messages.parse_query,
        copydata.parse_keepalive,
        dialect2009.parse_wal_payload_header,
    ):
        with contextlib.suppress(ProtocolViolation):
            str(parse(data))


def _log_in(data: bytes) -> None:
    """A server that asks for a password: the bodies of its messages, behind their lengths."""
    exchange = PasswordExchange("alice", "pencil", nonce="fyko+d2lbbFgONRv9qkx")
    while data:
        size, data = data[0], data[1:]
        body, data = data[:size], data[size:]
        try:
            code, rest = messages.parse_authentication(body)
            exchange.respond(code, rest)
        except (CommandError, ProtocolViolation, ServerNotTrusted):
            return


def _read_stream(data: bytes) -> None:
    for payload in WALPayload:
        assert _events([data], payload) == _events(cut(data), payload), "it depends on the pieces"


def _events(pieces: Iterable[bytes], payload: WALPayload) -> tuple[object, ...]:
    reader, wal, others, error = StreamReader(payload), bytearray(), [], ""
    begins: list[tuple[int, int]] = []
    try:
        for piece in pieces:
            for event in reader.events(memoryview(piece)):
                if isinstance(event, Frame):
                    others.append(event)
                else:
                    position, view = event
                    begins.append((position, len(view)))
                    wal += view
    except ProtocolViolation as violation:
        error = str(violation)
    runs = []
    for (start, size), after in pairwise([*begins, (-1, 0)]):
        if start + size != after[0]:
            runs.append(start + size)
    return bytes(wal), others, error, runs


# Seeds


def _commands() -> Iterator[bytes]:
    yield from (frame.body[:-1] for frame in client_frames() if frame.kind == ord("Q"))
    yield from (
        b'CREATE_REPLICATION_SLOT "a_b" TEMPORARY PHYSICAL (RESERVE_WAL true);',
        b"CREATE_REPLICATION_SLOT s LOGICAL test_decoding (SNAPSHOT 'export', TWO_PHASE 1)",
        b"CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL",
        b"ALTER_REPLICATION_SLOT s (FAILOVER true, TWO_PHASE off)",
        b"START_REPLICATION SLOT s PHYSICAL 16/B374D848 TIMELINE 3",
        b"START_REPLICATION SLOT \"s\" LOGICAL 0/0 (proto_version '1', a)",
        b"BASE_BACKUP (LABEL 'x''y', PROGRESS, MAX_RATE 32, TABLESPACE_MAP)",
        b"READ_REPLICATION_SLOT s",
        b"DROP_REPLICATION_SLOT s WAIT",
        b"TIMELINE_HISTORY 4294967295",
        b"UPLOAD_MANIFEST",
        b"SHOW a.b.c",
        b"GET_BACKUP_HISTORY_FILE 0/2000020",
        b"START REPLICATION: 0/3000000",
        b"GET_SYSTEM_IDENTIFIER",
        b"GET_TIMELINE;",
    )


def _scram() -> Iterator[bytes]:
    end_point = b"p=tls-server-end-point,,"
    for mechanism, header in (
        (b"SCRAM-SHA-256", b"n,,"),
        (b"SCRAM-SHA-256", b"y,,"),
        (b"SCRAM-SHA-256-PLUS", end_point),
    ):
        final = b"c=biws,r=abc" + _NONCE.encode() + b",p=" + b"A" * 43 + b"="
        yield b"\0".join([mechanism, header + b"n=,r=abc", final])


def _server_bodies() -> Iterator[bytes]:
    yield from (frame.body[:2000] for frame in server_frames())


def _logins() -> Iterator[bytes]:
    first = b"r=fyko+d2lbbFgONRv9qkxZZZ,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    sasl = b"\0\0\0\x0aSCRAM-SHA-256\0\0"
    steps = [sasl, b"\0\0\0\x0b" + first, b"\0\0\0\x0cv=" + b"A" * 43 + b"=", b"\0\0\0\0"]
    yield b"".join(bytes([len(step)]) + step for step in steps)
    for step in (b"\0\0\0\3", b"\0\0\0\5salt", b"\0\0\0\7", b"\0\0\0\0"):
        yield bytes([len(step)]) + step


def _standby_messages() -> Iterator[bytes]:
    yield from (frame.body for frame in client_frames() if frame.kind == ord("d"))
    yield copydata.StandbyStatus(1, 2, 3, 4, True).pack()
    yield copydata.HotStandbyFeedback(1, 2, 3, 4, 5).pack()


def _copy_stream() -> Iterator[bytes]:
    for stream in server_streams():
        at = stream.find(b"W\0\0\0")
        if at >= 0:
            yield stream[at + 8 :]
    yield copydata.status_message(1, 2, 3, 4.0, True)


_WORDS = (*(word.encode() + b" " for word in sorted(KEYWORDS)), b"0/3000000", b"''", b"(", b")")
_W = "walstream.wire."

TARGETS = (
    Target(
        "frames",
        _read_frames,
        (_W + "frames",),
        lambda: (*client_streams(), *(stream[:4000] for stream in server_streams())),
        longest=4096,
    ),
    Target(
        "startup",
        _read_startup,
        (_W + "startup", _W + "frames", _W + "fields"),
        client_streams,
        (b"user\0", b"replication\0", b"database\0", b"_pq_.", b"\x04\xd2\x16\x2f", b"\0\3\0\2"),
    ),
    Target(
        "command",
        _read_command,
        (_W + "lexer", _W + "grammar", _W + "commands", _W + "dialect2009"),
        _commands,
        _WORDS,
        512,
    ),
    Target("standby-message", _read_standby_message, (_W + "copydata",), _standby_messages),
    Target(
        "scram-client",
        _prove,
        (_W + "scram_server",),
        _scram,
        (b"SCRAM-SHA-256-PLUS\0", b"n,,n=,r=", b"p=tls-server-end-point,,", b"c=biws,r=", b",m="),
        1200,
    ),
    Target("answers", _read_answers, (_W + "messages", _W + "fields"), _server_bodies),
    Target(
        "scram-server",
        _log_in,
        (_W + "authentication",),
        _logins,
        (b"\0\0\0\x0a", b"\0\0\0\x0b", b"\0\0\0\x0c", b",i=4096", b"SCRAM-SHA-256\0"),
    ),
    Target("stream", _read_stream, (_W + "stream",), _copy_stream, (), 4096),
)
