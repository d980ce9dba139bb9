"""PostgreSQL's own tests of timelines and of records without an end, with a hub in the middle.

They are those of ``src/test/recovery/t``, each named in the test that does it;
docs/reference/scenarios.md has the table of all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import psycopg

from tests.defects.scenes import die_in_a_record
from tests.integration.chain import (
    KEEP,
    any_of,
    await_true,
    configure,
    count,
    insert,
    running_hub,
    running_sender,
    switch_and_crash,
    walreceiver,
)
from tests.servers import Clusters, on_versions
from tests.servers.clusters import left_alone
from tests.servers.daemon import wait_until
from tests.servers.restoring import Restorer, Restoring, restore_wal
from walstream.embedded import Cluster


def stopped_standby(clusters: Clusters, primary: Cluster, name: str) -> Cluster:
    """A server with a base backup of now, never started yet."""
    base = clusters.all[0].directory.parent / f"{name}-base"
    primary.base_backup(base)
    return clusters.made_of(base, name)


def only_history(restore: Restorer) -> Restorer:
    """A ``restore_command`` that has no WAL."""
    return lambda name, target: restore(name, target) if name.endswith(".history") else 1


@on_versions(15, 18)
def test_promotions_are_followed_without_a_restart(
    clusters: Clusters, directory: Path, tmp_path: Path
) -> None:
    """004_timeline_switch, 025_stuck_on_old_timeline, N3: inside a segment, then on its boundary.

    The hub's clients are led over: they keep their walreceivers. A server of the first timeline
    that finds nothing but the newest history file gets to the newest timeline as well.
    """
    first = clusters.primary(settings=KEEP)
    second, third = (
        clusters.standby(first, name=name, settings=KEEP) for name in ("second", "third")
    )
    late = stopped_standby(clusters, first, "late")
    archive = tmp_path / "archive"
    upstream = any_of(first, second, third, target_session_attrs="read-write")
    with running_hub(upstream, archive) as hub:
        for standby in (second, third):
            configure(standby, primary_conninfo=hub.conninfo())
            by_hub = "SELECT sender_port = %s FROM pg_stat_wal_receiver WHERE status = 'streaming'"
            await_true(standby, by_hub, hub.port)
        watcher = clusters.standby(first, hub.conninfo(), "watcher")
        before = [walreceiver(standby) for standby in (third, watcher)]
        insert(first)
        with left_alone(first):
            end = first.end_of_wal()
            for standby in (second, third, watcher):
                standby.wait_for_replay(end)
            first.kill()
        second.promote()
        end = insert(second)
        for standby in (third, watcher):
            standby.wait_for_replay(end)
            assert count(standby) == 2000
        assert [walreceiver(standby) for standby in (third, watcher)] == before
        switch_and_crash(second, third, watcher)
        third.promote()
        end = insert(third)
        watcher.wait_for_replay(end)
        assert walreceiver(watcher) == before[1]
        assert count(watcher) == 3000
        restore = only_history(restore_wal(archive))
        with Restoring(late.directory, late.data, restore, late.account) as restoring:
            late.configure({"restore_command": restoring.command})
            late.follow(hub.conninfo())
            late.start()
            late.wait_for_replay(end)
            assert set(restoring.restored) == {"00000002.history", "00000003.history"}
        assert count(late) == 3000
        received = "SELECT received_tli FROM pg_stat_wal_receiver"
        assert (watcher.query(received), late.query(received)) == ([(3,)], [(3,)])
        assert hub.stop() == 0


def test_a_record_lost_its_end(clusters: Clusters, tmp_path: Path) -> None:
    """026_overwrite_contrecord: the primary comes back without the rest of a record it has sent.

    The standby passes it and can be promoted; so does one that streams from the archive later.
    """
    primary = clusters.primary(settings=KEEP)
    insert(primary)
    archive = tmp_path / "archive"
    late = stopped_standby(clusters, primary, "late")
    with running_hub(primary.conninfo(), archive) as hub:
        standby = clusters.standby(primary, hub.conninfo())
        before = walreceiver(standby)
        die_in_a_record(primary, archive)
        primary.start()
        end = insert(primary)
        standby.wait_for_replay(end)
        assert walreceiver(standby) == before
        assert hub.stop() == 0
    with running_sender(archive) as sender:
        late.follow(sender.conninfo())
        late.start()
        late.wait_for_replay(end)
    for server in (standby, late):
        assert count(server) == 2000
        assert "successfully skipped missing contrecord" in server.log.read_text()
        server.promote()
        insert(server)


@on_versions(15, 18)
def test_the_next_timeline_lacks_a_record_begun(clusters: Clusters, tmp_path: Path) -> None:
    """043_no_contrecord_switch: the hub and a standby behind it have more of the old timeline.

    The primary dies in a record, and a standby takes over without it. A new standby follows at
    once. The other one, inside that record, waits until the new timeline has come as far; then it
    complains of WAL that does not continue, and goes on.
    """
    primary = clusters.primary(settings=KEEP)
    successor = clusters.standby(primary, name="successor", settings=KEEP)
    archive = tmp_path / "archive"
    insert(primary)
    upstream = any_of(primary, successor, target_session_attrs="read-write")
    late = stopped_standby(clusters, primary, "late")
    with running_hub(upstream, archive) as hub:
        other = clusters.standby(primary, hub.conninfo(), "other")
        walreceiver(other)
        successor.wait_for_replay(primary.end_of_wal())
        die_in_a_record(primary, archive)
        successor.promote()
        hub.await_text("switched to timeline 2")
        end = insert(successor)
        late.follow(hub.conninfo())
        late.start()
        late.wait_for_replay(end)
        write_until(lambda: not other.running or has_replayed(other, end), successor)
        if not other.running:
            # So it does behind a PostgreSQL server, if what it has received ends with a segment.
            assert 'PANIC:  could not open file "pg_wal/00000002' in other.log.read_text()
            other.start()
        end = successor.end_of_wal()
        other.wait_for_replay(end)
        late.wait_for_replay(end)
        assert re.search("contrecord|unexpected pageaddr|invalid magic", other.log.read_text())
        for standby in (other, late):
            assert count(standby) == 2000
            await_true(standby, "SELECT received_tli = 2 FROM pg_stat_wal_receiver")


def has_replayed(standby: Cluster, lsn: str) -> bool:
    """Whether a standby has; not if it takes no query."""
    try:
        return standby.query("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", lsn) == [(True,)]
    except psycopg.OperationalError:
        return False


def write_until(condition: Callable[[], bool], primary: Cluster) -> None:
    """Write a segment's worth of WAL again and again."""

    def write() -> bool:
        primary.query("SELECT pg_logical_emit_message(true, '', repeat('x', 1000000))")
        return condition()

    wait_until(write, "there while WAL is written")
