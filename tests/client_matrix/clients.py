"""The clients: each comes once, and says what became of it."""

from __future__ import annotations

import re
import select
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import psycopg2
from psycopg.conninfo import make_conninfo
from psycopg2.extras import LogicalReplicationConnection, PhysicalReplicationConnection

from tests.client_matrix.cases import Case
from tests.client_matrix.world import Place, World
from tests.integration.test_bad_input import answer, version
from walstream.embedded import Installation
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize

__all__ = [
    "IT_STREAMS",
    "normalized",
    "pg_receivewal",
    "psql",
    "psycopg2_client",
    "startup_packet",
]

IT_STREAMS = "it streams"

_SEGMENT = SegmentSize(1 << 20)
_TIMEOUT = 30.0


def pg_receivewal(
    world: World, case: Case, place: Place, installation: Installation | None = None
) -> str:
    """What pg_receivewal says: how it comes to the end of its work, or what keeps it from that."""
    installation = installation or world.clusters.installation
    # It ends behind the position: up to there is what everybody has.
    command: list[str | Path] = [installation.tool("pg_receivewal"), "-v", "--no-loop", "-w"]
    command += ["-d", world.conninfo(case, place), f"--endpos={LSN(world.end - 8)}"]
    with tempfile.TemporaryDirectory(dir=world.directory) as directory:
        done = _run([*command, "-D", directory], case)
        if done.returncode != 0:
            return f"exit status {done.returncode}\n{normalized(done.stderr, world, place)}"
        assert "pg_receivewal: stopped log streaming at" in done.stderr, done.stderr
        [received] = Path(directory).iterdir()
        _compare(world, received.read_bytes(), received.name)
    return IT_STREAMS


def psql(world: World, case: Case, place: Place, installation: Installation | None = None) -> str:
    """What psql says, asked for a command of a walsender's."""
    installation = installation or world.clusters.installation
    conninfo = make_conninfo(world.conninfo(case, place))
    if "replication" not in case.facts:
        conninfo = make_conninfo(conninfo, replication="true")
    command = ["-w", "-Atc", "SHOW wal_segment_size", "-d", conninfo]
    done = _run([installation.tool("psql"), "-X", *command], case)
    if done.returncode != 0:
        return f"exit status {done.returncode}\n{normalized(done.stderr, world, place)}"
    assert done.stdout == "1MB\n"
    return "it comes in"


def psycopg2_client(world: World, case: Case, place: Place) -> str:
    """What psycopg2 says of a connection for replication; or whether it streams."""
    is_logical = case.facts.get("replication") == "database"
    factory = LogicalReplicationConnection if is_logical else PhysicalReplicationConnection
    conninfo = world.conninfo(case, place)
    if case.password is not None:
        conninfo = make_conninfo(conninfo, password=case.password)
    try:
        connection = psycopg2.connect(conninfo, connection_factory=factory)
    except psycopg2.OperationalError as error:
        return normalized(str(error), world, place)
    with closing(connection), connection.cursor() as cursor:
        if is_logical:
            return "it comes in"
        number = _SEGMENT.number(world.end)
        cursor.start_replication(start_lsn=int(_SEGMENT.start(number)), decode=False)
        while (message := cursor.read_message()) is None:
            ready, _, _ = select.select([connection], [], [], _TIMEOUT)
            assert ready, "no WAL has come"
        _compare(world, message.payload, _SEGMENT.name(1, number))
    return IT_STREAMS


def startup_packet(world: World, case: Case, place: Place) -> str:
    """What is answered to a startup packet of a version of the protocol: the case's *user*."""
    major, minor = map(int, case.user.split("."))
    told: list[str] = []
    for each in answer(place.port, version(major, minor, **case.facts)):
        match each:
            case "E", severity, sqlstate, message:
                told.append(f"{severity} {sqlstate} {message}")
            case "v", bytes() as body:
                newest, *names = int.from_bytes(body[:4], "big"), *body[8:-1].split(b"\0")
                told.append(f"NegotiateProtocolVersion: {newest >> 16}.{newest & 0xFFFF}")
                told += [name.decode() for name in names if name]
            case "R", b"\0\0\0\0":
                told.append("it comes in")
            case bytes() as rest:
                told += [rest.decode()] if rest else []
    return normalized("\n".join(told), world, place)


def normalized(text: str, world: World, place: Place) -> str:
    """Without what is particular to a place, and to this run."""
    places = {str(place.sockets): "SOCKETS", str(world.directory): "DIRECTORY"}
    for path, name in places.items():
        text = text.replace(path, name)
    text = re.sub(rf"\b{place.port}\b", "PORT", text)
    return text.strip()


def _compare(world: World, wal: bytes, name: str) -> None:
    """See that it is the server's WAL, up to where everybody has it."""
    size = min(len(wal), world.end - _SEGMENT.start(_SEGMENT.number(world.end)))
    segment = name.removesuffix(".partial")
    with (world.primary.data / "pg_wal" / segment).open("rb") as file:
        assert size and file.read(size) == wal[:size], f"it is not the server's WAL: {name}"


def _run(command: list[str | Path], case: Case) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {"HOME": "/nonexistent", "LC_ALL": "C"}
    if case.password is not None:
        environment = {**environment, "PGPASSWORD": case.password}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=_TIMEOUT, check=False
    )
