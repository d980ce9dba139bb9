"""``twistd walstream send`` against PostgreSQL 18's walsender, to one reader that discards.

    python -m benchmarks.send [--gigabytes 2] [--pairs 7]

The archive holds the same segments as the server's pg_wal. The reader asks for the same range, and
takes the bytes off the socket without looking at them; from its START_REPLICATION to the range's
last byte the time is measured. CPU is the sending process's.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.backlog import Backlog, backlog
from benchmarks.measure import Figures, cpu_seconds, pairs, ratio_line
from walstream.embedded.configuration import free_port
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE
from walstream.wire.commands import StartReplication
from walstream.wire.frames import FrameReader, backend_limit
from walstream.wire.messages import query
from walstream.wire.startup import startup_message

_HEAD = 30  # of each message of 128 KiB, in bytes
_MESSAGE = 128 * 1024


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    with backlog(options.gigabytes) as wal:
        print(f"backlog {wal.start} to {wal.end}, {wal.size / (1 << 30):.2f} GiB")
        archive = _archive(wal)
        with _walstream(archive) as (port, pid):
            measured = pairs(
                lambda: _read(wal, port, lambda: pid),
                lambda: _read(wal, wal.cluster.port, lambda: _walsender(wal)),
                options.pairs,
            )
    print(ratio_line("bytes per second", [b.wall / a.wall for a, b in measured], ">= 1.5"))
    print(ratio_line("CPU per byte", [a.cpu / b.cpu for a, b in measured], "none"))


def _archive(wal: Backlog) -> Path:
    """The backlog's segments, as an archive."""
    directory = wal.cluster.directory.parent / "archive"
    directory.mkdir(mode=0o700)
    first, last = (DEFAULT_SEGMENT_SIZE.number(lsn) for lsn in (wal.start, wal.end))
    for number in range(first, last):
        shutil.copy(wal.cluster.data / "pg_wal" / DEFAULT_SEGMENT_SIZE.name(1, number), directory)
    return directory


@contextmanager
def _walstream(archive: Path) -> Iterator[tuple[int, int]]:
    """A sender of that archive: its port, and its process."""
    port = free_port()
    twistd = Path(sys.executable).with_name("twistd")
    command = [sys.executable, str(twistd), "-n", "--pidfile=", "walstream", "send"]
    command += ["--archive", str(archive), "--listen", f"tcp:{port}:interface=127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _await_port(port)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _walsender(wal: Backlog) -> int:
    return int(wal.cluster.query("SELECT pid FROM pg_stat_replication")[0][0])


def _read(wal: Backlog, port: int, sender: Callable[[], int]) -> Figures:
    """Read the backlog from a sender."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        _log_in(connection)
        before = cpu_seconds(sender()) if port != wal.cluster.port else 0.0
        begun = time.perf_counter()
        connection.sendall(query(StartReplication(wal.start, 1, None).text()))
        left = wal.size + wal.size // _MESSAGE * _HEAD
        buffer = bytearray(1 << 20)
        while left > 0:
            # MSG_TRUNC: the kernel throws the bytes away without copying them.
            size = connection.recv_into(buffer, 0, socket.MSG_TRUNC)
            if not size:
                raise RuntimeError("the sender has closed the connection")
            left -= size
        wall = time.perf_counter() - begun
        return Figures(wall, cpu_seconds(sender()) - before)


def _log_in(connection: socket.socket) -> None:
    parameters = {"user": "postgres", "replication": "on", "application_name": "benchmark"}
    connection.sendall(startup_message(parameters))
    reader = FrameReader(backend_limit)
    while True:
        frame = reader.next()
        if frame is None:
            reader.feed(connection.recv(4096))
        elif frame.kind == ord("Z"):
            return


if __name__ == "__main__":
    main()
