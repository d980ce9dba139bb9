"""Recovers a server from the base backup and the archive, and asks it for the commits."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from psycopg import sql

from tests.servers.restoring import Restorer, recovered
from tests.torture.clients import table
from tests.torture.record import Run
from walstream.embedded import Cluster, Installation

__all__ = ["Loss", "find_losses", "recover"]

#: A run of commits that lacks some, and how many.
Loss = tuple[Run, int]


def recover(
    installation: Installation,
    base: Path,
    directory: Path,
    restore: Restorer,
    runs: Sequence[Run],
) -> list[Loss]:
    """Recover to the end of the archive, and look for the commits.

    :param directory: the recovered server's place; removed if nothing was lost.
    """
    shutil.rmtree(directory, ignore_errors=True)
    with recovered(installation, base, directory, restore) as server:
        losses = find_losses(server, runs)
    if not losses:
        shutil.rmtree(directory)
    return losses


def find_losses(server: Cluster, runs: Sequence[Run]) -> list[Loss]:
    """What of *runs* is not on that server."""
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
