"""``walstream hub`` reports for its standbys: what they have, and what they need."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.load import pg_receivewal
from tests.integration.test_status import clients as status_of_clients
from tests.integration.test_synchronous import CommitHangs, commit, demand
from tests.remote_apply import Chain, watch_commits
from tests.servers import Clusters, every_version, selected_majors
from tests.servers.daemon import Serving, wait_until
from tests.unit.test_protocols_policy import elect
from walstream.embedded import Cluster
from walstream.formats.lsn import LSN
from walstream.protocols.standbys import Standby, StandbyState

# Long enough for a commit that goes through, short enough to wait for one that does not.
_HANGS = 1.0
# What a stop may take on a busy machine: less than the minute after which a server lets go of a
# standby that does not answer, and than the ten seconds that a hub gives its clients.
_PROMPTLY = 9.0


@every_version
def test_a_commit_that_returned_is_visible(clusters: Clusters, tmp_path: Path) -> None:
    """remote_apply through the hub: the row can be read on the standby behind it, every time."""
    is_newest = clusters.installation.major == selected_majors()[-1]
    with Chain(clusters, tmp_path) as chain:
        demand(chain.primary, "hub1", "remote_apply")
        seen = watch_commits(chain.primary, chain.standby, 1000 if is_newest else 100)
        print(seen)
        assert seen.invisible == []


def test_a_chain_waits_for_its_last_standby(clusters: Clusters, tmp_path: Path) -> None:
    """Hub behind hub: a commit of the primary's waits for the standby behind the second.

    The first hub can be stopped meanwhile, and is not held up.
    """
    with Chain(clusters, tmp_path, hubs=2, position="flush") as chain:
        primary, standby = chain.primary, chain.standby
        demand(primary, "hub1", "on")
        watch_commits(primary, standby, 20)
        with stopped(standby):
            with pytest.raises(CommitHangs):
                commit(primary, seconds=_HANGS)
            assert chain.hubs[0].stop(_PROMPTLY) == 0
        chain.hubs[1].await_text("the server is shutting down")
        chain.start_again(0)
        commit(primary)


@contextmanager
def stopped(standby: Cluster) -> Iterator[None]:
    """A standby that says nothing for a while."""
    standby.signal_all(signal.SIGSTOP)
    try:
        yield
    finally:
        standby.signal_all(signal.SIGCONT)


class Clients:
    """Synchronous pg_receivewals behind a hub or a server, by name."""

    def __init__(self, upstream: Serving | Cluster, primary: Cluster, directory: Path) -> None:
        self._upstream = upstream
        self._installation = primary.installation
        self._directory = directory
        self._stack = ExitStack()
        self._running: dict[str, list[subprocess.Popen[str]]] = {}

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def come(self, name: str) -> None:
        """One of that name comes."""
        several = self._running.setdefault(name, [])
        place = self._directory / f"{name}-{len(several)}"
        conninfo = self._upstream.conninfo(application_name=name)
        client = pg_receivewal(self._installation, place, conninfo, "--synchronous", "-n")
        several.append(self._stack.enter_context(client))

    def hang(self, name: str) -> None:
        """The last of that name says nothing any more."""
        self._running[name][-1].send_signal(signal.SIGSTOP)

    def go(self, name: str) -> None:
        """The last of that name goes."""
        client = self._running[name][-1]
        client.kill()
        client.wait()


def test_standbys_leave_and_come(clusters: Clusters, tmp_path: Path) -> None:
    """FIRST: the first decides, the next takes over at once; with none commits wait, in words.

    The primary's shutdown waits for nobody.
    """
    primary = clusters.primary(settings={"wal_keep_size": "100MB"})
    log, rule = tmp_path / "log", ("--report-flush", "FIRST 1 (s1, s2)")
    options = ("hub", "-d", primary.conninfo(), "-D", tmp_path / "archive", *rule)
    with Serving(*options, log=log) as hub, Clients(hub, primary, tmp_path) as clients:
        hub.await_text("FIRST 1 (s1, s2) is not met. Not there: s1, s2")
        demand(primary, "walstream")
        with pytest.raises(CommitHangs):
            commit(primary, seconds=_HANGS)
        clients.come("s2")
        hub.await_text("is reported by FIRST 1 (s1, s2) again")
        commit(primary)
        clients.come("s1")
        flushed = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        assert primary.query(flushed) == [(1,)]
        wait_until(lambda: decides(tmp_path / "archive", "s1"), "the first decides")
        commit(primary)
        clients.hang("s1")
        with pytest.raises(CommitHangs):
            commit(primary, seconds=_HANGS)
        clients.go("s1")
        commit(primary)
        clients.hang("s2")
        with pytest.raises(CommitHangs):
            commit(primary, seconds=_HANGS)
        primary.stop("fast", timeout=_PROMPTLY)
        hub.await_text("the server is shutting down")


def decides(archive: Path, name: str) -> bool:
    """Whether a standby of that name is one of those that are waited for."""
    there = status_of_clients(archive).get(name)
    return there is not None and there["sync_state"] == "sync"


def test_an_end_to_waiting(clusters: Clusters, tmp_path: Path) -> None:
    """--report-timeout: a rule that cannot be met is lifted after it, until it can."""
    primary = clusters.primary(settings={"wal_keep_size": "100MB"})
    rule = ("--report-flush=ANY 1 (s1)", "--report-timeout=1.5")
    options = ("hub", "-d", primary.conninfo(), "-D", tmp_path / "archive", *rule)
    with Serving(*options, log=tmp_path / "log") as hub, Clients(hub, primary, tmp_path) as clients:
        hub.await_text("starting log streaming")
        demand(primary, "walstream")
        commit(primary)
        hub.await_text("ANY 1 (s1) has not been met for 1.5 s")
        assert min(commit(primary) for _ in range(3)) < 1.4
        clients.come("s1")
        hub.await_text("is reported by ANY 1 (s1) again")
        commit(primary)
        clients.hang("s1")
        with pytest.raises(CommitHangs):
            commit(primary, seconds=_HANGS)


# 007_sync_rep.pl: which of its standbys are there, and what is set.
_SETTINGS = [
    "standby1",
    "standby1,standby2",
    "standby2,standby3",
    "2(standby1,standby2,standby3)",
    "2(standby2,standby1)",
    "2(standby1,*)",
    "2(*)",
    "FIRST 2(standby1,standby3)",
    "3(standby1,standby2,standby3,standby4)",
    "ANY 2(standby1,standby2)",
    "ANY 2(*)",
    "ANY 2(standby1,standby2,standby3)",
    "*",
    "absent",
    "5(*)",
]
_STATES = """
SELECT application_name, state, flush_lsn::text, sync_priority, sync_state
FROM pg_stat_replication ORDER BY backend_start
"""


@pytest.mark.postgresql(15, 18)
def test_names_mean_what_they_mean_to_postgresql(clusters: Clusters, tmp_path: Path) -> None:
    """Who is sync, potential, quorum, async, and of which priority: a server says the same."""
    primary = clusters.primary(settings={"wal_keep_size": "100MB"})
    with Clients(primary, primary, tmp_path) as clients:
        for number, name in enumerate(("standby3", "standby1", "standby2", "standby1"), 1):
            clients.come(name)
            wait_until(lambda count=number: streaming(primary) == count, "streaming")  # type: ignore[misc]
        for setting in _SETTINGS:
            demand(primary, setting)
            # Each walsender reads the setting in its own time.
            wait_until(lambda: says_the_same(primary, setting), setting)  # noqa: B023


def says_the_same(primary: Cluster, setting: str) -> bool:
    """Whether a server and we see its standbys alike."""
    rows = primary.query(_STATES)
    several = [
        Standby(
            *(pid, "u", name, None, 0.0),
            state=StandbyState(state),
            timeline=3,
            flush=LSN.parse(flush),
        )
        for pid, (name, state, flush, *_) in enumerate(rows)
    ]
    election = elect(setting, *several)
    ours = [(election.priority_of(each), election.state_of(each)) for each in several]
    return ours == [tuple(row[3:]) for row in rows]


def streaming(primary: Cluster) -> int:
    """How many clients have caught up, and have said what is durable."""
    query = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming' AND flush_lsn IS NOT NULL"
    return len(primary.query(query))
