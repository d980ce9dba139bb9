"""Hot standby feedback through ``walstream hub``: 001_stream_rep's part of it, and more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.remote_apply import Chain
from tests.servers import Clusters
from tests.servers.daemon import wait_until
from walstream.embedded import Cluster

_SLOT = "SELECT xmin::text::bigint, catalog_xmin FROM pg_replication_slots"
_SENDER = "SELECT backend_xmin::text::bigint FROM pg_stat_replication"
_SETTINGS: dict[str, str | int] = {
    "hot_standby_feedback": "on",
    "wal_receiver_status_interval": 1,
    "wal_retrieve_retry_interval": "100ms",
    # A row that a query needs is removed at once: nothing but feedback can save it.
    "max_standby_streaming_delay": 0,
}


def test_it_appears_moves_and_disappears(clusters: Clusters, tmp_path: Path) -> None:
    """The xmin of the hub's slot on the primary is that of the standby behind two hubs.

    It is gone when the standby takes it back, when it stops, and when the hub does not pass it on.
    """
    with Chain(clusters, tmp_path, hubs=2, options=(), settings=_SETTINGS) as chain:
        primary, standby = chain.primary, chain.standby
        primary.query("SELECT pg_create_physical_replication_slot('hub', true)")
        chain.hubs[0].kill()
        hub = chain.start_again(0, "--slot=hub")
        before = appeared(primary)
        primary.query("CREATE TABLE rows AS SELECT 1 AS row")
        wait_until(lambda: appeared(primary) > before, "the xmin moves")
        assert primary.query(_SLOT)[0][1] is None

        def is_gone() -> bool:
            return primary.query(_SLOT) == [(None, None)]

        standby.configure({"hot_standby_feedback": "off"})
        standby.reload()
        wait_until(is_gone, "withdrawn by the standby")
        standby.configure({"hot_standby_feedback": "on"})
        standby.reload()
        appeared(primary)
        standby.stop("fast")
        wait_until(is_gone, "withdrawn when the standby has gone")
        standby.start()
        appeared(primary)
        hub.kill()
        assert primary.query(_SLOT)[0][0] is not None
        chain.start_again(0, "--slot=hub", "--feedback=off")
        wait_until(is_gone, "cleared by a hub that passes nothing on")


def appeared(primary: Cluster) -> int:
    """Wait until the slot has an xmin, which is the result."""
    wait_until(lambda: primary.query(_SLOT)[0][0] is not None, "an xmin")
    found = primary.query(_SLOT)[0][0]
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("feedback", ["on", "off"])
def test_a_query_outlives_a_vacuum(clusters: Clusters, tmp_path: Path, feedback: str) -> None:
    """The primary keeps what a transaction on the standby still sees; without feedback it does not.

    The walsender's own xmin follows, since there is no slot.
    """
    options = (f"--feedback={feedback}",)
    with Chain(clusters, tmp_path, options=options, settings=_SETTINGS) as chain:
        primary, standby = chain.primary, chain.standby
        primary.query("CREATE TABLE rows AS SELECT generate_series(1, 100) AS row")
        standby.wait_for_replay(primary.end_of_wal())
        with standby.connect() as reader:
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            (xmin,) = reader.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())").fetchone()  # type: ignore[misc]
            reader.execute("SELECT count(*) FROM rows")
            if feedback == "on":
                wait_until(lambda: primary.query(_SENDER) == [(int(xmin),)], "the xmin upstream")
            primary.query("DELETE FROM rows")
            primary.query("VACUUM rows")
            standby.wait_for_replay(primary.end_of_wal())
            assert survives(reader) is (feedback == "on")
        if feedback == "on":
            wait_until(lambda: primary.query(_SENDER)[0][0] > int(xmin), "it moves on")
        else:
            assert primary.query(_SENDER) == [(None,)]


def survives(reader: object) -> bool:
    """Whether the transaction still sees its rows."""
    import psycopg

    assert isinstance(reader, psycopg.Connection)
    try:
        return reader.execute("SELECT count(*) FROM rows").fetchone() == (100,)
    except psycopg.Error as error:
        assert "conflict with recovery" in str(error)
        return False
