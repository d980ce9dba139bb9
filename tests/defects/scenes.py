"""The scenes: a trigger each, and what came of it."""

from __future__ import annotations

import gzip
import os
import signal
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.defects.receivers import Receiver
from tests.servers import Clusters
from tests.servers.daemon import wait_until
from walstream.embedded import Cluster

__all__ = ["SCENES", "Observed", "Scene", "Stage", "die_in_a_record"]

_SEGMENT = 1 << 20
# Seconds that a lost connection may cost on a busy machine. pg_receivewal waits for five.
_STALL = 2.5


@dataclass(frozen=True, slots=True)
class Observed:
    """What came of a scene.

    :ivar is_sound: whether it is as an operator would want it.
    """

    is_sound: bool
    what: str


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a scene is played.

    :ivar directory: a new one, for archives and logs.
    :ivar patience: seconds after which a commit counts as hanging.
    """

    clusters: Clusters
    directory: Path
    receiver: Receiver
    patience: float

    @property
    def archive(self) -> Path:
        """Where the receiver writes."""
        return self.directory / "archive"

    def log(self, number: int = 1) -> Path:
        """The log of the receiver's run of that number."""
        return self.directory / f"log{number}"


Scene = Callable[[Stage], Observed]


# 1: compressed partials.


def crash_while_compressing(stage: Stage) -> Observed:
    """Killed with a compressed segment half done, and started again."""
    primary = stage.clusters.primary(settings={"wal_keep_size": "64MB"})
    receiver = stage.receiver
    with receiver.running(
        primary.conninfo(), stage.archive, "-Z", "gzip:1", log=stage.log()
    ) as running:
        _await_streaming(primary)
        _fill(primary, 0.9)
        wait_until(lambda: _bytes_sent(primary) > 0.85 * _SEGMENT, "most of a segment sent")
        time.sleep(0.5)
        running.kill()
    primary.query("SELECT pg_switch_wal()")
    with receiver.running(
        primary.conninfo(), stage.archive, "-Z", "gzip:9", log=stage.log(2)
    ) as running:
        _await_streaming(primary)
        # Two more, since walstream leaves the newest one as it is.
        for _ in range(2):
            primary.query("SELECT pg_logical_emit_message(true, '', 'x')")
            primary.query("SELECT pg_switch_wal()")
        wait_until(lambda: len(list(stage.archive.glob("*.gz"))) >= 3, "finished and compressed")
        running.stop()
    damaged = []
    for path in sorted(stage.archive.glob("*.gz")):
        original = primary.data / "pg_wal" / path.name.removesuffix(".gz")
        with suppress(OSError, EOFError, zlib.error):
            if gzip.decompress(path.read_bytes()) == original.read_bytes():
                continue
        damaged.append(path.name)
    if damaged:
        return Observed(False, f"exit status 0; finished segment {damaged[0]} cannot be read")
    return Observed(True, "every finished segment decodes to the primary's")


def _fill(primary: Cluster, part: float) -> None:
    """Write WAL that compresses, until the segment is full to that part."""
    with primary.connect() as connection:
        connection.execute("CREATE TABLE texts (t text)")
        connection.execute("SELECT pg_switch_wal()")
        while True:
            connection.execute(
                "INSERT INTO texts SELECT md5(g::text) || md5('a' || g) FROM"
                " generate_series(1, 100) g"
            )
            row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
            if row is not None and int(row[0]) % _SEGMENT > part * _SEGMENT:
                return


def _bytes_sent(primary: Cluster) -> int:
    rows = primary.query("SELECT sent_lsn - '0/0' FROM pg_stat_replication")
    return int(rows[0][0] or 0) % _SEGMENT if rows else 0


# 2: another cluster.


def another_cluster(stage: Stage) -> Observed:
    """The same directory, and a connection string that leads to another cluster."""
    first = stage.clusters.primary()
    second = stage.clusters.primary(new_system=True)
    with stage.receiver.running(first.conninfo(), stage.archive, log=stage.log()) as running:
        _await_streaming(first)
        first.query("SELECT pg_logical_emit_message(true, '', 'x')")
        time.sleep(0.2)
        running.stop()
    before = _contents(stage.archive)
    # The other one gets further than the first has.
    for _ in range(3):
        second.query("SELECT pg_logical_emit_message(true, '', repeat('x', 1000000))")
    with stage.receiver.running(
        second.conninfo(), stage.archive, "--no-loop", log=stage.log(2)
    ) as running:
        with suppress(AssertionError):
            wait_until(lambda: running.process.poll() is not None, "over", stage.patience)
        status = running.process.poll()
        if status is None:
            second.query("SELECT pg_logical_emit_message(true, '', repeat('x', 3000000))")
            time.sleep(0.5)
            running.stop()
    changed = _contents(stage.archive) != before
    if status == 1 and not changed:
        return Observed(True, "refused: both system identifiers named, nothing written")
    return Observed(False, "no word; the other cluster's WAL lies among the first one's")


