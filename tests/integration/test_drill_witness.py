"""The hub as the witness of all that was acknowledged, when the primary is lost for good."""

from __future__ import annotations

from pathlib import Path

from tests.integration.chain import KEEP, hub_of
from tests.integration.test_drill_failover import load
from tests.servers import Clusters
from tests.servers.daemon import await_streaming, wait_until
from tests.torture.recovery import find_losses
from walstream.cli.main import main


def late_has_everything(archive: Path, wait: int) -> int:
    """The exit status of ``walstream status``, asked whether the standby has all there is."""
    return main(["status", str(archive), "--require-complete", "late", "--wait", str(wait)])


def test_a_standby_that_was_away_loses_nothing(clusters: Clusters, directory: Path) -> None:
    """It followed the primary, and was down when that was lost, as was the hub a moment later. It
    is pointed at the hub, gets the tail there, and is promoted when ``walstream status`` says that
    it has everything: all that was confirmed is there.
    """
    primary = clusters.primary(settings=KEEP | {"synchronous_standby_names": "walstream"})
    archive = directory / "archive"
    with hub_of(archive, primary) as hub:
        await_streaming(primary)
        late = clusters.standby(primary, name="late")
        with load(primary, directory / "confirmed") as under_load:
            under_load.await_commits()
            received = late.query("SELECT pg_last_wal_receive_lsn()::text")[0][0]
            late.stop()
            under_load.await_commits()
            primary.kill()
        hub.kill()
    every = under_load.record.runs(0)
    with hub_of(archive, primary, port=hub.port) as again:
        assert late_has_everything(archive, wait=0) == 1
        late.follow(again.conninfo(application_name="late"))
        late.start()
        assert late_has_everything(archive, wait=30) == 0
        assert late.query("SELECT %s::pg_lsn < %s::pg_lsn", received, again.end()[1]) == [(True,)]
        late.promote()
        wait_until(lambda: late.query("SELECT pg_is_in_recovery()") == [(False,)], "a primary")
        assert not find_losses(late, every)
        assert sum(run.last - run.first + 1 for run in every) >= 200
