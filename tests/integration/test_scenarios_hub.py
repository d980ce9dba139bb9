"""PostgreSQL's own tests of streaming, with a hub between the primary and its standbys.

They are those of ``src/test/recovery/t`` and ``src/interfaces/libpq/t``, each named in the test
that does it; docs/reference/scenarios.md has the table of all.
"""

from __future__ import annotations

import os
import re
import signal
import struct
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from tests.integration.chain import (
    KEEP,
    any_of,
    await_true,
    configure,
    count,
    insert,
    replication,
    running_hub,
    walreceiver,
)
from tests.servers import Clusters, every_version, on_versions
from tests.servers.clusters import left_alone
from tests.servers.daemon import Serving, wait_until
from walstream.embedded import Cluster


@every_version
def test_both_ends_of_a_cascade_are_equal(clusters: Clusters, tmp_path: Path) -> None:
    """001_stream_rep: primary, hub, standby, cascading standby; 016_min_consistency."""
    # Without full_page_writes no base backup can be taken of a standby.
    primary = clusters.primary(settings=KEEP | {"full_page_writes": "on"})
    with running_hub(primary.conninfo(), tmp_path / "archive") as hub:
        first = clusters.standby(primary, hub.conninfo(), "first")
        second = clusters.standby(first, name="second")
        primary.query("CREATE SEQUENCE plain")
        primary.query("SELECT nextval('plain')")
        primary.query("CREATE UNLOGGED TABLE forgotten (n int)")
        end = insert(primary)
        for standby in (first, second):
            standby.wait_for_replay(end)
            assert count(standby) == 1000
            # A sequence is logged ahead of its use.
            assert standby.query("SELECT last_value FROM plain") == [(33,)]
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                standby.query("INSERT INTO numbers VALUES (1)")
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="during recovery"):
                standby.query("SELECT * FROM forgotten")
        # Once pg_basebackup's is gone.
        senders = "SELECT application_name FROM pg_stat_replication"
        wait_until(lambda: primary.query(senders) == [("walstream",)], "one walsender")
        primary.query("CHECKPOINT")
        primary.query("DELETE FROM numbers WHERE n % 2 = 0")
        primary.query("VACUUM numbers")
        first.wait_for_replay(primary.end_of_wal())
        first.query("CHECKPOINT")
        primary.query("UPDATE numbers SET n = n + 1")
        first.wait_for_replay(primary.end_of_wal())
        table = first.data / first.query("SELECT pg_relation_filepath('numbers')")[0][0]
        first.stop("immediate")
        assert newest_page(table) <= minimum_recovery_point(first)


def newest_page(table: Path) -> int:
    """The highest position that a page of a table was changed at, by what is on the disk."""
    content = table.read_bytes()
    assert content
    # A page's header begins with the position: its upper half, its lower half (bufpage.h).
    heads = [struct.unpack_from("=II", content, at) for at in range(0, len(content), 8192)]
    return max(int(upper) << 32 | int(lower) for upper, lower in heads)


def minimum_recovery_point(standby: Cluster) -> int:
    """From where on a standby that was ended is consistent."""
    text = standby.run([standby.installation.tool("pg_controldata"), standby.data])
    match = re.search(r"Minimum recovery ending location: +(\w+)/(\w+)", text)
    assert match is not None, text
    return int(match[1], 16) << 32 | int(match[2], 16)


# What tools and operators ask a walsender; each a parameter that a standby has.
_PARAMETERS = (
    "data_directory_mode",
    "default_transaction_read_only",
    "hot_standby",
    "in_hot_standby",
    "integer_datetimes",
    "server_version",
    "server_version_num",
    "synchronous_commit",
    "synchronous_standby_names",
    "transaction_read_only",
    "wal_block_size",
    "wal_level",
    "wal_segment_size",
    "wal_sender_timeout",
)
# What a client is told unasked.
_REPORTED = (
    "application_name",
    "client_encoding",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
)


