"""What is tortured: a primary, walstream behind a proxy, the disk of its archive, and clients."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from psycopg import sql

from tests.servers.daemon import Walstream, wait_until
from tests.servers.disk import Disk
from tests.servers.proxy import Proxy
from tests.torture.clients import Clients, make_table, table
from tests.torture.failing import Failing
from tests.torture.record import Record
from walstream.embedded import Cluster, Installation
from walstream.embedded.processes import is_alive

__all__ = ["Hang", "World"]

_DISK_MIB = 256
_CLIENTS = 4
# For commits to pass again: more than walstream waits between two attempts, on a busy machine.
_PATIENCE = 30.0
_PID = "walstream.pid"

_SETTINGS: Mapping[str, str | int] = {
    "synchronous_standby_names": "walstream",
    "full_page_writes": "on",
    "wal_keep_size": "64MB",
    "max_wal_size": "64MB",
    "wal_sender_timeout": "10s",
    "max_connections": "30",
}


class Hang(Exception):
    """Commits do not pass again, though nothing is broken any more."""


@dataclass(slots=True)
class _State:
    """What the next run has to know: the number of the table, and the primary's port."""

    epoch: int = 0
    port: int = 0


class World:
    """The participants, of a new run or of one that is resumed; ended when the context is left.

    :param directory: where all of it is; one that every user can enter.
    :param own_disk: whether the archive has a disk of its own.
    :param may_fail: whether the archive's writes and syncs can be made to fail.
    :param options: more of ``walstream receive``'s.
    """

    def __init__(
        self,
        directory: Path,
        installation: Installation,
        *,
        own_disk: bool,
        may_fail: bool,
        options: tuple[str, ...] = (),
    ) -> None:
        self.directory = directory
        self.base = directory / "base"
        self.kills = 0
        self.walstream: Walstream | None = None
        self._options = options
        self._stack = ExitStack()
        self._state = _State()
        _end_leftover(directory)
        self.disk = self._stack.enter_context(Disk(directory, _DISK_MIB)) if own_disk else None
        self.archive = (self.disk.path if self.disk else directory) / "archive"
        self.failing = Failing(directory, self.archive) if may_fail else None
        self.record = Record(directory / "confirmed")
        self.primary = Cluster(installation, directory / "primary")
        self._stack.callback(self.record.close)

    def __enter__(self) -> Self:
        self._stack.enter_context(self.primary)
        self._load()
        self.primary.start()
        self.proxy = self._stack.enter_context(Proxy(self.primary.port))
        self.clients = Clients(self.primary.conninfo, self.record, _CLIENTS)
        self.clients.epoch = self._state.epoch
        self.clients.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.clients.pause()
        self.primary.kill()
        self.clients.stop()
        if self.walstream is not None:
            self.walstream.kill()
        self._stack.close()

    # walstream

    def start_walstream(self, log: Path) -> None:
        """Start it, unless it runs."""
        if self.walstream is not None:
            return
        upstream = self.primary.conninfo(port=self.proxy.port)
        self.walstream = Walstream(
            *("receive", "-d", upstream, "-D", self.archive, "--synchronous", "-v"),
            *self._options,
            log=log,
            environment=self.failing.environment if self.failing else None,
        )
        (self.directory / _PID).write_text(str(self.walstream.process.pid))

    def kill_walstream(self) -> None:
        """End it by SIGKILL."""
        if self.walstream is not None:
            self.walstream.kill()
            self.walstream = None
            self.kills += 1

    # The primary

    def kill_primary(self) -> None:
        """End it by SIGKILL, all its processes, if it runs."""
        if self.primary.running:
            self.primary.kill()
            self.kills += 1

    def start_primary(self) -> None:
        """Start it, unless it runs; it then recovers from its crash."""
        if not self.primary.running:
            self.primary.start()

    # Commits

    def await_commits(self, count: int = 5) -> float:
        """Wait until so many more are confirmed; how many seconds that took.

        :raises Hang: if they are not.
        """
        begun = time.monotonic()
        wanted = self.record.total + count
        while not self.record.wait_for(wanted, 0.2):
            if self.walstream is not None and self.walstream.process.poll() is not None:
                raise Hang(f"walstream has ended:\n{_tail(self.walstream.text)}")
            if time.monotonic() - begun > _PATIENCE:
                text = self.walstream.text if self.walstream else ""
                raise Hang(f"no commit passes in {_PATIENCE:g} s; walstream says:\n{_tail(text)}")
        return time.monotonic() - begun

    def new_base(self) -> None:
        """Go on with another table, take a new base backup, and drop what came before it.

        Commits must pass: it is the synchronous standby's primary. The table before stays, since
        clients may be writing to it still; the one before that one has been checked to the end.
        """
        epoch = self._state.epoch + 1
        with self.primary.connect() as connection:
            make_table(connection, epoch)
            self.clients.epoch = self._state.epoch = epoch
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table(epoch - 2)))
        self._save()
        self.clients.resume()
        self.await_commits()
        new = self.directory / "base.new"
        shutil.rmtree(new, ignore_errors=True)
        self._back_up(new)
        shutil.rmtree(self.base, ignore_errors=True)
        new.rename(self.base)
        self._prune()

    @property
    def oldest_epoch(self) -> int:
        """The oldest table that is still there."""
        return max(self._state.epoch - 1, 1)

    def _back_up(self, target: Path) -> None:
        tool = self.primary.installation.tool("pg_basebackup")
        self.primary.account.make_directory(target)
        options = ("-X", "none", "-c", "fast", "--no-sync", "--no-password")
        self.primary.run([tool, "-D", target, "-d", self.primary.conninfo(), *options])

    def _prune(self) -> None:
        """Remove the segments that a recovery from the base backup does not need."""
        label = (self.base / "backup_label").read_text()
        first = label.split("(file ", 1)[1][:24]
        for path in self.archive.iterdir():
            if len(path.name) >= 24 and path.name[:24] < first:
                path.unlink(missing_ok=True)

    # What a run leaves to the next one.

    def _load(self) -> None:
        path = self.directory / "state.json"
        if path.exists():
            self._state = _State(**json.loads(path.read_text()))
            self.primary.port = self._state.port
            (self.primary.data / "postmaster.pid").unlink(missing_ok=True)
            return
        self.primary.initdb(wal_segment_size=1)
        self.primary.configure(_SETTINGS)
        self._state.port = self.primary.port
        self._save()

    def _save(self) -> None:
        path = self.directory / "state.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"epoch": self._state.epoch, "port": self._state.port}))
        new.rename(path)


def _end_leftover(directory: Path) -> None:
    """End the walstream of a run that was killed. Its servers have ended with it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        pid = int((directory / _PID).read_text())
        if str(directory) in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not is_alive(pid), "ended")


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-20:])
