"""``--processes N``: one port, several processes that send, over one archive."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import pq
from psycopg.pq import ExecStatus, PollingStatus, abc

from tests.integration.load import (
    await_segments,
    identical,
    pg_receivewal,
    pgbench,
    prepare_pgbench,
)
from tests.integration.test_hub import have_the_same_rows
from tests.integration.test_status import clients as status_of_clients
from tests.integration.test_status import report
from tests.integration.test_synchronous import demand
from tests.remote_apply import watch_commits
from tests.servers import Clusters
from tests.servers.daemon import Serving, Walstream, await_streaming, wait_until
from tests.unit.archives import BUILT, SIZE, record_wal
from walstream.access.role_store import RoleStore
from walstream.embedded.processes import is_alive, processes_below
from walstream.formats.role_file import Role, with_role
from walstream.wire.scram_verifier import ScramVerifier


class Client:
    """A session over libpq.

    :ivar pid: its number.
    :ivar worker: which worker has it, by its log.
    """

    def __init__(self, sender: Walstream, conninfo: str) -> None:
        self.connection = psycopg.connect(conninfo, replication="true", autocommit=True)
        self.wire = self.connection.pgconn
        self.pid = self.wire.backend_pid
        authorized = f": replication connection {self.pid} authorized"
        sender.await_text(authorized)
        match = re.search(rf"worker (\d+){authorized}", sender.text)
        assert match is not None
        self.worker = int(match[1])

    def ask(self, command: str) -> tuple[ExecStatus, str]:
        """Send a command; how it ended, and the error's words."""
        result = self.wire.exec_(command.encode())
        return ExecStatus(result.status), result.error_message.decode()

    def stream(self, slot: str = "") -> None:
        """Begin a stream, by a slot or without one."""
        by_slot = f"SLOT {slot} " if slot else ""
        status, words = self.ask(f"START_REPLICATION {by_slot}0/{BUILT.start:X}")
        assert status is ExecStatus.COPY_BOTH, words

    def stream_ends(self) -> str:
        """Read the stream to its end; the error that ended it."""
        try:
            while self.wire.get_copy_data(0)[0] > 0:
                pass
        except psycopg.Error as error:
            return str(error)
        result = self.wire.get_result()
        return "" if result is None else result.error_message.decode()

    def is_cut_off(self) -> bool:
        """Whether the connection is closed, once all is read that came."""
        end = self.wire.socket
        while select.select([end], [], [], 0)[0]:
            with socket.socket(fileno=os.dup(end)) as copy:
                try:
                    if not copy.recv(1 << 20):
                        return True
                except ConnectionResetError:
                    return True
        return False


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete archive of a few segments."""
    directory = tmp_path_factory.mktemp("archives") / "archive"
    directory.mkdir(mode=0o700)
    for number in range(SIZE.number(BUILT.start), SIZE.number(BUILT.start) + 4):
        name = SIZE.name(1, number)
        (directory / name).write_bytes(record_wal(SIZE.start(number), SIZE))
    return directory


class Clients:
    """Sessions with a sender, all closed in the end."""

    def __init__(self, sender: Walstream, conninfo: str, archive: Path) -> None:
        self._sender = sender
        self._conninfo = conninfo
        self._archive = archive
        self._all: list[Client] = []

    def connect(self) -> Client:
        """One more."""
        self._all.append(Client(self._sender, self._conninfo))
        return self.last

    @property
    def last(self) -> Client:
        """The one that came last."""
        return self._all[-1]

    def two(self) -> tuple[Client, Client]:
        """Two more, which are on different workers."""
        one = self.connect()
        return one, self.connect_to(3 - one.worker)

    def connect_to(self, worker: int) -> Client:
        """One more, which is on that worker.

        It may have more than the other, as far as the main process knows, which may count who is
        gone already; who was kept from answering for seconds by a busy machine gets none either.
        """
        others: list[Client] = []

        def has_come() -> bool:
            others.append(self.connect())
            return others[-1].worker == worker

        wait_until(has_come, f"a client of worker {worker}")
        found = others.pop()
        for each in others:
            self.close(each)
        return found

    def close(self, client: Client) -> None:
        """Close it, and wait until the main process counts it no more."""
        client.connection.close()
        self._all.remove(client)

        def pids() -> list[int]:
            return [each["pid"] for each in report(self._archive)["clients"]]

        wait_until(lambda: client.pid not in pids(), "gone")

    def try_to_connect(self) -> bool:
        """One more, if there may be one."""
        with suppress(psycopg.OperationalError):
            self.connect()
            return True
        return False

    def leave(self) -> None:
        """Close them."""
        for client in self._all:
            client.connection.close()


@contextmanager
def sending(archive: Path, log: Path, *options: str) -> Iterator[tuple[Serving, Clients]]:
    """Two workers serve the archive; nothing is left of them in the end."""
    with Serving("send", "-D", archive, "--processes=2", *options, log=log) as sender:
        clients = Clients(sender, sender.conninfo(), archive)
        workers = processes_below(sender.process.pid)
        try:
            yield sender, clients
        finally:
            clients.leave()
            workers += processes_below(sender.process.pid)
        if sender.process.poll() is None:
            assert sender.stop() == 0
    wait_until(lambda: not any(map(is_alive, workers)), "all workers ended")


def process_of(sender: Serving, worker: int) -> int:
    """The process of a worker, by the log."""
    return int(re.findall(rf"worker {worker} is process (\d+)", sender.text)[-1])


def test_a_hub_of_two_workers(clusters: Clusters, tmp_path: Path) -> None:
    """Two standbys and pg_receivewal get all under load, though one worker is killed in between.

    The other's clients do not notice. What the clients report decides when commits return, and the
    status has all of them. It stops in order; nothing is left.
    """
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    prepare_pgbench(primary)
    archive, copy = tmp_path / "archive", tmp_path / "copy"
    options = ("-d", primary.conninfo(), "-D", archive, "--processes=2")
    policy = ("--report-apply", "FIRST 1 (second)")
    with Serving("hub", *options, *policy, log=tmp_path / "log") as relay:
        await_streaming(primary)
        standbys = [
            clusters.standby(
                primary,
                relay.conninfo(application_name=name),
                name,
                settings={"wal_retrieve_retry_interval": "100ms"},
            )
            for name in ("first", "second")
        ]
        conninfo = relay.conninfo(application_name="third")
        with pgbench(primary), pg_receivewal(clusters.installation, copy, conninfo):
            await_segments(copy, 2)
            names = ("first", "second", "third")
            wait_until(lambda: all(map(relay.sessions, names)), "all are there")
            process = process_of(relay, 1)
            come, gone = (
                len(re.findall(rf"worker 1: replication connection \d+ {what}", relay.text))
                for what in ("authorized", "ended")
            )
            os.kill(process, signal.SIGKILL)
            relay.await_text(f"worker 1 has ended, and {come - gone} connections with it")
            wait_until(lambda: process_of(relay, 1) != process, "a new worker")
            await_segments(copy, 4)
            identical(archive, copy, 4)
        have_the_same_rows(primary, *standbys)
        assert "worker 2 has ended" not in relay.text
        assert primary.query("SELECT count(*) FROM pg_stat_replication") == [(1,)]
        demand(primary, "walstream", "remote_apply")
        assert watch_commits(primary, standbys[1], 50).invisible == []

        def states() -> dict[str, str]:
            return {name: each["state"] for name, each in status_of_clients(archive).items()}

        expected = {"first": "streaming", "second": "streaming"}
        wait_until(lambda: states() == expected, "both stream, and the third is gone")
        workers = processes_below(relay.process.pid)
        assert relay.stop() == 0
        assert not any(map(is_alive, workers))
        # Every stream was ended in the protocol's way, and the last words are in the log.
        ends = re.findall(r"connection \d+ ended: .*=(first|second)\b.*: shut down", relay.text)
        assert sorted(ends) == ["first", "second"]
        assert [relay.text.count(f"worker {n}: Main loop terminated") for n in (1, 2)] == [1, 1]


def test_slots_are_of_all_workers(archive: Path, tmp_path: Path) -> None:
    """One slot, two clients on two workers: the second is refused, with the first one's PID.

    A worker that is killed has its slots released.
    """
    with sending(archive, tmp_path / "log") as (sender, clients):
        one, two = clients.two()
        assert one.ask("CREATE_REPLICATION_SLOT s PHYSICAL")[0] is ExecStatus.TUPLES_OK
        assert one.ask("CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL")[0] is ExecStatus.TUPLES_OK
        one.stream("s")
        for command in (f"START_REPLICATION SLOT s 0/{BUILT.start:X}", "DROP_REPLICATION_SLOT s"):
            status, words = two.ask(command)
            assert status is ExecStatus.FATAL_ERROR
            assert words == f'ERROR:  replication slot "s" is active for PID {one.pid}\n'
        status, words = two.ask("CREATE_REPLICATION_SLOT t PHYSICAL")
        assert words == 'ERROR:  replication slot "t" already exists\n'
        os.kill(process_of(sender, one.worker), signal.SIGKILL)
        sender.await_text(f"worker {one.worker} has ended, and 1 connections with it")
        two.stream("s")
        again = clients.connect()
        assert again.ask("CREATE_REPLICATION_SLOT t PHYSICAL")[0] is ExecStatus.TUPLES_OK


def test_limits_are_of_all_workers(archive: Path, tmp_path: Path) -> None:
    """One client too many is refused, whichever worker it comes to; there is room again then.

    The common rate is divided by the clients that each has.
    """
    limits = ("--max-clients=3", "--max-total-rate=1MB")
    with sending(archive, tmp_path / "log", *limits) as (_, clients):
        # Some other connection may be counted yet that is gone, so that a worker seems full.
        for _ in range(3):
            wait_until(clients.try_to_connect, "let in")
        one = clients.last
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError, match=r"exceeds .* \(currently 3\)"):
                clients.connect()
        clients.close(one)
        three = clients.connect()
        begun = time.monotonic()
        three.stream()
        read = 0
        while read < SIZE:
            read += len(three.wire.get_copy_data(0)[1])
        # There are two clients where this one is or one, of three: a third or two thirds of 1 MB/s.
        assert 1.0 < time.monotonic() - begun < 6.0


def test_wrong_passwords_count_for_all_workers(archive: Path, tmp_path: Path) -> None:
    """Who tries at the one and at the other waits as long as at one: each time twice as long."""
    store = RoleStore(str(tmp_path / "roles"))
    role = Role("standby", str(ScramVerifier.of("right", iterations=4096)))
    store.change(lambda text: with_role(text, role, store.path))
    (tmp_path / "hba").write_text("host replication standby 127.0.0.1/32 scram-sha-256\n")
    options = ("--hba", str(tmp_path / "hba"), "--roles", store.path, "--auth-delay", "0.3")
    with sending(archive, tmp_path / "log", *options) as (sender, _):
        conninfo = f"{sender.conninfo(user='standby', password='wrong')} replication=true"
        # All are there before the first of them has ended: they are at the one and the other.
        attempts = [pq.PGconn.connect_start(conninfo.encode()) for _ in range(3)]
        late = []
        for attempt in attempts:
            begun = time.monotonic()
            assert "password authentication failed" in end_of_login(attempt)
            late.append(time.monotonic() - begun)
        refusals = re.compile(r"worker (\d): replication connection \d+ refused")
        wait_until(lambda: len(refusals.findall(sender.text)) == 3, "three refusals in the log")
        assert set(refusals.findall(sender.text)) == {"1", "2"}
        assert [least <= seconds for least, seconds in zip((0.3, 0.6, 1.2), late, strict=True)] == (
            [True] * 3
        ), late


def end_of_login(attempt: abc.PGconn) -> str:
    """Go on with a login that was begun, to its end; why it failed, else nothing."""
    while (status := attempt.connect_poll()) not in (PollingStatus.OK, PollingStatus.FAILED):
        end = [attempt.socket]
        wants = (end, []) if status == PollingStatus.READING else ([], end)
        assert any(select.select(*wants, [], 10)), "nothing came for 10 s"
    return attempt.error_message.decode()


def test_a_cancel_request_finds_its_session(archive: Path, tmp_path: Path) -> None:
    """It comes to the worker that has fewer sessions, which is the other one."""
    with sending(archive, tmp_path / "log") as (_, clients):
        busy, idle = clients.two()
        for _ in range(2):
            clients.close(idle)
            busy.stream()
            busy.connection.cancel()
            assert "canceling statement due to user request" in busy.stream_ends()
            assert busy.ask("IDENTIFY_SYSTEM")[0] is ExecStatus.TUPLES_OK
            busy, idle = clients.connect_to(idle.worker), busy


def test_a_worker_that_hangs(archive: Path, tmp_path: Path) -> None:
    """It is noticed within seconds, gets no more clients, and goes on when it can."""
    with sending(archive, tmp_path / "log") as (sender, clients):
        one, two = clients.two()
        clients.close(two)
        hanging = process_of(sender, two.worker)
        os.kill(hanging, signal.SIGSTOP)
        sender.await_text(f"worker {two.worker} (process {hanging}) does not answer")
        assert clients.connect().worker == one.worker
        os.kill(hanging, signal.SIGCONT)
        sender.await_text(f"worker {two.worker} answers again")
        clients.connect_to(two.worker)


def test_the_main_process_is_killed(archive: Path, tmp_path: Path) -> None:
    """Its workers end at once, and with them the connections of their clients."""
    with sending(archive, tmp_path / "log") as (sender, clients):
        both = clients.two()
        for client in both:
            client.stream()
        workers = processes_below(sender.process.pid)
        assert len(workers) == 2
        sender.kill()
        wait_until(lambda: not any(map(is_alive, workers)), "ended")
        for client in both:
            wait_until(client.is_cut_off, "cut off")


def test_a_unix_socket_and_signals_to_all(archive: Path, tmp_path: Path) -> None:
    """Connections by a UNIX socket are handed over too.

    Signals to the whole group, as from systemd or a terminal, are for the main process to heed.
    """
    path = tmp_path / ".s.PGSQL.5433"
    log = tmp_path / "log"
    options = ("send", "-D", archive, "--processes=2", "--listen", f"unix:{path}")
    with Walstream(*options, log=log) as sender:
        sender.await_text("listening on")
        conninfo = f"host={tmp_path} port=5433 user=postgres"
        clients = Clients(sender, conninfo, archive)
        both = clients.two()
        workers = processes_below(sender.process.pid)
        for worker in workers:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(worker, number)
        assert [client.ask("IDENTIFY_SYSTEM")[0] for client in both] == [ExecStatus.TUPLES_OK] * 2
        os.kill(sender.process.pid, signal.SIGINT)
        assert sender.wait() == 0
        assert "has ended" not in sender.text
        assert not any(map(is_alive, workers))
        assert not path.exists()
        clients.leave()


def test_tcp_and_a_unix_socket(archive: Path, tmp_path: Path) -> None:
    """Both at once, in front of the same workers, and with one limit for both."""
    path = tmp_path / ".s.PGSQL.5433"
    options = (f"--listen=unix:{path}", "--max-clients=2")
    with sending(archive, tmp_path / "log", *options) as (sender, by_port):
        by_socket = Clients(sender, f"host={tmp_path} port=5433 user=postgres", archive)
        sender.await_text("listening on IPv4Address")  # it is said when both listen
        assert re.findall(r"listening on (\w+)", sender.text) == ["UNIXAddress", "IPv4Address"]
        for client in (by_port.connect(), by_socket.connect()):
            client.stream()
            assert client.wire.get_copy_data(0)[0] > 0
        for clients in (by_port, by_socket):
            with pytest.raises(psycopg.OperationalError, match=r"exceeds .* \(currently 2\)"):
                clients.connect()
        by_socket.leave()
    assert not path.exists()


def test_an_archive_that_cannot_be_opened(tmp_path: Path) -> None:
    """It is said once and plainly, and the exit status tells."""
    archive = tmp_path / "archive"
    archive.mkdir()
    for system in (1, 2):
        name = SIZE.name(1, SIZE.number(BUILT.start) + system)
        (archive / name).write_bytes(
            record_wal(
                SIZE.start(SIZE.number(BUILT.start) + system), SIZE, system_identifier=system
            )
        )
    options = ("send", "-D", archive, "--processes=2", "--listen", "tcp:0:interface=127.0.0.1")
    with Walstream(*options, log=tmp_path / "log") as sender:
        assert sender.wait() == 1
        assert sender.text.count("cannot start") == 1
