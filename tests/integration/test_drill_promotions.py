"""Promotions that a hub and its standbys go through: twice, on a boundary, forked, and back."""

from __future__ import annotations

from pathlib import Path

from tests.integration.chain import await_true, switch_and_crash
from tests.integration.load import finished_segments
from tests.integration.test_drill_hub_failover import hub_of, start_behind, walreceivers
from tests.integration.test_timelines import assert_contiguous, ranges
from tests.servers import Clusters
from tests.servers.comparing import await_end, differing
from tests.servers.daemon import Serving
from tests.servers.restoring import Restoring, restore_wal
from walstream.embedded import Cluster


def test_promotions_on_a_segment_boundary(clusters: Clusters, directory: Path) -> None:
    """Twice in a row a primary dies where its WAL ends with a segment."""
    primary = clusters.primary()
    base, archive = directory / "base", directory / "archive"
    first, second, third = (clusters.empty(name) for name in ("first", "second", "third"))
    with hub_of(archive, directory / "log", primary, first, second) as hub:
        hub.await_text("starting log streaming")
        primary.base_backup(base, "-X", "none")
        start_behind(hub, base, first, second, third)
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
    base, archive, log = directory / "base", directory / "archive", directory / "log"
    heir, second = (clusters.empty(name) for name in ("heir", "second"))
    with hub_of(archive, log, primary, heir, second) as hub:
        hub.await_text("starting log streaming")
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
        await_true(second, "SELECT status = 'streaming' FROM pg_stat_wal_receiver")
        before = walreceivers([second])
        second.promote()
        hub.await_text("switched to timeline 2")
        assert before
        second.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
        primary.start()
        hub.kill()
        with hub_of(archive, log, primary, heir, second, port=hub.port) as again:
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
