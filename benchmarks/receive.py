"""``twistd walstream receive`` against pg_receivewal, over the same backlog.

    python -m benchmarks.receive [--gigabytes 2] [--pairs 5] [--pause 10]

Both begin in a directory with one segment, sync every finished segment and its directory entry,
and end at the same position. Whole processes are measured, the start of Python included.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
from pathlib import Path

from benchmarks.backlog import Backlog, backlog
from benchmarks.measure import Figures, pairs, ratio_line, run, settle
from walstream.formats.lsn import LSN
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--pause", type=float, default=10.0, help="seconds before each run")
    options = parser.parse_args()
    with backlog(options.gigabytes) as wal:
        base = wal.cluster.directory.parent
        print(f"backlog {wal.start} to {wal.end}, {wal.size / (1 << 30):.2f} GiB")
        ours = base / "walstream"
        theirs = base / "pg_receivewal"
        measured = pairs(
            lambda: _walstream(wal, ours, options.pause),
            lambda: _pg_receivewal(wal, theirs, options.pause),
            options.pairs,
        )
        _compare(wal, ours, theirs)
    print(ratio_line("wall", [a.wall / b.wall for a, b in measured], "<= 0.45"))
    print(ratio_line("CPU", [a.cpu / b.cpu for a, b in measured], "<= 0.80"))
    print(f"peak memory: {max(a.memory for a, _ in measured):.0f} MiB")


def _walstream(wal: Backlog, directory: Path, pause: float) -> Figures:
    _fresh(wal, directory, pause)
    twistd = Path(sys.executable).with_name("twistd")
    command = [sys.executable, str(twistd), "-n", "--pidfile=", "walstream"]
    command += ["receive", "--upstream", wal.cluster.conninfo(), "--archive", str(directory)]
    return run([*command, "--no-loop", "--endpos", str(LSN(wal.end - 1))])


def _pg_receivewal(wal: Backlog, directory: Path, pause: float) -> Figures:
    _fresh(wal, directory, pause)
    tool = wal.cluster.installation.tool("pg_receivewal")
    command: list[str | Path] = [tool, "-D", directory, "-d", wal.cluster.conninfo(), "-n", "-E"]
    return run([*command, str(LSN(wal.end - 1))])


def _fresh(wal: Backlog, directory: Path, pause: float) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    shutil.copy(wal.segment_before(), directory)
    settle(directory / "scratch", wal.size, pause)


def _compare(wal: Backlog, ours: Path, theirs: Path) -> None:
    """What was fast has to be right too."""
    first, last = (DEFAULT_SEGMENT_SIZE.number(lsn) for lsn in (wal.start, wal.end))
    names = [DEFAULT_SEGMENT_SIZE.name(1, number) for number in range(first, last)]
    same, different, missing = filecmp.cmpfiles(ours, theirs, names, shallow=False)
    assert not different and not missing, f"segments differ: {different}, missing: {missing}"
    print(f"{len(same)} segments, byte-identical")


if __name__ == "__main__":
    main()