@on_versions(15, 18)
def test_a_replication_connection_is_a_standbys(clusters: Clusters, tmp_path: Path) -> None:
    """001_stream_rep: SHOW, BASE_BACKUP and SQL over it; whatever fails, the session goes on."""
    primary = clusters.primary(settings=KEEP)
    standby = clusters.standby(primary)
    with (
        running_hub(primary.conninfo(), tmp_path / "archive") as hub,
        replication(standby.conninfo(application_name="x")) as theirs,
        replication(hub.conninfo(application_name="x")) as ours,
    ):
        for name in _PARAMETERS:
            assert answer(ours, f"SHOW {name}") == answer(theirs, f"SHOW {name}"), name
        for name in _REPORTED:
            wanted = theirs.pgconn.parameter_status(name.encode())
            assert ours.pgconn.parameter_status(name.encode()) == wanted, name
        everything = {name: value for name, value, _ in answer(ours, "SHOW ALL")}
        assert set(_PARAMETERS) <= {name.decode() for name in everything}
        theirs_too = {name: value for name, value, _ in answer(theirs, "SHOW ALL")}
        assert set(everything) <= set(theirs_too)
        assert "unrecognized configuration parameter" in error(ours, "SHOW nosuch")
        assert "not available from a WAL archive" in error(ours, "BASE_BACKUP")
        assert "not available from a WAL archive" in error(ours, "BASE_BACKUP (LABEL 'x')")
        assert error(ours, "SELECT 1") == error(theirs, "SELECT 1") != ""
        assert answer(ours, "SHOW wal_segment_size") == [[b"1MB"]]
        # A standby's own worker that synchronizes slots asks its upstream in SQL.
        with pytest.raises(psycopg.OperationalError, match="is not available from a WAL archive"):
            psycopg.connect(hub.conninfo(dbname="postgres"))


def answer(connection: psycopg.Connection[tuple[object, ...]], command: str) -> list[list[bytes]]:
    """The rows of a replication command."""
    result = connection.pgconn.exec_(command.encode())
    assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, result.error_message
    columns = range(result.nfields)
    return [[result.get_value(row, n) or b"" for n in columns] for row in range(result.ntuples)]


def error(connection: psycopg.Connection[tuple[object, ...]], command: str) -> str:
    """The error that a replication command ends with."""
    result = connection.pgconn.exec_(command.encode())
    assert result.status == psycopg.pq.ExecStatus.FATAL_ERROR, command
    return result.error_message.decode()


def test_which_host_is_chosen(clusters: Clusters, tmp_path: Path) -> None:
    """001_stream_rep and libpq's 003_load_balance_host_list: a hub is a standby to libpq."""
    primary = clusters.primary(settings=KEEP)
    upstream = primary.conninfo()
    with (
        running_hub(upstream, tmp_path / "one") as one,
        running_hub(upstream, tmp_path / "two") as two,
    ):
        for wanted, ports, chosen in (
            ("any", (primary, one), primary),
            ("any", (one, primary), one),
            ("read-write", (one, primary), primary),
            ("read-only", (primary, one), one),
            ("primary", (one, primary), primary),
            ("standby", (primary, one), one),
            ("prefer-standby", (primary, one), one),
        ):
            assert connected_to(*ports, target_session_attrs=wanted) == chosen.port, wanted
        for wanted, server, message in (
            ("read-write", one, "session is read-only"),
            ("primary", one, "server is in hot standby mode"),
            ("standby", primary, "server is not in hot standby mode"),
        ):
            with pytest.raises(psycopg.OperationalError, match=message):
                connected_to(server, target_session_attrs=wanted)
        assert {connected_to(one, two) for _ in range(5)} == {one.port}
        balanced = [connected_to(one, two, load_balance_hosts="random") for _ in range(24)]
        assert set(balanced) == {one.port, two.port}
        # A standby goes on where there still is a hub.
        both = several(one, two, application_name="standby", load_balance_hosts="random")
        standby = clusters.standby(primary, both)
        walreceiver(standby)
        place = "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'"
        used = standby.query(place)[0][0]
        hubs = {one.port: one, two.port: two}
        hubs.pop(used).kill()
        assert {connected_to(one, two, load_balance_hosts="random") for _ in range(5)} == set(hubs)
        end = insert(primary)
        standby.wait_for_replay(end)
        assert standby.query(place)[0][0] in hubs


def several(*servers: Cluster | Serving, **parameters: str) -> str:
    """A connection string that names servers and hubs."""
    ports = ",".join(str(server.port) for server in servers)
    hosts = ",".join(["127.0.0.1"] * len(servers))
    more = " ".join(f"{name}={value}" for name, value in parameters.items())
    return f"host={hosts} port={ports} user=postgres {more}"