def _contents(directory: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


# 3: a timeline that ends with a segment.


def promotion_at_a_boundary(stage: Stage) -> Observed:
    """A standby is promoted whose last WAL is a switch record: the timeline ends with a segment."""
    primary = stage.clusters.primary()
    standby = stage.clusters.standby(primary)
    with stage.receiver.running(standby.conninfo(), stage.archive, log=stage.log()) as running:
        _await_streaming(standby)
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 100) AS n")
        primary.query("SELECT pg_switch_wal()")
        standby.wait_for_replay(primary.end_of_wal())
        wait_until(lambda: bool(list(stage.archive.glob("?" * 24))), "a segment")
        primary.kill()
        running.stop()
    standby.promote()
    history = (standby.data / "pg_wal" / "00000002.history").read_text()
    switch = int(history.split()[1].partition("/")[2], 16)
    assert switch % _SEGMENT == 0, f"the timeline does not end on a boundary: {history}"
    with stage.receiver.running(standby.conninfo(), stage.archive, log=stage.log(2)) as running:
        standby.query("INSERT INTO numbers VALUES (101)")
        standby.query("SELECT pg_switch_wal()")
        try:
            wait_until(
                lambda: any(stage.archive.glob("00000002" + "?" * 16)), "timeline 2", stage.patience
            )
        except AssertionError:
            reason = next(line for line in running.text.splitlines() if "could not" in line)
            return Observed(False, f"stuck: {reason.partition('error: ')[2]}(no reason given)")
        running.stop()
    return Observed(True, "goes on with the new timeline, its history file fetched")


# 5: a record without an end.


def promotion_in_a_record(stage: Stage) -> Observed:
    """The primary dies while it writes a long record, and its standby is promoted."""
    primary = stage.clusters.primary(settings={"wal_keep_size": "1GB"})
    standby = stage.clusters.standby(primary)
    with stage.receiver.running(
        primary.conninfo(), stage.archive, "--synchronous", log=stage.log()
    ) as running:
        _await_streaming(primary)
        standby.wait_for_replay(primary.end_of_wal())
        die_in_a_record(primary, stage.archive)
        running.stop()
    standby.promote()
    with stage.receiver.running(
        standby.conninfo(), stage.archive, "--synchronous", log=stage.log(2)
    ) as running:
        standby.query("SELECT pg_logical_emit_message(true, '', 'x')")
        standby.query("SELECT pg_switch_wal()")
        try:
            wait_until(
                lambda: any(stage.archive.glob("00000002" + "?" * 16)), "timeline 2", stage.patience
            )
        except AssertionError:
            reason = next(line for line in running.text.splitlines() if "not in this" in line)
            return Observed(False, f"stuck: {reason.partition('ERROR: ')[2].strip()}")
        running.stop()
    return Observed(True, "goes on with the new timeline, which has none of that record")


def die_in_a_record(primary: Cluster, archive: Path) -> None:
    """Kill the primary while it writes a record of which segments are archived already.

    What it has sent ends within a segment. At the end of one, a standby waits until the next
    timeline has come as far, and then it panics, behind PostgreSQL as well.
    """
    connection = primary.connect()
    [(begin, name)] = primary.query(
        "SELECT lsn, pg_walfile_name(lsn) FROM pg_current_wal_lsn() AS lsn"
    )
    senders = [pid for (pid,) in primary.query("SELECT pid FROM pg_stat_replication")]
    sent = (
        "SELECT bool_and(sent_lsn - %s > 8000000"
        " AND (sent_lsn - '0/0') %% pg_size_bytes(current_setting('wal_segment_size')) <> 0),"
        " pg_walfile_name(min(sent_lsn)) FROM pg_stat_replication"
    )

    def write() -> None:
        with suppress(psycopg.Error):
            connection.execute("SELECT pg_logical_emit_message(false, '', repeat('x', 200000000))")

    def is_in_the_record() -> bool:
        # They have a little time again and again: left alone all could be done before we look. Who
        # sends is stopped first, while there is more to send: it ends at that of a segment, else.
        for process in (*senders, connection.info.backend_pid):
            os.kill(process, signal.SIGCONT)
        time.sleep(0.02)
        for process in (*senders, connection.info.backend_pid):
            os.kill(process, signal.SIGSTOP)
        [(is_inside, last)] = primary.query(sent, begin)
        patience = time.monotonic() + 1 if is_inside else 0
        while time.monotonic() < patience:
            if any(archive.glob(f"{last}*")):
                return True
            time.sleep(0.01)
        return False  # or it is sent as far as that, but still in a buffer that dies with it

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(is_in_the_record, "in the record")
    wait_until(lambda: sum(path.name > name for path in archive.glob("?" * 24)) > 3, "archived", 60)
    primary.kill()
    writer.join()
    connection.close()


