"""Senders to be measured: PostgreSQL's walsenders, and walstream's processes."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backlog import Backlog
from benchmarks.measure import cpu_seconds
from walstream.embedded import Cluster
from walstream.embedded.configuration import free_port
from walstream.embedded.processes import processes_below
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE

__all__ = ["Sender", "archive_of", "await_port", "serving", "walsenders", "walstream"]


@dataclass(frozen=True, slots=True)
class Sender:
    """Something that serves WAL on a port of loopback.

    :ivar processes: gives the processes whose CPU time is counted, at that moment.
    """

    name: str
    port: int
    processes: Callable[[], Sequence[int]]

    def cpu(self) -> dict[int, float]:
        """The CPU seconds that its processes have used so far."""
        return {process: cpu_seconds(process) for process in self.processes()}

    def cpu_since(self, before: dict[int, float]) -> float:
        """The CPU seconds that its processes have used since then."""
        return sum(now - before.get(process, 0.0) for process, now in self.cpu().items())


def walsenders(cluster: Cluster) -> Sender:
    """A server, of which its walsenders count."""

    def processes() -> list[int]:
        return [int(row[0]) for row in cluster.query("SELECT pid FROM pg_stat_replication")]

    return Sender("walsenders", cluster.port, processes)


def archive_of(wal: Backlog) -> Path:
    """The backlog's segments, as an archive."""
    directory = wal.cluster.directory.parent / "archive"
    directory.mkdir(mode=0o700)
    first, last = (DEFAULT_SEGMENT_SIZE.number(lsn) for lsn in (wal.start, wal.end))
    for number in range(first, last):
        shutil.copy(wal.cluster.data / "pg_wal" / DEFAULT_SEGMENT_SIZE.name(1, number), directory)
    return directory


@contextmanager
def serving(name: str, *arguments: str) -> Iterator[Sender]:
    """A walstream process with these arguments that listens, of which all processes count."""
    port = free_port()
    with walstream(*arguments, "--listen", f"tcp:{port}:interface=127.0.0.1") as process:
        await_port(port)
        yield Sender(name, port, lambda: [process.pid, *processes_below(process.pid)])


@contextmanager
def walstream(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A walstream process."""
    twistd = Path(sys.executable).with_name("twistd")
    command = [sys.executable, str(twistd), "-n", "--pidfile=", "walstream", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)


def await_port(port: int) -> None:
    """Wait until somebody listens there."""
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
