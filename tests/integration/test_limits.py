"""Limits of a sender: beside a real server's, with real standbys, and with many readers."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg

from tests.integration.load import prepare_pgbench
from tests.integration.test_hub import have_the_same_rows
from tests.integration.test_send import archive_of
from tests.servers import Clusters, every_version
from tests.servers.daemon import Serving, wait_until
from walstream.embedded import Cluster
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.testing.wal import WALBuilder
from walstream.wire.copydata import StandbyStatus
from walstream.wire.frames import Frame, FrameReader, backend_limit
from walstream.wire.messages import copy_data, parse_error, query
from walstream.wire.startup import startup_message

# Too many clients.


def refusal(port: int) -> list[object]:
    """What one client more is answered until the connection is closed."""
    answers: list[object] = []
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(startup_message({"user": "postgres", "replication": "true"}))
        reader = FrameReader(backend_limit)
        while data := connection.recv(4096):
            reader.feed(data)
            while (frame := reader.next()) is not None:
                error = parse_error(frame.body) if frame.kind == ord("E") else None
                answers.append((chr(frame.kind), error and (error.sqlstate, error.message)))
    return answers


@every_version
def test_one_client_too_many(clusters: Clusters, tmp_path: Path) -> None:
    """It hears what PostgreSQL says, when PostgreSQL says it; after one has gone, it comes in."""
    primary = clusters.primary(settings={"max_wal_senders": 1})
    primary.query("SELECT pg_switch_wal()")
    archive = archive_of(primary, tmp_path / "archive")
    with Serving("send", "-D", archive, "--max-clients", "1", log=tmp_path / "log") as sender:
        answers = []
        for port, conninfo in (
            (primary.port, primary.conninfo()),
            (sender.port, sender.conninfo()),
        ):
            with psycopg.connect(conninfo, replication="true", autocommit=True):
                answers.append(refusal(port))
        assert answers[0] == answers[1]
        assert "53300" in str(answers[1])
        sender.await_text("ended: user=postgres")
        with psycopg.connect(sender.conninfo(), replication="true", autocommit=True) as connection:
            shown = connection.pgconn.exec_(b"SHOW max_wal_senders").get_value(0, 0)
        assert shown == b"1"
        sender.await_text("refused: user=postgres application_name=[unknown] host=127.0.0.1")


# Delay.

_DELAY = 2.0


class Rows:
    """Writes rows, and looks when a standby has them."""

    def __init__(self, primary: Cluster) -> None:
        self._written: list[float] = []
        primary.query("CREATE TABLE late (number int)")

    def write(self, primary: Cluster) -> None:
        """One row more."""
        self._written.append(time.monotonic())
        primary.query("INSERT INTO late VALUES (%s)", len(self._written))

    def has_all(self, standby: Cluster) -> bool:
        """Whether a standby has them; none of them must be there too early."""
        count = int(standby.query("SELECT count(*) FROM late")[0][0])
        return count == len(self._written)

    def await_late(self, standby: Cluster) -> None:
        """Wait until a standby has them all: the last one is as old as it has to be then."""
        wait_until(lambda: self.has_all(standby), "there at last")
        age = time.monotonic() - self._written[-1]
        assert age >= _DELAY, f"it came after {age:.2f} s"


def test_a_delayed_standby(clusters: Clusters, tmp_path: Path) -> None:
    """It has nothing early: not live, not when the hub is killed, nor over a promotion.

    PostgreSQL's 005_replay_delay, with the delay in the hub. Others do not wait for it.
    """
    primary = clusters.primary(settings={"wal_keep_size": "100MB"})
    prepare_pgbench(primary)
    rows = Rows(primary)
    prompt = clusters.standby(primary, name="prompt")
    both = primary.conninfo(
        host="127.0.0.1,127.0.0.1",
        port=f"{primary.port},{prompt.port}",
        target_session_attrs="read-write",
    )
    archive, log = tmp_path / "archive", tmp_path / "log"
    command = ("hub", "-d", both, "-D", archive, "--delay", f"Late={_DELAY:.0f}s")
    with Serving(*command, log=log) as relay:
        relay.await_text("starting log streaming")
        port = relay.port
        other = clusters.standby(primary, relay.conninfo(application_name="other"), "other")
        late = clusters.standby(primary, relay.conninfo(application_name="late"), "late")
        for _ in range(2):
            rows.write(primary)
            wait_until(lambda: rows.has_all(other), "there at once")
            rows.await_late(late)
        rows.write(primary)
        wait_until(lambda: rows.has_all(other), "there at once")
        relay.kill()
    with Serving(*command, log=log, port=port) as relay:
        rows.await_late(late)
        rows.write(primary)
        wait_until(lambda: rows.has_all(other), "there at once")
        wait_until(lambda: rows.has_all(prompt), "there at once")
        primary.stop("fast", timeout=30)  # less than the minute that a server waits for a standby
        prompt.promote()
        relay.await_text("switched to timeline 2")
        rows.write(prompt)
        wait_until(lambda: rows.has_all(other), "there at once")
        rows.await_late(late)
        prompt.query("CHECKPOINT")
        have_the_same_rows(prompt, other, late)
        assert relay.stop() == 0
    assert "sent 0/" in relay.text.partition("ended: user=")[2]


# Many readers.

SIZE = SegmentSize(1 << 20)
_BEGIN = SIZE.start(1)
_LENGTH = 24 * SIZE


class Reader:
    """A client of plain sockets, which reads when it is told to.

    :ivar received: how many bytes came, messages' heads and all.
    """

    def __init__(self, port: int, name: str) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), 10)
        self.received = 0
        self.has_ended = False
        parameters = {"user": "u", "replication": "true", "application_name": name}
        self.connection.sendall(startup_message(parameters))
        self._frames = FrameReader(backend_limit)
        while self.next_frame().kind != ord("Z"):
            pass

    def next_frame(self) -> Frame:
        while (frame := self._frames.next()) is None:
            self._frames.feed(self.connection.recv(65536))
        return frame

    def start(self, start: int) -> None:
        self.connection.sendall(query(f"START_REPLICATION {LSN(start)} TIMELINE 1"))
        self.connection.setblocking(False)

    def read(self, buffer: bytearray) -> None:
        try:
            size = self.connection.recv_into(buffer)
        except BlockingIOError:
            return
        self.received += size
        self.has_ended = not size

    def report(self, flush: int) -> None:
        self.connection.sendall(copy_data(StandbyStatus(flush, flush, flush, 0, True).pack()))


def read_until_all_have(
    readers: Sequence[Reader], size: int, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Read from all of them, whoever has something, until each has had so many bytes.

    :param meanwhile: done every second.
    """
    buffer, left = bytearray(1 << 18), set(readers)
    begun = done = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader.connection, selectors.EVENT_READ, reader)
        while left:
            now = time.monotonic()
            assert now < begun + 60, f"{len(left)} readers have not all"
            if now > done + 1:
                meanwhile()
                done = now
            for key, _ in selector.select(1):
                key.data.read(buffer)
                assert not key.data.has_ended, "a reader was cut off"
                if key.data.received >= size:
                    left.discard(key.data)


