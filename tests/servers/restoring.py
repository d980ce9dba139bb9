"""A ``restore_command`` for a server that may not read our files, nor run our Python.

Servers do not run as root, and root's archive and interpreter are closed to others. So the command
asks this process, through two named pipes, and is told the exit status.
"""

from __future__ import annotations

import os
import select
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from tests.servers.daemon import wait_until
from walstream.cli.main import main
from walstream.embedded import Account, Cluster, Installation

__all__ = ["Restorer", "Restoring", "copy_from", "recovered", "restore_wal"]

#: Brings the file of that name to that path; its result is the command's exit status.
Restorer = Callable[[str, Path], int]


def copy_from(archive: Path) -> Restorer:
    """What operators write: a finished segment, or else the unfinished one."""

    def restore(name: str, target: Path) -> int:
        for candidate in (name, f"{name}.partial"):
            with suppress(FileNotFoundError):
                shutil.copyfile(archive / candidate, target)
                return 0
        return 1

    return restore


def restore_wal(archive: Path, *options: str) -> Restorer:
    """``walstream restore-wal``, in this process."""

    def restore(name: str, target: Path) -> int:
        return main(["restore-wal", str(archive), name, str(target), *options])

    return restore


class Restoring:
    """Answers the requests of one server while the context lasts.

    :param directory: where the pipes are made; one that every user can enter.
    :param data: the server's data directory.
    :ivar command: the server's ``restore_command``.
    :ivar restored: the names of the files that were brought, in order.
    """

    def __init__(self, directory: Path, data: Path, restore: Restorer, account: Account) -> None:
        self.restored: list[str] = []
        self._data = data
        self._restore = restore
        self._account = account
        self._requests, self._answers = directory / "requests", directory / "answers"
        for pipe in (self._requests, self._answers):
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe, 0o600)
            account.own(pipe)
        # For both directions, so that neither end waits for the other one to open it.
        self._request_fd = os.open(self._requests, os.O_RDWR)
        self._answer_fd = os.open(self._answers, os.O_RDWR)
        self._stopping, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run, name="restoring", daemon=True)

    @property
    def command(self) -> str:
        """What the server is to run for a file."""
        # Bounded: whoever was to answer may have been killed.
        answer = f"timeout 60 head -n 1 {self._answers}"
        return f'echo "%f %p" > {self._requests} && exit $({answer})'

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._stop, b"x")
        self._thread.join(60)
        for fd in (self._request_fd, self._answer_fd, self._stopping, self._stop):
            os.close(fd)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._request_fd, self._stopping], [], [])
            if self._stopping in ready:
                return
            name, path = os.read(self._request_fd, 4096).decode().split()
            os.write(self._answer_fd, b"%d\n" % self._answer(name, self._data / path))

    def _answer(self, name: str, target: Path) -> int:
        try:
            status = self._restore(name, target)
        except Exception as error:
            print(f"restoring {name} failed: {error!r}")
            return 255
        if status == 0:
            self._account.own(target)
            self.restored.append(name)
        return status


@contextmanager
def recovered(
    installation: Installation,
    base: Path,
    directory: Path,
    restore: Restorer,
    **settings: str | int,
) -> Iterator[Cluster]:
    """A server that has recovered from a copy of a base backup, and takes writes.

    :param base: the base backup's directory.
    :param directory: the server's place; new, in one that every user can enter.
    :param settings: such as a target; without one it recovers to the end of the WAL.
    """
    server = Cluster(installation, directory)
    with server:
        server.run(["cp", "-a", base, server.data])
        with Restoring(directory, server.data, restore, server.account) as restoring:
            server.configure(
                {
                    "port": server.port,
                    "restore_command": restoring.command,
                    "synchronous_standby_names": "",
                    "recovery_target_action": "promote",
                    **settings,
                }
            )
            signal = server.data / "recovery.signal"
            signal.touch()
            server.account.own(signal)
            server.start()
            wait_until(lambda: not _recovers(server), "recovered", 60)
        yield server


def _recovers(server: Cluster) -> bool:
    return bool(server.query("SELECT pg_is_in_recovery()")[0][0])
