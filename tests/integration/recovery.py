"""Servers that are recovered from a base backup and an archive, by ``walstream restore-wal``."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.servers import Clusters
from tests.servers.daemon import wait_until
from tests.servers.restoring import Restorer, Restoring
from walstream.embedded import Cluster

__all__ = ["Commands", "recover", "recovering", "tool"]


def tool(*words: str | Path) -> list[str]:
    """A command line of ``walstream``."""
    return [sys.executable, "-m", "walstream", *map(str, words)]


class Commands:
    """Runs ``walstream restore-wal`` as a server does: a process for each file.

    :param words: the command and what comes before the file's name.
    :ivar errors: all that it has said.
    :ivar statuses: how it ended, for each file that was asked for.
    """

    def __init__(self, *words: str | Path) -> None:
        self.errors = ""
        self.statuses: list[tuple[str, int]] = []
        self._words = words

    def __call__(self, name: str, target: Path) -> int:
        """Bring a file to a server; see `Restorer`."""
        data = target.parents[1]
        done = subprocess.run(
            tool(*self._words, name, target.relative_to(data)),
            cwd=data,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
        self.errors += done.stderr
        self.statuses.append((name, done.returncode))
        return done.returncode


@contextmanager
def recovering(
    clusters: Clusters,
    backup: Path,
    restore: Restorer,
    *,
    signal: str = "recovery.signal",
    settings: Mapping[str, str | int] | None = None,
) -> Iterator[Cluster]:
    """A server, not started yet, that will recover from a copy of *backup*.

    :param signal: ``standby.signal`` for one that goes on recovering.
    """
    server = clusters.made_of(backup, "recovered")
    with Restoring(server.directory, server.data, restore, server.account) as restoring:
        server.configure({"restore_command": restoring.command, **(settings or {})})
        server.run(["touch", server.data / signal])
        try:
            yield server
        finally:
            server.kill()


def recover(server: Cluster) -> None:
    """Start a server, and wait until it takes writes.

    :raises EmbeddedError: if it ends before.
    """
    server.start()
    # Queries it takes as soon as it is consistent.
    wait_until(lambda: is_open(server), "recovered")


def is_open(server: Cluster) -> bool:
    """Whether recovery is over.

    :raises EmbeddedError: if the server is.
    """
    try:
        return server.query("SELECT pg_is_in_recovery()") == [(False,)]
    except psycopg.OperationalError:
        time.sleep(0.1)  # it may be on its way down
        assert server.pid
        return False
