"""The demo's servers and their directory. Synchronous: all of it belongs in one thread.

The servers end with the thread that starts them (see `walstream.embedded.processes.spawn`), so
that must be one that lives as long as they should.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from walstream.embedded import Account, Cluster, EmbeddedError, Installation, workspace
from walstream.formats.segments import SegmentSize

__all__ = ["Servers"]

# Seconds that a server gets to end in order.
_STOP_TIMEOUT = 10.0

# Little WAL as there is, segments should fill while one looks on.
_SEGMENT_MIB = 1


class Servers:
    """A primary, and a standby made of its base backup, in a temporary directory.

    What it has, it has once the step was taken that finds or makes it.

    :ivar directory: the temporary directory.
    :ivar version: PostgreSQL's, e.g. ``18.6``.
    """

    segment_size = SegmentSize(_SEGMENT_MIB << 20)
    directory: Path
    installation: Installation
    version: str
    account: Account
    primary: Cluster
    standby: Cluster

    def __init__(self) -> None:
        self._cleanup = ExitStack()

    def prepare(self) -> None:
        """Find PostgreSQL's programs, and make the directory."""
        installation = Installation.from_package()
        self.account = Account.for_servers()
        self.directory = self._cleanup.enter_context(workspace("walstream-demo-"))
        programs = self.directory / "programs"
        self.installation = installation.for_user(self.account, programs)
        self.version = self.installation.version  # asks a program, so here

    def start_primary(self) -> None:
        """Make a primary, and start it."""
        self.primary = self._cluster("primary")
        self.primary.initdb(wal_segment_size=_SEGMENT_MIB)
        self._start(self.primary, "primary")

    def start_standby(self, primary_conninfo: str) -> None:
        """Make a standby by a base backup of the primary, and start it.

        :param primary_conninfo: the server that it follows.
        """
        directory = self.directory / "standby"
        self.standby = self.primary.standby(directory, primary_conninfo)
        self._start(self.standby, "standby")

    def end(self) -> None:
        """End the servers and remove the directory, as far as they are there."""
        self._cleanup.close()

    def _cluster(self, name: str) -> Cluster:
        return Cluster(self.installation, self.directory / name, account=self.account)

    def _start(self, cluster: Cluster, name: str) -> None:
        self._cleanup.callback(_stop, cluster)
        cluster.configure({"cluster_name": f"walstream demo {name}"})
        cluster.start()


def _stop(cluster: Cluster) -> None:
    # Not by SIGKILL, if there is another way: that would leave a System V shared memory segment.
    try:
        cluster.stop(timeout=_STOP_TIMEOUT)
    except EmbeddedError:
        cluster.kill()
