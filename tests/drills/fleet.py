"""Many standbys on one hub, under load; some of them are stopped, killed and started again."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.drills.watching import Watch
from tests.integration.load import pgbench, prepare_pgbench
from tests.servers import Clusters
from tests.servers.comparing import amcheck, differing
from tests.servers.daemon import Serving, wait_until
from walstream.embedded import Cluster

__all__ = ["Outcome", "Plan", "drill"]

_SMALL: Mapping[str, str | int] = {
    "shared_buffers": "8MB",
    "max_wal_size": "32MB",
    "min_wal_size": "4MB",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens.

    :ivar victims: how many of the standbys are troubled.
    :ivar seconds: how long the load lasts.
    :ivar options: more of the hub's.
    """

    standbys: int
    victims: int
    seconds: float
    seed: int
    options: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What came of it.

    :ivar troubles: what is not as it should be.
    :ivar done: how often what was done to a standby.
    :ivar walsenders: how often the primary was seen with which walsenders.
    :ivar memory: the hub's own, before the load, and the most during it, in bytes.
    :ivar transactions: that pgbench has committed.
    :ivar wal: bytes that passed the hub.
    """

    troubles: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    walsenders: dict[tuple[str, ...], int] = field(default_factory=dict)
    memory: tuple[int, int] = (0, 0)
    transactions: int = 0
    wal: int = 0

    def summary(self, plan: Plan) -> str:
        """All of it in a few lines."""
        before, most = self.memory
        acts = ", ".join(f"{name} {count}" for name, count in sorted(self.done.items()))
        return (
            f"{plan.standbys} standbys, {plan.victims} of them troubled: {acts}\n"
            f"{self.transactions} transactions, {self.wal / 1e6:.0f} MB of WAL\n"
            f"walsenders of the primary, and how often seen: {self.walsenders}\n"
            f"the hub's memory: {before / 1e6:.1f} MB before, at most {most / 1e6:.1f} MB\n"
            f"troubles: {self.troubles or 'none'}"
        )


class _Victim:
    """A standby, and what is being done to it."""

    def __init__(self, standby: Cluster, chance: random.Random, done: Counter[str]) -> None:
        self._standby = standby
        self._chance = chance
        self._done = done
        self._until = 0.0
        self._is_stopped = False

    def act(self, now: float) -> None:
        """Do the next thing to it, if its time has come."""
        if now < self._until:
            return
        if self._is_stopped:
            self.recover()
            self._until = now + self._chance.uniform(0.2, 1.5)
            return
        act = self._chance.choice(("SIGSTOP", "immediate stop", "kill -9", "restart"))
        self._done[act] += 1
        seconds = self._chance.uniform(0.2, 4.0)
        if act == "SIGSTOP":
            self._standby.signal_all(signal.SIGSTOP)
        elif act == "kill -9":
            self._standby.kill()
        else:
            self._standby.stop("immediate" if act == "immediate stop" else "fast")
            seconds = self._chance.uniform(0.0, 1.0)
        self._is_stopped, self._until = True, now + seconds

    def recover(self) -> None:
        """Have it run again, if it does not."""
        if self._standby.running:
            self._standby.signal_all(signal.SIGCONT)
        else:
            self._standby.start()
        self._is_stopped = False


def drill(clusters: Clusters, directory: Path, plan: Plan) -> Outcome:
    """Run a drill to its end.

    :param directory: for the archive, the base backup and the log; one that every user can enter.
    """
    outcome = Outcome()
    primary = clusters.primary(settings={"max_wal_size": "128MB", "max_connections": 40})
    prepare_pgbench(primary)
    primary.query("CREATE EXTENSION amcheck")
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")
    archive, base, log = directory / "archive", directory / "base", directory / "hub.log"
    source = ("-d", primary.conninfo(), "-D", archive, "-S", "archive")
    with Serving("hub", *source, *plan.options, log=log) as hub:
        hub.await_text("starting log streaming")
        primary.base_backup(base, "-X", "none")
        standbys = [
            clusters.standby_of(base, hub.conninfo(application_name=name), name, settings=_SMALL)
            for name in (f"standby{number}" for number in range(1, plan.standbys + 1))
        ]
        alone = "SELECT count(*) FROM pg_stat_replication"  # pg_basebackup's last one may be ending
        wait_until(lambda: primary.query(alone) == [(1,)], "one walsender")
        before = hub.memory()
        began_at = primary.end_of_wal()
        with Watch(primary, hub) as watch:
            with pgbench(primary):
                _trouble(standbys[: plan.victims], plan, outcome.done)
            different = differing(primary, standbys, timeout=120)
        outcome.walsenders = dict(watch.senders)
        outcome.memory = before, watch.most_memory
        outcome.troubles += [f"{name} is not the primary's" for name in different]
        outcome.wal = _bytes_since(primary, began_at)
        outcome.transactions = primary.query("SELECT count(*) FROM pgbench_history")[0][0]
        outcome.troubles += _findings(standbys, plan, hub, watch)
        if hub.stop() != 0:
            outcome.troubles.append("the hub did not stop in order")
    return outcome


def _trouble(standbys: Sequence[Cluster], plan: Plan, done: Counter[str]) -> None:
    chance = random.Random(plan.seed)
    victims = [_Victim(each, random.Random(chance.random()), done) for each in standbys]
    end = time.monotonic() + plan.seconds
    while (now := time.monotonic()) < end:
        for victim in victims:
            victim.act(now)
        time.sleep(0.05)
    for victim in victims:
        victim.recover()


def _bytes_since(primary: Cluster, lsn: str) -> int:
    rows = primary.query("SELECT pg_current_wal_lsn() - %s::pg_lsn", lsn)
    return int(rows[0][0])


def _findings(standbys: Sequence[Cluster], plan: Plan, hub: Serving, watch: Watch) -> list[str]:
    """What is not as it should be, besides what the standbys hold."""
    findings = [f"{each.directory.name}: {said}" for each in standbys if (said := amcheck(each))]
    if watch.senders.keys() - {("walstream",)}:
        findings.append(f"the primary had other walsenders: {watch.senders}")
    for standby in standbys[plan.victims :]:
        sessions = hub.sessions(standby.directory.name)
        if sessions != 1:
            findings.append(f"{standby.directory.name}, left alone, had {sessions} sessions")
    return findings
