"""``walstream send`` to real clients, and its answers beside a real server's."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest

from tests.integration.load import (
    finished_segments,
    identical,
    pg_receivewal,
    pgbench,
    prepare_pgbench,
)
from tests.servers import Clusters, every_version
from tests.servers.daemon import Serving, wait_until
from walstream.embedded import Cluster


def archive_of(primary: Cluster, directory: Path) -> Path:
    """What a server's pg_wal has of finished segments, as an archive."""
    directory.mkdir(mode=0o700)
    # After a switch the position is still the old segment's, until something is written.
    primary.query("SELECT pg_logical_emit_message(true, 'into', 'the next segment')")
    current = primary.query("SELECT pg_walfile_name(pg_current_wal_lsn())")[0][0]
    for path in sorted((primary.data / "pg_wal").glob("?" * 24)):
        if path.name < current:
            shutil.copy(path, directory)
    return directory


@every_version
def test_pg_receivewal_drains_the_archive(clusters: Clusters, tmp_path: Path) -> None:
    """It ends up with the same files, byte by byte."""
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    prepare_pgbench(primary)
    with pgbench(primary):
        pg_wal = primary.data / "pg_wal"
        wait_until(lambda: len(list(pg_wal.glob("?" * 24))) >= 15, "15 segments")
    archive = archive_of(primary, tmp_path / "archive")
    names = finished_segments(archive)
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    shutil.copy(archive / names[0], copy)  # pg_receivewal goes on behind it
    with (
        Serving("send", "-D", archive, log=tmp_path / "log") as sender,
        pg_receivewal(clusters.installation, copy, sender.conninfo()) as client,
    ):
        identical(archive, copy, len(names))
        client.terminate()
        assert client.wait(10) == 0
        assert sender.stop() == 0


# Commands whose answers are compared with a real server's: for each, SQLSTATE and message.
COMMANDS = [
    "SELECT 1",
    "",
    "identify_system",
    "/* comment */ IDENTIFY_SYSTEM",
    "IDENTIFY_SYSTEM; SHOW wal_segment_size",
    "IDENTIFY_SYSTEM x",
    "SHOW nosuch",
    "TIMELINE_HISTORY 0",
    "TIMELINE_HISTORY 1",
    "TIMELINE_HISTORY 2",
    "START_REPLICATION 0/1000000 TIMELINE 0",
    "START_REPLICATION 0/1000000 TIMELINE 9",
    "START_REPLICATION FF/0",
    "START_REPLICATION nonsense",
    "START_REPLICATION 0/0",
    'START_REPLICATION SLOT "nosuch" 0/1000000',
    "READ_REPLICATION_SLOT",
    "DROP_REPLICATION_SLOT nosuch",
    'CREATE_REPLICATION_SLOT "Bad-Name" PHYSICAL',
    "CREATE_REPLICATION_SLOT x",
    "BASE_BACKUP (NOSUCH",
]


def outcome(connection: psycopg.Connection[object], command: str) -> tuple[str, str]:
    """The SQLSTATE and the message that a replication command ends with."""
    result = connection.pgconn.exec_(command.encode())
    if result.status == psycopg.pq.ExecStatus.COPY_BOTH:
        result = connection.pgconn.get_result()  # type: ignore[assignment]
        while connection.pgconn.get_result() is not None:
            pass
    fields = psycopg.pq.DiagnosticField
    sqlstate = result.error_field(fields.SQLSTATE)
    message = result.error_field(fields.MESSAGE_PRIMARY)
    return (sqlstate or b"").decode(), (message or b"").decode()


@every_version
@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_command_is_answered_as_by_postgresql(
    clusters: Clusters, tmp_path: Path, command: str
) -> None:
    """The same SQLSTATE and the same words, and the session goes on."""
    primary = clusters.primary()
    primary.query("SELECT pg_switch_wal()")
    archive = archive_of(primary, tmp_path / "archive")
    outcomes = []
    with Serving("send", "-D", archive, log=tmp_path / "log") as sender:
        for conninfo in (primary.conninfo(), sender.conninfo()):
            with psycopg.connect(conninfo, replication="true", autocommit=True) as connection:
                outcomes.append(outcome(connection, command))
                again = connection.pgconn.exec_(b"SHOW wal_segment_size")
                assert again.status == psycopg.pq.ExecStatus.TUPLES_OK, "the session has ended"
    theirs, ours = outcomes
    if command == "START_REPLICATION FF/0":  # it names its own flush position
        theirs, ours = theirs[:1], ours[:1]  # type: ignore[assignment]
    assert ours == theirs
