"""WAL over TLS 1.3: ``walstream send`` against walsenders, and ``receive`` against pg_receivewal.

    python -m benchmarks.tls [--gigabytes 2] [--pairs 5] [--pause 10]

The certificate, the cipher (TLS_AES_256_GCM_SHA384) and the client or server at the other end are
the same for both. Of what sends, CPU is the sender's alone, and its time that of pg_receivewal,
which does not sync; what receives is measured whole, and syncs, as `benchmarks.receive` has it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.backlog import Backlog, backlog
from benchmarks.measure import (
    Figures,
    cpu_seconds,
    cpu_seconds_of_children,
    pairs,
    ratio_line,
    run,
    run_against,
    settle,
)
from benchmarks.serving import archive_of, serving
from tests.certificates import Authority, Issued
from walstream.embedded import Cluster
from walstream.formats.lsn import LSN


@dataclass(frozen=True, slots=True)
class _Bench:
    """What all runs have in common."""

    wal: Backlog
    pause: float

    @property
    def base(self) -> Path:
        return self.wal.cluster.directory.parent

    @property
    def end(self) -> str:
        """The last position of the backlog."""
        return str(LSN(self.wal.end - 1))

    def fresh(self, name: str) -> Path:
        """A directory in which receiving starts with the backlog."""
        directory = self.base / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        shutil.copy(self.wal.segment_before(), directory)
        settle(directory / "scratch", self.wal.size, self.pause)
        return directory

    def sent_by_walstream(self, port: int, sender: int, mode: str = "require") -> Figures:
        """Have a real client receive all from process *sender*: its time, and the sender's CPU."""
        conninfo = f"host=127.0.0.1 port={port} user=postgres sslmode={mode}"
        return run_against(self._client(conninfo), partial(cpu_seconds, sender))

    def sent_by_walsender(self) -> Figures:
        """The same of a walsender, which ends with it: nothing else of the server does."""
        process = int((self.wal.cluster.data / "postmaster.pid").read_text().split()[0])
        return run_against(
            self._client(self._upstream()), partial(cpu_seconds_of_children, process)
        )

    def _client(self, conninfo: str) -> list[str | Path]:
        directory = self.fresh("received")
        tool = self.wal.cluster.installation.tool("pg_receivewal")
        return [tool, "-D", directory, "-d", conninfo, "-n", "--no-sync", "-E", self.end]

    def received_by_walstream(self) -> Figures:
        """Have ``receive`` receive all."""
        directory = self.fresh("walstream")
        twistd = Path(sys.executable).with_name("twistd")
        command = [sys.executable, str(twistd), "-n", "--pidfile=", "walstream", "receive"]
        command += ["--upstream", self._upstream(), "--archive", str(directory)]
        return run([*command, "--no-loop", "--endpos", self.end])

    def received_by_pg_receivewal(self) -> Figures:
        """Have pg_receivewal receive all."""
        directory = self.fresh("pg_receivewal")
        tool = self.wal.cluster.installation.tool("pg_receivewal")
        command: list[str | Path] = [tool, "-D", directory, "-d", self._upstream(), "-n", "-E"]
        return run([*command, self.end])

    def _upstream(self) -> str:
        return self.wal.cluster.conninfo(sslmode="require")


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--pause", type=float, default=10.0, help="seconds before each run")
    parser.add_argument("--only", choices=("send", "receive"), help="default: both")
    options = parser.parse_args()
    lines: list[str] = []
    with ExitStack() as stack:
        wal = stack.enter_context(backlog(options.gigabytes))
        bench = _Bench(wal, options.pause)
        issued = Authority(bench.base, "authority").issue("localhost", "127.0.0.1")
        _give_tls(wal.cluster, issued)
        print(f"backlog {wal.start} to {wal.end}, {wal.size / (1 << 30):.2f} GiB")
        archive = str(archive_of(wal))
        tls = ("--tls-certificate", str(issued.certificate), "--tls-key", str(issued.key))
        sender = stack.enter_context(serving("walstream", "send", "--archive", archive, *tls))
        ours = partial(bench.sent_by_walstream, sender.port, sender.processes()[0])

        def compare(name: str, one: Callable[[], Figures], other: Callable[[], Figures]) -> None:
            measured = pairs(one, other, options.pairs)
            faster = [b.wall / a.wall for a, b in measured]
            lines.append(ratio_line(f"{name}, bytes per second", faster, "none"))
            cpu = [a.cpu / b.cpu for a, b in measured]
            lines.append(ratio_line(f"{name}, CPU per byte", cpu, "none"))
            gigabytes = wal.size / 1e9
            rate = statistics.median(gigabytes * 1000 / a.wall for a, _ in measured)
            need = statistics.median(a.cpu / gigabytes for a, _ in measured)
            lines.append(f"{name}: ours {rate:.0f} MB/s, {need:.2f} s of CPU per gigabyte")

        if options.only != "receive":
            compare("send", ours, bench.sent_by_walsender)
            compare("send, of itself without TLS", ours, partial(ours, "disable"))
        if options.only != "send":
            compare("receive", bench.received_by_walstream, bench.received_by_pg_receivewal)
    print("\n".join(lines))


def _give_tls(cluster: Cluster, issued: Issued) -> None:
    settings: dict[str, str | int] = {"ssl": "on", "autovacuum": "off"}
    for name, path in (("ssl_cert_file", issued.certificate), ("ssl_key_file", issued.key)):
        copy = cluster.directory / path.name
        shutil.copy(path, copy)
        copy.chmod(0o600)
        cluster.account.own(copy)
        settings[name] = str(copy)
    cluster.configure(settings)
    cluster.restart()


if __name__ == "__main__":
    main()
