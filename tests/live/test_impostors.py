"""An upstream that is not ours: what the receiver says, and that it gives and keeps nothing.

The table of `docs/reference/security.md`, on real sockets, an archive that holds WAL, and with all
of the log. TLS has its own tests.
"""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint

from tests.live.impostors import LET_IN, Move, dripping, impostor, row
from tests.unit.conversation import COPY_BOTH, SIZE, START, records, wal_message
from tests.unit.log_capture import captured_log
from tests.unit.test_wire_authentication import ScramServer
from walstream.protocols.receiver import ReceiverSettings
from walstream.services import assembly
from walstream.testing.wal import SYSTEM_IDENTIFIER, WALBuilder
from walstream.upstream import parse_conninfo
from walstream.wire.frames import frame
from walstream.wire.messages import (
    authentication_cleartext,
    authentication_md5,
    authentication_ok,
    authentication_sasl,
    authentication_sasl_continue,
    authentication_sasl_final,
    error_response,
    notice_response,
    parameter_status,
)
from walstream.wire.startup import negotiate_protocol_version

reactor = cast(Any, _reactor)

SECRET = "sesame-open"
HELD = 100_000
# Seconds that a server may be silent, which is a minute in earnest; and one of which something else
# is to be said, however busy this machine is.
_PATIENCE = 0.5
_MUCH_PATIENCE = 20.0
END = START + HELD
TRUE_WAL = records(START, HELD)


class Scram:
    """A server's side of SCRAM; each step is a move."""

    def __init__(self, password: bytes = SECRET.encode(), iterations: int = 4096) -> None:
        self._server = ScramServer(password, iterations)

    def begin(self, data: bytes) -> bytes:
        return authentication_sasl(["SCRAM-SHA-256"])

    def first(self, data: bytes) -> bytes:
        return authentication_sasl_continue(self._server.server_first(data))

    def skip(self, data: bytes) -> bytes:
        """Let the client in, and prove nothing."""
        return LET_IN

    def forge(self, data: bytes) -> bytes:
        """Prove what can't be proved without the verifier."""
        return authentication_sasl_final(b"v=" + 43 * b"A" + b"=") + LET_IN


def scram(*, iterations: int = 4096, last: str = "skip") -> list[Move]:
    server = Scram(iterations=iterations)
    return [server.begin, server.first, getattr(server, last)]


def other_system() -> bytes:
    builder = WALBuilder(SYSTEM_IDENTIFIER + 1, SIZE, start=SIZE.start(3))
    builder.fill_segment()
    return builder.bytes(START, START + 65536)


def other_timeline() -> bytes:
    builder = WALBuilder(SYSTEM_IDENTIFIER, SIZE, timeline=2, start=SIZE.start(3))
    builder.fill_segment()
    return builder.bytes(START, START + 65536)


@dataclass(frozen=True)
class Case:
    """An impostor, and what is said of it."""

    said: str
    moves: Sequence[Move] = (LET_IN,)
    answers: Mapping[str, Move] = field(default_factory=dict)
    conninfo: str = ""


