"""walstream as a user runs it: a process of twistd's."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psycopg
from psycopg.conninfo import make_conninfo

from tests.servers.waiting import wait_until
from walstream.embedded import Cluster
from walstream.embedded.configuration import free_port

__all__ = ["Serving", "Walstream", "await_streaming", "memory_of", "wait_until"]


def await_streaming(server: Cluster, name: str = "walstream") -> None:
    """Wait until a server streams to the receiver of that name: no WAL from now on is lost to it.

    What a receiver logs is earlier: a checkpoint may come in between.
    """
    query = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND application_name = %s"
    wait_until(lambda: bool(server.query(query, name)), f"streaming from {server}")


def memory_of(process: int) -> int:
    """A process's own memory in bytes: without what it maps, which is the page cache's."""
    status = Path(f"/proc/{process}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


class Walstream:
    """A ``twistd -n walstream`` process, ended when the context is left.

    :param arguments: the command and its options.
    :param log: where its output goes.
    :param environment: what to add to ours.
    :param wrapper: the command, with its options, that starts it.
    """

    def __init__(
        self,
        *arguments: str | Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        self.log = log
        twistd = Path(sys.executable).with_name("twistd")
        command = [*wrapper, sys.executable, twistd, "-n", "--pidfile=", "walstream", *arguments]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.kill()
        if kind is not None:
            print(f"-- log of walstream ({self.log}):\n{self.text}", file=sys.stderr)

    @property
    def text(self) -> str:
        """Everything that it has logged."""
        return self.log.read_text(errors="replace")

    def await_text(self, text: str, timeout: float = 30.0) -> None:
        """Wait until *text* is in the log."""

        def appeared() -> bool:
            if text in self.text:
                return True
            assert self.process.poll() is None, f"walstream has ended:\n{self.text}"
            return False

        try:
            wait_until(appeared, f"in the log: {text}", timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; the log:\n{self.text}") from None

    def stop(self, timeout: float = 30.0) -> int:
        """Tell it to stop, and wait; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = 60.0) -> int:
        """Wait until it has ended; the exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"walstream does not end:\n{self.text}") from None

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.wait()

    def memory(self) -> int:
        """Its own memory in bytes: without what it maps, which is the page cache's."""
        return memory_of(self.process.pid)


class Serving(Walstream):
    """A command that listens on a loopback port, made when it does.

    :ivar port: the port.
    """

    def __init__(self, *arguments: str | Path, log: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        endpoint = f"tcp:{self.port}:interface=127.0.0.1"
        super().__init__(*arguments, "--listen", endpoint, log=log)
        try:
            wait_until(self._listens, f"listening on port {self.port}")
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}; the log:\n{self.text}") from None

    def conninfo(self, **parameters: str) -> str:
        """How a client connects to it."""
        address = f"host=127.0.0.1 port={self.port} user=postgres"
        return make_conninfo(address, **parameters)

    def sessions(self, name: str) -> int:
        """How often a client of that application_name was let in."""
        line = rf"authorized: .*application_name={re.escape(name)}(?!\S)"
        return len(re.findall(line, self.text))

    def end(self) -> tuple[int, str]:
        """The timeline and the position up to which it serves WAL."""
        with psycopg.connect(self.conninfo(), replication="true", autocommit=True) as connection:
            answer = connection.pgconn.exec_(b"IDENTIFY_SYSTEM")
        timeline, position = answer.get_value(0, 1), answer.get_value(0, 2)
        assert timeline is not None and position is not None, answer.error_message
        return int(timeline), position.decode()

    def _listens(self) -> bool:
        assert self.process.poll() is None, "walstream has ended"
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True
