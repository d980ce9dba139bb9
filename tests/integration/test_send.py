"""``walstream send`` to real clients, and its answers beside a real server's."""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path

import psycopg

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
        client.send_signal(signal.SIGINT)  # SIGTERM only from 16 on
        assert client.wait(30) == 0
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


def outcome(conninfo: str, command: str) -> tuple[str, str]:
    """The SQLSTATE and the message that a replication command ends with; the session goes on."""
    with psycopg.connect(conninfo, replication="true", autocommit=True) as connection:
        wire = connection.pgconn
        result = wire.exec_(command.encode())
        if result.status == psycopg.pq.ExecStatus.COPY_BOTH:
            with contextlib.suppress(psycopg.OperationalError):
                wire.get_copy_data(0)
            while (following := wire.get_result()) is not None:
                result = following
        again = wire.exec_(b"SHOW wal_segment_size")
        assert again.status == psycopg.pq.ExecStatus.TUPLES_OK, f"{command} ended the session"
    fields = psycopg.pq.DiagnosticField
    sqlstate = result.error_field(fields.SQLSTATE)
    message = result.error_field(fields.MESSAGE_PRIMARY)
    return (sqlstate or b"").decode(), (message or b"").decode()


@every_version
def test_wrong_commands_are_answered_as_by_postgresql(clusters: Clusters, tmp_path: Path) -> None:
    """The same SQLSTATE and the same words, and the session goes on."""
    primary = clusters.primary()
    primary.query("SELECT pg_switch_wal()")
    archive = archive_of(primary, tmp_path / "archive")
    with Serving("send", "-D", archive, log=tmp_path / "log") as sender:
        theirs = {command: outcome(primary.conninfo(), command) for command in COMMANDS}
        ours = {command: outcome(sender.conninfo(), command) for command in COMMANDS}
    # It names the server's own flush position, which differs.
    ahead = "START_REPLICATION FF/0"
    assert ours.pop(ahead)[0] == theirs.pop(ahead)[0]
    assert ours == theirs
