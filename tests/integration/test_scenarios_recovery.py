"""PostgreSQL's own tests of replication and recovery, as far as they are about a receiver.

They are those of ``src/test/recovery/t``, each named in the test that does it. Elsewhere:
002_archiving, 003_recovery_targets, 024_archive_recovery and 028_pitr_timelines, which are about
what a ``restore_command`` gives, and 039_end_of_wal, which is about damaged WAL. 020_archive_status
does not apply: walstream writes no ``archive_status``, since nothing waits to be archived.
The others are about replay, a server's own slots, or the sender.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest

from tests.defects.scenes import die_in_a_record
from tests.integration.load import finished_segments
from tests.servers import Clusters
from tests.servers.clusters import left_alone
from tests.servers.daemon import Walstream, wait_until
from tests.servers.restoring import recovered, restore_wal


def receive(conninfo: str, archive: Path, *options: str, log: Path) -> Walstream:
    """``walstream receive --synchronous``."""
    return Walstream("receive", "-d", conninfo, "-D", archive, "--synchronous", *options, log=log)


def test_which_server_is_wanted(clusters: Clusters, tmp_path: Path) -> None:
    """001_stream_rep: target_session_attrs chooses among several hosts, in whatever order."""
    primary = clusters.primary()
    standby = clusters.standby(primary)
    ports = (f"{primary.port},{standby.port}", f"{standby.port},{primary.port}")
    for number, (wanted, order, chosen) in enumerate(
        [
            ("read-write", 1, primary),
            ("prefer-standby", 0, standby),
        ]
    ):
        conninfo = primary.conninfo(
            host="127.0.0.1,127.0.0.1", port=ports[order], target_session_attrs=wanted
        )
        with receive(conninfo, tmp_path / f"{number}", log=tmp_path / f"log{number}") as ours:
            ours.await_text("starting log streaming")
            ours_there = (
                "SELECT count(*) FROM pg_stat_replication WHERE application_name='walstream'"
            )
            assert chosen.query(ours_there) == [(1,)], wanted
    nowhere = primary.conninfo(target_session_attrs="standby")
    with receive(nowhere, tmp_path / "none", "--no-loop", log=tmp_path / "log") as ours:
        assert ours.wait() == 1
        assert "server is not in hot standby mode" in ours.text


# synchronous_standby_names, and the state of standby1, standby2 and standby3 that follows.
_SYNC = [
    ("*", ("sync", "potential", "potential")),
    ("standby1", ("sync", "async", "async")),
    ("standby2,standby1", ("potential", "sync", "async")),
    ("2(standby1,standby2,standby3)", ("sync", "sync", "potential")),
    ("FIRST 2(standby3,standby1)", ("sync", "async", "sync")),
    ("ANY 2(standby1,standby2)", ("quorum", "quorum", "async")),
    ("ANY 2(*)", ("quorum", "quorum", "quorum")),
]


def test_synchronous_states(clusters: Clusters, tmp_path: Path) -> None:
    """007_sync_rep: FIRST, ANY and * by application_name; all standbys are walstream."""
    primary = clusters.primary()
    names = ("standby1", "standby2", "standby3")

    def state() -> tuple[str, ...]:
        rows = primary.query("SELECT sync_state FROM pg_stat_replication ORDER BY application_name")
        return tuple(row[0] for row in rows)

    receivers = []
    try:
        for name in names:
            conninfo = primary.conninfo(application_name=name)
            receivers.append(receive(conninfo, tmp_path / name, log=tmp_path / f"{name}.log"))
            # Among equals the one that came first is chosen: they come in order.
            wait_until(lambda: len(state()) == len(receivers), f"{name} connected")
        for setting, expected in _SYNC:
            primary.configure({"synchronous_standby_names": setting})
            primary.reload()
            wait_until(lambda expected=expected: state() == expected, f"{setting}: {expected}")  # type: ignore[misc]
            primary.query("SELECT pg_logical_emit_message(true, 'commits', 'pass')")
    finally:
        for receiver in receivers:
            receiver.kill()


def test_a_slot_that_was_given_up(clusters: Clusters, tmp_path: Path) -> None:
    """019_replslot_limit: the WAL that is needed next is gone: it says which, and skips nothing."""
    primary = clusters.primary(settings={"max_slot_wal_keep_size": "1MB", "max_wal_size": "2MB"})
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")
    archive = tmp_path / "archive"
    options = ("--slot", "archive")
    with receive(primary.conninfo(), archive, *options, log=tmp_path / "log") as ours:
        ours.await_text("starting log streaming")
        primary.query("SELECT pg_switch_wal()")
        wait_until(lambda: bool(finished_segments(archive)), "a segment")
        primary.query("SELECT pg_logical_emit_message(true, '', 'x')")
        wait_until(lambda: any(archive.glob("*.partial")), "the next one begun")
        assert ours.stop() == 0
    before = sorted(path.name for path in archive.iterdir())
    (unfinished,) = (name.removesuffix(".partial") for name in before if "partial" in name)
    primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 200000) AS n")
    primary.query("CHECKPOINT")
    assert primary.query("SELECT wal_status FROM pg_replication_slots") == [("lost",)]
    with receive(primary.conninfo(), archive, *options, "-n", log=tmp_path / "log2") as ours:
        assert ours.wait() == 1
        assert unfinished in ours.text, ours.text
    assert sorted(path.name for path in archive.iterdir()) == before


def test_only_the_history_file_is_there(
    clusters: Clusters, directory: Path, tmp_path: Path
) -> None:
    """025_stuck_on_old_timeline: the new timeline's history is held, and nothing else of it."""
    primary = clusters.primary()
    standby = clusters.standby(primary)
    archive, base = tmp_path / "archive", directory / "base"
    with receive(primary.conninfo(), archive, log=tmp_path / "log") as ours:
        ours.await_text("starting log streaming")
        primary.base_backup(base, "-X", "none")
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 1000) AS n")
        with left_alone(primary):
            standby.wait_for_replay(primary.end_of_wal())
            assert ours.stop() == 0
    standby.promote()
    shutil.copyfile(standby.data / "pg_wal" / "00000002.history", archive / "00000002.history")
    with receive(standby.conninfo(), archive, log=tmp_path / "log2") as ours:
        ours.await_text("switched to timeline 2")
        standby.query("INSERT INTO numbers SELECT generate_series(1, 1000)")
        end = standby.end_of_wal()
        flushed = "SELECT bool_or(flush_lsn >= %s::pg_lsn) FROM pg_stat_replication"
        wait_until(lambda: standby.query(flushed, end) == [(True,)], "all of it")
        assert ours.stop() == 0
    _check_count(clusters, base, directory, archive, 2000)


