"""Recovers a server from the base backup and the archive, and asks it for the commits."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from psycopg import sql

from tests.servers.daemon import wait_until
from tests.servers.restoring import Restorer, Restoring
from tests.torture.clients import table
from tests.torture.record import Run
from walstream.embedded import Cluster

__all__ = ["Loss", "recover"]

Loss = tuple[Run, int]


def recover(
    primary: Cluster, base: Path, directory: Path, restore: Restorer, runs: Sequence[Run]
) -> list[Loss]:
    """Recover to the end of the archive; the runs of commits that lack some, and how many.

    :param directory: the recovered server's place; removed if nothing was lost.
    """
    shutil.rmtree(directory, ignore_errors=True)
    server = Cluster(primary.installation, directory)
    with server:
        server.run(["cp", "-a", base, server.data])
        with Restoring(directory, server.data, restore, server.account) as restoring:
            server.configure(
                {
                    "port": server.port,
                    "restore_command": restoring.command,
                    "synchronous_standby_names": "",
                }
            )
            signal = server.data / "recovery.signal"
            signal.touch()
            server.account.own(signal)
            server.start()
            wait_until(lambda: not _recovers(server), "at the end of the archive", 60)
        losses = _losses(server, runs)
    if not losses:
        shutil.rmtree(directory)
    return losses


def _recovers(server: Cluster) -> bool:
    return bool(server.query("SELECT pg_is_in_recovery()")[0][0])


def _losses(server: Cluster, runs: Sequence[Run]) -> list[Loss]:
    losses = []
    with server.connect() as connection:
        for run in runs:
            row = connection.execute(
                sql.SQL(
                    "SELECT count(*) FROM {} WHERE client = %s AND counter BETWEEN %s AND %s"
                ).format(table(run.epoch)),
                (run.client, run.first, run.last),
            ).fetchone()
            assert row is not None
            missing = run.last - run.first + 1 - row[0]
            if missing:
                losses.append((run, missing))
    return losses
