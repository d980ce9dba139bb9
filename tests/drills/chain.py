"""A hub behind a hub behind a hub, with standbys at each: links are killed, and come back."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree

from tests.integration.load import pgbench, prepare_pgbench
from tests.servers import Clusters
from tests.servers.clusters import fill
from tests.servers.comparing import await_end, differing
from tests.servers.daemon import Serving, wait_until
from walstream.cli.status_report import make_report
from walstream.embedded import Cluster
from walstream.embedded.configuration import free_port
from walstream.errors import StatusUnknown

__all__ = ["Outcome", "Plan", "drill"]

_SETTINGS: Mapping[str, str | int] = {"wal_keep_size": "1GB", "max_connections": 40}


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens.

    :ivar rounds: how often something is killed, and comes back.
    :ivar promotions: in how many of the rounds it is the primary, for good.
    """

    rounds: int
    promotions: int
    seed: int


@dataclass(slots=True)
class Outcome:
    """What came of it.

    :ivar troubles: what is not as it should be.
    :ivar done: how often what was killed.
    :ivar slowest: seconds until all standbys had all again, after the worst round.
    """

    troubles: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    timeline: int = 1

    def summary(self, plan: Plan) -> str:
        """All of it in a few lines."""
        acts = ", ".join(f"{name} {count}" for name, count in sorted(self.done.items()))
        return (
            f"{plan.rounds} rounds; killed: {acts}; the last timeline is {self.timeline}\n"
            f"all standbys had all again after at most {self.slowest:.1f} s\n"
            f"troubles: {self.troubles or 'none'}"
        )


