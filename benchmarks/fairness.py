"""What busy clients do to one that is up to date: ``twistd walstream hub`` with both.

    python -m benchmarks.fairness [--busy 0 10 50] [--megabytes 512] [--rate 100] [--seconds 8]

So many readers read a backlog from the hub, again and again, as fast as it comes. A probe follows
the primary and the hub's tail meanwhile, and sees how much later each position comes from the hub.
What the busy ones add, divided by how many they are, is what one turn of a client costs the others.
"""

from __future__ import annotations

import argparse
import multiprocessing
import select
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.commits import primary_with_data
from benchmarks.hop import added_latencies
from benchmarks.readers import connect
from benchmarks.serving import serving
from walstream.embedded import Cluster, workspace
from walstream.formats.lsn import LSN
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE
from walstream.wire.commands import StartReplication
from walstream.wire.messages import query

_READ = 1 << 20


def main() -> None:
    """Measure, and print what was added."""
    options = _options()
    with ExitStack() as stack:
        base = stack.enter_context(workspace("walstream-benchmark-"))
        primary = stack.enter_context(
            primary_with_data(base, 1, {"max_wal_senders": 20, "max_wal_size": "16GB"})
        )
        archive = base / "archive"
        arguments = ("--upstream", primary.conninfo(), "--archive", str(archive))
        hub = stack.enter_context(serving("hub", "hub", *arguments))
        start, size = _fill(primary, archive, options.megabytes << 20)
        alone = None
        for busy in options.busy:
            with _reading(hub.port, start, size, busy) as parent:
                time.sleep(1)
                added = added_latencies(primary, hub.port, options.rate, options.seconds)
            rate = parent.recv() / (1 << 30) if busy else 0.0
            median = statistics.median(added)
            alone = median if alone is None else alone
            per_client = f", {(median - alone) / busy * 1e3:.2f} ms for each" if busy else ""
            print(
                f"{busy:3} busy, {rate:5.2f} GiB/s: p50 {median * 1e3:7.2f} ms, "
                f"p99 {statistics.quantiles(added, n=100)[-1] * 1e3:7.2f} ms, "
                f"longest {max(added) * 1e3:7.2f} ms{per_client}",
                flush=True,
            )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 10, 50], help="how many readers")
    parser.add_argument("--megabytes", type=int, default=512, help="of the backlog")
    parser.add_argument("--rate", type=int, default=100, help="commits per second")
    parser.add_argument("--seconds", type=float, default=8, help="of each run")
    return parser.parse_args()


def _fill(primary: Cluster, archive: Path, size: int) -> tuple[LSN, int]:
    """Make a backlog, and wait until the archive has it; where it begins, and how long it is."""
    primary.query("SELECT pg_switch_wal()")
    begin = LSN.parse(primary.end_of_wal())
    start = DEFAULT_SEGMENT_SIZE.start(DEFAULT_SEGMENT_SIZE.number(begin + (1 << 24)))
    for _ in range(0, size + (4 << 24), 47 << 20):  # 50 MB each
        primary.query(
            "SELECT count(pg_logical_emit_message(false, 'bulk', repeat('x', 1000000)))"
            " FROM generate_series(1, 50)"
        )
    last = archive / DEFAULT_SEGMENT_SIZE.name(1, DEFAULT_SEGMENT_SIZE.number(start + size - 1))
    deadline = time.monotonic() + 120
    while not last.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{last} does not come")
        time.sleep(0.1)
    return LSN(start), size


@contextmanager
def _reading(port: int, start: LSN, size: int, count: int) -> Iterator[Connection]:
    """So many readers that begin anew at the end; what the pipe gives in the end is their rate."""
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=_read, args=(theirs, port, start, size, count), daemon=True
    )
    process.start()
    theirs.close()
    if ours.recv() != "ready":
        raise RuntimeError("a reader could not begin; see above")
    try:
        yield ours
    finally:
        ours.send("end")
        ours.poll(20)
        process.join(20)
        process.kill()


def _read(parent: Connection, port: int, start: LSN, size: int, count: int) -> None:
    poll = select.epoll()
    busy: dict[int, socket.socket] = {}
    had: dict[int, int] = {}

    def begin() -> None:
        connection = connect(port, "busy")
        connection.sendall(query(StartReplication(start, 1, None).text()))
        connection.setblocking(False)
        busy[connection.fileno()] = connection
        had[connection.fileno()] = 0
        poll.register(connection, select.EPOLLIN)

    for _ in range(count):
        begin()
    parent.send("ready")
    buffer, total, begun = bytearray(_READ), 0, time.perf_counter()
    while not parent.poll(0):
        for number, _ in poll.poll(0.05):
            connection = busy[number]
            read = connection.recv_into(buffer, 0, socket.MSG_TRUNC)
            if not read:
                raise RuntimeError("the hub has closed a connection")
            had[number] += read
            total += read
            if had[number] >= size:
                poll.unregister(connection)
                del busy[number]
                connection.close()
                begin()
    parent.send(total / (time.perf_counter() - begun))


if __name__ == "__main__":
    main()
