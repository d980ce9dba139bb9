"""PostgreSQL's own tests of replication slots, with slots of walstream's in their place.

They are those of ``src/test/recovery/t``: 019_replslot_limit, 044_invalidate_inactive_slots,
047_checkpoint_physical_slot, and what 001_stream_rep has of slots; and the part of
``src/bin/pg_basebackup/t/020_pg_receivewal`` that is a server's. What cannot be here: logical
slots (001, 044), which an archive does not have; injection points (047), for which a kill at
random moments stands.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.integration.load import await_segments, finished_segments, pg_receivewal
from tests.integration.test_slots import Client, prune, write_segments
from tests.servers import Clusters, every_version
from tests.servers.daemon import Serving, wait_until
from walstream.archive.filesystem import FileSystem
from walstream.archive.listing import list_archive
from walstream.archive.paths import ArchivePaths
from walstream.archive.retention import RetentionPolicy
from walstream.archive.retention import prune as remove
from walstream.embedded import Cluster, Installation
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.testing.wal import wal_bytes

SIZE = SegmentSize(1 << 20)


def listing(archive: Path) -> dict[str, Any]:
    """What the archive holds, as ``walstream ls --json`` has it."""
    return list_archive(FileSystem(), ArchivePaths(str(archive)))[0]


def slots(archive: Path) -> dict[str, dict[str, Any]]:
    """The slots of an archive."""
    return {slot["name"]: slot for slot in listing(archive)["slots"]}


def status(archive: Path, name: str) -> str | None:
    """pg_replication_slots' wal_status."""
    return str(slots(archive)[name]["wal_status"])


def made_archive(directory: Path, first: int, last: int, major: int = 18) -> Path:
    """An archive of segments that hold no records."""
    directory.mkdir(mode=0o700)
    for number in range(first, last + 1):
        content = wal_bytes(SIZE.start(number), SIZE, segment_size=SIZE, major=major)
        (directory / SIZE.name(1, number)).write_bytes(content)
    return directory