class _Link:
    """A walstream process of the chain, which can be killed and started again in its place."""

    def __init__(self, name: str, log: Path, command: Callable[[], tuple[str | Path, ...]]) -> None:
        self.name = name
        self.port = free_port()
        self._log = log
        self._command = command
        self.process: Serving | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.process is None:
            self.process = Serving(*self._command(), log=self._log, port=self.port)

    def kill(self) -> None:
        """End it by SIGKILL, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process = None

    def conninfo(self, name: str) -> str:
        """How a client of that name connects."""
        return f"host=127.0.0.1 port={self.port} user=postgres application_name={name}"


class Chain:
    """``primary -> hub1 -> send1 -> hub2 -> hub3``, and standbys behind hub1, send1, hub2, hub3.

    send1 serves the archive of hub1. As a context manager it ends its links; the servers are
    those of *clusters*.

    :ivar primary: the server that takes writes now.
    :ivar standbys: each behind the link of the same index in `places`.
    """

    def __init__(self, clusters: Clusters, directory: Path) -> None:
        self.directory = directory
        self.primary = clusters.primary("server1", settings=_SETTINGS)
        self.places: list[_Link] = []
        self._stack = ExitStack()
        self._clusters = clusters
        self._servers = [self.primary]
        self.standbys: list[Cluster] = []

    def __enter__(self) -> Chain:
        self._servers += [self._clusters.empty(f"server{number}") for number in range(2, 6)]
        hub1 = self._link("hub1", lambda: self._hub("hub1", self._any_server()))
        send1 = self._link("send1", lambda: ("send", "-D", self.directory / "hub1"))
        hub2 = self._link("hub2", lambda: self._hub("hub2", send1.conninfo("hub2")))
        hub3 = self._link("hub3", lambda: self._hub("hub3", hub2.conninfo("hub3")))
        self.places = [hub1, send1, hub2, hub3]
        for link in self.places:
            link.start()
            if link is hub1:
                assert link.process is not None
                link.process.await_text("starting log streaming")
        self.standbys = self._servers[1:]
        self._join(self.standbys)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def await_heir(self, chance: random.Random) -> Cluster:
        """One of the standbys, when it has all that hub1 has. The primary is gone."""
        heir = chance.choice(self.standbys)
        hub1 = self.places[0].process
        assert hub1 is not None
        # Up to then more may come, of what the primary had sent.
        wait_until(self._hub1_has_no_primary, "hub1 has lost the primary")
        _, end = hub1.end()
        received = "SELECT pg_last_wal_receive_lsn() >= %s::pg_lsn"
        wait_until(lambda: heir.query(received, end) == [(True,)], "the heir has all", 60)
        return heir

    def replace(self, heir: Cluster) -> None:
        """A standby was promoted: a new one takes its place, in the directory of the fallen."""
        fallen, self.primary = self.primary, heir
        self.standbys[self.standbys.index(heir)] = fallen
        rmtree(fallen.data)
        self._join([fallen])

    def _hub1_has_no_primary(self) -> bool:
        with suppress(StatusUnknown):  # a process is being started
            upstream = make_report(str(self.directory / "hub1"))["upstream"]
            return upstream is not None and upstream["state"] in ("waiting", "connecting")
        return False

    def _link(self, name: str, command: Callable[[], tuple[str | Path, ...]]) -> _Link:
        link = _Link(name, self.directory / f"{name}.log", command)
        self._stack.callback(link.kill)
        return link

    def _hub(self, name: str, upstream: str) -> tuple[str | Path, ...]:
        return ("hub", "-d", upstream, "-D", self.directory / name)

    def _any_server(self) -> str:
        ports = ",".join(str(server.port) for server in self._servers)
        hosts = ",".join("127.0.0.1" for _ in self._servers)
        return f"host={hosts} port={ports} user=postgres target_session_attrs=read-write"

    def _join(self, standbys: list[Cluster]) -> None:
        """Have these, which have no data yet, follow their places."""
        base = self.directory / "base"
        rmtree(base, ignore_errors=True)
        self.primary.base_backup(base)
        for standby in standbys:
            place = self.places[self.standbys.index(standby)]
            fill(standby, base)
            standby.follow(place.conninfo(standby.directory.name))
            standby.start()


def drill(clusters: Clusters, directory: Path, plan: Plan) -> Outcome:
    """Run a drill to its end.

    :param directory: for archives, the base backup and logs; one that every user can enter.
    """
    outcome, chance = Outcome(), random.Random(plan.seed)
    promotions = set(chance.sample(range(plan.rounds), plan.promotions))
    with Chain(clusters, directory) as chain:
        prepare_pgbench(chain.primary)
        for number in range(plan.rounds):
            if number in promotions:
                _fail_over(chain, chance, outcome.done)
            with pgbench(chain.primary, clients=2):
                _break_links(chain, chance, outcome.done)
            outcome.slowest = max(outcome.slowest, _until_all_have_all(chain))
        different = differing(chain.primary, chain.standbys, timeout=40)
        outcome.troubles = [f"{name} is not the primary's" for name in different]
        [(outcome.timeline,)] = chain.primary.query(
            "SELECT timeline_id FROM pg_control_checkpoint()"
        )
    return outcome


def _fail_over(chain: Chain, chance: random.Random, done: Counter[str]) -> None:
    """Lose the primary and promote a standby; links may be lost before it, or be down for it."""
    done["primary"] += 1
    chain.primary.kill()
    if chance.random() < 0.5:
        _break_links(chain, chance, done)
    heir = chain.await_heir(chance)
    if chance.random() < 0.5:
        _break_links(chain, chance, done, heir.promote)
    else:
        heir.promote()
    chain.replace(heir)


def _break_links(
    chain: Chain,
    chance: random.Random,
    done: Counter[str],
    meanwhile: Callable[[], None] = lambda: None,
) -> None:
    broken = chance.sample(chain.places, chance.randint(1, len(chain.places)))
    for link in broken:
        time.sleep(chance.uniform(0.0, 0.5))
        done[link.name] += 1
        link.kill()
    meanwhile()
    chance.shuffle(broken)
    for link in broken:
        time.sleep(chance.uniform(0.0, 0.5))
        link.start()


def _until_all_have_all(chain: Chain) -> float:
    begun = time.monotonic()
    await_end(chain.primary, chain.standbys, timeout=40)
    return time.monotonic() - begun
