"""One PostgreSQL cluster: its data directory, and the server that runs on it.

Knows how a server is started, watched and ended without pg_ctl, whose waiting is slow and whose
server would not end with us. Every wait is bounded, and every failure shows the end of the log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from walstream.embedded.configuration import FAST_SETTINGS, free_port, settings_text
from walstream.embedded.installation import Installation
from walstream.embedded.processes import (
    Account,
    EmbeddedError,
    is_alive,
    processes_below,
    remove_shared_memory,
    run,
    spawn,
)

__all__ = ["Cluster", "StopMode"]

StopMode = Literal["smart", "fast", "immediate"]

# PostgreSQL's documentation, "Shutting Down the Server".
_STOP_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}

# postmaster.pid: the postmaster's process on its first line, key and number of its shared memory
# on its seventh, its state on its eighth. "standby"
# is the final state of a standby that takes no queries (hot_standby=off).
_PID_LINE, _SHARED_MEMORY_LINE, _STATE_LINE = 0, 6, 7
_FINAL_STATES = ("ready", "standby")

_POLL_SECONDS = 0.005
_LOG_TAIL_LINES = 30


class Cluster:
    """A PostgreSQL cluster below one directory, on a loopback port.

    As a context manager it ends its server, the hard way; the directory is the caller's to remove.

    :ivar directory: the cluster's place: ``data`` and ``log`` are in it. Made if it is not there.
    :ivar account: the user that the server runs as.
    """

    def __init__(
        self, installation: Installation, directory: Path, *, account: Account | None = None
    ) -> None:
        self.installation = installation
        self.directory = directory
        self.account = account or Account.for_servers()
        self.port = free_port()
        self.data = directory / "data"
        self.log = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.account.make_directory(directory)

    def __repr__(self) -> str:
        return f"<PostgreSQL in {self.directory} on port {self.port}>"

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A fast stop would wait for walsenders, whose clients may be stopped or gone.
        self.kill()

    # Making one.

    def initdb(
        self,
        *,
        wal_segment_size: int = 16,
        auth: str = "trust",
        password: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Make the data directory, with `FAST_SETTINGS` and superuser ``postgres``.

        :param wal_segment_size: MiB.
        :param auth: the method of every line of ``pg_hba.conf``.
        :param password: the superuser's.
        :param options: more of initdb's.
        """
        arguments: list[str | Path] = [self.installation.tool("initdb"), "-D", self.data]
        arguments += ["-U", "postgres", "-A", auth, "-E", "UTF8", "--locale=C", "--no-sync"]
        arguments += [f"--wal-segsize={wal_segment_size}", *options]
        secret = self.directory / "password"
        if password is not None:
            self._write(secret, password + "\n")
            arguments.append(f"--pwfile={secret}")
        self.run(arguments)
        secret.unlink(missing_ok=True)
        self.configure({**FAST_SETTINGS, "port": self.port})

    def clone(self, directory: Path) -> Cluster:
        """A copy of this cluster, which has to be stopped; with the same system identifier."""
        copy = Cluster(self.installation, directory, account=self.account)
        self.run(["cp", "-a", self.data, copy.data])
        copy.configure({"port": copy.port})
        return copy

    def base_backup(self, target: Path, *options: str) -> None:
        """Take a base backup by pg_basebackup, with the WAL that makes it consistent.

        :param target: a directory that is empty, or not there.
        """
        self.account.make_directory(target)
        tool = self.installation.tool("pg_basebackup")
        arguments = ["-d", self.conninfo(), "-X", "stream", "-c", "fast", "--no-sync"]
        self.run([tool, "-D", target, *arguments, "--no-password", *options])

    def standby(self, directory: Path, primary_conninfo: str, *, slot: str = "") -> Cluster:
        """A standby, not started yet, made of a base backup of this server.

        Not by pg_basebackup's ``-R``: that writes whatever its own libpq knows, which may be more
        than the server's knows, and always the server that the backup came from.

        :param primary_conninfo: where its WAL comes from.
        :param slot: the replication slot that it uses there.
        """
        standby = Cluster(self.installation, directory, account=self.account)
        self.base_backup(standby.data)
        standby.configure({"port": standby.port})
        standby.follow(primary_conninfo, slot=slot)
        return standby

    def follow(self, primary_conninfo: str, *, slot: str = "") -> None:
        """Be a standby from the next start on."""
        self.configure({"primary_conninfo": primary_conninfo, "primary_slot_name": slot})
        self._write(self.data / "standby.signal", "")

    def configure(self, settings: Mapping[str, str | int]) -> None:
        """Change settings; in force after the next start, or some of them after `reload`."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(settings_text(settings))

    def allow(self, *lines: str) -> None:
        """Replace ``pg_hba.conf`` by these lines; in force after the next start or `reload`."""
        self._write(self.data / "pg_hba.conf", "".join(f"{line}\n" for line in lines))

    # Its server.

    @property
    def running(self) -> bool:
        """Whether the server that was started runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The postmaster's process, while it runs."""
        if self._process is None or not self.running:
            raise self._failure("is not running")
        return self._process.pid

    def start(self, *, timeout: float = 60.0) -> None:
        """Start the server and wait until it takes connections.

        It ends when the thread that calls this does: see `walstream.embedded.processes.spawn`.

        :param timeout: seconds; a server that is not ready by then is ended.
        """
        if self.running:
            raise self._failure("is running already")
        with self.log.open("ab") as log:
            postgres = self.installation.tool("postgres")
            self._process = spawn([postgres, "-D", self.data], self.account, stdout=log)
        try:
            self._wait(self._is_ready, "ready", timeout)
        except BaseException:
            self.kill()
            raise

    def stop(self, mode: StopMode = "fast", *, timeout: float = 60.0) -> None:
        """End the server, if it runs, and wait until it has ended.

        :param mode: as pg_ctl's; ``smart`` waits for clients, ``immediate`` is a crash.
        :param timeout: seconds.
        """
        if self._process is not None:
            self._process.send_signal(_STOP_SIGNALS[mode])
            self._wait(lambda: not self.running, f"stopped ({mode})", timeout)
            self._process = None

    def kill(self, *, timeout: float = 30.0) -> None:
        """End the server and all its processes by SIGKILL, if it runs; another can then start."""
        if self._process is None:
            return
        pid = self._process.pid
        # A server process that outlives its postmaster, if for a moment, would keep the next
        # server from starting. They have no parent to be found by once it is gone.
        children = processes_below(pid)
        self._process.kill()
        self._process.wait()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        self._process = None
        self._wait(lambda: not any(map(is_alive, children)), "rid of its processes", timeout)
        self._remove_shared_memory()

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start."""
        self.stop(mode)
        self.start()

    def reload(self) -> None:
        """Have the server read its configuration files again, soon."""
        os.kill(self.pid, signal.SIGHUP)

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to every process of the server, as SIGSTOP and SIGCONT want it."""
        for process in (self.pid, *processes_below(self.pid)):
            with suppress(ProcessLookupError):  # a session that has just ended
                os.kill(process, number)

    def promote(self) -> None:
        """End recovery and wait until the server takes writes."""
        if self.query("SELECT pg_promote()") != [(True,)]:
            raise self._failure("was not promoted")

    # Talking with it.

    def conninfo(self, **parameters: str | int) -> str:
        """How to connect, as libpq wants it; *parameters* are added to it, or replace what is."""
        address = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"
        return make_conninfo(address, **parameters)

    def connect(self, **parameters: str | int) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection in autocommit mode; *parameters* as for `conninfo`."""
        return psycopg.connect(self.conninfo(**parameters), autocommit=True)

    def query(self, command: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Run one SQL command on a connection of its own and give its rows, if it has rows."""
        with self.connect() as connection:
            cursor = connection.execute(command, values or None)
            return cursor.fetchall() if cursor.description else []

    def end_of_wal(self) -> str:
        """The position up to which this primary has written WAL, in text form."""
        return str(self.query("SELECT pg_current_wal_lsn()")[0][0])

    def wait_for_replay(self, lsn: str, *, timeout: float = 60.0) -> None:
        """Wait until this standby has replayed the WAL before *lsn*; *timeout* in seconds."""
        with self.connect() as connection:

            def replayed() -> bool:
                row = connection.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [lsn])
                return row.fetchone() == (True,)

            self._wait(replayed, f"at {lsn}", timeout)

    def run(self, arguments: Sequence[str | Path], *, timeout: float = 60.0) -> str:
        """Run a program as the server's user: see `walstream.embedded.processes.run`."""
        return run(arguments, self.account, timeout=timeout)

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(nothing was logged)"
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    # Inside.

    def _remove_shared_memory(self) -> None:
        """Remove what a killed server leaves to its successor, which may never come.

        It is one small System V segment, whose number is in postmaster.pid; the system has room
        for some thousands.
        """
        with suppress(FileNotFoundError, IndexError, ValueError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            remove_shared_memory(int(lines[_SHARED_MEMORY_LINE].split()[1]))

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)
        self.account.own(path)

    def _is_ready(self) -> bool:
        process = self._process
        if process is None or process.poll() is not None:
            status = process.returncode if process else None
            raise self._failure(f"ended while starting, with exit status {status}")
        with suppress(FileNotFoundError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return (
                len(lines) > _STATE_LINE
                and lines[_PID_LINE] == str(process.pid)
                and lines[_STATE_LINE].strip() in _FINAL_STATES
            )
        return False

    def _wait(self, condition: Callable[[], bool], wanted: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                raise self._failure(f"is not {wanted} after {timeout:g} seconds")
            time.sleep(_POLL_SECONDS)

    def _failure(self, what: str) -> EmbeddedError:
        return EmbeddedError(
            f"the PostgreSQL server in {self.directory} {what}; its log ends:\n{self.log_tail()}"
        )