def test_the_rest_of_a_record_is_missing(
    clusters: Clusters, directory: Path, tmp_path: Path
) -> None:
    """026_overwrite_contrecord: the primary dies in a record of many segments, and comes back."""
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    archive, base = tmp_path / "archive", directory / "base"
    primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 1000) AS n")
    with receive(primary.conninfo(), archive, log=tmp_path / "log") as ours:
        ours.await_text("starting log streaming")
        primary.base_backup(base, "-X", "none")
        die_in_a_record(primary, archive)
        primary.start()
        primary.query("INSERT INTO numbers SELECT generate_series(1, 1000)")
        end = primary.end_of_wal()
        flushed = "SELECT bool_or(flush_lsn >= %s::pg_lsn) FROM pg_stat_replication"
        wait_until(lambda: primary.query(flushed, end) == [(True,)], "all of it")
        assert ours.stop() == 0
    log = _check_count(clusters, base, directory, archive, 2000)
    assert "successfully skipped missing contrecord" in log


def test_a_timeline_is_left_in_a_record(
    clusters: Clusters, directory: Path, tmp_path: Path
) -> None:
    """043_no_contrecord_switch: the primary dies in a record, and a standby takes over without it.

    The archive has more of the old timeline than the new primary. It is stopped and started before
    the new timeline has come as far.
    """
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    standby = clusters.standby(primary)
    archive, base = tmp_path / "archive", directory / "base"
    both = primary.conninfo(
        host="127.0.0.1,127.0.0.1",
        port=f"{primary.port},{standby.port}",
        target_session_attrs="read-write",
    )
    primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 1000) AS n")
    flushed = "SELECT bool_or(flush_lsn >= %s::pg_lsn) FROM pg_stat_replication"
    with receive(both, archive, log=tmp_path / "log") as ours:
        ours.await_text("starting log streaming")
        primary.base_backup(base, "-X", "none")
        standby.wait_for_replay(primary.end_of_wal())
        die_in_a_record(primary, archive)
        standby.promote()
        ours.await_text("switched to timeline 2")
        standby.query("INSERT INTO numbers SELECT generate_series(1, 1000)")
        end = standby.end_of_wal()
        wait_until(lambda: standby.query(flushed, end) == [(True,)], "all of it")
        ours.kill()
    with receive(both, archive, log=tmp_path / "log2") as ours:
        ours.await_text("starting log streaming")
        standby.query("INSERT INTO numbers SELECT generate_series(1, 1000)")
        again = standby.end_of_wal()
        wait_until(lambda: standby.query(flushed, again) == [(True,)], "all of it again")
        assert ours.stop() == 0
    _check_count(clusters, base, directory, archive, 3000)


def test_logical_replication_waits_for_the_archive(clusters: Clusters, tmp_path: Path) -> None:
    """040_standby_failover_slots_sync: what logical subscribers get is in the archive before."""
    primary = clusters.primary(
        settings={"wal_level": "logical", "synchronized_standby_slots": "archive"}
    )
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")
    primary.query(
        "SELECT pg_create_logical_replication_slot('logical', 'test_decoding', false, false, true)"
    )
    primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 10) AS n")
    changes = "SELECT count(*) FROM pg_logical_slot_get_changes('logical', NULL, NULL)"
    with primary.connect() as connection:
        connection.execute("SET statement_timeout = '300ms'")
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute(changes)
    with receive(
        primary.conninfo(), tmp_path / "archive", "--slot", "archive", log=tmp_path / "log"
    ) as ours:
        ours.await_text("starting log streaming")
        with primary.connect() as connection:
            connection.execute("SET statement_timeout = '60s'")
            assert connection.execute(changes).fetchall()[0][0] >= 10


def _check_count(clusters: Clusters, base: Path, directory: Path, archive: Path, count: int) -> str:
    """Recover from the base backup and the archive; the recovered server's log."""
    restore = restore_wal(archive, "--partial")
    with recovered(clusters.installation, base, directory / "recovered", restore) as server:
        assert server.query("SELECT count(*) FROM numbers") == [(count,)]
        return server.log.read_text()
