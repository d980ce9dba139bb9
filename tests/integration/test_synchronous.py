"""``walstream receive`` as a synchronous standby of real servers: no commit ever hangs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import psycopg
import pytest

from tests.servers import Clusters, every_version
from tests.servers.daemon import Walstream, wait_until
from tests.servers.proxy import Proxy
from tests.unit.test_formats_synchronous_standby_names import BAD, GOOD
from walstream.embedded import Cluster
from walstream.formats.synchronous_standby_names import SynchronousStandbyNames

# What a commit may take where nothing knows that it waits: a second, and some for this machine. A
# status update that comes by itself would let it go after ten.
_A_SECOND_OR_SO = 8.0
# What one may take when it is known, to tell it from those.
_AT_ONCE = 0.9


def receive(primary: Cluster, archive: Path, *options: str, upstream: str = "") -> Walstream:
    """``walstream receive`` that is streaming.

    :param upstream: the way to the primary, if it is not the direct one.
    """
    log = archive.with_suffix(".log")
    where = ("-d", upstream or primary.conninfo(), "-D", archive)
    walstream = Walstream("receive", *where, *options, log=log)
    walstream.await_text("starting log streaming")
    wait_until(
        lambda: bool(primary.query("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'")),
        "streaming",
    )
    return walstream


def demand(primary: Cluster, names: str, commit: str = "on") -> None:
    """Set what the primary demands of its standbys, and have it take effect in every process."""
    primary.configure({"synchronous_standby_names": names, "synchronous_commit": commit})
    primary.reload()
    wait_until(
        lambda: (
            primary.query("SHOW synchronous_standby_names") == [(names,)]
            and primary.query("SHOW synchronous_commit") == [(commit,)]
        ),
        "reloaded",
    )
    # The checkpointer tells all the others whether there is anybody to wait for: it has read its
    # files, too, before it does what it is asked for.
    primary.query("CHECKPOINT")


def commit(primary: Cluster, level: str = "", seconds: float = _A_SECOND_OR_SO) -> float:
    """Commit something; the seconds that it took. It fails if it takes more than it may."""
    warnings: list[str | None] = []
    with primary.connect() as connection:
        connection.execute("SET synchronous_commit = local")
        connection.execute("SET client_min_messages = warning")
        connection.execute("CREATE TABLE IF NOT EXISTS things (thing int)")
        connection.execute("RESET synchronous_commit")
        connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
        begun = time.monotonic()
        with Canceller(connection, seconds), connection.transaction():
            if level:
                connection.execute(f"SET LOCAL synchronous_commit = {level}".encode())
            connection.execute("INSERT INTO things VALUES (1)")
        took = time.monotonic() - begun
    # A cancel lets a commit go that waits, with a warning.
    if warnings:
        raise CommitHangs(f"after {seconds} s: {warnings}")
    return took


class CommitHangs(AssertionError):
    """A commit was waiting for longer than it may."""


class Canceller:
    """Cancels what a connection does if it takes too long."""

    def __init__(self, connection: psycopg.Connection[object], seconds: float) -> None:
        self._is_over = Event()
        self._thread = Thread(target=self._watch, args=(connection, seconds), daemon=True)

    def _watch(self, connection: psycopg.Connection[object], seconds: float) -> None:
        if not self._is_over.wait(seconds):
            connection.cancel()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


@pytest.mark.parametrize("options", [(), ("--slot", "archive")], ids=["plain", "slot"])
def test_no_commit_hangs(clusters: Clusters, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Without --synchronous: named before it connects, or by a reload while it streams.

    Without any knowledge each commit takes about a second at most; once the watch has told, none
    takes a tenth of it. So it is for each way to name it, and for each level of a commit.
    """
    # Nothing that a clock sends may let a commit go: recovery's 059_remote_apply_status_interval.
    primary = clusters.primary(settings={"wal_sender_timeout": 0})
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")
    blind = ("--synchronous-check=0", "--status-interval=0")
    with receive(primary, tmp_path / "blind", *options, *blind) as walstream:
        demand(primary, "walstream")
        for level in ("on", "remote_apply"):
            assert commit(primary, level) < _A_SECOND_OR_SO
        assert "waits for this receiver" not in walstream.text
        demand(primary, "")
        assert walstream.stop() == 0
    with receive(primary, tmp_path / "archive", *options, "--synchronous-check=0.3") as walstream:
        for number, (names, default) in enumerate(
            (
                ("walstream", "on"),
                ("WALstream, other", "remote_write"),
                ("*", "remote_apply"),
                ("ANY 1 (other, walstream)", "on"),
            ),
            1,
        ):
            demand(primary, names, default)
            commit(primary)
            _await_count(walstream, "the server waits for this receiver", number)
            times = [
                min(commit(primary, level) for _ in range(3))
                for level in ("", "on", "remote_write", "remote_apply")
            ]
            assert max(times) < _AT_ONCE, (names, times)
            demand(primary, "")
            _await_count(walstream, "does not wait for this receiver any more", number)
        assert walstream.text.count("is reported as applied") == 1
        demand(primary, "walstream")
        assert walstream.stop() == 0
    # With nobody there a commit does wait, so what was seen above means something.
    with pytest.raises(CommitHangs, match="canceling wait for synchronous replication"):
        commit(primary, seconds=0.5)


