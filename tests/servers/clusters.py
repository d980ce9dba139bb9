"""The servers of one test: made fast, from copies of a template, and ended whatever happens."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.servers.waiting import wait_until
from walstream.embedded import Account, Cluster, Installation

__all__ = ["Clusters", "Templates", "fill", "left_alone", "reload"]


def fill(cluster: Cluster, backup: Path) -> None:
    """Make a copy of a base backup the data directory of a server that has none."""
    cluster.run(["cp", "-a", backup, cluster.data])
    cluster.configure({"port": cluster.port})


def reload(server: Cluster) -> None:
    """Have a server read its files again; whoever connects now meets what they say."""
    before = server.query("SELECT pg_conf_load_time()")
    server.reload()
    wait_until(lambda: server.query("SELECT pg_conf_load_time()") > before, f"{server} reloaded")


@contextmanager
def left_alone(primary: Cluster) -> Iterator[None]:
    """A server that writes no WAL by itself while the context lasts; it may be killed.

    Its background writer notes every 15 seconds which transactions run, and a checkpoint that a
    promotion began ends when it ends: WAL that comes when a test has just seen where all of it is.
    """
    at_work = (
        "SELECT FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
        " AND wait_event IS DISTINCT FROM 'CheckpointerMain'"
    )
    if primary.query(at_work):
        primary.query("CHECKPOINT")  # hurries it
    question = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'"
    wait_until(lambda: len(primary.query(question)) == 1, f"{primary} has a background writer")
    [(process,)] = primary.query(question)
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


class Templates:
    """Data directories as initdb makes them, one of each kind, to be copied."""

    def __init__(self, base: Path, account: Account) -> None:
        self._base = base
        self._account = account
        self._made: dict[tuple[Path, int], Cluster] = {}

    def get(self, installation: Installation, wal_segment_size: int) -> Cluster:
        """A cluster that was never started; *wal_segment_size* in MiB."""
        key = (installation.bindir, wal_segment_size)
        if key not in self._made:
            directory = self._base / f"template-{len(self._made)}"
            cluster = Cluster(installation, directory, account=self._account)
            cluster.initdb(wal_segment_size=wal_segment_size)
            self._made[key] = cluster
        return self._made[key]


class Clusters:
    """Makes the servers of one test.

    :ivar all: what was made, in order.
    """

    def __init__(self, installation: Installation, base: Path, templates: Templates) -> None:
        self.installation = installation
        self.all: list[Cluster] = []
        self._base = base
        self._templates = templates
        self._cleanup = ExitStack()

    def primary(
        self,
        name: str = "primary",
        *,
        wal_segment_size: int = 1,
        settings: Mapping[str, str | int] | None = None,
        hba: Sequence[str] = (),
        new_system: bool = False,
    ) -> Cluster:
        """A running primary that everyone may connect to.

        :param wal_segment_size: MiB. 1 unless told otherwise: segments fill soon.
        :param settings: more than `FAST_SETTINGS`.
        :param hba: lines that replace those of ``pg_hba.conf``.
        :param new_system: run initdb, which takes longer: without it all primaries of one version
            and segment size have the same system identifier.
        """
        directory = self._directory(name)
        if new_system:
            cluster = self._keep(Cluster(self.installation, directory))
            cluster.initdb(wal_segment_size=wal_segment_size)
        else:
            template = self._templates.get(self.installation, wal_segment_size)
            cluster = self._keep(template.clone(directory))
        if hba:
            cluster.allow(*hba)
        cluster.configure(settings or {})
        cluster.start()
        return cluster

    def standby(
        self,
        primary: Cluster,
        primary_conninfo: str | None = None,
        name: str = "standby",
        *,
        slot: str = "",
        settings: Mapping[str, str | int] | None = None,
    ) -> Cluster:
        """A running standby, made of a base backup of *primary*.

        :param primary_conninfo: where it streams from, if not from *primary*.
        :param slot: the replication slot that it uses there.
        """
        conninfo = primary_conninfo or primary.conninfo()
        cluster = self._keep(primary.standby(self._directory(name), conninfo, slot=slot))
        cluster.configure(settings or {})
        cluster.start()
        return cluster

    def standby_of(
        self,
        backup: Path,
        primary_conninfo: str,
        name: str,
        *,
        settings: Mapping[str, str | int] | None = None,
    ) -> Cluster:
        """A running standby, made of a copy of a base backup: much faster than `standby`."""
        cluster = self.made_of(backup, name)
        cluster.follow(primary_conninfo)
        cluster.configure(settings or {})
        cluster.start()
        return cluster

    def made_of(self, backup: Path, name: str) -> Cluster:
        """A server, not started yet, with a copy of a base backup as its data directory."""
        cluster = self.empty(name)
        fill(cluster, backup)
        return cluster

    def empty(self, name: str) -> Cluster:
        """A server without a data directory yet: its port is known before there is a backup."""
        return self._keep(Cluster(self.installation, self._directory(name)))

    def end(self) -> None:
        """End every server."""
        self._cleanup.close()

    def _keep(self, cluster: Cluster) -> Cluster:
        self.all.append(cluster)
        return self._cleanup.enter_context(cluster)

    def _directory(self, name: str) -> Path:
        taken = [cluster.directory.name for cluster in self.all]
        return self._base / (name if name not in taken else f"{name}-{len(taken) + 1}")
