"""Work for a primary, and what receives its WAL besides walstream."""

from __future__ import annotations

import filecmp
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from tests.servers.daemon import wait_until
from walstream.embedded import Cluster, Installation

__all__ = [
    "await_segments",
    "finished_segments",
    "identical",
    "pg_receivewal",
    "pgbench",
    "prepare_pgbench",
    "without_gap",
]


def prepare_pgbench(primary: Cluster, scale: int = 1) -> None:
    """Make pgbench's tables."""
    tool = primary.installation.tool("pgbench")
    primary.run([tool, "-i", "-q", "-s", str(scale), primary.conninfo()])


# Beside pgbench's own transactions, which write half a kilobyte each: segments are to fill soon.
_BULK = "SELECT pg_logical_emit_message(false, 'load', repeat('walstream', 1000));\n"


@contextmanager
def pgbench(primary: Cluster, clients: int = 4) -> Iterator[None]:
    """Have pgbench write for as long as the context lasts, or as the server does.

    All that it has begun is done or undone then.
    """
    tool = primary.installation.tool("pgbench")
    command: list[str | Path] = [tool, "-n", "-c", str(clients), "-T", "600"]
    with NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_BULK)
        script.flush()
        command += ["-b", "tpcb-like@4", "-f", f"{script.name}@1", primary.conninfo()]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
            try:
                yield
                assert process.poll() is None or not primary.running, "pgbench has ended early"
            finally:
                process.kill()
    if primary.running:
        sessions = "SELECT FROM pg_stat_activity WHERE application_name = 'pgbench'"
        wait_until(lambda: not primary.query(sessions), "rid of pgbench")


@contextmanager
def pg_receivewal(
    installation: Installation, directory: Path, conninfo: str, *options: str
) -> Iterator[subprocess.Popen[str]]:
    """Run PostgreSQL's own receiver beside ours; killed, if it still runs, at the end."""
    directory.mkdir(mode=0o700, exist_ok=True)
    tool = installation.tool("pg_receivewal")
    command: list[str | Path] = [tool, "-D", directory, "-d", conninfo, "-v", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def finished_segments(directory: Path) -> list[str]:
    """The names of the finished segments, in order."""
    return sorted(path.name for path in directory.glob("????????????????????????"))


def await_segments(directory: Path, count: int, timeout: float = 60.0) -> None:
    """Wait until a directory has so many finished segments."""
    wait_until(lambda: len(finished_segments(directory)) >= count, f"{count} segments", timeout)


def without_gap(directory: Path, size: int = 1 << 20) -> bool:
    """Whether the finished segments follow on one another; *size* is the segments' in bytes."""
    per_log = 0x100000000 // size
    numbers = [
        int(name[8:16], 16) * per_log + int(name[16:], 16) for name in finished_segments(directory)
    ]
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def identical(ours: Path, theirs: Path, at_least: int, timeout: float = 60.0) -> list[str]:
    """Wait until both directories have so many finished segments in common; all must be the same.

    The result is their names.
    """

    def common() -> list[str]:
        return sorted(set(finished_segments(ours)) & set(finished_segments(theirs)))

    wait_until(lambda: len(common()) >= at_least, f"{at_least} segments on both sides", timeout)
    names = common()
    same, different, errors = filecmp.cmpfiles(ours, theirs, names, shallow=False)
    assert not different, f"segments differ: {different}"
    assert not errors, f"segments cannot be compared: {errors}"
    return same