def _await_count(walstream: Walstream, text: str, count: int) -> None:
    wait_until(lambda: walstream.text.count(text) == count, f"{count} times in the log: {text}")


def test_named_when_it_connects(clusters: Clusters, tmp_path: Path) -> None:
    """What the server demands is known before the first byte comes."""
    primary = clusters.primary()
    demand(primary, "walstream", "remote_apply")
    with receive(primary, tmp_path / "archive") as walstream:
        assert "the server waits for this receiver" in walstream.text
        assert min(commit(primary) for _ in range(3)) < _AT_ONCE


def test_it_refuses(clusters: Clusters, tmp_path: Path) -> None:
    """--on-synchronous=refuse: by a reload, or from the start, it ends and names both settings."""
    primary = clusters.primary()
    options = ("--on-synchronous=refuse", "--synchronous-check=0.3")
    with receive(primary, tmp_path / "archive", *options) as walstream:
        commit(primary)
        # Who looks what the server demands is there at times, too.
        streams = "SELECT flush_lsn FROM pg_stat_replication WHERE state = 'streaming'"
        assert primary.query(streams) == [(None,)]
        demand(primary, "walstream")
        assert walstream.wait() == 1
        for words in ("synchronous_standby_names is 'FIRST 1 (walstream)'", "--on-synchronous"):
            assert words in walstream.text
    log = tmp_path / "again.log"
    with Walstream(
        "receive", "-d", primary.conninfo(), "-D", tmp_path / "archive", *options, log=log
    ) as walstream:
        assert walstream.wait() == 1
        assert "start it with --synchronous" in walstream.text
        assert "starting log streaming" not in walstream.text


def test_remote_apply_without_apply(clusters: Clusters, tmp_path: Path) -> None:
    """--report-apply=none: it is said that such commits wait, and they do; others do not."""
    primary = clusters.primary()
    options = ("--synchronous", "--report-apply=none", "--synchronous-check=0.3")
    with receive(primary, tmp_path / "archive", *options) as walstream:
        demand(primary, "walstream", "remote_apply")
        walstream.await_text("wait for ever. Use --report-apply=flush")
        assert commit(primary, "on") < _A_SECOND_OR_SO
        with pytest.raises(CommitHangs, match="canceling wait"):
            commit(primary, seconds=0.5)


def test_a_blind_watch_is_harmless(clusters: Clusters, tmp_path: Path) -> None:
    """With max_wal_senders in use up the watch cannot ask: that is said once, and nothing hangs."""
    primary = clusters.primary(settings={"max_wal_senders": 1})
    with receive(primary, tmp_path / "archive", "--synchronous-check=0.2") as walstream:
        walstream.await_text("exceeds")
        demand(primary, "walstream")
        assert commit(primary) < _A_SECOND_OR_SO
        time.sleep(0.5)
        assert walstream.text.count("cannot ask the server") == 1