CASES = {
    "another system": Case(
        "with segments of 1MB, but the server is of system",
        answers={"IDENTIFY_SYSTEM": row(str(SYSTEM_IDENTIFIER + 1), "1", "0/400000", "")},
    ),
    "a server that ends before us": Case(
        "it is a restored or lagging server",
        answers={"IDENTIFY_SYSTEM": row(str(SYSTEM_IDENTIFIER), "1", "0/300000", "")},
    ),
    "a timeline that forked before": Case(
        "the two have forked",
        answers={
            "IDENTIFY_SYSTEM": row(str(SYSTEM_IDENTIFIER), "2", "0/400000", ""),
            "TIMELINE_HISTORY": row("00000002.history", "1\t0/300100\tno recovery target\n"),
        },
    ),
    "WAL of another system": Case(
        "damaged WAL at 0/300000: the system identifier should be",
        answers={"START_REPLICATION": COPY_BOTH + wal_message(START, other_system(), END)},
    ),
    "WAL of another timeline": Case(
        "damaged WAL at 0/300000: the page's timeline should be 1, but is 2",
        answers={"START_REPLICATION": COPY_BOTH + wal_message(START, other_timeline(), END)},
    ),
    "WAL from elsewhere": Case(
        "WAL does not continue: expected position 0/300000",
        answers={"START_REPLICATION": COPY_BOTH + wal_message(END + 8192, bytes(9000), END)},
    ),
    "other WAL than is held": Case(
        "the server's WAL differs from",
        answers={
            "START_REPLICATION": COPY_BOTH
            + wal_message(START, TRUE_WAL[:50_000] + bytes(16) + TRUE_WAL[50_016:], END)
        },
    ),
    "asks for cleartext": Case(
        "the server asks for the password in cleartext", [authentication_cleartext()]
    ),
    "asks for md5 where it may not": Case(
        'authentication method requirement "scram-sha-256" failed: server requested a hashed '
        "password",
        [authentication_md5(b"salt")],
        conninfo="require_auth=scram-sha-256",
    ),
    "asks for nothing where it may not": Case(
        'authentication method requirement "scram-sha-256" failed: server did not complete '
        "authentication",
        conninfo="require_auth=scram-sha-256",
    ),
    "does not bind the channel": Case(
        "channel binding required, but SSL not in use",
        [authentication_sasl(["SCRAM-SHA-256"])],
        conninfo="channel_binding=require",
    ),
    "TLS was taken away": Case(
        "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection",
        [authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])],
    ),
    "skips its proof": Case("the server did not prove that it knows the password", scram()),
    "forges its proof": Case("incorrect server signature", scram(last="forge")),
    "one iteration": Case("the server asks for 1 SCRAM iterations", scram(iterations=1)),
    "too many iterations": Case(
        "the server asks for 1000001 SCRAM iterations", scram(iterations=1_000_001)
    ),
    "many iterations": Case(
        "the server did not prove that it knows the password", scram(iterations=300_000)
    ),
    "nothing": Case("timeout expired", [b""], conninfo="connect_timeout=1"),
    "a byte at a time": Case(
        "timeout expired",
        [dripping(error_response("FATAL", "28000", 200 * "x"))],
        conninfo="connect_timeout=1",
    ),
    "garbage": Case("message of type 0x00 has length", [b"\x00\xff" * 500]),
    "another protocol": Case(
        'message of type "H" has length', [b"HTTP/1.1 400 Bad Request\r\n\r\n"]
    ),
    "2 GiB before the login": Case("has length 2147483647", [b"R\x7f\xff\xff\xff"]),
    "2 GiB in answer": Case(
        "has length 2147483648", answers={"IDENTIFY_SYSTEM": b"D\x80\x00\x00\x00"}
    ),
    "2 GiB of WAL": Case(
        "impossible length 2147483648",
        answers={"START_REPLICATION": COPY_BOTH + b"d\x80\x00\x00\x00w"},
    ),
    "a gigabyte that is no WAL": Case(
        "impossible length",
        answers={"START_REPLICATION": COPY_BOTH + b"d\x3f\x00\x00\x00k"},
    ),
    "absurd rows": Case(
        "insufficient data left in message", answers={"IDENTIFY_SYSTEM": frame(b"D", b"\x7f\xff")}
    ),
    "rows without end": Case(
        "rows in answer to a question for one",
        answers={"IDENTIFY_SYSTEM": 10_000 * frame(b"D", b"\0\0")},
    ),
    "parameters without end": Case(
        "the server reports more than 200 parameters",
        [
            authentication_ok()
            + b"".join(parameter_status(f"p{n}", 1000 * "x") for n in range(10_000))
        ],
    ),
    "notices without end": Case(
        "timeout expired",
        [20_000 * notice_response("NOTICE", "00000", 200 * "x")],
        conninfo="connect_timeout=1",
    ),
    "negotiates without end": Case(
        "not allowed here", [1000 * negotiate_protocol_version(3 << 16, [])]
    ),
    "no answer": Case(
        "silent for too long", answers={"IDENTIFY_SYSTEM": b""}, conninfo="connect_timeout=9"
    ),
    "an answer byte by byte": Case(
        "silent for too long", answers={"IDENTIFY_SYSTEM": dripping(row(200 * "1"))}
    ),
    "no WAL": Case(
        "silent for too long",
        answers={"START_REPLICATION": COPY_BOTH},
    ),
}


def archived(directory: Path) -> dict[str, bytes]:
    """What is in an archive, but for the empty files that are there to be locked."""
    files = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    return {
        str(path.relative_to(directory)): content
        for path, content in sorted(files.items())
        if content or path.parent == directory
    }


