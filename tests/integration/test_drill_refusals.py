"""A standby that does not belong: what it says of the hub, beside what it says of PostgreSQL."""

from __future__ import annotations

import re
from pathlib import Path

from tests.integration.chain import await_true, configure
from tests.integration.test_send import outcome
from tests.servers import Clusters, every_version
from tests.servers.clusters import left_alone
from tests.servers.daemon import Serving, await_streaming, wait_until
from walstream.embedded import Cluster

_TROUBLE = re.compile(
    r"^\S+ (?:FATAL|ERROR): .*\n(?:(?:\t| ).*\n|\S+ (?:DETAIL|HINT): .*\n)*", re.M
)
_ADMINISTRATOR = "due to administrator command"
_SETTINGS = {"log_line_prefix": "%e ", "wal_keep_size": "1GB"}


def complaint(standby: Cluster, begin: int) -> str:
    """What a standby says, from that place of its log on: SQLSTATE and words."""

    def troubles() -> list[str]:
        text = standby.log.read_bytes()[begin:].decode()
        return [found for found in _TROUBLE.findall(text) if _ADMINISTRATOR not in found]

    wait_until(lambda: bool(troubles()), f"a complaint in {standby.log}")
    return troubles()[0]


def complaints(standby: Cluster, server: Cluster, ours: Serving) -> tuple[str, str]:
    """What it says of PostgreSQL when it is to follow that, and then of walstream."""
    begin = standby.log.stat().st_size
    standby.configure({"primary_conninfo": server.conninfo(application_name="stray")})
    if standby.running:
        standby.reload()
    else:
        standby.start()
    theirs = complaint(standby, begin)
    came = ours.sessions("stray")
    configure(standby, primary_conninfo=ours.conninfo(application_name="stray"))
    wait_until(lambda: ours.sessions("stray") > came, "it has come to us")
    # Up to then it may have gone on about the server.
    return theirs, complaint(standby, standby.log.stat().st_size)


@every_version
def test_a_standby_that_does_not_belong(clusters: Clusters, directory: Path) -> None:
    """It is ahead, on a newer timeline, on a branch that was left, or of another system."""
    primary = clusters.primary(settings=_SETTINGS)
    archive, base = directory / "archive", directory / "base"
    with Serving("hub", "-d", primary.conninfo(), "-D", archive, log=directory / "hub") as hub:
        await_streaming(primary)
        primary.base_backup(base)
        server = clusters.standby_of(base, primary.conninfo(), "server")
        stray = clusters.standby_of(base, primary.conninfo(), "stray")
        with left_alone(primary):  # the words tell where WAL ends: in both at the same place
            primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 1000) AS n")
            end = primary.end_of_wal()
            for standby in (server, stray):
                standby.wait_for_replay(end)
            wait_until(lambda: hub.end() == (1, end), "all of it in the hub")
            configure(server, primary_conninfo="")
            await_true(server, "SELECT count(*) = 0 FROM pg_stat_wal_receiver")
            assert hub.stop() == 0
    with Serving("send", "-D", archive, log=directory / "send") as sender:
        # Three segments ahead.
        for _ in range(3):
            primary.query("INSERT INTO numbers SELECT generate_series(1, 1000)")
            primary.query("SELECT pg_switch_wal()")
        end = primary.end_of_wal()
        stray.wait_for_replay(end)
        theirs, ours = complaints(stray, server, sender)
        assert "is ahead of the WAL flush position of this server" in theirs
        assert ours == theirs
        stray.promote()
        stray.stop()
        stray.follow("")
        theirs, ours = complaints(stray, server, sender)
        assert "highest timeline 1 of the primary is behind recovery timeline 2" in theirs
        assert ours == theirs
        stray.stop()
    server.promote()
    server.query("INSERT INTO numbers SELECT generate_series(1, 1000)")
    with Serving("hub", "-d", server.conninfo(), "-D", archive, log=directory / "hub") as hub:
        hub.await_text("switched to timeline 2")
        primary.stop()
        primary.follow("")
        theirs, ours = complaints(primary, server, hub)
        assert "on timeline 1 is not in this server's history" in theirs
        assert ours == theirs
        for command in (
            "START_REPLICATION 0/F000000 TIMELINE 1",
            "START_REPLICATION 0/0 TIMELINE 3",
        ):
            assert outcome(hub.conninfo(), command) == outcome(server.conninfo(), command)
        foreign = clusters.primary("foreign", settings=_SETTINGS, new_system=True)
        foreign.stop()
        foreign.follow("")
        theirs, ours = complaints(foreign, server, hub)
        assert "database system identifier differs between the primary and standby" in theirs
        assert ours == theirs
