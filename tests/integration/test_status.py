"""``walstream status`` beside real servers: pg_stat_replication's columns, the witness drill."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.integration.chain import KEEP
from tests.integration.load import pgbench, prepare_pgbench
from tests.integration.test_hub import hub
from tests.servers import Clusters, every_version
from tests.servers.clusters import left_alone
from tests.servers.daemon import await_streaming, wait_until
from walstream.cli import main
from walstream.embedded import Cluster
from walstream.formats.lsn import LSN

# Of each client of walstream's, behind pg_stat_replication's columns.
OURS = [
    "timeline",
    "slot_name",
    "complete",
    "sent_bytes_behind",
    "write_bytes_behind",
    "flush_bytes_behind",
    "replay_bytes_behind",
    "behind_seconds",
    "last_message_time",
    "delay",
    "process",
]


def status(archive: Path, *options: str | Path) -> tuple[int, str, str]:
    """Run the command: how it exits, what it prints, what it complains of."""
    command = [sys.executable, "-m", "walstream", "status", archive, *options]
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def report(archive: Path) -> dict[str, Any]:
    """What --json says. Asked for again and again, so no process is started for it."""
    told = io.StringIO()
    with redirect_stdout(told):
        assert main(["status", "--json", str(archive)]) == 0
    found: dict[str, Any] = json.loads(told.getvalue())
    return found


def clients(archive: Path) -> dict[str, dict[str, Any]]:
    """The clients by their names."""
    return {each["application_name"]: each for each in report(archive)["clients"]}


def pg_stat_replication(primary: Cluster) -> dict[str, dict[str, Any]]:
    """The same of a primary's."""
    with primary.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("SELECT * FROM pg_stat_replication").fetchall()
    return {row["application_name"]: row for row in rows}


def is_like(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """A client of walstream's shows what the primary shows of one that is as it is."""
    assert list(ours) == [*theirs, *OURS]
    same = ("usename", "client_addr", "state", "sync_priority", "sync_state", "backend_xmin")
    for name in same:
        assert ours[name] == (theirs[name] and str(theirs[name])) or ours[name] == theirs[name]
    for name in ("backend_start", "reply_time"):
        apart = datetime.fromisoformat(ours[name]) - theirs[name]
        assert abs(apart.total_seconds()) < 30, name
    for name in ("sent_lsn", "write_lsn", "flush_lsn", "replay_lsn"):
        assert str(LSN.parse(ours[name])) == theirs[name], name


@every_version
def test_the_columns_are_postgresql_s(primary: Cluster, tmp_path: Path) -> None:
    """Of each version the same names in the same order, whatever there is to see."""
    with primary.connect() as connection, connection.cursor() as cursor:
        described = cursor.execute("SELECT * FROM pg_stat_replication").description
    assert described is not None
    archive = tmp_path / "archive"
    with hub(primary, archive, tmp_path / "log") as relay:
        relay.await_text("starting log streaming")
        conninfo = relay.conninfo(replication="true", application_name="idle")
        with psycopg.connect(conninfo, autocommit=True):
            (client,) = clients(archive).values()
    assert list(client) == [*(column.name for column in described), *OURS]


def test_the_columns_are_like_the_primary_s(clusters: Clusters, tmp_path: Path) -> None:
    """One standby on the primary, one on the hub: the same columns, and alike values."""
    primary = clusters.primary(settings=KEEP)
    prepare_pgbench(primary)
    archive = tmp_path / "archive"
    with hub(primary, archive, tmp_path / "log") as relay:
        await_streaming(primary)
        clusters.standby(primary, primary.conninfo(application_name="direct"), "direct")
        clusters.standby(primary, relay.conninfo(application_name="behind"), "behind")
        wait_until(lambda: "behind" in clients(archive), "connected")
        with pgbench(primary):
            lags = []

            def measured() -> bool:
                ours = clients(archive)["behind"]
                theirs = pg_stat_replication(primary)["direct"]
                if ours["replay_lag"] is not None and theirs["replay_lag"] is not None:
                    lags.append((ours["replay_lag"], theirs["replay_lag"].total_seconds()))
                return len(lags) >= 5

            wait_until(measured, "measured")
        print("replay_lag behind the hub, and on the primary:", lags)
        # Of a local standby each is some milliseconds; what matters is that they are no fantasies.
        assert all(0 < ours < 5 for ours, _ in lags)

        def at_rest() -> bool:
            return all(
                each["replay_lsn"] in (primary.end_of_wal(), LSN.parse(primary.end_of_wal()))
                for each in (clients(archive)["behind"], pg_stat_replication(primary)["direct"])
            )

        with left_alone(primary):
            wait_until(at_rest, "at rest")
            is_like(clients(archive)["behind"], pg_stat_replication(primary)["direct"])
            assert clients(archive)["behind"]["complete"] is True


def test_is_it_safe_to_promote(clusters: Clusters, tmp_path: Path) -> None:
    """The primary is lost while one standby hangs: status tells which of the two has everything."""
    primary = clusters.primary(settings=KEEP)
    prepare_pgbench(primary)
    archive = tmp_path / "archive"
    with hub(primary, archive, tmp_path / "log") as relay:
        await_streaming(primary)
        _, sleeper = (
            clusters.standby(primary, relay.conninfo(application_name=name), name)
            for name in ("s1", "s2")
        )
        code, told, _ = status(
            archive, "--require-complete=s1", "--require-complete=s2", "--wait=50"
        )
        assert (code, told.count("has all of it")) == (0, 2), told
        assert "so more may come" in told
        sleeper.signal_all(signal.SIGSTOP)
        try:
            with pgbench(primary):
                wait_until(lambda: _flush_behind(archive, "s2") > 100_000, "behind")
                primary.kill()
            relay.await_text("disconnected; trying again")
            code, told, _ = status(archive, "--require-complete", "s1", "--wait", "50")
            assert code == 0, told
            assert "NOT STREAMING" in told
            assert "s1 has all of it" in told
            code, told, _ = status(archive, "--require-complete", "s2", "--wait", "0.5")
            assert code == 1, told
            behind = clients(archive)["s2"]["flush_bytes_behind"]
            assert f"s2 lacks {behind} bytes: it has WAL up to" in told
            assert clients(archive)["s2"]["behind_seconds"] > 0.5
        finally:
            sleeper.signal_all(signal.SIGCONT)
        code, told, _ = status(archive, "--require-complete", "s2", "--wait", "50")
        assert code == 0, told
        # Then it is promoted: nothing is lost, and the hub, which cannot reach it, still serves.
        end = report(archive)["archive"]["durable_lsn"]
        sleeper.promote()
        assert LSN.parse(sleeper.end_of_wal()) >= LSN.parse(end)
        wait_until(lambda: "s2" not in clients(archive), "gone from the hub")
        code, told, _ = status(archive, "--require-complete", "s2", "--wait", "0.5")
        assert (code, "s2 is not connected" in told) == (1, True), told
        assert relay.stop() == 0
    code, told, _ = status(archive, "--require-complete", "s1")
    assert (code, "no walstream process" in told) == (3, True)
    assert list((archive / ".walstream" / "control").iterdir()) == []


def _flush_behind(archive: Path, name: str) -> int:
    behind: int = clients(archive)[name]["flush_bytes_behind"] or 0
    return behind
