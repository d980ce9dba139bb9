"""What one hop adds to WAL's way: ``twistd walstream hub`` against a cascading standby.

    python -m benchmarks.hop [--rounds 3] [--seconds 8] [--rates 200 1500] [--serve written]

A probe follows the primary itself and the end of the hop, and sees when each position arrives from
either. What the hop adds is the difference. The commits are of one client, at a fixed rate. The two
kinds of hop take turns; the one whose turn it is not does not run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import select
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.commits import primary_with_data
from benchmarks.measure import ratio_line
from benchmarks.readers import connect
from benchmarks.serving import serving
from walstream.embedded import Cluster, workspace
from walstream.formats.lsn import LSN
from walstream.wire.commands import StartReplication
from walstream.wire.frames import FrameReader, backend_limit
from walstream.wire.messages import query

__all__ = ["added_latencies"]

# XLogData (protocol documentation): type, start, end, time, then WAL.
_WAL_AT = 25


def main() -> None:
    """Measure, and print the ratios."""
    options = _options()
    with ExitStack() as stack:
        base = stack.enter_context(workspace("walstream-benchmark-"))
        primary = stack.enter_context(primary_with_data(base, 1, {"max_wal_senders": 20}))
        found: dict[tuple[str, int], list[tuple[float, float]]] = {}
        for number in range(options.rounds):
            hops = ["hub", "standby"][:: -1 if number % 2 else 1]
            for hop in hops:
                with _hop(hop, primary, base / f"{hop}-{number}", options.serve) as port:
                    for rate in options.rates:
                        figures = _measure(primary, port, rate, options.seconds)
                        found.setdefault((hop, rate), []).append(figures)
                        print(
                            f"  {hop:8} {rate:5}/s: p50 {figures[0] * 1e6:5.0f} µs"
                            f"  p99 {figures[1] * 1e6:5.0f} µs",
                            flush=True,
                        )
    for rate in options.rates:
        _print_result(rate, found["hub", rate], found["standby", rate])


def _print_result(
    rate: int, ours: Sequence[tuple[float, float]], theirs: Sequence[tuple[float, float]]
) -> None:
    for which, name, goal in ((0, "p50", "<= 0.5"), (1, "p99", "none")):
        ratios = [a[which] / b[which] for a, b in zip(ours, theirs, strict=True)]
        print(ratio_line(f"{rate} commits a second, {name} of a standby's", ratios, goal))
    longest = statistics.median(figures[1] for figures in ours)
    print(f"{rate} commits a second, p99: {longest * 1e6:.0f} µs; goal < 1000 µs")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="of each run")
    parser.add_argument("--rates", type=int, nargs="+", default=[200, 1500], help="per second")
    parser.add_argument("--serve", default="written", help="flushed or written")
    return parser.parse_args()


@contextmanager
def _hop(kind: str, primary: Cluster, place: Path, serve: str) -> Iterator[int]:
    """A hop of that kind; the port where it ends."""
    if kind == "hub":
        upstream = primary.conninfo(application_name="hub")
        arguments = ("--upstream", upstream, "--archive", str(place), "--serve", serve)
        with serving("hub", "hub", *arguments) as hub:
            _await(primary, "hub")
            yield hub.port
    else:
        with primary.standby(place, primary.conninfo(application_name="hop")) as standby:
            standby.start()
            _await(primary, "hop")
            yield standby.port


def _await(primary: Cluster, name: str) -> None:
    deadline = time.monotonic() + 30
    asks = "SELECT 1 FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'"
    while not primary.query(asks, name):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{name} does not stream after 30 s")
        time.sleep(0.02)


def _measure(primary: Cluster, port: int, rate: int, seconds: float) -> tuple[float, float]:
    """The median and the 99th percentile of what the hop adds, in seconds."""
    added = added_latencies(primary, port, rate, seconds)
    return statistics.median(added), statistics.quantiles(added, n=100)[-1]


def added_latencies(primary: Cluster, port: int, rate: int, seconds: float) -> list[float]:
    """How much later each position comes from *port* than from the primary, in seconds."""
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    arguments = (theirs, primary.port, port, primary.conninfo())
    probe = multiprocessing.get_context("fork").Process(target=_probe, args=arguments, daemon=True)
    probe.start()
    theirs.close()
    if ours.recv() != "ready":
        raise RuntimeError("the probe could not begin; see above")
    _commit(primary, rate, seconds)
    ours.send("end")
    added: list[float] = ours.recv()
    probe.join(20)
    probe.kill()
    return added


def _commit(primary: Cluster, rate: int, seconds: float) -> None:
    """Commit small transactions at a fixed rate."""
    with primary.connect() as connection:
        begun = time.perf_counter()
        for number in range(int(rate * seconds)):
            due = begun + number / rate
            while (left := due - time.perf_counter()) > 0:
                time.sleep(left)
            connection.execute("SELECT pg_logical_emit_message(true, 'hop', 'some bytes')")


def _probe(parent: Connection, primary: int, hop: int, conninfo: str) -> None:
    """Follow both, and tell by how much the hop was later for each position."""
    direct, behind = _Follower(primary), _Follower(hop)
    start = max(direct.end, behind.end)
    for follower in (direct, behind):
        follower.begin(start)
    poll = select.epoll()
    for follower in (direct, behind):
        poll.register(follower.connection, select.EPOLLIN)
    by_number = {each.connection.fileno(): each for each in (direct, behind)}
    parent.send("ready")
    # Half a second more, for what is on its way when the commits end.
    until: float | None = None
    while until is None or time.perf_counter() < until:
        for number, _ in poll.poll(0.05):
            by_number[number].read()
        if until is None and parent.poll(0):
            until = time.perf_counter() + 0.5
    parent.send(_differences(direct.arrivals, behind.arrivals))


class _Follower:
    """Follows a sender, and notes when which position has come.

    :ivar arrivals: pairs of a position and when WAL up to there was there.
    """

    def __init__(self, port: int) -> None:
        self.connection = connect(port, "probe")
        self.arrivals: list[tuple[int, float]] = []
        self._frames = FrameReader(backend_limit)
        self.end = self._identify()

    def begin(self, start: int) -> None:
        """Ask for the stream."""
        self.connection.sendall(query(StartReplication(LSN(start), 1, None).text()))

    def read(self) -> None:
        """Take what has come."""
        self._frames.feed(self.connection.recv(1 << 20))
        now = time.perf_counter()
        while (frame := self._frames.next()) is not None:
            if frame.kind == ord("d") and frame.body[0] == ord("w"):
                start = int.from_bytes(frame.body[1:9], "big")
                self.arrivals.append((start + len(frame.body) - _WAL_AT, now))

    def _identify(self) -> int:
        self.connection.sendall(query("IDENTIFY_SYSTEM"))
        position = b""
        while True:
            frame = self._frames.next()
            if frame is None:
                self._frames.feed(self.connection.recv(4096))
            elif frame.kind == ord("D"):
                position = _third_value(bytes(frame.body))
            elif frame.kind == ord("Z"):
                return LSN.parse(position.decode())


def _third_value(row: bytes) -> bytes:
    """The third column of a DataRow's body: IDENTIFY_SYSTEM's position."""
    at = 2
    for _ in range(2):
        at += 4 + int.from_bytes(row[at : at + 4], "big")
    size = int.from_bytes(row[at : at + 4], "big")
    return row[at + 4 : at + 4 + size]


def _differences(
    direct: Sequence[tuple[int, float]], behind: Sequence[tuple[int, float]]
) -> list[float]:
    """How much later each position came by way of the hop."""
    found: list[float] = []
    later = iter(behind)
    position, at = next(later)
    for wanted, first in direct:
        while position < wanted:
            following = next(later, None)
            if following is None:
                return found
            position, at = following
        found.append(at - first)
    return found


if __name__ == "__main__":
    main()