@contextmanager
def committing(primary: Cluster) -> Iterator[list[tuple[float, float]]]:
    """One client that commits and commits; when each commit began, and how long it took."""
    times: list[tuple[float, float]] = []
    is_over = Event()

    def work() -> None:
        with primary.connect() as connection:
            while not is_over.is_set():
                begun = time.monotonic()
                connection.execute("INSERT INTO things VALUES (2)")
                times.append((begun, time.monotonic() - begun))

    primary.query("CREATE TABLE IF NOT EXISTS things (thing int)")
    thread = Thread(target=work)
    thread.start()
    try:
        yield times
    finally:
        is_over.set()
        thread.join(30)


def test_commits_stall_less_than_half_a_second(clusters: Clusters, tmp_path: Path) -> None:
    """When the connection is lost, by the server or on the way: the best of some cuts each.

    On a busy machine commits take their time by themselves: that comes on top.
    """
    primary = clusters.primary()
    with Proxy(primary.port) as proxy:
        upstream = primary.conninfo(port=proxy.port)
        archive = tmp_path / "archive"
        with receive(primary, archive, "--synchronous", upstream=upstream) as walstream:
            demand(primary, "walstream")
            with committing(primary) as times:
                wait_until(lambda: len(times) > 20, "commits")

                def terminate() -> None:
                    primary.query("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")

                for cut in (terminate, proxy.cut):
                    stalls = [_longest_commit(times, cut) for _ in range(3)]
                    print(f"{cut.__name__}: {', '.join(f'{stall:.3f} s' for stall in stalls)}")
                    usual = sorted(took for _, took in times)[len(times) * 99 // 100]
                    # A new connection takes about as many round trips as ten commits.
                    assert min(stalls) < 0.5 + 10 * usual, (cut.__name__, stalls, usual)
            assert walstream.text.count("starting log streaming") >= 7
            demand(primary, "")


def _longest_commit(times: list[tuple[float, float]], cut: object) -> float:
    time.sleep(1.3)  # a stream that has lasted
    begun = time.monotonic()
    assert callable(cut)
    cut()
    count = len(times)
    wait_until(lambda: len(times) > count + 20, "commits go on")
    return max(took for when, took in times if when + took >= begun)


@every_version
def test_the_setting_means_what_it_means_to_the_server(clusters: Clusters, tmp_path: Path) -> None:
    """Priorities are pg_stat_replication's, and what a server refuses we refuse too."""
    primary = clusters.primary()
    with primary.connect() as connection:
        for text in BAD:
            with pytest.raises(psycopg.Error):
                connection.execute(_set(text))
        for text in GOOD:
            # ALTER SYSTEM, not the setting, takes no newline.
            connection.execute(_set(text.replace("\n", " ")))
    with receive(primary, tmp_path / "archive", "--synchronous") as walstream:
        for text in ("a, walstream", "*", "ANY 1 (a, WALSTREAM)", 'FIRST 2 (a, "walstream")', "a"):
            with primary.connect() as connection:
                connection.execute(_set(text))
            primary.reload()
            parsed = SynchronousStandbyNames.parse(text)
            expected = parsed.priority("walstream")
            state = "quorum" if "ANY" in text else "sync" if expected else "async"
            _await_state(primary, (expected, state), text)
        primary.query("ALTER SYSTEM SET synchronous_standby_names = ''")
        primary.reload()
        walstream.stop()


def _await_state(primary: Cluster, state: tuple[int, str], names: str) -> None:
    query = "SELECT sync_priority, sync_state FROM pg_stat_replication"
    wait_until(lambda: primary.query(query) == [state], f"{state} with {names}")


def _set(text: str) -> bytes:
    quoted = text.replace("'", "''")
    return f"ALTER SYSTEM SET synchronous_standby_names = '{quoted}'".encode()
