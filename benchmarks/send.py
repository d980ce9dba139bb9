"""``twistd walstream send`` against PostgreSQL 18's walsenders, to readers that discard.

    python -m benchmarks.send [--gigabytes 2] [--pairs 5] [--clients 1 10 50 200]
                              [--processes 2] [--many 1000]

The archive holds the same segments as the server's pg_wal. Each reader asks for a piece of its own
of them, and takes the bytes off the socket without looking at them; from START_REPLICATION to the
last reader's last byte the time is measured. CPU is that of all processes that send.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.backlog import Backlog, backlog
from benchmarks.measure import Figures, pairs, ratio_line
from benchmarks.readers import Piece, readers
from benchmarks.serving import Sender, archive_of, serving, walsenders
from walstream.formats.lsn import LSN
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE

_GOALS = {1: ">= 1.7", 50: ">= 1.8", 200: ">= 3"}
# All readers together read about so much in one run, in segments; each reads one at least.
_TOTAL = 800


def main() -> None:
    """Measure, and print the ratios."""
    options = _options()
    # A thousand readers have as many sockets.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    lines: list[str] = []
    with ExitStack() as stack:
        wal = stack.enter_context(backlog(options.gigabytes))
        print(f"backlog {wal.start} to {wal.end}, {wal.size / (1 << 30):.2f} GiB")
        archive = str(archive_of(wal))
        ours = stack.enter_context(serving("walstream", "send", "--archive", archive))
        theirs = walsenders(wal.cluster)
        for clients in options.clients:
            lines += _compare(
                wal, clients, ours, theirs, options, _GOALS.get(clients, "none"), "<= 0.4"
            )
        if options.many:
            lines += _many(wal, ours, options)
        if options.processes > 1:
            more = ("send", "--archive", archive, "--processes", str(options.processes))
            several = stack.enter_context(serving("several", *more))
            for clients in (number for number in options.clients if number >= 10):
                lines += _compare(wal, clients, several, ours, options, ">= 1.5", "none")
    print("\n".join(lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 10, 50, 200])
    parser.add_argument("--processes", type=int, default=2, help="compared with one; 1: not")
    parser.add_argument("--many", type=int, default=1000, help="compared with 200; 0: not")
    parser.add_argument("--readers", type=int, default=1, help="processes that read")
    return parser.parse_args()


def _compare(
    wal: Backlog,
    clients: int,
    one: Sender,
    other: Sender,
    options: argparse.Namespace,
    speed: str,
    cpu: str,
) -> list[str]:
    print(f"{clients} readers: {one.name} against {other.name}")
    pieces = _pieces(wal, clients)
    measured = pairs(
        lambda: _run(one, pieces, options.readers),
        lambda: _run(other, pieces, options.readers),
        options.pairs,
    )
    what = f"{clients} readers, {one.name} of {other.name}"
    return [
        ratio_line(f"{what}, bytes per second", [b.wall / a.wall for a, b in measured], speed),
        ratio_line(f"{what}, CPU per byte", [a.cpu / b.cpu for a, b in measured], cpu),
    ]


def _many(wal: Backlog, ours: Sender, options: argparse.Namespace) -> list[str]:
    print(f"{options.many} readers against 200")
    many, few = _pieces(wal, options.many), _pieces(wal, 200)
    measured = pairs(
        lambda: _run(ours, many, options.readers),
        lambda: _run(ours, few, options.readers),
        options.pairs,
    )
    size = sum(piece.size for piece in many) / sum(piece.size for piece in few)
    what = f"{options.many} readers, of 200"
    return [
        ratio_line(
            f"{what}, bytes per second", [b.wall / a.wall * size for a, b in measured], "none"
        ),
        ratio_line(f"{what}, CPU per byte", [a.cpu / b.cpu / size for a, b in measured], "1"),
    ]


def _pieces(wal: Backlog, clients: int) -> list[Piece]:
    """As many pieces as clients, spread over the backlog."""
    segments = wal.size // DEFAULT_SEGMENT_SIZE
    length = min(segments, max(1, _TOTAL // clients))
    places = segments - length + 1
    return [
        Piece(
            LSN(wal.start + number * 37 % places * DEFAULT_SEGMENT_SIZE),
            length * DEFAULT_SEGMENT_SIZE,
        )
        for number in range(clients)
    ]


def _run(sender: Sender, pieces: Sequence[Piece], processes: int) -> Figures:
    """Have readers read from a sender."""
    with readers(sender.port, pieces, processes) as run:
        before = sender.cpu()
        wall = run.read()
        return Figures(wall, sender.cpu_since(before))


if __name__ == "__main__":
    main()
