"""Clients that mean no good, by the thousand, while a standby streams."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg

from tests.integration.test_limits import Reader
from tests.servers import Clusters
from tests.servers.daemon import Serving, wait_until
from walstream.embedded import Cluster
from walstream.formats.lsn import LSN

_SECONDS = 4
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


def test_a_flood(clusters: Clusters, tmp_path: Path) -> None:
    """Thousands connect, and wait, drip, rave or never read; a hub's standby notices nothing.

    Memory and descriptors stay within their bounds, and whoever means it gets in.
    """
    primary = clusters.primary(settings={"synchronous_commit": "off", "wal_writer_delay": "10ms"})
    with ExitStack() as stack:
        command = ("hub", "-d", primary.conninfo(), "-D", tmp_path / "archive", "--max-clients")
        hub = stack.enter_context(Serving(*command, str(_MAX_CLIENTS), log=tmp_path / "log"))
        hub.await_text("starting log streaming")
        wait_until(lambda: _end_of(hub) is not None, "ready for clients")
        reader = Reader(hub.port, "standby")
        stack.callback(reader.connection.close)
        reader.start(int(LSN.parse(_end_of(hub) or "")))
        stack.enter_context(Ticker(primary))
        gaps = Gaps(reader)
        _read_for(gaps, 1)
        calm, before = gaps.longest, hub.memory()
        gaps.longest = 0.0
        flood = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.flood", str(hub.port), str(_SECONDS)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        stack.callback(flood.kill)
        most, grown = 0, 0
        while flood.poll() is None:
            _read_for(gaps, 0.2)
            most = max(most, len(list(Path(f"/proc/{hub.process.pid}/fd").iterdir())))
            grown = max(grown, hub.memory() - before)
        made = int(flood.communicate()[0])
        print(f"{made} connections; {most} descriptors, {grown >> 10} KiB more, ", end="")
        print(f"no WAL for {gaps.longest:.3f} s at most, {calm:.3f} s before")
        assert made > 1000
        # Strangers, and what `services.descriptors` keeps for all else.
        assert most <= _MAX_CLIENTS + 100 + 100, "too many descriptors"
        assert grown < 24 << 20, "too much memory"
        assert gaps.longest < 1.0, "the standby had to wait"
        wait_until(lambda: _end_of(hub) is not None, "open for who means it", 5)
        reader.report(0)
        _read_for(gaps, 0.2)
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
