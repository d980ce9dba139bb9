"""Commits per second with ``walstream receive`` as the synchronous standby, against two others.

    python -m benchmarks.commits [--rounds 7] [--seconds 8] [--clients 1 4 16] [--scale 50]

The others are ``pg_receivewal --synchronous`` and a standby of PostgreSQL's. All are connected all
the time; those whose turn it is not are stopped (SIGSTOP), and ``synchronous_standby_names`` names
the one whose turn it is. pgbench runs its simple-update script, with fsync on everywhere. In each
round each of them has one run, in an order that turns, so that a machine that slows down is fair
to all; what counts are the ratios within a round.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import cpu_seconds, ratio_line, running
from tests.servers import installation as fetched_installation
from walstream.embedded import Account, Cluster, workspace
from walstream.embedded.processes import processes_below

__all__ = ["pgbench", "primary_with_data"]

_SETTINGS: dict[str, str | int] = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "16GB",
    "wal_keep_size": "8GB",
    "checkpoint_timeout": "1d",
    "max_connections": 60,
    "wal_sender_timeout": 0,
    "log_replication_commands": "off",
}
_STANDBY_SETTINGS: dict[str, str | int] = {**_SETTINGS, "wal_receiver_timeout": 0}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One that can be the synchronous standby.

    :ivar name: its ``application_name``.
    :ivar processes: all of them, to be stopped and continued.
    :ivar measured: the one whose CPU time is counted.
    """

    name: str
    processes: tuple[int, ...]
    measured: int

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of it."""
        for process in self.processes:
            os.kill(process, number)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of pgbench gave: commits per second, and CPU milliseconds per 1000 of them."""

    rate: float
    cpu: float


