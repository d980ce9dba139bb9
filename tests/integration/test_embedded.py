"""The embedded servers do what the demo and the other tests build on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import Clusters, every_version
from walstream.embedded import Account, Cluster, EmbeddedError, Installation, workspace
from walstream.embedded.processes import is_alive, processes_below


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print how long something took."""
    start = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - start:.3f} s")


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    """Poll until *condition* holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not {what} after {timeout} s"
        time.sleep(0.01)


@every_version
def test_a_whole_life(clusters: Clusters) -> None:
    """A primary is written to, followed by a standby, killed, and succeeded by the standby."""
    print(f"PostgreSQL {clusters.installation.version}")
    with timed("primary"):
        primary = clusters.primary()
    primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 1000) AS n")
    with timed("standby with base backup"):
        standby = clusters.standby(primary)
    with timed("catch-up"):
        primary.query("INSERT INTO numbers SELECT generate_series(1001, 2000)")
        standby.wait_for_replay(primary.end_of_wal())
    assert standby.query("SELECT count(*), sum(n) FROM numbers") == [(2000, 2001000)]
    # Streamed, and not by way of files: this is how a wrong libpq would show.
    streams = "SELECT state FROM pg_stat_replication"
    wait_until(lambda: primary.query(streams) == [("streaming",)], "streaming")
    with timed("kill and crash recovery"):
        primary.kill()
        primary.start()
    assert primary.query("SELECT count(*) FROM numbers") == [(2000,)]
    with timed("promotion"):
        standby.promote()
    standby.query("INSERT INTO numbers VALUES (0)")
    with timed("fast stop"):
        standby.stop()
    with timed("immediate stop"):
        primary.stop("immediate")
    assert not primary.running
    assert not standby.running


@every_version
def test_programs_are_of_the_version_that_the_test_runs_on(
    installation: Installation, request: pytest.FixtureRequest
) -> None:
    """The version in the test's name is the version of the programs."""
    assert f"pg{installation.major}" in request.node.name
    assert installation.version.startswith(f"{installation.major}.")


def test_the_demo_package_runs(directory: Path) -> None:
    """The PostgreSQL that the extra `demo` brings starts, as any user."""
    account = Account.for_servers()
    installation = Installation.from_package().for_user(account, directory / "programs")
    with Cluster(installation, directory / "server", account=account) as cluster:
        cluster.initdb()
        cluster.start()
        assert cluster.query("SHOW server_version") == [(installation.version,)]


def test_an_installation_behind_a_closed_directory_is_copied(directory: Path) -> None:
    """A server user that cannot enter the directory of the programs gets a copy that works."""
    if os.geteuid() != 0:
        pytest.skip("only root has directories that the servers' user cannot enter")
    account = Account.for_servers()
    closed = directory / "closed"
    original = Installation.from_package()._copy(account, closed)
    closed.chmod(0o700)
    os.chown(closed, 0, 0)
    copy = original.for_user(account, directory / "programs")
    assert copy.bindir.is_relative_to(directory / "programs")
    with Cluster(copy, directory / "server", account=account) as cluster:
        cluster.initdb()
        cluster.start()
        with Cluster(copy, directory / "other", account=account) as other:
            cluster.base_backup(other.data)  # by a program that needs the libraries beside


def test_two_primaries_have_one_system_identifier_unless_asked(clusters: Clusters) -> None:
    """Copies of a template are one system; with new_system=True it is another."""
    query = "SELECT system_identifier FROM pg_control_system()"
    first, second = clusters.primary(), clusters.primary()
    other = clusters.primary(new_system=True, wal_segment_size=16)
    assert first.query(query) == second.query(query)
    assert first.query(query) != other.query(query)
    assert other.query("SHOW wal_segment_size") == [("16MB",)]


def test_a_password_is_asked_for(directory: Path, installation: Installation) -> None:
    """A cluster made with a password and scram-sha-256 lets nobody in without it."""
    with Cluster(installation, directory / "server") as cluster:
        cluster.initdb(auth="scram-sha-256", password="it's \\ secret")
        cluster.start()
        with pytest.raises(Exception, match="no password supplied"):
            cluster.query("SELECT 1")
        with cluster.connect(password="it's \\ secret") as connection:
            assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_settings_and_access_lines_take_effect(primary: Cluster) -> None:
    """Awkward values arrive as they are; pg_hba.conf is replaced."""
    primary.configure({"cluster_name": "it's \\ a name", "work_mem": "5MB"})
    primary.allow("host all postgres 127.0.0.1/32 trust")
    primary.restart()
    assert primary.query("SHOW cluster_name") == [("it's \\ a name",)]
    primary.configure({"work_mem": "7MB"})
    primary.reload()
    wait_until(lambda: primary.query("SHOW work_mem") == [("7MB",)], "reloaded")
    with pytest.raises(Exception, match=r"no pg_hba\.conf entry"):
        primary.connect(user="somebody")


def test_a_server_that_cannot_start_shows_its_log(primary: Cluster) -> None:
    """The error of a failed start says what the server said, and nothing is left running."""
    primary.stop()
    primary.configure({"no_such_setting": "1"})
    with pytest.raises(EmbeddedError, match='unrecognized configuration parameter "no_such'):
        primary.start()
    assert not primary.running


def test_a_program_that_fails_shows_what_it_said(primary: Cluster) -> None:
    """The error of a failed program has its name, its output and its exit status."""
    tool = primary.installation.tool("pg_receivewal")
    with pytest.raises(
        EmbeddedError, match=r"pg_receivewal .*exit status 1\n.*no target directory"
    ):
        primary.run([tool, "--no-loop"])
    with pytest.raises(EmbeddedError, match=r"not done after 0\.2 seconds"):
        primary.run(["sleep", "60"], timeout=0.2)


def test_stopped_processes_can_still_be_ended(primary: Cluster) -> None:
    """SIGSTOP reaches every process of a server, and the end of the test reaches them too."""
    processes = [primary.pid, *processes_below(primary.pid)]
    assert len(processes) > 2
    primary.signal_all(signal.SIGSTOP)
    primary.kill()
    assert not any(map(is_alive, processes))


PARENT = """
import sys, time
from pathlib import Path
from walstream.embedded import Cluster, Installation, processes

if sys.argv[3] == "hook":
    processes._find_setpriv = lambda: None
cluster = Cluster(Installation(Path(sys.argv[1])), Path(sys.argv[2]))
cluster.initdb()
cluster.start()
print(cluster.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("way", ["setpriv", "hook"])
def test_servers_end_with_a_parent_that_was_killed(installation: Installation, way: str) -> None:
    """A parent that gets SIGKILL takes its servers along."""
    with workspace() as base:
        command = [sys.executable, "-c", PARENT, str(installation.bindir), str(base / "server")]
        with subprocess.Popen([*command, way], stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            server = int(parent.stdout.readline())
            assert is_alive(server)
            parent.kill()
        wait_until(lambda: not is_alive(server), "ended")


def test_a_killed_server_leaves_no_shared_memory(primary: Cluster) -> None:
    """Its System V segment would outlive it, and the system has room for some thousands only."""
    number = (primary.data / "postmaster.pid").read_text().splitlines()[6].split()[1]

    def segments() -> list[str]:
        table = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
        return [line.split()[1] for line in table]

    assert number in segments()
    primary.kill()
    assert number not in segments()
