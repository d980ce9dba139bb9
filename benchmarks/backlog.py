"""A PostgreSQL primary that holds a backlog of WAL, and what is run against it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import installation as fetched_installation
from walstream.embedded import Account, Cluster, workspace
from walstream.formats.lsn import LSN
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE

__all__ = ["Backlog", "backlog"]

# Nothing of the backlog is removed, and no checkpoint comes in between.
_SETTINGS: dict[str, str | int] = {
    "wal_keep_size": "64GB",
    "max_wal_size": "64GB",
    "checkpoint_timeout": "1d",
    "shared_buffers": "256MB",
    "max_wal_senders": 220,
    "max_connections": 250,
}

# Half ordinary (rows, index entries, full pages), half bulk.
_ROWS = """
INSERT INTO rows (filler)
SELECT repeat(md5(i::text), 6) FROM generate_series(1, 20000) i
"""
_BULK = "SELECT count(pg_logical_emit_message(false, 'bulk', repeat('x', 1000000))) " + (
    "FROM generate_series(1, 4)"
)


class Backlog:
    """A primary and its WAL.

    :ivar start: the first whole segment's start; :ivar end: the last whole segment's end.
    """

    def __init__(self, cluster: Cluster, start: LSN, end: LSN) -> None:
        self.cluster = cluster
        self.start = start
        self.end = end

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start

    def segment_before(self) -> Path:
        """The segment before the backlog: with it in a directory, receiving starts behind it."""
        number = DEFAULT_SEGMENT_SIZE.number(self.start) - 1
        return self.cluster.data / "pg_wal" / DEFAULT_SEGMENT_SIZE.name(1, number)


@contextmanager
def backlog(gigabytes: float, major: int = 18) -> Iterator[Backlog]:
    """A primary with at least so many gigabytes (2**30 bytes) of WAL in whole segments."""
    account = Account.for_servers()
    with workspace("walstream-benchmark-") as base:
        programs = fetched_installation(major).for_user(account, base / "programs")
        with Cluster(programs, base / "primary", account=account) as cluster:
            cluster.initdb()
            cluster.configure(_SETTINGS)
            cluster.start()
            yield _fill(cluster, int(gigabytes * (1 << 30)))


def _fill(cluster: Cluster, size: int) -> Backlog:
    with cluster.connect() as connection:
        connection.execute("CREATE TABLE rows (id serial PRIMARY KEY, filler text)")
        connection.execute("SELECT pg_switch_wal()")
        connection.execute(_ROWS)

        def position() -> LSN:
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
            assert row is not None
            return LSN.parse(row[0])

        # The segment that is current now is the one before the backlog.
        start = LSN(DEFAULT_SEGMENT_SIZE.floor(position()) + DEFAULT_SEGMENT_SIZE)
        while position() - start < size:
            connection.execute(_ROWS)
            connection.execute(_BULK)
        end = DEFAULT_SEGMENT_SIZE.floor(position())
    return Backlog(cluster, start, end)
