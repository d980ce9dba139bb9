"""Chains of servers and hubs: how their links are made, moved and looked at."""

from __future__ import annotations

from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from tests.servers.clusters import left_alone
from tests.servers.daemon import Serving, wait_until
from walstream.embedded import Cluster

__all__ = [
    "KEEP",
    "any_of",
    "await_received",
    "await_true",
    "configure",
    "count",
    "follow",
    "hub_of",
    "insert",
    "replication",
    "running_hub",
    "running_sender",
    "switch_and_crash",
    "walreceiver",
]

#: A setting of servers that are to keep what others have not fetched yet.
KEEP = {"wal_keep_size": "1GB"}


def any_of(*clusters: Cluster, **parameters: str) -> str:
    """A connection string that names several servers."""
    ports = ",".join(str(cluster.port) for cluster in clusters)
    hosts = ",".join(["127.0.0.1"] * len(clusters))
    more = " ".join(f"{name}={value}" for name, value in parameters.items())
    return f"host={hosts} port={ports} user=postgres {more}"


def await_true(cluster: Cluster, query: LiteralString, *values: object) -> None:
    """Wait until a query says true."""
    wait_until(lambda: cluster.query(query, *values) == [(True,)], query)


def switch_and_crash(primary: Cluster, *standbys: Cluster) -> None:
    """End the primary where its WAL ends with a segment, and all have it."""
    with left_alone(primary):
        primary.query("SELECT pg_logical_emit_message(true, 'last', 'words')")
        with primary.connect() as connection:
            connection.execute("SELECT pg_switch_wal()")
            row = connection.execute("SELECT pg_current_wal_lsn()").fetchone()
            assert row is not None
        received = "SELECT pg_last_wal_receive_lsn() >= %s::pg_lsn"
        for standby in standbys:
            await_true(standby, received, row[0])
        primary.kill()


def await_received(standby: Cluster, hub: Serving) -> None:
    """Wait until a standby has all that a hub has, which is lost to it if it is promoted before.

    The hub must have nobody any more from whom more would come.
    """
    # After a restart what it had replayed before does not count as received again.
    has = "greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())"
    await_true(standby, f"SELECT {has} >= %s::pg_lsn", hub.end()[1])


def configure(server: Cluster, **settings: str | int) -> None:
    """Change settings of a server that runs."""
    server.configure(settings)
    server.reload()


def follow(standby: Cluster, primary: Cluster) -> None:
    """Have a standby follow another primary."""
    configure(standby, primary_conninfo=primary.conninfo())


def running_hub(upstream: str, archive: Path, *options: str, port: int | None = None) -> Serving:
    """A hub that has connected; its log is beside the archive.

    The log goes on when there is another one on the archive: that need not have connected yet.
    """
    log = archive.with_suffix(".log")
    hub = Serving("hub", "-d", upstream, "-D", archive, *options, log=log, port=port)
    try:
        hub.await_text("starting log streaming")
    except BaseException:
        hub.kill()
        raise
    return hub


def hub_of(archive: Path, *upstreams: Cluster, slot: str = "", port: int | None = None) -> Serving:
    """`running_hub` of whichever of the servers takes writes."""
    hosts = any_of(*upstreams, target_session_attrs="read-write")
    options = ("--slot", slot) if slot else ()
    return running_hub(hosts, archive, *options, port=port)


def running_sender(archive: Path, *options: str) -> Serving:
    """``walstream send``."""
    return Serving("send", "-D", archive, *options, log=archive.with_suffix(".send.log"))


def replication(conninfo: str) -> psycopg.Connection[tuple[object, ...]]:
    """A replication connection. Only simple queries go over it: use its ``pgconn``."""
    return psycopg.connect(make_conninfo(conninfo, replication="true"), autocommit=True)


def walreceiver(standby: Cluster) -> int:
    """The process that receives WAL, once it streams."""
    question = "SELECT pid FROM pg_stat_wal_receiver WHERE status = 'streaming'"
    found: list[tuple[int]] = []

    def streams() -> bool:
        found[:] = standby.query(question)
        return bool(found)

    wait_until(streams, "streaming")
    return found[0][0]


def insert(primary: Cluster, number: int = 1000) -> str:
    """Add rows to the table ``numbers``, which is made if need be; where WAL then ends."""
    primary.query("CREATE TABLE IF NOT EXISTS numbers (n int)")
    primary.query("INSERT INTO numbers SELECT generate_series(1, %s)", number)
    return primary.end_of_wal()


def count(server: Cluster) -> int:
    """How many rows the table ``numbers`` has."""
    return int(server.query("SELECT count(*) FROM numbers")[0][0])