def receivewal(installation: Installation, conninfo: str, *options: str | Path) -> tuple[int, str]:
    """Run pg_receivewal to its end; the exit status and what it said."""
    done = subprocess.run(
        [installation.tool("pg_receivewal"), "-d", conninfo, *options],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr


def hub(primary: Cluster, archive: Path, log: Path) -> Serving:
    """A hub behind a primary."""
    return Serving("hub", "-d", primary.conninfo(), "-D", archive, log=log)


def test_the_limit_of_slots(clusters: Clusters, tmp_path: Path) -> None:
    """019: a standby whose slot is within the limit catches up; beyond it, the slot is lost.

    There and here: nothing at first; reserved once it was used; kept as long as it is needed,
    then beyond the limit until WAL is removed; then lost, and the standby is told so; and who
    uses a slot that is lost is disconnected, with the reasons in the log.
    """
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    archive, log = tmp_path / "archive", tmp_path / "log"
    everything = "--keep-from=readers"
    with hub(primary, archive, log) as ours:
        wait_until(lambda: listing(archive)["durable"] is not None, "an archive")
        with Client(ours.conninfo()) as client:
            client.ask("CREATE_REPLICATION_SLOT rep1 PHYSICAL")
        assert slots(archive)["rep1"]["wal_status"] is None
        standby = clusters.standby(primary, ours.conninfo(), slot="rep1")
        standby.wait_for_replay(primary.end_of_wal())
        standby.stop()
        wait_until(lambda: status(archive, "rep1") == "reserved", "reserved")
        # Within the limit, all that it needs is kept, and it catches up.
        write_segments(primary, 5)
        wait_until(lambda: len(finished_segments(archive)) > 5, "segments")
        said = prune(archive, everything, "--max-slot-wal-keep-size=20MB")
        assert "slot rep1 needs WAL from" in said
        standby.start()
        standby.wait_for_replay(primary.end_of_wal())
        standby.stop()
        # Beyond it, nothing happens before WAL is removed.
        write_segments(primary, 5)
        await_all(primary, archive)
        planned = prune(archive, everything, "--max-slot-wal-keep-size=2MB", "--dry-run")
        assert 'would invalidate obsolete replication slot "rep1"' in planned
        assert status(archive, "rep1") == "reserved"
        before = finished_segments(archive)
        said = prune(archive, everything, "--max-slot-wal-keep-size=2MB")
        assert 'invalidated obsolete replication slot "rep1": The slot\'s restart_lsn' in said
        assert len(finished_segments(archive)) < len(before) - 2
        assert slots(archive)["rep1"]["invalidation_reason"] == "wal_removed"
        ours.await_text('invalidating obsolete replication slot "rep1"')
        standby.start()
        refusal = 'can no longer access replication slot "rep1"'
        wait_until(lambda: refusal in standby.log_tail(), "the standby is told")
        standby.stop()
        with Client(ours.conninfo()) as client:
            assert client.ask("READ_REPLICATION_SLOT rep1")[2] == [[b"physical", None, None]]
            client.ask("DROP_REPLICATION_SLOT rep1")
        assert "rep1" not in slots(archive)
        # Who uses a slot and does not read is disconnected.
        start = str(SIZE.start(int(finished_segments(archive)[-1][16:], 16)))
        with Client(ours.conninfo()) as client:
            client.ask("CREATE_REPLICATION_SLOT rep3 PHYSICAL RESERVE_WAL")
            client.begin(f"START_REPLICATION SLOT rep3 {start}")
            write_segments(primary, 8)
            await_all(primary, archive)
            prune(archive, everything, "--max-slot-wal-keep-size=2MB")
            assert "terminating connection due to administrator command" in client.ending()
        ours.await_text('to release replication slot "rep3": The slot\'s restart_lsn')
        ours.await_text('You might need to increase "max_slot_wal_keep_size".')
        wait_until(lambda: status(archive, "rep3") == "lost", "lost")


def await_all(primary: Cluster, archive: Path) -> None:
    """Wait until the archive holds everything durably."""
    end = LSN.parse(primary.end_of_wal())
    wait_until(lambda: LSN.parse(listing(archive)["durable"]["lsn"]) >= end, "all of it")


def test_inactive_slots_are_invalidated(tmp_path: Path) -> None:
    """044: a slot that nobody uses for longer than the timeout; the message names both."""
    archive, log = made_archive(tmp_path / "archive", 3, 5), tmp_path / "log"
    timeout = "--idle-replication-slot-timeout=2s"
    with (
        Serving("send", "-D", archive, timeout, log=log) as ours,
        Client(ours.conninfo()) as client,
        Client(ours.conninfo()) as user,
    ):
        client.ask("CREATE_REPLICATION_SLOT idle PHYSICAL RESERVE_WAL")
        user.ask("CREATE_REPLICATION_SLOT used PHYSICAL RESERVE_WAL")
        user.begin("START_REPLICATION SLOT used 0/600000")
        ours.await_text('invalidating obsolete replication slot "idle": The slot\'s idle time of')
        assert 'exceeds the configured "idle_replication_slot_timeout" duration of 2s' in ours.text
        refusal = client.ask("START_REPLICATION SLOT idle 0/600000")
        assert refusal[1:4] == [
            b"55000",
            b'can no longer access replication slot "idle"',
            b'This replication slot has been invalidated due to "idle_timeout".',
        ]
        reason = "invalidation_reason"
        wait_until(lambda: slots(archive)["idle"][reason] == "idle_timeout", "on the disk")
        assert slots(archive)["used"]["wal_status"] == "reserved"


def test_a_slot_never_points_at_what_was_removed(
    installation: Installation, tmp_path: Path
) -> None:
    """047: killed while slots move on and WAL is removed, a slot's segment is still there."""
    archive = made_archive(tmp_path / "archive", 3, 90)
    chance = random.Random(47)
    for number in range(3):
        copy = tmp_path / f"copy{number}"
        with Serving("send", "-D", archive, log=tmp_path / f"log{number}") as ours:
            receivewal(
                installation, ours.conninfo(), "--slot=s", "--create-slot", "--if-not-exists"
            )
            with Client(ours.conninfo()) as client:
                client.ask(f"CREATE_REPLICATION_SLOT r{number} PHYSICAL RESERVE_WAL")
                # 001: where a slot stood, it stands after a restart.
                standing = client.ask("READ_REPLICATION_SLOT s")
                assert standing[2] == [
                    [b"physical", b"LSN", b"1"] if number else [b"physical", None, None]
                ]
            if number == 0:
                first = SIZE.name(1, 3)
                copy.mkdir(mode=0o700)
                (copy / first).write_bytes((archive / first).read_bytes())
            with pg_receivewal(installation, copy, ours.conninfo(), "--slot=s", "-s1"):
                await_segments(copy, 4)
                for _ in range(3):
                    remove_old(archive)
                    time.sleep(chance.random() / 10)
                ours.kill()
                remove_old(archive)
        held = [int(name[16:], 16) for name in finished_segments(archive)]
        for slot in slots(archive).values():
            if slot["restart_lsn"] is not None:
                needed = SIZE.number(LSN.parse(slot["restart_lsn"]))
                assert needed in held or needed == held[-1] + 1, (slot, held[0])


def remove_old(archive: Path) -> None:
    """Remove what nobody needs."""
    policy = RetentionPolicy(keep_from="readers")
    remove(FileSystem(), ArchivePaths(str(archive)), policy, time.time())


@every_version
def test_pg_receivewal_with_slots(installation: Installation, tmp_path: Path) -> None:
    """020: slots made, used and dropped by it; an empty directory begins where the slot is."""
    archive = made_archive(tmp_path / "archive", 3, 9, major=15)
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    with Serving("send", "-D", archive, log=tmp_path / "log") as ours:

        def act(*options: str | Path) -> tuple[int, str]:
            return receivewal(installation, ours.conninfo(), *options)

        assert act("--create-slot", "--slot=test") == (0, "")
        assert slots(archive)["test"]["restart_lsn"] is None
        code, said = act("--create-slot", "--slot=test")
        assert code == 1
        assert 'replication slot "test" already exists' in said
        assert act("--create-slot", "--slot=test", "--if-not-exists") == (0, "")
        code, said = act("-D", copy, "--slot=nosuch", "-n")
        assert code == 1
        assert 'replication slot "nosuch" does not exist' in said
        assert act("--drop-slot", "--slot=test") == (0, "")
        assert slots(archive) == {}
        with Client(ours.conninfo()) as client:
            client.ask("CREATE_REPLICATION_SLOT test PHYSICAL RESERVE_WAL")
        # WAL that comes behind the slot.
        for number in range(10, 14):
            content = wal_bytes(SIZE.start(number), SIZE, segment_size=SIZE, major=15)
            (archive / SIZE.name(1, number)).write_bytes(content)
        remove_old(archive)
        assert finished_segments(archive)[0] == SIZE.name(1, 10), "the slot holds it"
        with pg_receivewal(installation, copy, ours.conninfo(), "--slot=test", "-s1") as receiver:
            wait_until(lambda: (copy / SIZE.name(1, 13)).exists(), "all of it")
            assert finished_segments(copy)[0] == SIZE.name(1, 10)
            wait_until(lambda: slots(archive)["test"]["restart_lsn"] == "0/E00000", "moved on")
            receiver.send_signal(signal.SIGINT)
            assert receiver.wait(30) == 0


def test_a_walreceiver_with_a_temporary_slot(clusters: Clusters, tmp_path: Path) -> None:
    """``wal_receiver_create_temp_slot``: it is there while the standby is."""
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    archive = tmp_path / "archive"
    with hub(primary, archive, tmp_path / "log") as ours:
        wait_until(lambda: listing(archive)["durable"] is not None, "an archive")
        standby = clusters.standby(
            primary, ours.conninfo(), settings={"wal_receiver_create_temp_slot": "on"}
        )
        wait_until(lambda: len(slots(archive)) == 1, "a slot")
        primary.query("CREATE TABLE numbers (n int)")
        standby.wait_for_replay(primary.end_of_wal())
        (name,) = slots(archive)
        assert name.startswith("pg_walreceiver_")
        assert slots(archive)[name]["temporary"] is True
        assert slots(archive)[name]["wal_status"] == "reserved"
        standby.stop()
        wait_until(lambda: slots(archive) == {}, "gone with the standby")
