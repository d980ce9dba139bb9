"""How long WAL takes from the server's socket to the status update that calls it durable.

    python -m benchmarks.acknowledgement [--gigabytes 1] [--rate 1000] [--seconds 10] [--rounds 3]

The program plays the server: it sends WAL of a real primary's, and stops the time of each message
until a status update's flush position covers it. First at a fixed rate, two kilobytes a message, as
commits come; then as fast as the receiver takes it, 128 KiB a message, as a backlog does. The
receivers are ``walstream receive --synchronous`` without and with ``--compress zstd``, and
``pg_receivewal --synchronous``, each once in a round.
"""

from __future__ import annotations

import argparse
import mmap
import shutil
import socket
import statistics
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from benchmarks.backlog import Backlog, backlog
from benchmarks.measure import ratio_line, running, settle
from walstream.formats.lsn import LSN
from walstream.formats.segments import DEFAULT_SEGMENT_SIZE
from walstream.wire import messages
from walstream.wire.copydata import StandbyStatus, parse_standby_message, pg_time
from walstream.wire.frames import Frame, FrameReader, StartupReader, frontend_limit
from walstream.wire.messages import Column, ColumnType
from walstream.wire.stream import WALPayload, wal_message_head

_CHECKOUT = Path(__file__).parents[1]
_SMALL, _LARGE = 2048, 128 * 1024
_WARM_UP = 1.0  # seconds at the beginning that do not count


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of one run, in milliseconds; and how fast it went, in MiB a second."""

    p50: float
    p99: float
    speed: float

    @classmethod
    def of(cls, seconds: Sequence[float], speed: float) -> Latencies:
        """From what each message took."""
        hundredths = statistics.quantiles(seconds, n=100)
        return cls(hundredths[49] * 1000, hundredths[98] * 1000, speed)

    def __str__(self) -> str:
        return f"p50 {self.p50:6.2f} ms, p99 {self.p99:7.2f} ms ({self.speed:4.0f} MiB/s)"


def main() -> None:
    """Measure, and print the latencies and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=1000.0, help="messages a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="at the fixed rate")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    runs: list[dict[str, tuple[Latencies, Latencies]]] = []
    with backlog(options.gigabytes) as wal:
        wal_bytes = _Segments(wal)
        for number in range(options.rounds):
            names = list(_receivers(wal))
            names = names[number % len(names) :] + names[: number % len(names)]
            runs.append({})
            for name in names:
                figures = _run(wal, wal_bytes, name, options.rate, options.seconds)
                runs[-1][name] = figures
                print(
                    f"  {name:16} at {options.rate:.0f}/s: {figures[0]}; full speed: {figures[1]}"
                )
    for phase, what in enumerate((f"at {options.rate:.0f} messages a second", "at full speed")):
        for name in runs[0]:
            p50, p99 = (
                statistics.median(getattr(run[name][phase], field) for run in runs)
                for field in ("p50", "p99")
            )
            print(f"{what}, {name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        for other in ("zstd", "pg_receivewal"):
            for field in ("p50", "p99"):
                ratios = [
                    getattr(run["walstream"][phase], field) / getattr(run[other][phase], field)
                    for run in runs
                ]
                print(ratio_line(f"{what}, {field}, of {other}'s", ratios, "none"))


def _receivers(wal: Backlog) -> dict[str, list[str]]:
    twistd = [sys.executable, str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile="]
    walstream = [*twistd, "walstream", "receive", "--synchronous", "--no-loop", "-d"]
    tool = str(wal.cluster.installation.tool("pg_receivewal"))
    return {
        "walstream": walstream,
        "zstd": ["--compress=zstd", *walstream],
        "pg_receivewal": [tool, "--synchronous", "-n", "-d"],
    }


def _run(
    wal: Backlog, segments: _Segments, name: str, rate: float, seconds: float
) -> tuple[Latencies, Latencies]:
    directory = wal.cluster.directory.parent / "received"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o700)
    settle(directory / "scratch", wal.size, 2.0)
    command = _receivers(wal)[name]
    extra = [command.pop(0)] if command[0].startswith("--") else []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        address = f"host=127.0.0.1 port={port} user=postgres sslmode=disable"
        with running([*command, address, "-D", str(directory), *extra], _CHECKOUT):
            connection, _ = listener.accept()
            with connection:
                server = _Server(connection, wal, segments)
                server.converse()
                steady = server.send(_SMALL, rate, seconds)
                return steady, server.send(_LARGE, None, 1e9)


class _Segments:
    """The primary's segments, mapped."""

    def __init__(self, wal: Backlog) -> None:
        self._maps = {}
        first, last = (DEFAULT_SEGMENT_SIZE.number(lsn) for lsn in (wal.start, wal.end))
        for number in range(first, last):
            path = wal.cluster.data / "pg_wal" / DEFAULT_SEGMENT_SIZE.name(1, number)
            with path.open("rb") as file:
                self._maps[number] = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

    def read(self, position: int, size: int) -> memoryview:
        """At most *size* bytes of one segment."""
        offset = position % DEFAULT_SEGMENT_SIZE
        return self._maps[DEFAULT_SEGMENT_SIZE.number(LSN(position))][offset : offset + size]


class _Server:
    """One connection to a receiver."""

    def __init__(self, connection: socket.socket, wal: Backlog, segments: _Segments) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._wal = wal
        self._segments = segments
        self._reader = FrameReader(frontend_limit)
        self._position: int = wal.start
        system = wal.cluster.query("SELECT system_identifier::text FROM pg_control_system()")[0][0]
        self._answers: dict[str, list[str | None]] = {
            "IDENTIFY_SYSTEM": [system, "1", str(wal.start), None],
            "SHOW data_directory_mode": ["0700"],
            "SHOW wal_segment_size": ["16MB"],
            "SHOW wal_sender_timeout": ["0"],
            "SHOW synchronous_standby_names": [""],
            "SHOW synchronous_commit": ["on"],
        }

    def converse(self) -> None:
        """Let the receiver in, and answer it up to its START_REPLICATION."""
        startup = StartupReader()
        while startup.next() is None:
            startup.feed(self._connection.recv(65536))
        version = str(self._wal.cluster.query("SHOW server_version")[0][0])
        self._say(
            messages.authentication_ok(),
            messages.parameter_status("server_version", version),
            messages.parameter_status("integer_datetimes", "on"),
            messages.ready_for_query(),
        )
        while (question := self._question()).split()[0] != "START_REPLICATION":
            values = self._answers[question.rstrip(";")]
            columns = [Column("value", ColumnType.TEXT) for _ in values]
            self._say(
                messages.row_description(columns),
                messages.data_row([value.encode() if value else None for value in values]),
                messages.command_complete("SHOW"),
                messages.ready_for_query(),
            )
        self._say(messages.copy_both_response())

    def send(self, size: int, rate: float | None, seconds: float) -> Latencies:
        """Send messages of that size until the time or the WAL is over, and see them acknowledged.

        :param rate: how many a second; None: as fast as they are taken.
        """
        sent: deque[tuple[int, float]] = deque()
        begun, first = time.perf_counter(), self._position
        sender = Thread(target=self._send, args=(size, rate, begun + seconds, sent))
        sender.start()
        took = []
        while sender.is_alive() or sent:
            status = parse_standby_message(self._frame().body)
            assert isinstance(status, StandbyStatus)
            now = time.perf_counter()
            while sent and sent[0][0] <= status.flush:
                _, when = sent.popleft()
                if when >= begun + _WARM_UP or rate is None:
                    took.append(now - when)
        sender.join()
        passed = time.perf_counter() - begun
        return Latencies.of(took, (self._position - first) / passed / (1 << 20))

    def _send(
        self, size: int, rate: float | None, until: float, sent: deque[tuple[int, float]]
    ) -> None:
        due = time.perf_counter()
        while self._position < self._wal.end - _LARGE and (now := time.perf_counter()) < until:
            if rate is not None:
                due += 1 / rate
                time.sleep(max(0.0, due - now))
            piece = self._segments.read(self._position, size)
            end = self._position + len(piece)
            head = wal_message_head(
                WALPayload.MODERN, self._position, len(piece), end, pg_time(time.time())
            )
            self._position = end
            sent.append((end, time.perf_counter()))
            self._connection.sendall(b"".join((head, piece)))

    def _say(self, *parts: bytes) -> None:
        self._connection.sendall(b"".join(parts))

    def _question(self) -> str:
        return messages.parse_query(self._frame().body).decode()

    def _frame(self) -> Frame:
        while (frame := self._reader.next()) is None:
            data = self._connection.recv(65536)
            if not data:
                raise RuntimeError("the receiver has closed the connection")
            self._reader.feed(data)
        return frame


if __name__ == "__main__":
    main()
