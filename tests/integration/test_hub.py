"""``walstream hub``: real standbys behind it, under load, and when things go wrong."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.integration.load import (
    await_segments,
    finished_segments,
    pgbench,
    prepare_pgbench,
    without_gap,
)
from tests.servers import Clusters, every_version
from tests.servers.daemon import Serving, wait_until
from tests.servers.proxy import Proxy
from walstream.embedded import Cluster

# What a stop may take on a busy machine: less than the minute after which a server lets go of a
# standby that does not answer.
_PROMPTLY = 30.0

# Every row of every table of pgbench, as one number.
FINGERPRINT = """
SELECT (SELECT sum(hashtext(a::text)::bigint) FROM pgbench_accounts a),
       (SELECT sum(hashtext(b::text)::bigint) FROM pgbench_branches b),
       (SELECT sum(hashtext(t::text)::bigint) FROM pgbench_tellers t),
       (SELECT sum(hashtext(h::text)::bigint) FROM pgbench_history h),
       (SELECT count(*) FROM pgbench_history)
"""


def hub(primary: Cluster, archive: Path, log: Path, port: int | None = None) -> Serving:
    """A hub of *primary*."""
    return Serving("hub", "-d", primary.conninfo(), "-D", archive, log=log, port=port)


def have_the_same_rows(primary: Cluster, *standbys: Cluster) -> None:
    """Wait for the standbys, then compare."""
    end, expected = primary.end_of_wal(), primary.query(FINGERPRINT)
    for standby in standbys:
        standby.wait_for_replay(end)
        assert standby.query(FINGERPRINT) == expected


@every_version
def test_two_standbys_follow_through_the_hub(clusters: Clusters, tmp_path: Path) -> None:
    """Both have the primary's rows, the primary has one walsender, and a kill -9 leaves no gap."""
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    prepare_pgbench(primary)
    archive, log = tmp_path / "archive", tmp_path / "log"
    with hub(primary, archive, log) as relay:
        relay.await_text("starting log streaming")
        port = relay.port
        standbys = [
            clusters.standby(primary, relay.conninfo(application_name=name), name)
            for name in ("first", "second")
        ]
        with pgbench(primary):
            await_segments(archive, 5)
            # Once pg_basebackup's are gone.
            senders = "SELECT application_name, state FROM pg_stat_replication"
            only = [("walstream", "streaming")]
            wait_until(lambda: primary.query(senders) == only, "no walsender but the hub's")
            relay.kill()
            with hub(primary, archive, log, port) as again:
                count = len(finished_segments(archive))
                await_segments(archive, count + 5)
                again.kill()
        with hub(primary, archive, log, port) as once_more:
            primary.query("SELECT pg_switch_wal()")
            have_the_same_rows(primary, *standbys)
            # A fast shutdown of the standbys, then of the hub, is not held up by anything.
            standbys[0].stop("fast", timeout=_PROMPTLY)
            assert once_more.stop() == 0
    assert without_gap(archive)


def test_a_primary_and_its_hub_can_be_stopped_in_any_order(
    clusters: Clusters, tmp_path: Path
) -> None:
    """A fast stop of the primary is not held up; after its return the standby goes on."""
    primary = clusters.primary(settings={"wal_keep_size": "100MB"})
    prepare_pgbench(primary)
    with hub(primary, tmp_path / "archive", tmp_path / "log") as relay:
        relay.await_text("starting log streaming")
        standby = clusters.standby(primary, relay.conninfo())
        primary.stop("fast", timeout=_PROMPTLY)
        primary.start()
        primary.query("UPDATE pgbench_accounts SET abalance = 1")
        have_the_same_rows(primary, standby)


def test_a_stopped_standby_costs_a_constant(clusters: Clusters, tmp_path: Path) -> None:
    """A gigabyte passes one that does not read: the other keeps up, the hub's memory is bounded.

    On SIGCONT the stopped one catches up from the archive.
    """
    primary = clusters.primary(
        wal_segment_size=16, settings={"max_wal_size": "4GB", "wal_keep_size": "4GB"}
    )
    prepare_pgbench(primary)
    archive = tmp_path / "archive"
    with hub(primary, archive, tmp_path / "log") as relay:
        relay.await_text("starting log streaming")
        reader, sleeper = (
            clusters.standby(primary, relay.conninfo(application_name=name), name)
            for name in ("reader", "sleeper")
        )
        have_the_same_rows(primary, reader, sleeper)
        before = relay.memory()
        sleeper.signal_all(signal.SIGSTOP)
        try:
            for _ in range(11):
                primary.query(
                    "SELECT count(pg_logical_emit_message(false, 'bulk', repeat('x', 1000000)))"
                    " FROM generate_series(1, 100)"
                )
            primary.query("UPDATE pgbench_accounts SET abalance = 1")
            have_the_same_rows(primary, reader)
            grown = relay.memory() - before
        finally:
            sleeper.signal_all(signal.SIGCONT)
        print(f"memory: {before / 1e6:.1f} MB, grown by {grown / 1e6:.1f} MB")
        assert grown < 8 << 20, f"the hub's memory grew by {grown} bytes"
        have_the_same_rows(primary, sleeper)
    size = sum(path.stat().st_size for path in archive.glob("?" * 24))
    assert size >= 1 << 30, f"only {size} bytes passed"


def test_a_standby_that_was_cut_returns(clusters: Clusters, tmp_path: Path) -> None:
    """One that hangs for longer than the sender's timeout is cut; when it wakes it comes back, and
    gets what passed meanwhile from the archive. One that hangs for less keeps its session.
    """
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    archive, log = tmp_path / "archive", tmp_path / "log"
    with hub(primary, archive, log) as relay:
        relay.await_text("starting log streaming")
        timeout = {"cut": "2s", "brief": "60s"}
        cut, brief = (
            clusters.standby(
                primary,
                relay.conninfo(application_name=name, options=f"-c wal_sender_timeout={value}"),
                name,
            )
            for name, value in timeout.items()
        )
        prepare_pgbench(primary)
        have_the_same_rows(primary, cut, brief)

        def cuts() -> int:
            return relay.text.count("terminating walsender process due to replication timeout")

        before = cuts()  # none, unless the machine is as slow as a standby that hangs
        for standby in (cut, brief):
            standby.signal_all(signal.SIGSTOP)
        with pgbench(primary):
            await_segments(archive, len(finished_segments(archive)) + 10)
        brief.signal_all(signal.SIGCONT)
        have_the_same_rows(primary, brief)
        wait_until(lambda: cuts() > before, "it is cut")
        cut.signal_all(signal.SIGCONT)
        have_the_same_rows(primary, cut, brief)
        sessions = [relay.sessions(name) for name in ("cut", "brief")]
        assert sessions == [cuts() + 1, 1]


def test_wal_that_comes_in_pieces(clusters: Clusters, tmp_path: Path) -> None:
    """However the network cuts the primary's messages, a standby behind the hub never gets a part
    of a page that ends within a record: it would find the record's checksum wrong.
    """
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    with Proxy(primary.port, piece=1000) as proxy:
        upstream = ("-d", primary.conninfo(port=proxy.port), "-D", tmp_path / "archive")
        with Serving("hub", *upstream, log=tmp_path / "log") as relay:
            relay.await_text("starting log streaming")
            standby = clusters.standby(primary, relay.conninfo())
            prepare_pgbench(primary)
            have_the_same_rows(primary, standby)
    assert "incorrect resource manager data checksum" not in standby.log.read_text()