async def receive(
    place: str, archive: Path, conninfo: str = "", patience: float = _PATIENCE
) -> str:
    """Receive once; what it ends with."""
    text = f"{place} sslmode=disable user=me password={SECRET} {conninfo}"
    settings = ReceiverSettings(receive_timeout=patience)
    upstream = parse_conninfo(text, {"HOME": "/nonexistent"})
    service = assembly.receive(reactor, archive, upstream, settings, retry=False, control="none")
    service.startService()
    over: Deferred[Any] = service.finished()
    over.addTimeout(30.0, reactor)
    try:
        return str(await over)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        await service.stopService()


@pytest_twisted.ensureDeferred
async def test_impostors(tmp_path: Path) -> None:
    """Each is found out; none learns the password, or changes a byte of the archive."""
    archive = tmp_path / "archive"
    honest = {"START_REPLICATION": COPY_BOTH + wal_message(START, TRUE_WAL, END)}
    await met(Case("", answers=honest), archive)
    before = archived(archive)
    assert len(before) > 1
    for number, (name, case) in enumerate(CASES.items()):
        copy = tmp_path / str(number)
        shutil.copytree(archive, copy)
        said, log = await met(case, copy)
        print(f"{name}: {said}")
        assert case.said in said, f"{name}: {said}"
        assert archived(copy) == before, f"{name}: {said}"
        assert len("".join(log)) < 20_000, f"{name}: {log}"


async def met(case: Case, archive: Path) -> tuple[str, list[str]]:
    """What is said of an impostor, and the log; the password is in none of it."""
    with captured_log() as log:
        factory = impostor(case.moves, case.answers, END)
        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        place = f"host=127.0.0.1 port={port.getHost().port}"
        patience = _PATIENCE if not case.said or "silent" in case.said else _MUCH_PATIENCE
        said = await receive(place, archive, case.conninfo, patience)
        await port.stopListening()
    heard = b"".join(each.heard for each in factory.all)
    assert heard or not factory.all
    assert SECRET.encode() not in heard
    assert SECRET not in said + "".join(log)
    return said, log


@pytest_twisted.ensureDeferred
async def test_an_impostor_at_a_socket(tmp_path: Path) -> None:
    """requirepeer: nothing is said to a server that somebody else runs."""
    factory = impostor([authentication_cleartext()])
    endpoint = UNIXServerEndpoint(reactor, str(tmp_path / ".s.PGSQL.5432"))
    port = await endpoint.listen(factory)
    try:
        said = await receive(f"host={tmp_path}", tmp_path / "archive", "requirepeer=no-such-user")
        assert 'requirepeer specifies "no-such-user", but actual peer user name is "' in said
        name = pwd.getpwuid(os.geteuid()).pw_name
        said = await receive(f"host={tmp_path}", tmp_path / "archive", f"requirepeer={name}")
        assert "the server asks for the password in cleartext" in said
        assert [bool(each.heard) for each in factory.all] == [False, True]
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_another_host_may_do(tmp_path: Path) -> None:
    """An impostor that comes first does not keep the receiver from its server, or learn more."""
    bad, good = impostor([authentication_cleartext()]), impostor([LET_IN], end=END)
    ports = [
        await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        for factory in (bad, good)
    ]
    numbers = ",".join(str(port.getHost().port) for port in ports)
    said = await receive(f"host=127.0.0.1,127.0.0.1 port={numbers}", tmp_path / "archive")
    assert "silent for too long" in said  # the good one has no WAL
    assert b"START_REPLICATION" in good.all[0].heard
    for port in ports:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_an_empty_archive(tmp_path: Path) -> None:
    """An impostor that is asked first, and has no WAL, does not keep the right server out."""
    archive = tmp_path / "archive"
    history = "1\t0/100000\tno recovery target\n"
    impostors = Case(
        "damaged WAL at 0/F00000",
        answers={
            "IDENTIFY_SYSTEM": row(str(SYSTEM_IDENTIFIER + 1), "2", "0/F00000", ""),
            "TIMELINE_HISTORY": row("00000002.history", history),
            "START_REPLICATION": COPY_BOTH + wal_message(0xF00000, bytes(9000), END),
        },
    )
    said, _ = await met(impostors, archive)
    assert impostors.said in said
    honest = {"START_REPLICATION": COPY_BOTH + wal_message(START, TRUE_WAL, END)}
    _, log = await met(Case("", answers=honest), archive)
    assert any(f"no WAL of system {SYSTEM_IDENTIFIER + 1} has come" in text for text in log), log
    (partial,) = archive.glob("0*")
    assert partial.read_bytes().startswith(TRUE_WAL)
    said, _ = await met(impostors, archive)
    assert "but the server is of system" in said
    assert partial.read_bytes().startswith(TRUE_WAL)
