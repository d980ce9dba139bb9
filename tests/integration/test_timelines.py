"""A promotion upstream, followed by ``walstream receive`` and through ``walstream hub``."""

from __future__ import annotations

from pathlib import Path

from tests.integration.load import await_segments, identical
from tests.servers import Clusters, every_version
from tests.servers.daemon import Serving, Walstream, wait_until


@every_version
def test_a_promotion_is_followed(clusters: Clusters, tmp_path: Path) -> None:
    """The history file, the old timeline's last segment and the new timeline's WAL are archived."""
    primary = clusters.primary()
    standby = clusters.standby(primary)
    archive = tmp_path / "archive"
    with Walstream(
        "receive", "-d", standby.conninfo(), "-D", archive, log=tmp_path / "log"
    ) as ours:
        ours.await_text("starting log streaming")
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 50000) AS n")
        standby.wait_for_replay(primary.end_of_wal())
        standby.promote()
        ours.await_text("switched to timeline 2")
        standby.query("INSERT INTO numbers SELECT generate_series(1, 50000)")
        standby.query("SELECT pg_switch_wal()")
        new = "00000002" + "?" * 16
        wait_until(lambda: len(list(archive.glob(new))) >= 2, "two segments of timeline 2")
        assert ours.stop() == 0
    history = (standby.data / "pg_wal" / "00000002.history").read_bytes()
    assert (archive / "00000002.history").read_bytes() == history
    assert list(archive.glob("00000001*.partial")), "the old timeline's last segment is gone"
    names = [path.name for path in archive.glob(new)]
    assert set(names) <= set(identical(archive, standby.data / "pg_wal", len(names)))


@every_version
def test_a_hub_leads_its_standby_over(clusters: Clusters, tmp_path: Path) -> None:
    """A standby behind the hub goes on to the new timeline without a restart."""
    primary = clusters.primary()
    middle = clusters.standby(primary, name="middle")
    archive = tmp_path / "archive"
    with Serving("hub", "-d", middle.conninfo(), "-D", archive, log=tmp_path / "log") as relay:
        relay.await_text("starting log streaming")
        last = clusters.standby(primary, relay.conninfo(), "last")
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 50000) AS n")
        last.wait_for_replay(primary.end_of_wal())
        middle.promote()
        middle.query("INSERT INTO numbers SELECT generate_series(1, 50000)")
        await_segments(archive, 1)
        last.wait_for_replay(middle.end_of_wal())
        assert last.query("SELECT count(*) FROM numbers") == [(100000,)]