def connected_to(*servers: Cluster | Serving, **parameters: str) -> int:
    """The port of the server that libpq chooses."""
    with replication(several(*servers, **parameters)) as connection:
        return connection.info.port


def test_a_delayed_a_sleeping_and_a_plain_standby(clusters: Clusters, tmp_path: Path) -> None:
    """005_replay_delay; and N8: one that fell behind comes back without a new connection.

    The delayed one has all WAL, and applies it late; nobody else is late for it. What the sleeper
    has missed was compressed meanwhile.
    """
    primary = clusters.primary(settings=KEEP)
    insert(primary, 10)
    archive = tmp_path / "archive"
    delay = 4.0
    with running_hub(primary.conninfo(), archive, "--compress", "zstd") as hub:
        plain, delayed, sleeper = (
            clusters.standby(primary, hub.conninfo(application_name=name), name)
            for name in ("plain", "delayed", "sleeper")
        )
        processes = [walreceiver(standby) for standby in (plain, delayed, sleeper)]
        for standby in (plain, delayed, sleeper):
            standby.wait_for_replay(primary.end_of_wal())
        configure(delayed, recovery_min_apply_delay=f"{delay:g}s")
        wait_until(
            lambda: delayed.query("SHOW recovery_min_apply_delay") == [(f"{delay:g}s",)], "in force"
        )
        sleeper.signal_all(signal.SIGSTOP)
        begun = time.monotonic()
        end = insert(primary, 10)
        plain.wait_for_replay(end)
        received = "SELECT pg_last_wal_receive_lsn() >= %s::pg_lsn"
        await_true(delayed, received, end)
        assert time.monotonic() - begun < delay, "the others are slow"
        assert (count(plain), count(delayed)) == (20, 10)
        primary.query(
            "SELECT count(pg_logical_emit_message(false, '', repeat('x', 1000000)))"
            " FROM generate_series(1, 24)"
        )
        wait_until(lambda: len(list(archive.glob("*.zst"))) >= 20, "segments compressed")
        sleeper.signal_all(signal.SIGCONT)
        delayed.wait_for_replay(end)
        assert time.monotonic() - begun >= delay, "it was not delayed"
        end = insert(primary, 10)
        for standby in (plain, sleeper):
            standby.wait_for_replay(end)
            assert count(standby) == 30
        assert processes == [walreceiver(standby) for standby in (plain, delayed, sleeper)]
        # Promotion does not wait for the delay.
        delayed.query("SELECT pg_wal_replay_pause()")
        delayed.promote()
        assert count(delayed) >= 20


def test_a_backend_is_killed(clusters: Clusters, tmp_path: Path) -> None:
    """013_crash_restart: the server starts all its processes anew; hub and standby go on."""
    primary = clusters.primary(settings=KEEP)
    insert(primary, 10)
    with running_hub(primary.conninfo(), tmp_path / "archive") as hub:
        standby = clusters.standby(primary, hub.conninfo())
        before = walreceiver(standby)
        with suppress(psycopg.Error), primary.connect() as victim:
            victim.execute("BEGIN")
            victim.execute("INSERT INTO numbers VALUES (-1)")
            primary.query("SELECT pg_switch_wal()")
            os.kill(victim.info.backend_pid, signal.SIGKILL)
            victim.execute("COMMIT")
        # It takes connections up to the moment in which it learns of it.
        anew = "all server processes terminated; reinitializing"
        wait_until(lambda: anew in primary.log.read_text(), "the primary starts anew")
        wait_until(lambda: accepts(primary), "the primary is back")
        end = insert(primary, 10)
        standby.wait_for_replay(end)
        assert standby.query("SELECT count(*), min(n) FROM numbers") == [(20, 1)]
        assert walreceiver(standby) == before


def accepts(server: Cluster) -> bool:
    """Whether it takes queries."""
    try:
        return server.query("SELECT true") == [(True,)]
    except psycopg.OperationalError:
        return False


