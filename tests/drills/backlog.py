"""A standby of an old base backup: all WAL since then, out of a compressed archive, at one go."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.chain import walreceiver
from tests.integration.load import pgbench, prepare_pgbench
from tests.servers import Clusters
from tests.servers.comparing import differing
from tests.servers.daemon import Serving, wait_until
from walstream.embedded import Cluster

__all__ = ["Outcome", "drill"]

_NAME = "restored"


@dataclass(slots=True)
class Outcome:
    """What came of it.

    :ivar troubles: what is not as it should be.
    :ivar compressed: how many compressed segments there were when the standby started.
    :ivar seconds: until it had caught up with the primary, under load all the while.
    :ivar sessions: how many it had with the hub by then.
    """

    troubles: list[str] = field(default_factory=list)
    compressed: int = 0
    seconds: float = 0.0
    sessions: int = 0

    def summary(self) -> str:
        """All of it in a few lines."""
        return (
            f"{self.compressed} segments compressed by zstd; a standby of a base backup before "
            f"them caught up in {self.seconds:.1f} s, under load, in {self.sessions} session\n"
            f"troubles: {self.troubles or 'none'}"
        )


def drill(clusters: Clusters, directory: Path, segments: int, segment_size: int = 1) -> Outcome:
    """Run the drill.

    :param segments: how many are to be there before the standby starts.
    :param segment_size: MiB.
    """
    outcome = Outcome()
    small = f"{4 * segment_size}MB"
    primary = clusters.primary(
        wal_segment_size=segment_size, settings={"max_wal_size": small, "min_wal_size": small}
    )
    prepare_pgbench(primary)
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")
    archive, base = directory / "archive", directory / "base"
    options = ("-d", primary.conninfo(), "-D", archive, "-S", "archive", "-Z", "zstd")
    with Serving("hub", *options, log=directory / "hub.log") as hub:
        hub.await_text("starting log streaming")
        primary.base_backup(base, "-X", "none")
        first = (base / "backup_label").read_text().split("(file ", 1)[1][:24]
        _fill(primary, archive, segments)
        outcome.compressed = len(list(archive.glob("*.zst")))
        primary.query("CHECKPOINT")
        if (primary.data / "pg_wal" / first).exists():
            outcome.troubles.append(f"the primary still has {first}")
        with pgbench(primary):
            begun = time.monotonic()
            standby = clusters.standby_of(base, hub.conninfo(application_name=_NAME), _NAME)
            receiver = walreceiver(standby)
            _await_streaming(standby, primary)
            outcome.seconds = time.monotonic() - begun
            time.sleep(1)
            if walreceiver(standby) != receiver:
                outcome.troubles.append("it has another walreceiver than at first")
        if differing(primary, [standby]):
            outcome.troubles.append("it is not the primary's")
        outcome.sessions = hub.sessions(_NAME)
        if outcome.sessions != 1:
            outcome.troubles.append(f"it had {outcome.sessions} sessions")
    return outcome


def _fill(primary: Cluster, archive: Path, segments: int) -> None:
    """Fill so many segments with what can be compressed, and wait until they are."""

    def compressed() -> int:
        return len(list(archive.glob("*.zst")))

    with primary.connect() as connection:
        while compressed() < segments:
            connection.execute(
                "SELECT pg_logical_emit_message("
                " true, 'filling', repeat(string_agg(md5((n * random())::text), ''), 5))"
                " FROM generate_series(1, 10000) AS n"
            )


def _await_streaming(standby: Cluster, primary: Cluster) -> None:
    """Wait until the standby is less than a segment behind."""

    def caught_up() -> bool:
        end = primary.end_of_wal()
        lag = standby.query("SELECT %s::pg_lsn - pg_last_wal_replay_lsn() < 1000000", end)
        return lag == [(True,)]

    wait_until(caught_up, "caught up", 300)
