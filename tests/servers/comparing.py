"""Whether servers hold the same: what pg_dump writes, and what pg_amcheck says."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from walstream.embedded import Cluster

__all__ = ["amcheck", "await_end", "differing", "dump_of"]


def dump_of(cluster: Cluster) -> str:
    """A digest of all that pg_dump writes of the server's database ``postgres``."""
    tool = cluster.installation.tool("pg_dump")
    # A plain dump names a key that is random unless it is given.
    command: list[str | Path] = [tool, "--restrict-key=walstream", "-d", cluster.conninfo()]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    assert done.returncode == 0, f"pg_dump failed on {cluster}"
    return hashlib.sha256(done.stdout).hexdigest()


def await_end(primary: Cluster, standbys: Iterable[Cluster], timeout: float = 60.0) -> None:
    """Wait until the standbys have replayed all that the primary has written by now."""
    end = primary.end_of_wal()
    for standby in standbys:
        standby.wait_for_replay(end, timeout=timeout)


def differing(primary: Cluster, standbys: Sequence[Cluster], timeout: float = 60.0) -> list[str]:
    """Wait until all have all; the names of those whose dump is not the primary's."""
    await_end(primary, standbys, timeout)
    expected = dump_of(primary)
    return [each.directory.name for each in standbys if dump_of(each) != expected]


def amcheck(cluster: Cluster) -> str:
    """What pg_amcheck finds wrong with a server's tables and indexes; nothing, as it should be.

    The database has to have the extension ``amcheck``.
    """
    tool = cluster.installation.tool("pg_amcheck")
    command: list[str | Path] = [tool, "-h", "127.0.0.1", "-p", str(cluster.port), "-U", "postgres"]
    command += ["--heapallindexed", "postgres"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return "" if done.returncode == 0 else done.stdout or f"exit status {done.returncode}"
