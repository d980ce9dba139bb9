"""PostgreSQL's own tests of recovery, by streaming from an archive and nothing else.

They are those of ``src/test/recovery/t``, each named in the test that does it;
docs/reference/scenarios.md has the table of all. No server here has a ``restore_command``: all WAL
comes by ``primary_conninfo``. The same by ``walstream restore-wal`` is in ``test_restore_wal.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.chain import (
    KEEP,
    any_of,
    await_true,
    insert,
    running_hub,
    running_sender,
)
from tests.integration.recovery import is_open
from tests.servers import Clusters, on_versions
from tests.servers.clusters import left_alone
from tests.servers.daemon import Serving, wait_until
from walstream.embedded import Cluster


@contextmanager
def streaming(
    clusters: Clusters,
    backup: Path,
    sender: Serving,
    *,
    history: Path | None = None,
    **settings: str | int,
) -> Iterator[Cluster]:
    """A standby, made of a copy of *backup*, that has nothing but a sender.

    :param history: a history file that it has from the start.
    """
    server = clusters.made_of(backup, "recovered")
    server.configure({"recovery_target_action": "promote", **settings})
    server.follow(sender.conninfo())
    if history is not None:
        path = server.data / "pg_wal" / history.name
        shutil.copyfile(history, path)
        server.account.own(path)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def rows(server: Cluster) -> set[int]:
    """What was inserted, but for the first rows."""
    return {row[0] for row in server.query("SELECT n FROM numbers WHERE n < 0")}


def add(primary: Cluster, number: int) -> str:
    """A commit that is found again by its number; its transaction."""
    with primary.connect() as connection, connection.transaction():
        command = "INSERT INTO numbers VALUES (%s) RETURNING pg_current_xact_id()"
        row = connection.execute(command, [number]).fetchone()
        assert row is not None
        return str(row[0])


def timeline(server: Cluster) -> int:
    """The timeline that a server writes on."""
    return int(server.query("SELECT pg_walfile_name(pg_current_wal_lsn())")[0][0][:8], 16)


def test_recovery_targets(clusters: Clusters, directory: Path, tmp_path: Path) -> None:
    """003_recovery_targets, 023_pitr_prepared_xact and 042_low_level_backup.

    Each kind of target is hit; one that is not there is waited for. The base backups have no WAL.
    """
    primary = clusters.primary(settings=KEEP | {"max_prepared_transactions": "10"})
    archive, base, copy = tmp_path / "archive", directory / "base", directory / "copy"
    with running_hub(primary.conninfo(), archive) as hub:
        primary.base_backup(base, "-X", "none")
        low_level_backup(primary, copy)
        insert(primary, 1000)
        add(primary, -1)
        xid = add(primary, -2)
        add(primary, -3)
        moment = str(primary.query("SELECT now()")[0][0])
        add(primary, -4)
        with primary.connect() as connection:
            connection.execute("BEGIN")
            connection.execute("INSERT INTO numbers VALUES (-100)")
            connection.execute("PREPARE TRANSACTION 'fixed'")
        primary.query("SELECT pg_create_restore_point('before five')")
        primary.query("COMMIT PREPARED 'fixed'")
        add(primary, -5)
        lsn = primary.end_of_wal()
        add(primary, -6)
        end = primary.end_of_wal()
        flushed = "SELECT flush_lsn >= %s::pg_lsn FROM pg_stat_replication"
        await_true(primary, flushed, end)
        primary.kill()
        assert hub.stop() == 0
    with running_sender(archive) as sender:
        for target, value, expected in (
            ("recovery_target_xid", xid, {-1, -2}),
            ("recovery_target_time", moment, {-1, -2, -3}),
            ("recovery_target_name", "before five", {-1, -2, -3, -4}),
            ("recovery_target_lsn", lsn, {-1, -2, -3, -4, -5, -100}),
        ):
            settings: dict[str, Any] = {target: value}
            with streaming(clusters, base, sender, **settings) as server:
                wait_until(lambda server=server: is_open(server), f"at {target}")  # type: ignore[misc]
                assert rows(server) == expected, target
                assert timeline(server) == 2
                if target == "recovery_target_name":
                    server.query("COMMIT PREPARED 'fixed'")
                    assert rows(server) == expected | {-100}
        with streaming(clusters, base, sender, recovery_target="immediate") as server:
            wait_until(lambda: is_open(server), "consistent")
            assert server.query("SELECT to_regclass('numbers')") == [(None,)]
        with streaming(clusters, copy, sender, recovery_target_name="none") as server:
            server.wait_for_replay(end)
            assert not is_open(server)
            assert rows(server) == {-1, -2, -3, -4, -5, -6, -100}
            log = server.log.read_text()
            assert "completed backup recovery with redo LSN" in log
            assert "recovery stopping" not in log


def low_level_backup(primary: Cluster, target: Path) -> None:
    """A base backup by the functions for it and a copy of the files; without WAL."""
    with primary.connect() as connection:
        connection.execute("SELECT pg_backup_start('by hand', true)")
        primary.account.make_directory(target)
        primary.run(["cp", "-a", f"{primary.data}/.", target])
        row = connection.execute("SELECT labelfile FROM pg_backup_stop(false)").fetchone()
        assert row is not None
    (target / "postmaster.pid").unlink()
    shutil.rmtree(target / "pg_wal")
    primary.run(["mkdir", "-p", target / "pg_wal" / "archive_status"])
    (target / "backup_label").write_text(row[0])
    primary.account.own(target / "backup_label")


@on_versions(15, 18)
def test_timelines_of_recoveries(clusters: Clusters, directory: Path, tmp_path: Path) -> None:
    """028_pitr_timelines: recovered twice along different branches.

    Timeline 3 leaves timeline 1 before 2 does. A sender serves the newest timeline and its
    ancestors, as a server does: the other branch is not in its history.
    """
    primary = clusters.primary(settings=KEEP)
    archive, base, third = tmp_path / "archive", directory / "base", tmp_path / "third"
    heir = clusters.standby(primary, name="heir", settings=KEEP)
    with running_hub(any_of(primary, heir, target_session_attrs="read-write"), archive) as hub:
        primary.base_backup(base, "-X", "none")
        insert(primary, 10)
        add(primary, -1)
        primary.query("SELECT pg_create_restore_point('fork')")
        primary.query("SELECT pg_switch_wal()")
        add(primary, -2)
        with left_alone(primary):
            heir.wait_for_replay(primary.end_of_wal())
            primary.kill()
        heir.promote()
        hub.await_text("switched to timeline 2")
        add(heir, -3)
        await_archived(heir)
        # The newest one: all of it, over the switch.
        with streaming(clusters, base, hub) as newest:
            newest.wait_for_replay(heir.end_of_wal())
            assert rows(newest) == {-1, -2, -3}
            newest.promote()
            assert timeline(newest) == 3
        # Left to itself it stays on timeline 1 or is led to 2 first, whichever is sooner.
        with streaming(
            clusters, base, hub, recovery_target_timeline="1", recovery_target_name="fork"
        ) as server:
            wait_until(lambda: is_open(server), "recovered to where the branches part")
            assert (rows(server), timeline(server)) == ({-1}, 3)
            # The branch's own archive, which begins with what the two have in common.
            third.mkdir(mode=0o700)
            parted = server.query("SELECT pg_walfile_name(pg_current_wal_lsn())")[0][0][8:]
            for path in archive.glob("00000001" + "?" * 16):
                if path.name[8:] < parted:
                    shutil.copy(path, third)
            with running_hub(server.conninfo(), third) as other:
                add(server, -4)
                await_archived(server)
                assert other.stop() == 0
        assert hub.stop() == 0
    with running_sender(third) as sender:
        with streaming(clusters, base, sender) as along:
            await_true(along, "SELECT EXISTS (SELECT FROM numbers WHERE n = -4)")
            assert rows(along) == {-1, -4}
        # A server looks for the history of a timeline that it is told before it connects.
        second = archive / "00000002.history"
        with streaming(
            clusters, base, sender, history=second, recovery_target_timeline="2"
        ) as server:
            # It is led to timeline 3, where it does not want to go.
            ended = "End of WAL reached on timeline 1"
            wait_until(lambda: server.log.read_text().count(ended) > 1, "at the end of the branch")
            assert not is_open(server)
            assert rows(server) == {-1}


def await_archived(server: Cluster) -> None:
    """Have the last segment finished, and all of it in the archive."""
    server.query("SELECT pg_switch_wal()")
    end = server.end_of_wal()
    await_true(server, "SELECT flush_lsn >= %s::pg_lsn FROM pg_stat_replication", end)


def test_wal_level_minimal_is_not_passed(
    clusters: Clusters, directory: Path, tmp_path: Path
) -> None:
    """024_archive_recovery: not everything is in such WAL; the standby refuses it, and says so."""
    primary = clusters.primary(settings=KEEP)
    base = directory / "base"
    with running_hub(primary.conninfo(), tmp_path / "archive") as hub:
        primary.base_backup(base, "-X", "none")
        insert(primary, 10)
        with streaming(clusters, base, hub) as standby:
            standby.wait_for_replay(primary.end_of_wal())
            primary.configure({"wal_level": "minimal", "max_wal_senders": 0})
            primary.restart()
            insert(primary, 10)
            primary.configure({"wal_level": "replica", "max_wal_senders": 10})
            primary.restart()
            wait_until(lambda: not standby.running, "given up")
            assert "WAL was generated with" in standby.log.read_text()
        # The hub itself has it all.
        end = insert(primary, 1)
        flushed = "SELECT bool_or(flush_lsn >= %s::pg_lsn) FROM pg_stat_replication"
        await_true(primary, flushed, end)
