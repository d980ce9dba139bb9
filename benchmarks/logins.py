"""Whether the time of a login that fails tells why it failed: for guessing who has a role here.

    python -m benchmarks.logins [--attempts 1000] [--rounds 3]

A user that does not exist, one whose password is another, and one that has none, each by
SCRAM-SHA-256, against ``twistd walstream send --auth-delay 0`` in a process of its own, and against
PostgreSQL 18. The attempts of all kinds take turns at random, one at a time, on loopback: the best
place that an attacker could have. The delay, which is off here, is the same for all of them.

For each step of the exchange, and each kind: the median, what a tenth and nine tenths of the
attempts took, the ratio of its median to that of the wrong password, and how often an attempt of
this kind took longer than one with the wrong password (0.50: it tells nothing). The wrong password
against itself is what all this is worth.
"""

from __future__ import annotations

import argparse
import random
import socket
import statistics
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.serving import serving
from tests.servers import installation as fetched_installation
from walstream.embedded import Account, Cluster, workspace
from walstream.formats.segments import SegmentSize
from walstream.testing.wal import wal_bytes
from walstream.wire.frames import Backend, Frame, FrameReader, greeting_limit
from walstream.wire.messages import sasl_initial_response, sasl_response
from walstream.wire.scram_verifier import ScramVerifier
from walstream.wire.startup import startup_message

__all__ = ["attempt", "main"]

# As long as one another, so that no message is longer for one of them.
_WRONG, _UNKNOWN, _WITHOUT = "standby1", "standby2", "standby3"
_KINDS = {
    "wrong password": _WRONG,
    "the same again": _WRONG,
    "unknown user": _UNKNOWN,
    "no password": _WITHOUT,
}
_BASE = "wrong password"
_STEPS = ("until it is asked", "salt", "refusal", "all of it")
_RULES = "host replication all 127.0.0.1/32 scram-sha-256\n"
_SIZE = SegmentSize(1 << 20)

Times = dict[str, list[tuple[float, ...]]]


def main() -> None:
    """Measure, and print."""
    options = _options()
    with ExitStack() as stack:
        base = stack.enter_context(workspace("walstream-benchmark-"))
        verifier = ScramVerifier.of("sesame")
        ours = stack.enter_context(_walstream(base, verifier))
        theirs = stack.enter_context(_postgresql(base, verifier))
        for number in range(options.rounds):
            for name, port in ("walstream", ours), ("PostgreSQL 18", theirs):
                print(f"{name}, round {number + 1}:")
                _print(_measure(port, options.attempts))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--attempts", type=int, default=1000, help="of each kind, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


@contextmanager
def _walstream(base: Path, verifier: ScramVerifier) -> Iterator[int]:
    """A sender over an archive of one segment; its port."""
    archive, rules = base / "archive", base / "hba"
    (archive / ".walstream").mkdir(parents=True)
    (archive / _SIZE.name(1, 3)).write_bytes(wal_bytes(_SIZE.start(3), _SIZE, segment_size=_SIZE))
    roles = archive / ".walstream" / "roles"
    roles.touch(mode=0o600)
    roles.write_text(f"{_WRONG} {verifier}\n{_WITHOUT} -\n")
    rules.write_text(_RULES)
    options = ("-D", str(archive), "--hba", str(rules), "--auth-delay", "0")
    with serving("walstream", "send", *options) as sender:
        yield sender.port


@contextmanager
def _postgresql(base: Path, verifier: ScramVerifier) -> Iterator[int]:
    """A server with the same roles; its port."""
    installation = fetched_installation(18).for_user(Account.for_servers(), base / "bin")
    with Cluster(installation, base / "server") as server:
        server.initdb()
        server.start()
        server.query(f"CREATE ROLE {_WRONG} LOGIN REPLICATION PASSWORD '{verifier}'")
        server.query(f"CREATE ROLE {_WITHOUT} LOGIN REPLICATION")
        path = server.data / "pg_hba.conf"
        path.write_text(path.read_text().replace("host ", "#host ") + _RULES)
        server.query("SELECT pg_reload_conf()")
        time.sleep(0.5)
        yield server.port


def attempt(port: int, user: str) -> tuple[float, ...]:
    """Seconds that each step of a login took that fails, and all of them together."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = FrameReader(greeting_limit)
        packet = startup_message({"user": user, "replication": "true"})
        begun = time.perf_counter()
        connection.sendall(packet)
        _next(connection, reader, Backend.AUTHENTICATION)
        asked = time.perf_counter()
        connection.sendall(sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=" + b"x" * 24))
        salt = _next(connection, reader, Backend.AUTHENTICATION)
        salted = time.perf_counter()
        nonce = salt.body[4:].partition(b",")[0]
        connection.sendall(sasl_response(b"c=biws," + nonce + b",p=" + b"A" * 43 + b"="))
        _next(connection, reader, Backend.ERROR_RESPONSE)
        refused = time.perf_counter()
    return asked - begun, salted - asked, refused - salted, refused - begun


def _next(connection: socket.socket, reader: FrameReader, kind: Backend) -> Frame:
    while (message := reader.next()) is None:
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the server has closed the connection")
        reader.feed(data)
    if message.kind != kind:
        raise ConnectionError(f"unexpected: {message}")
    return message


def _measure(port: int, count: int) -> Times:
    times: Times = {kind: [] for kind in _KINDS}
    turns = list(_KINDS) * count
    random.shuffle(turns)
    for kind in [*list(_KINDS) * 20, *turns]:  # the first ones do not count
        times[kind].append(attempt(port, _KINDS[kind]))
    return {kind: found[20:] for kind, found in times.items()}


def _print(times: Times) -> None:
    for step, name in enumerate(_STEPS):
        base = sorted(each[step] for each in times[_BASE])
        for kind, found in times.items():
            seconds = sorted(each[step] for each in found)
            tenth, ninth = (_quantile(seconds, part) for part in (0.1, 0.9))
            median = statistics.median(seconds)
            ratio, longer = median / statistics.median(base), _longer(seconds, base)
            print(
                f"  {name:18} {kind:15} p50 {median * 1e6:7.1f} µs  p10 {tenth * 1e6:7.1f}"
                f"  p90 {ninth * 1e6:7.1f}  ratio {ratio:6.4f}  longer {longer:5.3f}",
                flush=True,
            )


def _quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def _longer(some: Sequence[float], others: Sequence[float]) -> float:
    """How often one of *some* is longer than one of *others*, which are in order (Mann-Whitney)."""
    found = sum(bisect_left(others, each) + bisect_right(others, each) for each in some)
    return found / (2 * len(some) * len(others))


if __name__ == "__main__":
    main()
