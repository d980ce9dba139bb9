"""Replication slots of an archive: their commands beside a real server's, and real clients."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import psycopg

from tests.integration.recovery import tool
from tests.integration.test_send import archive_of
from tests.servers import Clusters, every_version
from tests.servers.daemon import Serving
from walstream.embedded import Cluster

_FIELDS = (
    psycopg.pq.DiagnosticField.SEVERITY,
    psycopg.pq.DiagnosticField.SQLSTATE,
    psycopg.pq.DiagnosticField.MESSAGE_PRIMARY,
    psycopg.pq.DiagnosticField.MESSAGE_DETAIL,
    psycopg.pq.DiagnosticField.MESSAGE_HINT,
)


class Client:
    """A replication connection, and all that it is answered, without numbers that differ."""

    def __init__(self, conninfo: str) -> None:
        self._connection = psycopg.connect(conninfo, replication="true", autocommit=True)
        self._wire = self._connection.pgconn

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, command: str) -> list[object]:
        """The answer to a command; a stream is left as soon as it is refused."""
        result = self._wire.exec_(command.encode())
        answer: list[object] = []
        if result.status == psycopg.pq.ExecStatus.COPY_BOTH:
            answer.append("COPY_BOTH")
            with contextlib.suppress(psycopg.OperationalError):
                self._wire.get_copy_data(0)
            following = self._wire.get_result()
            assert following is not None
            result = following
        return [*answer, *_described(result)]

    def begin(self, command: str) -> None:
        """Begin a stream, and leave it there."""
        result = self._wire.exec_(command.encode())
        assert result.status == psycopg.pq.ExecStatus.COPY_BOTH, result.error_message

    def ending(self) -> str:
        """What a stream ends with."""
        try:
            while self._wire.get_copy_data(0)[0] > 0:
                pass
        except psycopg.OperationalError as error:
            return str(error)
        following = self._wire.get_result()
        return "" if following is None else following.error_message.decode()


def _described(result: psycopg.pq.abc.PGresult) -> list[object]:
    if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
        return [_same(result.error_field(field)) for field in _FIELDS]
    columns = range(result.nfields)
    return [
        result.command_status,
        [(result.fname(n), result.ftype(n), result.fsize(n), result.fmod(n)) for n in columns],
        [[_same(result.get_value(row, n)) for n in columns] for row in range(result.ntuples)],
    ]


def _same(text: bytes | None) -> bytes | None:
    if text is None:
        return None
    text = re.sub(rb"[0-9A-F]{24}", b"SEGMENT", text)
    text = re.sub(rb"\b[0-9A-F]+/[0-9A-F]{6,}\b", b"LSN", text)
    return re.sub(rb"PID [0-9]+", b"PID", text)


LONG = "a" * 63
# What pg_basebackup and a walreceiver send is among them, as they send it.
COMMANDS = [
    'CREATE_REPLICATION_SLOT "" PHYSICAL',
    f"CREATE_REPLICATION_SLOT {LONG} PHYSICAL",
    f"CREATE_REPLICATION_SLOT {LONG}a PHYSICAL",
    f"DROP_REPLICATION_SLOT {LONG}a",
    "CREATE_REPLICATION_SLOT Upper PHYSICAL",
    "DROP_REPLICATION_SLOT upper",
    'CREATE_REPLICATION_SLOT "Upper" PHYSICAL',
    'CREATE_REPLICATION_SLOT "a-b" PHYSICAL',
    "CREATE_REPLICATION_SLOT pg_conflict_detection PHYSICAL",
    "DROP_REPLICATION_SLOT pg_conflict_detection",
    "CREATE_REPLICATION_SLOT s PHYSICAL",
    "CREATE_REPLICATION_SLOT s PHYSICAL",
    "CREATE_REPLICATION_SLOT s TEMPORARY PHYSICAL",
    "READ_REPLICATION_SLOT s",
    "READ_REPLICATION_SLOT nosuch",
    'READ_REPLICATION_SLOT "Bad-Name"',
    "READ_REPLICATION_SLOT s WAIT",
    "CREATE_REPLICATION_SLOT r PHYSICAL RESERVE_WAL",
    "READ_REPLICATION_SLOT r",
    'CREATE_REPLICATION_SLOT "pg_basebackup_1" TEMPORARY PHYSICAL ( RESERVE_WAL)',
    "READ_REPLICATION_SLOT pg_basebackup_1",
    'CREATE_REPLICATION_SLOT "pg_walreceiver_1" TEMPORARY PHYSICAL (RESERVE_WAL)',
    'CREATE_REPLICATION_SLOT "pg_walreceiver_1" TEMPORARY PHYSICAL (RESERVE_WAL)',
    # An error ends temporary slots.
    "READ_REPLICATION_SLOT pg_basebackup_1",
    "CREATE_REPLICATION_SLOT x PHYSICAL (RESERVE_WAL false)",
    "READ_REPLICATION_SLOT x",
    # Now there are as many as there can be but one.
    "CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL",
    "CREATE_REPLICATION_SLOT y PHYSICAL",
    "READ_REPLICATION_SLOT t",
    "DROP_REPLICATION_SLOT x",
    "CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL",
    "IDENTIFY_SYSTEM x",
    "READ_REPLICATION_SLOT t",
    "CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL RESERVE_WAL",
    "START_REPLICATION SLOT t FF/0",
    "READ_REPLICATION_SLOT t",
    "CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL",
    "DROP_REPLICATION_SLOT t",
    "CREATE_REPLICATION_SLOT x PHYSICAL (RESERVE_WAL, RESERVE_WAL)",
    "CREATE_REPLICATION_SLOT x PHYSICAL (nosuch)",
    "CREATE_REPLICATION_SLOT x PHYSICAL (RESERVE_WAL 5)",
    "CREATE_REPLICATION_SLOT x PHYSICAL (FAILOVER)",
    "CREATE_REPLICATION_SLOT x PHYSICAL (TWO_PHASE)",
    "CREATE_REPLICATION_SLOT x PHYSICAL TWO_PHASE",
    "CREATE_REPLICATION_SLOT x PHYSICAL EXPORT_SNAPSHOT",
    "ALTER_REPLICATION_SLOT s (FAILOVER)",
    "ALTER_REPLICATION_SLOT nosuch (FAILOVER)",
    "ALTER_REPLICATION_SLOT s (TWO_PHASE)",
    "ALTER_REPLICATION_SLOT s (nosuch)",
    "ALTER_REPLICATION_SLOT nosuch (nosuch)",
    "ALTER_REPLICATION_SLOT s ()",
    "ALTER_REPLICATION_SLOT s (FAILOVER, FAILOVER)",
    "ALTER_REPLICATION_SLOT s (FAILOVER nope)",
    "DROP_REPLICATION_SLOT nosuch",
    "DROP_REPLICATION_SLOT nosuch WAIT",
    "DROP_REPLICATION_SLOT nosuch wait",
    'DROP_REPLICATION_SLOT "Bad-Name"',
    'DROP_REPLICATION_SLOT ""',
    'START_REPLICATION SLOT "nosuch" 0/1000000',
    'START_REPLICATION SLOT "Bad-Name" 0/1000000',
    "START_REPLICATION SLOT s FF/0",
]
BUSY = [
    "START_REPLICATION SLOT s 0/0",
    "DROP_REPLICATION_SLOT s",
    "READ_REPLICATION_SLOT s",
    "CREATE_REPLICATION_SLOT s PHYSICAL",
    "START_REPLICATION SLOT temporary 0/0",
    "DROP_REPLICATION_SLOT temporary",
    "CREATE_REPLICATION_SLOT temporary PHYSICAL",
    "READ_REPLICATION_SLOT temporary",
]
LOST = [
    "READ_REPLICATION_SLOT r",
    "START_REPLICATION SLOT r 0/1000000",
    "ALTER_REPLICATION_SLOT r (FAILOVER)",
    "START_REPLICATION SLOT r FF/0",
    "READ_REPLICATION_SLOT r",
    "DROP_REPLICATION_SLOT r",
    "READ_REPLICATION_SLOT r",
]


def answers(conninfo: str, end: str, lose: Callable[[], object]) -> dict[str, list[object]]:
    """What is answered to all of that.

    :param end: a position from which one can stream.
    :param lose: has slot r lost.
    """
    heard: dict[str, list[object]] = {}

    def ask(client: Client, commands: Iterable[str], when: str) -> None:
        for number, command in enumerate(commands):
            heard[f"{when} {number}: {command}"] = client.ask(command)

    with Client(conninfo) as client, Client(conninfo) as other:
        ask(client, COMMANDS, "alone")
        other.ask("CREATE_REPLICATION_SLOT temporary TEMPORARY PHYSICAL")
        other.begin(f"START_REPLICATION SLOT s {end}")
        ask(client, BUSY, "busy")
    with Client(conninfo) as client, Client(conninfo) as other:
        client.ask("DROP_REPLICATION_SLOT temporary WAIT")
        client.ask("DROP_REPLICATION_SLOT s WAIT")
        client.ask("CREATE_REPLICATION_SLOT u PHYSICAL RESERVE_WAL")
        other.begin(f"START_REPLICATION SLOT u {end}")
        lose()
        heard["a stream by a slot that is lost"] = [other.ending()]
        ask(client, LOST, "lost")
    return heard


def prune(archive: Path, *options: str) -> str:
    """Remove WAL; what is said."""
    command = tool("prune", *options, archive)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return done.stdout


def write_segments(primary: Cluster, count: int) -> None:
    """Fill so many segments."""
    for _ in range(count):
        primary.query("SELECT pg_logical_emit_message(true, 'a', 'b')")
        primary.query("SELECT pg_switch_wal()")


@every_version
def test_slot_commands_are_answered_as_by_postgresql(clusters: Clusters, tmp_path: Path) -> None:
    """All of it: columns, rows, SQLSTATEs, words, details and hints, for slots in any state."""
    primary = clusters.primary(
        settings={"max_replication_slots": 4, "max_slot_wal_keep_size": "1MB"}
    )
    write_segments(primary, 1)
    archive = archive_of(primary, tmp_path / "archive")

    def lose_theirs() -> None:
        write_segments(primary, 3)
        primary.query("CHECKPOINT")

    def lose_ours() -> None:
        # The archive goes on behind the slots.
        write_segments(primary, 3)
        names = archive_of(primary, tmp_path / "more").glob("?" * 24)
        for path in sorted(names):
            if not (archive / path.name).exists():
                path.rename(archive / path.name)
        said = prune(archive, "--keep-from=readers", "--max-slot-wal-keep-size=1MB")
        assert 'invalidated obsolete replication slot "r"' in said

    with Serving(
        "send", "-D", archive, "--max-replication-slots=4", log=tmp_path / "log"
    ) as sender:
        with Client(sender.conninfo()) as client:
            row = client._wire.exec_(b"IDENTIFY_SYSTEM")
            value = row.get_value(0, 2)
            assert value is not None
            ours = answers(sender.conninfo(), value.decode(), lose_ours)
        log = sender.text
    end = primary.query("SELECT pg_current_wal_flush_lsn()::text")[0][0]
    theirs = answers(primary.conninfo(), end, lose_theirs)
    assert ours == theirs
    assert 'to release replication slot "u": The slot\'s restart_lsn' in log
    assert 'invalidating obsolete replication slot "u"' in log


def test_one_process_has_the_slots(primary: Cluster, tmp_path: Path) -> None:
    """A second one over the same archive says where they are, and takes them over."""
    write_segments(primary, 1)
    archive = archive_of(primary, tmp_path / "archive")
    with (
        Serving("send", "-D", archive, log=tmp_path / "log1") as first,
        Serving("send", "-D", archive, log=tmp_path / "log2") as second,
        Client(second.conninfo()) as client,
    ):
        with Client(first.conninfo()) as other:
            other.ask("CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL")
        refusal = client.ask("READ_REPLICATION_SLOT s")
        holder = f"the replication slots of this archive are in use by process {first.process.pid}"
        assert refusal[1:3] == [b"55006", holder.encode()]
        first.kill()
        assert client.ask("READ_REPLICATION_SLOT s")[2] == [[b"physical", b"LSN", b"1"]]
        with Serving("send", "-D", archive, log=tmp_path / "log3") as third:
            third.await_text(
                f"in use elsewhere, so that clients cannot use any here: locked by "
                f"process {second.process.pid}"
            )
