"""A failover under load, with walstream as a synchronous standby, and recovery across it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.integration.chain import KEEP
from tests.servers import Clusters
from tests.servers.daemon import Walstream, await_streaming, wait_until
from tests.servers.restoring import Restorer, Restoring, recovered, restore_wal
from tests.torture.clients import Clients, make_table
from tests.torture.record import Record, Run
from tests.torture.recovery import find_losses
from walstream.embedded import Cluster


class _Load:
    """Clients that commit on the primary of the moment."""

    def __init__(self, primary: Cluster, record: Record) -> None:
        self.primary = primary
        self.record = record
        self.clients = Clients(lambda: self.primary.conninfo(), record, 3)
        with primary.connect() as connection:
            make_table(connection, 0)

    def await_commits(self, count: int = 100) -> None:
        """Wait until so many more are confirmed."""
        assert self.record.wait_for(self.record.total + count, 60), "commits do not pass"


@contextmanager
def load(primary: Cluster, path: Path) -> Iterator[_Load]:
    """Commits while the context lasts, from when a standby confirms them."""
    record = Record(path)
    under_load = _Load(primary, record)
    under_load.clients.start()
    under_load.clients.resume()
    try:
        yield under_load
    finally:
        under_load.clients.stop()
        record.close()


def test_a_failover_under_load_loses_nothing(
    clusters: Clusters, directory: Path, tmp_path: Path
) -> None:
    """The primary dies under load; the archive goes on with its successor, and has every commit.

    The standby reads the archive before it is promoted: what walstream has confirmed and the
    standby has not received yet is not lost, and does not become a fork.
    """
    primary = clusters.primary(
        settings=KEEP | {"synchronous_standby_names": "FIRST 2 (walstream, standby)"}
    )
    standby = clusters.standby(primary, primary.conninfo(application_name="standby"))
    standby.configure({"synchronous_standby_names": "walstream"})
    archive, base = tmp_path / "archive", directory / "base"
    both = primary.conninfo(
        host="127.0.0.1,127.0.0.1",
        port=f"{primary.port},{standby.port}",
        target_session_attrs="read-write",
    )
    restore = restore_wal(archive, "--partial")
    with (
        Walstream(
            "receive", "-d", both, "-D", archive, "--synchronous", log=tmp_path / "log"
        ) as ours,
        Restoring(standby.directory, standby.data, restore, standby.account) as restoring,
    ):
        await_streaming(primary)
        primary.base_backup(base, "-X", "none")
        standby.configure({"restore_command": restoring.command})
        standby.reload()
        with load(primary, tmp_path / "confirmed") as under_load:
            under_load.await_commits()
            early = under_load.record.runs(0)
            primary.query("SELECT pg_create_restore_point('before')")
            under_load.await_commits()
            primary.kill()
            ours.await_text("trying again")  # the archive has all that will come
            before = len(restoring.restored)
            wait_until(lambda: len(restoring.restored) >= before + 4, "the archive's tail replayed")
            standby.promote()
            under_load.primary = standby
            under_load.await_commits()
            late = under_load.record.runs(0)
            standby.query("SELECT pg_create_restore_point('after')")
            under_load.await_commits()
        assert "switched to timeline 2" in ours.text
        assert ours.stop() == 0
    standby.kill()
    every = under_load.record.runs(0)
    _check_recovery(base, directory / "latest", restore, clusters, every, [])
    _check_recovery(base, directory / "after", restore, clusters, late, every)
    _check_recovery(base, directory / "before", restore, clusters, early, late)


def _check_recovery(
    base: Path,
    target: Path,
    restore: Restorer,
    clusters: Clusters,
    there: Sequence[Run],
    not_all_there: Sequence[Run],
) -> None:
    """Recover to the restore point of that name, or to the end; and look at what is there."""
    settings = {} if target.name == "latest" else {"recovery_target_name": target.name}
    if target.name == "before":
        settings["recovery_target_timeline"] = "1"
    with recovered(clusters.installation, base, target, restore, **settings) as server:
        assert not find_losses(server, there)
        assert not not_all_there or find_losses(server, not_all_there), "it missed its target"
        history = max(path.name for path in (server.data / "pg_wal").glob("*.history"))
        assert history == "00000003.history"