class TwoNodes:
    """Two servers that take turns as the primary, and the hub that both stream through."""

    def __init__(self, clusters: Clusters, tmp_path: Path) -> None:
        self.primary = clusters.primary(settings=KEEP | {"max_prepared_transactions": "10"})
        self.standby = clusters.standby(self.primary)
        upstream = any_of(self.primary, self.standby, target_session_attrs="read-write")
        self.hub = running_hub(upstream, tmp_path / "archive")
        self.standby.configure({"synchronous_standby_names": "walstream"})
        self._follow(self.standby)
        self.standby.restart()
        configure(self.primary, synchronous_standby_names="walstream")
        insert(self.primary, 1)  # an archive that has nothing is not synchronous yet
        await_true(self.primary, "SELECT bool_and(sync_state = 'sync') FROM pg_stat_replication")

    def take_turns(self) -> None:
        """The primary crashes, the standby takes over, and the old primary is its standby."""
        with left_alone(self.primary):
            self.catch_up()
            self.primary.kill()
        self.standby.promote()
        self.primary, self.standby = self.standby, self.primary
        self._follow(self.standby)
        self.standby.start()
        insert(self.primary, 1)
        self.catch_up()

    def catch_up(self) -> None:
        """Wait until the standby has applied everything."""
        self.standby.wait_for_replay(self.primary.end_of_wal())

    def _follow(self, server: Cluster) -> None:
        server.follow(self.hub.conninfo(application_name="standby"))


def test_prepared_transactions_survive(clusters: Clusters, tmp_path: Path) -> None:
    """009_twophase and 012_subtransactions: commits wait for the hub; both nodes take turns."""
    nodes = TwoNodes(clusters, tmp_path)
    with nodes.hub:
        prepare(nodes.primary, "one", 1)
        prepare(nodes.primary, "two", 2)
        # Soft and hard restart of the primary.
        nodes.primary.restart()
        assert prepared(nodes.primary) == {"one", "two"}
        nodes.primary.kill()
        nodes.primary.start()
        nodes.primary.query("COMMIT PREPARED 'one'")
        nodes.primary.query("ROLLBACK PREPARED 'two'")
        # More subtransactions than shared memory remembers of one.
        prepare(nodes.primary, "three", 3, savepoints=100)
        prepare(nodes.primary, "four", 4)
        nodes.take_turns()
        assert prepared(nodes.primary) == {"three", "four"}
        nodes.primary.query("COMMIT PREPARED 'three'")
        prepare(nodes.primary, "five", 5)
        nodes.catch_up()
        # Both restarts of the standby, then the way back.
        nodes.standby.restart()
        nodes.standby.kill()
        nodes.standby.start()
        nodes.take_turns()
        assert prepared(nodes.primary) == {"four", "five"}
        nodes.primary.query("COMMIT PREPARED 'four'")
        nodes.primary.query("ROLLBACK PREPARED 'five'")
        nodes.catch_up()
        for server in (nodes.primary, nodes.standby):
            assert prepared(server) == set()
            assert server.query("SELECT n, count(*) FROM pairs GROUP BY n ORDER BY n") == [
                (1, 2),
                (3, 102),
                (4, 2),
            ]
            assert server.query("SELECT to_regclass('made_by_four') IS NOT NULL") == [(True,)]
            assert server.query("SELECT to_regclass('made_by_five')") == [(None,)]
        history = {path.name for path in (tmp_path / "archive").glob("*.history")}
        assert history == {"00000002.history", "00000003.history"}


def prepare(primary: Cluster, name: str, number: int, savepoints: int = 1) -> None:
    """Prepare a transaction that makes a table and writes rows, one in each savepoint."""
    primary.query("CREATE TABLE IF NOT EXISTS pairs (n int)")
    with primary.connect() as connection:
        connection.execute("BEGIN")
        connection.execute(f"CREATE TABLE made_by_{name} (n int)".encode())
        connection.execute("INSERT INTO pairs VALUES (%s)", [number])
        for index in range(savepoints):
            connection.execute(f"SAVEPOINT s{index}".encode())
            connection.execute("INSERT INTO pairs VALUES (%s)", [number])
        if savepoints > 1:
            connection.execute("SAVEPOINT other")
            connection.execute("INSERT INTO pairs VALUES (%s)", [number])
        connection.execute(f"PREPARE TRANSACTION '{name}'".encode())


def prepared(server: Cluster) -> set[str]:
    """The transactions that are prepared."""
    return {row[0] for row in server.query("SELECT gid FROM pg_prepared_xacts")}