def test_many_readers(tmp_path: Path) -> None:
    """A hundred idle clients and twenty busy ones: one that stops costs a constant, and no time.

    The nineteen others read all that there is. The stopped one is cut off in the end, the idle
    ones, which answer, are not; everything that was said in between was answered.
    """
    archive = tmp_path / "archive"
    archive.mkdir(mode=0o700)
    builder = WALBuilder(segment_size=SIZE, start=LSN(_BEGIN))
    builder.fill_to(_BEGIN + _LENGTH, 7000)
    for number in range(SIZE.number(_BEGIN), SIZE.number(_BEGIN + _LENGTH)):
        (archive / SIZE.name(1, number)).write_bytes(
            builder.bytes(SIZE.start(number), SIZE.start(number + 1))
        )
    timeout = 6
    with (
        Serving("send", "-D", archive, "--sender-timeout", str(timeout), log=tmp_path / "log")
        as sender,
        ExitStack() as sockets,
    ):  # fmt: skip

        def reader(name: str) -> Reader:
            made = Reader(sender.port, name)
            sockets.callback(made.connection.close)
            return made

        idle = [reader("idle") for _ in range(100)]
        stopped, *others = busy = [reader("busy") for _ in range(20)]
        buffer = bytearray(1 << 12)

        def report(*readers: Reader) -> None:
            for each in readers:
                each.report(_BEGIN + _LENGTH)
            for each in idle:
                each.read(buffer)  # what was answered before

        for each in idle:
            each.start(_BEGIN + _LENGTH)
        report(*idle)
        before = sender.memory()
        for each in busy:
            each.start(_BEGIN)
        # Whoever says nothing for longer than the timeout, however slow the machine is, is cut off.
        read_until_all_have(others, _LENGTH, lambda: report(*idle, *others))
        assert sender.memory() - before < 8 << 20
        for each in idle:
            each.received = 0
            each.report(_BEGIN + _LENGTH)
        # A keepalive in answer to each.
        read_until_all_have(idle, 18)
        assert f"application_name=busy host=127.0.0.1 port={_port(stopped)}" in sender.text
        while "terminating walsender process due to replication timeout" not in sender.text:
            time.sleep(timeout / 6)
            report(*idle, *others)
        cut = [line for line in sender.text.splitlines() if "due to replication timeout" in line]
        assert len(cut) == 1
        assert f"port={_port(stopped)}:" in cut[0]


def _port(reader: Reader) -> int:
    port: int = reader.connection.getsockname()[1]
    return port
