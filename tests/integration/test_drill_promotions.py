"""Promotions that a hub and its standbys go through: twice, on a boundary, forked, and back."""

from __future__ import annotations

from pathlib import Path

from tests.defects.scenes import die_in_a_record
from tests.integration.chain import (
    KEEP,
    any_of,
    await_received,
    await_true,
    follow,
    hub_of,
    running_hub,
    switch_and_crash,
    walreceiver,
)
from tests.integration.load import finished_segments
from tests.integration.test_drill_hub_failover import start_behind, walreceivers
from tests.integration.test_timelines import assert_contiguous, ranges
from tests.servers import Clusters
from tests.servers.clusters import left_alone
from tests.servers.comparing import await_end, differing
from tests.servers.daemon import Serving, await_streaming, wait_until
from tests.servers.restoring import Restoring, restore_wal
from walstream.embedded import Cluster


def test_promotions_on_a_segment_boundary(clusters: Clusters, directory: Path) -> None:
    """Twice in a row a primary dies where its WAL ends with a segment. The hub uses a slot, which
    was made on the standbys before.
    """
    primary = clusters.primary(settings=KEEP)
    base, archive = directory / "base", directory / "archive"
    first, second, third = (clusters.empty(name) for name in ("first", "second", "third"))
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")
    with hub_of(archive, primary, first, second, slot="archive") as hub:
        await_streaming(primary)
        primary.base_backup(base, "-X", "none")
        start_behind(hub, base, first, second, third)
        for standby in (first, second):
            standby.query("SELECT pg_create_physical_replication_slot('archive')")
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 20000) AS n")
        await_end(primary, (first, second, third))
        before = walreceivers([third])
        switch_and_crash(primary, first, second, third)
        first.promote()
        hub.await_text("switched to timeline 2")
        first.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
        switch_and_crash(first, second, third)
        second.promote()
        hub.await_text("switched to timeline 3")
        second.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
        assert not differing(second, [third])
        assert walreceivers([third]) == before
    assert_contiguous(archive, 1, 2, 3)
    for each in ranges(archive)[1:]:
        assert each["start"].endswith("00000"), "the timeline did not begin with a segment"


def test_a_forked_primary_and_the_old_one(clusters: Clusters, directory: Path) -> None:
    """A standby that lacks WAL is promoted: it is refused, and the right one followed.

    Meanwhile the hub serves what it has. So it is with the old primary when it is started again;
    rewound, it is a standby behind the hub.
    """
    primary = clusters.primary(settings={"wal_log_hints": "on", "full_page_writes": "on"})
    base, archive = directory / "base", directory / "archive"
    heir, second = (clusters.empty(name) for name in ("heir", "second"))
    with hub_of(archive, primary, heir, second) as hub:
        await_streaming(primary)
        primary.base_backup(base, "-X", "none")
        start_behind(hub, base, heir, second)
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 20000) AS n")
        await_end(primary, (heir, second))
        heir.configure({"primary_conninfo": ""})
        heir.reload()
        await_true(heir, "SELECT count(*) = 0 FROM pg_stat_wal_receiver")
        primary.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
        await_end(primary, [second])
        primary.kill()
        heir.promote()
        hub.await_text("the two have forked")
        second.restart()  # what the hub has is served
        walreceiver(second)
        await_received(second, hub)
        second.promote()
        hub.await_text("switched to timeline 2")
        second.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
        primary.start()
        hub.kill()
        with hub_of(archive, primary, heir, second, port=hub.port) as again:
            _rewind(primary, second, archive, again)
            second.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
            assert not differing(second, [primary])
    assert_contiguous(archive, 1, 2)


def _rewind(old: Cluster, new: Cluster, archive: Path, hub: Serving) -> None:
    """Make a standby behind the hub of an old primary.

    It has written WAL that nobody has, and has removed the WAL that pg_rewind needs: that is in
    the archive.
    """
    old.query("CREATE TABLE never_was (n int)")
    old.stop()
    archived = finished_segments(archive)
    for name in archived:
        (old.data / "pg_wal" / name).unlink(missing_ok=True)
    with Restoring(old.directory, old.data, restore_wal(archive), old.account) as restoring:
        old.configure({"restore_command": restoring.command})
        tool = old.installation.tool("pg_rewind")
        old.run([tool, "-D", old.data, f"--source-server={new.conninfo()}", "-c"])
    assert set(restoring.restored) & set(archived), "pg_rewind needed no WAL of the archive's"
    old.configure({"port": old.port, "restore_command": ""})
    old.follow(hub.conninfo())
    old.start()


def test_a_hub_and_its_own_standby(clusters: Clusters, directory: Path) -> None:
    """Without target_session_attrs a hub that lost its primary follows the standby that follows
    it. That does not go unnoticed; and all goes on when that standby is promoted.
    """
    primary, standby = clusters.primary(settings=KEEP), clusters.empty("standby")
    base, hosts = directory / "base", any_of(primary, standby)
    with running_hub(hosts, directory / "archive") as hub:
        await_streaming(primary)
        primary.base_backup(base, "-X", "none")
        start_behind(hub, base, standby)
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 20000) AS n")
        await_end(primary, [standby])
        assert "is a standby" not in hub.text
        primary.kill()
        hub.await_text(f"the upstream 127.0.0.1:{standby.port} is a standby, and standby, which")
        await_received(standby, hub)
        standby.promote()
        hub.await_text("switched to timeline 2")
        standby.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
        reached = "SELECT %s::pg_lsn >= pg_current_wal_flush_lsn()"
        wait_until(lambda: standby.query(reached, hub.end()[1]) == [(True,)], "all in the hub")


def test_a_record_that_never_became_whole(clusters: Clusters, directory: Path) -> None:
    """The primary dies inside a record, of which everybody has a part: all give it up."""
    primary, heir, other = (
        clusters.primary(settings=KEEP),
        clusters.empty("heir"),
        clusters.empty("other"),
    )
    archive, base = directory / "archive", directory / "base"
    with hub_of(archive, primary, heir) as hub:
        await_streaming(primary)
        primary.base_backup(base, "-X", "none")
        start_behind(hub, base, heir, other)
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 20000) AS n")
        await_end(primary, (heir, other))
        before = walreceivers([other])
        die_in_a_record(primary, archive)
        hub.await_text("trying again")
        for standby in (heir, other):
            await_true(standby, "SELECT pg_last_wal_receive_lsn() = %s::pg_lsn", hub.end()[1])
        heir.promote()
        hub.await_text("inside a record that never became whole")
        hub.await_text("switched to timeline 2")
        heir.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
        assert not differing(heir, [other])
        assert walreceivers([other]) == before
    assert_contiguous(archive, 1, 2)


def test_two_promotions_while_the_hub_was_down(clusters: Clusters, directory: Path) -> None:
    """It comes back, and so do its standbys, through both."""
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    first, second = (clusters.standby(primary, name=name) for name in ("first", "second"))
    archive, base = directory / "archive", directory / "base"
    other = clusters.empty("other")
    with hub_of(archive, primary) as hub:
        await_streaming(primary)
        primary.base_backup(base, "-X", "none")
        start_behind(hub, base, other)
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 20000) AS n")
        await_end(primary, (first, second, other))
        hub.kill()
    for old, new in ((primary, first), (first, second)):
        if new is second:
            follow(second, first)
        old.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
        with left_alone(old):
            await_end(old, [new, second])
            old.kill()
        new.promote()
    second.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
    with hub_of(archive, second, port=hub.port) as again:
        again.await_text("switched to timeline 3")
        assert not differing(second, [other])
    assert_contiguous(archive, 1, 2, 3)
