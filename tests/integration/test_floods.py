"""Clients that mean no good, by the thousand, while a standby streams."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg
import pytest

from tests.certificates import Authority
from tests.integration.load import await_segments, pg_receivewal
from tests.integration.test_limits import Reader
from tests.servers import Clusters
from tests.servers.daemon import Serving, await_streaming, memory_of, wait_until
from walstream.embedded import Cluster
from walstream.embedded.processes import processes_below
from walstream.formats.lsn import LSN

# So long, and until there were so many.
_SECONDS, _LEAST = 4, 1000
_MAX_CLIENTS = 30


class Ticker:
    """Has a primary write a little WAL, again and again."""

    def __init__(self, primary: Cluster) -> None:
        self._primary = primary
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        with self._primary.connect() as connection:
            while not self._is_over.wait(0.02):
                connection.execute("SELECT pg_logical_emit_message(false, 'tick', 'x')")
                connection.execute("SELECT pg_switch_wal() WHERE false")


class Gaps:
    """Reads a stream, and measures for how long nothing came.

    :ivar longest: the longest time, in seconds.
    """

    def __init__(self, reader: Reader) -> None:
        self.longest = 0.0
        self._reader = reader
        self._last = time.monotonic()
        self._buffer = bytearray(1 << 16)

    def look(self) -> None:
        """Read what is there."""
        before = self._reader.received
        self._reader.read(self._buffer)
        assert not self._reader.has_ended, "the standby was cut off"
        now = time.monotonic()
        self.longest = max(self.longest, now - self._last)
        if self._reader.received != before:
            self._last = now


class Footprint:
    """What the processes of a hub have.

    :ivar descriptors: the most that any of them had at a time.
    :ivar grown: by how many bytes all of them together grew.
    """

    def __init__(self, hub: Serving) -> None:
        self.descriptors = self.grown = 0
        self._processes = [hub.process.pid, *processes_below(hub.process.pid)]
        self._before = self._memory()

    def look(self) -> None:
        """Look at this moment's."""
        opened = (len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self._processes)
        self.descriptors = max(self.descriptors, *opened)
        self.grown = max(self.grown, self._memory() - self._before)

    def _memory(self) -> int:
        return sum(map(memory_of, self._processes))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_flood(clusters: Clusters, tmp_path: Path, processes: str) -> None:
    """Thousands connect, and wait, drip, rave or never read; a hub's standby notices nothing.

    With several processes they also come by TLS, and stop at every stage of it. Memory and
    descriptors stay within their bounds, and whoever means it gets in. Who streams goes on.
    """
    primary = clusters.primary(settings={"synchronous_commit": "off", "wal_writer_delay": "10ms"})
    tls: tuple[str | Path, ...] = ()
    if processes != "1":
        issued = Authority(tmp_path, "authority").issue("localhost", "127.0.0.1")
        tls = ("--tls-certificate", issued.certificate, "--tls-key", issued.key)
    options = ("--max-clients", str(_MAX_CLIENTS), "--processes", processes, *tls)
    command = ("hub", "-d", primary.conninfo(), "-D", tmp_path / "archive", *options)
    with ExitStack() as stack:
        hub = stack.enter_context(Serving(*command, log=tmp_path / "log"))
        await_streaming(primary)
        wait_until(lambda: _end_of(hub) is not None, "ready for clients")
        conninfo = hub.conninfo(sslmode="require" if tls else "disable", application_name="copy")
        copy = tmp_path / "copy"
        client = stack.enter_context(pg_receivewal(clusters.installation, copy, conninfo))
        reader = Reader(hub.port, "standby")
        stack.callback(reader.connection.close)
        reader.start(int(LSN.parse(_end_of(hub) or "")))
        stack.enter_context(Ticker(primary))
        gaps = Gaps(reader)
        _read_for(gaps, 1)
        calm, footprint = gaps.longest, Footprint(hub)
        gaps.longest = 0.0
        arguments = (hub.port, _SECONDS, _LEAST, *(["tls"] if tls else []))
        flood = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.flood", *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        stack.callback(flood.kill)
        while flood.poll() is None:
            _read_for(gaps, 0.2)
            footprint.look()
        made = int(flood.communicate()[0])
        print(f"{made} connections; {footprint.descriptors} descriptors, ", end="")
        print(f"{footprint.grown >> 10} KiB more, ", end="")
        print(f"no WAL for {gaps.longest:.3f} s at most, {calm:.3f} s before")
        assert made >= _LEAST
        # Strangers, and what `services.descriptors` keeps for all else.
        assert footprint.descriptors <= _MAX_CLIENTS + 100 + 100, "too many descriptors"
        assert footprint.grown < int(processes) * 24 << 20, "too much memory"
        # Some 0.2 s on a machine that does nothing else; this one may, and keeps everybody waiting.
        assert gaps.longest < 2.0 + 20 * calm, "the standby had to wait"
        wait_until(lambda: _end_of(hub) is not None, "open for who means it", 20)
        reader.report(0)
        _read_for(gaps, 0.2)
        assert client.poll() is None
        primary.query("SELECT pg_switch_wal()")
        await_segments(copy, 1)
        assert hub.sessions("copy") == 1, "the one that streamed by a real client was cut off"
        assert "Traceback" not in hub.text


def _read_for(gaps: Gaps, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        gaps.look()
        time.sleep(0.005)


def _end_of(hub: Serving) -> str | None:
    """Where its WAL ends, or None if it lets nobody in now."""
    with (
        suppress(psycopg.Error),
        psycopg.connect(
            hub.conninfo(connect_timeout="5"), replication="true", autocommit=True
        ) as connection,
    ):
        return (connection.pgconn.exec_(b"IDENTIFY_SYSTEM").get_value(0, 2) or b"").decode() or None
    return None
