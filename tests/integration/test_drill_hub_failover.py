"""A failover through the hub: no manual step but the promotion, and no confirmed commit lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.integration.chain import KEEP, await_received, hub_of, walreceiver
from tests.integration.test_drill_failover import load
from tests.servers import Clusters, every_version
from tests.servers.clusters import fill
from tests.servers.comparing import differing
from tests.servers.daemon import Serving, await_streaming
from tests.torture.recovery import find_losses
from walstream.embedded import Cluster


def start_behind(hub: Serving, backup: Path, *standbys: Cluster) -> None:
    """Start standbys, each with a copy of a base backup, that know of the hub alone."""
    for standby in standbys:
        fill(standby, backup)
        standby.follow(hub.conninfo(application_name=standby.directory.name))
        standby.start()


def walreceivers(standbys: Sequence[Cluster]) -> list[int]:
    """The process of each standby that receives WAL, once all of them stream."""
    return [walreceiver(each) for each in standbys]


@every_version
def test_a_failover_through_the_hub_loses_nothing(clusters: Clusters, directory: Path) -> None:
    """The primary dies under load while one standby is down. The hub, its only synchronous standby,
    gives that one the tail; it is promoted, and everybody follows.
    """
    primary = clusters.primary(settings=KEEP | {"synchronous_standby_names": "walstream"})
    base, archive = directory / "base", directory / "archive"
    heir, *others = (clusters.empty(name) for name in ("heir", "second", "third"))
    with hub_of(archive, primary, heir) as hub:
        await_streaming(primary)
        primary.base_backup(base, "-X", "none")
        start_behind(hub, base, heir, *others)
        with load(primary, directory / "confirmed") as under_load:
            under_load.await_commits()
            [(lagging_at,)] = heir.query("SELECT pg_last_wal_receive_lsn()::text")
            heir.kill()
            under_load.await_commits()
            before = walreceivers(others)
            primary.kill()
            hub.await_text("trying again")
            _, end = hub.end()
            heir.start()
            assert heir.query("SELECT %s::pg_lsn < %s::pg_lsn", lagging_at, end) == [(True,)]
            await_received(heir, hub)
            heir.promote()
            under_load.primary = heir
            under_load.await_commits()
        hub.await_text("switched to timeline 2")
        assert not differing(heir, others)
        assert walreceivers(others) == before, "a walreceiver was started anew"
        every = under_load.record.runs(0)
        for server in (heir, *others):
            assert not find_losses(server, every)
        assert hub.stop() == 0