# 4, 4b, 4c: a primary that waits.


def lost_walsender(stage: Stage) -> Observed:
    """Synchronous standby; its walsender is ended: how long commits stall."""
    primary = stage.clusters.primary()
    with stage.receiver.running(
        primary.conninfo(), stage.archive, "--synchronous", log=stage.log()
    ):
        _await_streaming(primary)
        _wait_for(primary, "receiver")
        assert _commit(primary, 30) is not None, "commits do not pass at all"
        primary.query("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        seconds = _commit(primary, 30)
    if seconds is None:
        return Observed(False, "commits stalled for more than 30 s")
    return Observed(seconds < _STALL, f"commits stalled for {seconds:.2f} s")


def slot_without_synchronous(stage: Stage) -> Observed:
    """A slot, no --synchronous, and the primary waits for it."""
    primary = stage.clusters.primary()
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")
    return _whether_it_hangs(stage, primary, "--slot", "archive")


def remote_apply(stage: Stage) -> Observed:
    """synchronous_commit = remote_apply: nothing is ever applied by an archive."""
    primary = stage.clusters.primary(settings={"synchronous_commit": "remote_apply"})
    return _whether_it_hangs(stage, primary, "--synchronous")


def _whether_it_hangs(stage: Stage, primary: Cluster, *options: str) -> Observed:
    with stage.receiver.running(
        primary.conninfo(), stage.archive, *options, log=stage.log()
    ) as running:
        _await_streaming(primary)
        _wait_for(primary, "receiver")
        seconds = _commit(primary, stage.patience)
        with suppress(AssertionError):
            wait_until(lambda: "synchronous" in running.text, "a word", min(stage.patience, 5))
        text = running.text
        running.kill()
    if seconds is None:
        return Observed(False, f"a commit hangs (waited {stage.patience:g} s), and no word of it")
    said = next((line for line in text.splitlines() if "synchronous" in line), "")
    return Observed(True, f"commits pass, after {seconds:.2f} s{_said(said)}")


def _said(line: str) -> str:
    return f'; it says: "{line.partition("] ")[2]}"' if line else ""


def _await_streaming(primary: Cluster) -> None:
    state = "SELECT state FROM pg_stat_replication WHERE application_name = 'receiver'"
    wait_until(lambda: primary.query(state) == [("streaming",)], "streaming")


def _wait_for(primary: Cluster, name: str) -> None:
    """Have the primary wait for that standby from now on."""
    primary.configure({"synchronous_standby_names": name})
    primary.reload()
    wait_until(lambda: primary.query("SHOW synchronous_standby_names") == [(name,)], "in force")


def _commit(primary: Cluster, patience: float) -> float | None:
    """Commit; the seconds that it took, None if it was not confirmed in *patience* seconds."""
    took: list[float] = []
    with primary.connect() as connection:

        def commit() -> None:
            begun = time.monotonic()
            with suppress(psycopg.Error):
                connection.execute("SELECT pg_logical_emit_message(true, '', 'x')")
                took.append(time.monotonic() - begun)

        thread = threading.Thread(target=commit)
        thread.start()
        thread.join(patience)
        result = took[0] if took else None
        if result is None:
            primary.configure({"synchronous_standby_names": ""})
            primary.reload()
            thread.join(30)
    return result


#: By the number that the defect has in our notes.
SCENES: Mapping[str, Scene] = {
    "1": crash_while_compressing,
    "2": another_cluster,
    "3": promotion_at_a_boundary,
    "4": lost_walsender,
    "4b": slot_without_synchronous,
    "4c": remote_apply,
    "5": promotion_in_a_record,
}