def main() -> None:
    """Measure, and print the ratios."""
    options = _options()
    with ExitStack() as stack:
        base = stack.enter_context(workspace("walstream-benchmark-"))
        primary = stack.enter_context(primary_with_data(base, options.scale))
        ours = [stack.enter_context(_walstream(primary, base))]
        if options.against:
            ours.append(stack.enter_context(_walstream(primary, base, options.against)))
        theirs = [
            stack.enter_context(_pg_receivewal(primary, base)),
            stack.enter_context(_standby(primary, base)),
        ]
        candidates = [*ours, *theirs]
        for candidate in candidates:
            _await(primary, candidate.name, "streaming")
            candidate.signal(signal.SIGSTOP)
            stack.callback(candidate.signal, signal.SIGCONT)
        lines: list[str] = []
        for clients in options.clients:
            rounds = [
                _round(primary, _turned(candidates, number), clients, options.seconds)
                for number in range(options.rounds)
            ]
            lines += _results(rounds, clients, ours[0].name, [each.name for each in candidates[1:]])
    print("\n".join(lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=8, help="of each run")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--scale", type=int, default=50, help="pgbench's")
    parser.add_argument("--against", help="the path of another checkout of walstream, as well")
    return parser.parse_args()


def _turned(candidates: Sequence[Candidate], number: int) -> list[Candidate]:
    """In another order each time: turned by one, and every other time backwards."""
    first = number // 2 % len(candidates)
    turned = [*candidates[first:], *candidates[:first]]
    return turned[::-1] if number % 2 else turned


def _round(
    primary: Cluster, candidates: Sequence[Candidate], clients: int, seconds: int
) -> dict[str, Run]:
    runs = {}
    for candidate in candidates:
        candidate.signal(signal.SIGCONT)
        _name_standby(primary, candidate.name)
        _await(primary, candidate.name, "sync")
        pgbench(primary, clients, 1)
        before = cpu_seconds(candidate.measured)
        commits, rate = pgbench(primary, clients, seconds)
        cpu = (cpu_seconds(candidate.measured) - before) * 1e6 / commits
        runs[candidate.name] = Run(rate, cpu)
        _name_standby(primary, "")
        candidate.signal(signal.SIGSTOP)
    described = "  ".join(
        f"{name} {run.rate:6.0f}/s {run.cpu:4.0f} ms" for name, run in sorted(runs.items())
    )
    print(f"  {clients:2} clients: {described}", flush=True)
    return runs


def _results(
    rounds: Sequence[dict[str, Run]], clients: int, ours: str, others: Sequence[str]
) -> Iterator[str]:
    """The lines of the result for a number of clients."""
    goals = {"pg_receivewal": ">= 0.95" if clients > 1 else "none", "standby": ">= 1.0"}
    for name in others:
        ratios = [runs[ours].rate / runs[name].rate for runs in rounds]
        what = f"{clients} clients, commits per second, of {name}'s"
        yield ratio_line(what, ratios, goals.get(name, "none"))
    for name in (ours, *others):
        cpu = statistics.median(runs[name].cpu for runs in rounds)
        yield f"{clients} clients, CPU of {name}: {cpu:.0f} ms per 1000 commits"


def pgbench(primary: Cluster, clients: int, seconds: int) -> tuple[int, float]:
    """Run pgbench: how many commits, and how many in a second."""
    tool = primary.installation.tool("pgbench")
    arguments = ["-N", "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2))]
    text = primary.run([tool, *arguments, "-T", str(seconds), primary.conninfo()], timeout=600)
    commits = re.search(r"transactions actually processed: (\d+)", text)
    rate = re.search(r"tps = ([0-9.]+) \(without initial", text)
    assert commits is not None and rate is not None, text
    return int(commits[1]), float(rate[1])


@contextmanager
def primary_with_data(
    base: Path, scale: int, settings: Mapping[str, str | int] | None = None
) -> Iterator[Cluster]:
    """A primary with pgbench's tables, and with these settings beside ours."""
    account = Account.for_servers()
    programs = fetched_installation(18).for_user(account, base / "programs")
    with Cluster(programs, base / "primary", account=account) as primary:
        primary.initdb()
        primary.configure({**_SETTINGS, **(settings or {})})
        primary.start()
        tool = primary.installation.tool("pgbench")
        primary.run([tool, "-i", "-q", "-s", str(scale), primary.conninfo()], timeout=600)
        primary.query("CHECKPOINT")
        yield primary


@contextmanager
def _walstream(primary: Cluster, base: Path, checkout: str | None = None) -> Iterator[Candidate]:
    name = "walstream" if checkout is None else "walstream-other"
    twistd = Path(sys.executable).with_name("twistd")
    command = [sys.executable, str(twistd), "-n", "--pidfile=", "walstream", "receive"]
    command += ["--upstream", primary.conninfo(application_name=name), "--synchronous"]
    directory = base / name
    # twistd prefers the directory that it is started in to all others.
    place = Path(checkout or Path(__file__).parents[1])
    with running([*command, "--archive", str(directory)], place) as process:
        yield Candidate(name, (process.pid,), process.pid)
    shutil.rmtree(directory)


@contextmanager
def _pg_receivewal(primary: Cluster, base: Path) -> Iterator[Candidate]:
    directory = base / "pg_receivewal"
    directory.mkdir(mode=0o700)
    tool = primary.installation.tool("pg_receivewal")
    command = [str(tool), "-D", str(directory), "-d", primary.conninfo(), "--synchronous"]
    with running(command, directory) as process:
        yield Candidate("pg_receivewal", (process.pid,), process.pid)
    shutil.rmtree(directory)


@contextmanager
def _standby(primary: Cluster, base: Path) -> Iterator[Candidate]:
    conninfo = primary.conninfo(application_name="standby")
    with primary.standby(base / "standby", conninfo) as standby:
        standby.configure(_STANDBY_SETTINGS)
        standby.start()
        _await(primary, "standby", "streaming")
        children = processes_below(standby.pid)
        receiver = standby.query("SELECT pid FROM pg_stat_wal_receiver")[0][0]
        yield Candidate("standby", (standby.pid, *children), int(receiver))


def _name_standby(primary: Cluster, name: str) -> None:
    value = f'"{name}"' if name else ""
    with primary.connect() as connection:
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{value}'".encode())
    primary.reload()


def _await(primary: Cluster, name: str, state: str) -> None:
    """Wait until a standby is streaming, or is the synchronous one and has all WAL."""
    query = (
        "SELECT 1 FROM pg_stat_replication WHERE application_name = %s"
        " AND state = 'streaming' AND (%s = 'streaming' OR (sync_state = %s"
        " AND flush_lsn >= pg_current_wal_flush_lsn()))"
    )
    deadline = time.monotonic() + 30
    while not primary.query(query, name, state, state):
        if time.monotonic() > deadline:
            seen = primary.query("SELECT * FROM pg_stat_replication")
            raise RuntimeError(f"{name} is not {state} after 30 s: {seen}")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
