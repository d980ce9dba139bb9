"""``walstream verify`` against ``pg_waldump -q``, over the same segments.

    python -m benchmarks.verify [--gigabytes 2] [--pairs 7] [--jobs N]

Both read every page and check every record's checksum and link. Whole processes are measured, the
start of Python included; the segments are in the page cache. Ordinary WAL is pgbench's, with a
checkpoint now and then and so with full pages; dense WAL is of a bulk load's small records.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Figures, pairs, ratio_line, run
from tests.servers import installation as fetched_installation
from walstream.embedded import Account, Cluster, Installation, workspace
from walstream.formats.lsn import LSN
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE

# Nothing is removed, and checkpoints come when they are told to.
_SETTINGS: dict[str, str | int] = {
    "wal_keep_size": "64GB",
    "max_wal_size": "64GB",
    "checkpoint_timeout": "1d",
    "shared_buffers": "512MB",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "on",
}

# Transactions of each client between two checkpoints.
_TRANSACTIONS = 1000


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of each kind of WAL")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--jobs", type=int, help="processes of walstream verify")
    options = parser.parse_args()
    for name, load, goal in (
        ("ordinary WAL (pgbench)", _pgbench, "< 1"),
        ("dense WAL (bulk INSERT, 128 bytes a record)", _bulk, "none"),
    ):
        with _segments(int(options.gigabytes * (1 << 30)), load) as (programs, directory):
            names = sorted(path.name for path in directory.iterdir())
            print(f"{name}: {len(names)} segments", flush=True)
            ours = [sys.executable, "-m", "walstream", "verify", str(directory)]
            if options.jobs:
                ours += ["--jobs", str(options.jobs)]
            waldump = programs.tool("pg_waldump")
            theirs = [str(waldump), "-q", "-p", str(directory), names[0], names[-1]]
            measured = pairs(_running(ours), _running(theirs), options.pairs)
            print(ratio_line("wall", [a.wall / b.wall for a, b in measured], goal))
            print(ratio_line("CPU", [a.cpu / b.cpu for a, b in measured], "none"))


def _running(command: list[str]) -> Callable[[], Figures]:
    return lambda: run(command)


@contextmanager
def _segments(size: int, load: Callable[[Cluster], None]) -> Iterator[tuple[Installation, Path]]:
    """A directory of whole segments, *size* bytes of them at least."""
    account = Account.for_servers()
    with workspace("walstream-benchmark-") as base:
        programs = fetched_installation(18).for_user(account, base / "programs")
        with Cluster(programs, base / "primary", account=account) as cluster:
            cluster.initdb()
            cluster.configure(_SETTINGS)
            cluster.start()
            _run_pgbench(cluster, "-i", "-q", "-s", "20")
            cluster.query("SELECT pg_switch_wal()")
            start = LSN(DEFAULT_SEGMENT_SIZE.floor(_position(cluster)) + DEFAULT_SEGMENT_SIZE)
            while _position(cluster) - start < size:
                load(cluster)
            # A segment that is full ends both programs without a complaint.
            end = DEFAULT_SEGMENT_SIZE.floor(_position(cluster))
            directory = base / "archive"
            directory.mkdir()
            numbers = range(*map(DEFAULT_SEGMENT_SIZE.number, (start, end)))
            for name in (DEFAULT_SEGMENT_SIZE.name(1, number) for number in numbers):
                shutil.copy(cluster.data / "pg_wal" / name, directory)
        yield programs, directory


def _position(cluster: Cluster) -> LSN:
    return LSN.parse(cluster.query("SELECT pg_current_wal_flush_lsn()::text")[0][0])


def _pgbench(cluster: Cluster) -> None:
    _run_pgbench(cluster, "-n", "-c", "4", "-t", str(_TRANSACTIONS))
    cluster.query("CHECKPOINT")


def _bulk(cluster: Cluster) -> None:
    # With an INSERT, each row is a record of its own, of 128 bytes.
    cluster.query("DROP TABLE IF EXISTS bulk")
    cluster.query("CREATE TABLE bulk (n integer, filler text)")
    cluster.query("INSERT INTO bulk SELECT g, repeat('x', 60) FROM generate_series(1, 500000) g")


def _run_pgbench(cluster: Cluster, *options: str) -> None:
    with cluster.connect() as connection:
        info = connection.info
        where = ["-h", info.host, "-p", str(info.port), "-U", info.user, info.dbname]
    run([cluster.installation.tool("pgbench"), *options, *where], os.environ)


if __name__ == "__main__":
    main()
