"""Starting and starting again, after every kind of stop, on real servers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.integration.load import (
    await_segments,
    finished_segments,
    identical,
    pg_receivewal,
    without_gap,
)
from tests.servers import Clusters, on_versions
from tests.servers.daemon import Serving, Walstream, wait_until
from walstream.embedded import Cluster

SIZE = 1 << 20
KEEP = {"wal_keep_size": "1GB"}


def receive(primary: Cluster, archive: Path, *options: str, log: Path) -> Walstream:
    """``walstream receive`` from *primary*."""
    return Walstream("receive", "-d", primary.conninfo(), "-D", archive, *options, log=log)


def fill(primary: Cluster, segments: int = 1) -> None:
    """Have the server write that many segments, and finish them."""
    for _ in range(segments):
        primary.query("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 300000))")
        primary.query("SELECT pg_switch_wal()")


def archive_some(primary: Cluster, archive: Path, log: Path, segments: int = 3) -> None:
    """Receive that many segments and a bit, and stop."""
    with receive(primary, archive, "--synchronous", log=log) as walstream:
        walstream.await_text("starting log streaming")
        before = len(finished_segments(archive))
        fill(primary, segments)
        primary.query("SELECT pg_logical_emit_message(true, 'some', repeat('y', 30000))")
        await_segments(archive, before + segments)
        await_flush(primary)
        assert walstream.stop() == 0


def await_flush(primary: Cluster) -> None:
    """Wait until the receiver has flushed all that the server has written."""
    end = primary.end_of_wal()
    query = (
        "SELECT flush_lsn >= %s::pg_lsn FROM pg_stat_replication"
        " WHERE application_name = 'walstream'"
    )
    wait_until(lambda: primary.query(query, end) == [(True,)], f"flushed up to {end}")


def remove_old_wal(primary: Cluster) -> None:
    """Have the server recycle what it does not need."""
    for _ in range(3):
        fill(primary, 4)
        primary.query("CHECKPOINT")


def ledger(archive: Path) -> Any:
    """What the archive's ledger says."""
    return json.loads((archive / ".walstream" / "ledger.json").read_text())


def end_mark(archive: Path) -> str:
    """The archive's end, by its mark."""
    position = (archive / ".walstream" / "end").read_text().split()[1]
    high, low = (int(part, 16) for part in position.split("/"))
    return f"{high:X}/{low:X}"


def files_of(archive: Path) -> dict[str, bytes]:
    """The contents of what other programs see."""
    return {path.name: path.read_bytes() for path in archive.iterdir() if path.is_file()}


def test_a_gap_has_to_be_accepted(clusters: Clusters, tmp_path: Path) -> None:
    """An upstream without the WAL that comes next is refused, with the ways out, until one is
    taken; what was lost is then on record, and nobody is served across it.
    """
    primary = clusters.primary(settings={"wal_keep_size": "4MB"})
    archive, log = tmp_path / "archive", tmp_path / "log"
    archive_some(primary, archive, log)
    held, end = files_of(archive), end_mark(archive)
    remove_old_wal(primary)
    missing = next(path.name for path in archive.glob("*.partial")).removesuffix(".partial")
    for number, wrong in enumerate(((), ("--accept-gap=0/1000028",))):
        with receive(primary, archive, "-n", *wrong, log=tmp_path / f"log{number}") as ours:
            assert ours.wait() == 1
            for named in (missing, end, f"--accept-gap={end}", "base backup", "from elsewhere"):
                assert named in ours.text, ours.text
    assert files_of(archive) == held
    assert ledger(archive)["gaps"] == []
    # An archive that begins where the server's WAL does.
    oldest = sorted(path.name for path in (primary.data / "pg_wal").glob("0" * 7 + "1" + "?" * 16))
    with Serving(
        "hub", "-d", primary.conninfo(), "-D", archive, f"--accept-gap={end}", log=log
    ) as hub:
        hub.await_text("the archive has a gap")
        fill(primary)
        await_segments(archive, len([name for name in held if len(name) == 24]) + 1)
        (gap,) = ledger(archive)["gaps"]
        assert gap["start"] == end
        behind = finished_segments(archive)[len([name for name in held if len(name) == 24])]
        assert gap["end"] == f"0/{int(behind[16:], 16) * SIZE:X}"
        assert behind == oldest[0], (behind, oldest)
        # A follower that has all before the gap gets no further, and is told why.
        behind_us = tmp_path / "follower"
        behind_us.mkdir(mode=0o700)
        last = max(name for name in held if len(name) == 24)
        shutil.copy(archive / last, behind_us)
        with pg_receivewal(
            clusters.installation, behind_us, hub.conninfo(), "--no-loop"
        ) as follower:
            _, said = follower.communicate(timeout=30)
        assert f"requested WAL segment {missing} has already been removed" in said, said
        assert f"The archive has a gap from {end}" in said, said
        assert not [name for name in finished_segments(behind_us) if name > last]
        assert hub.stop() == 0
    identical(archive, primary.data / "pg_wal", 1)
    # It stays visible; the option may stay, too, and accepts no other.
    with receive(primary, archive, f"--accept-gap={end}", log=tmp_path / "again") as ours:
        ours.await_text("starting log streaming")
        assert f"the archive has a gap from {end}" in ours.text
        assert ours.stop() == 0


def test_a_partial_of_any_length_is_put_right(clusters: Clusters, tmp_path: Path) -> None:
    """Whatever was left of the unfinished segment, it is received again and becomes whole."""
    primary = clusters.primary(settings=KEEP)
    archive = tmp_path / "archive"
    archive_some(primary, archive, tmp_path / "log", 1)
    for length in (100, SIZE + 1):
        (partial,) = archive.glob("*.partial")
        with partial.open("r+b") as file:
            file.truncate(length)
        log = tmp_path / f"log{length}"
        archive_some(primary, archive, log, 1)
        if length < 100000:
            assert "WAL that was acknowledged is not in the archive" in log.read_text()
    # As pg_receivewal leaves it when it compresses: neither read nor written.
    (partial,) = archive.glob("*.partial")
    leftover = Path(f"{str(partial).removesuffix('.partial')}.gz.partial")
    leftover.write_bytes(b"\x1f\x8b\x08 and no more")
    partial.unlink()
    shutil.rmtree(archive / ".walstream")
    archive_some(primary, archive, tmp_path / "gz", 1)
    assert f"{leftover.name} was left unfinished by pg_receivewal" in (tmp_path / "gz").read_text()
    assert leftover.read_bytes() == b"\x1f\x8b\x08 and no more"
    assert without_gap(archive)
    names = finished_segments(archive)
    assert identical(archive, primary.data / "pg_wal", len(names)) == names


def test_a_torn_tail_is_received_again(clusters: Clusters, tmp_path: Path) -> None:
    """Zeros where durable WAL was, as a disk may leave after it lost power, are not trusted."""
    primary = clusters.primary(settings=KEEP)
    archive = tmp_path / "archive"
    archive_some(primary, archive, tmp_path / "log", 1)
    before = end_mark(archive)
    (partial,) = archive.glob("*.partial")
    with partial.open("r+b") as file:
        file.seek(12288)
        file.write(bytes(8192))
    log = tmp_path / "torn"
    archive_some(primary, archive, log, 1)
    assert "WAL that was acknowledged is not in the archive" in log.read_text()
    assert "differs" not in log.read_text()
    assert end_mark(archive) > before
    names = finished_segments(archive)
    assert identical(archive, primary.data / "pg_wal", len(names)) == names


def test_a_hole_is_noticed(clusters: Clusters, tmp_path: Path) -> None:
    """A segment that is missing in the middle is named at each start, until it is back."""
    primary = clusters.primary(settings=KEEP)
    archive = tmp_path / "archive"
    archive_some(primary, archive, tmp_path / "log", 4)
    _, lost, *_ = finished_segments(archive)
    (archive / lost).rename(tmp_path / lost)
    log = tmp_path / "hole"
    archive_some(primary, archive, log, 1)
    assert "the archive has a hole" in log.read_text()
    assert lost in log.read_text()
    (hole,) = ledger(archive)["holes"]
    assert hole["start"] == f"0/{int(lost[16:], 16) * SIZE:X}"
    shutil.copy(tmp_path / lost, archive)
    archive_some(primary, archive, tmp_path / "mended", 1)
    assert "hole" not in (tmp_path / "mended").read_text()
    assert ledger(archive)["holes"] == []
    # What is gone from the beginning on was removed, as pg_archivecleanup does it.
    (archive / finished_segments(archive)[0]).unlink()
    archive_some(primary, archive, tmp_path / "cleaned", 1)
    assert "hole" not in (tmp_path / "cleaned").read_text()
    assert ledger(archive)["removed_before"] == ledger(archive)["ranges"][0]["start"]


def test_slots_are_made_and_dropped(clusters: Clusters, tmp_path: Path) -> None:
    """With WAL reserved from the first moment; and a slot without is warned of."""
    primary = clusters.primary()
    archive = tmp_path / "archive"

    def act(status: int, *options: str) -> str:
        log = tmp_path / "slot"
        log.unlink(missing_ok=True)
        with Walstream(
            "receive", "-d", primary.conninfo(), "-S", "archive", *options, log=log
        ) as ours:
            assert ours.wait() == status, ours.text
            return ours.text

    assert 'replication slot "archive" is created' in act(0, "--create-slot")
    query = "SELECT slot_type, restart_lsn IS NOT NULL FROM pg_replication_slots"
    assert primary.query(query) == [("physical", True)]
    assert 'replication slot "archive" already exists' in act(1, "--create-slot")
    act(0, "--drop-slot")
    assert primary.query(query) == []
    assert 'replication slot "archive" does not exist' in act(1, "-n", "-D", str(archive))
    # By pg_receivewal's --create-slot, nothing is reserved.
    primary.query("SELECT pg_create_physical_replication_slot('archive')")
    with receive(primary, archive, "-S", "archive", log=tmp_path / "log") as ours:
        ours.await_text("starting log streaming")
        assert "replication slot archive holds no WAL back before it is used" in ours.text
        fill(primary)
        await_segments(archive, 1)
        assert ours.stop() == 0


@on_versions(15, 18)
def test_a_lost_slot_is_an_error(clusters: Clusters, tmp_path: Path) -> None:
    """A slot whose WAL was removed all the same: the way out is named, by old and new servers."""
    primary = clusters.primary(settings={"max_slot_wal_keep_size": "1MB"})
    archive = tmp_path / "archive"
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")
    with receive(primary, archive, "-S", "archive", log=tmp_path / "log") as ours:
        ours.await_text("starting log streaming")
        fill(primary)
        await_segments(archive, 1)
        assert ours.stop() == 0
    remove_old_wal(primary)
    assert primary.query("SELECT wal_status FROM pg_replication_slots") == [("lost",)]
    with receive(primary, archive, "-S", "archive", "-n", log=tmp_path / "lost") as ours:
        assert ours.wait() == 1
        assert f"--accept-gap={end_mark(archive)}" in ours.text, ours.text


def test_an_upstream_that_is_not_ours(clusters: Clusters, tmp_path: Path) -> None:
    """One that was restored, one that was demoted, and one that lags: nothing of it is written."""
    primary = clusters.primary(settings=KEEP)
    standby = clusters.standby(primary, settings=KEEP)
    archive = tmp_path / "archive"
    archive_some(primary, archive, tmp_path / "log", 1)
    # Restored, to an earlier time: first on the same timeline, then on one of its own.
    primary.stop()
    older = primary.clone(primary.directory.parent / "older")
    primary.start()
    archive_some(primary, archive, tmp_path / "more", 1)
    held, end = files_of(archive), end_mark(archive)

    def refused(upstream: Cluster, name: str, *said: str) -> None:
        with receive(upstream, archive, "-n", log=tmp_path / name) as ours:
            assert ours.wait() == 1
            for text in (end, *said):
                assert text in ours.text, ours.text
        assert files_of(archive) == held

    with older:
        older.start()
        end_of_older = older.query("SELECT pg_current_wal_flush_lsn()")[0][0]
        refused(older, "behind", "the server's WAL ends at", str(end_of_older)[:4])
        older.stop()
        (older.data / "standby.signal").touch()
        older.account.own(older.data / "standby.signal")
        older.start()
        older.promote()
        refused(older, "forked", "the two have forked", "is whole in the archive")
        assert not (archive / "00000002.history").exists()
    # A standby that lags is waited for.
    standby.stop()
    standby.configure({"primary_conninfo": ""})
    standby.start()
    archive_some(primary, archive, tmp_path / "ahead", 2)
    held, end = files_of(archive), end_mark(archive)
    with receive(standby, archive, log=tmp_path / "lagging") as ours:
        ours.await_text("restored or lagging server")
        assert files_of(archive) == held
        standby.configure({"primary_conninfo": primary.conninfo()})
        standby.reload()
        ours.await_text("starting log streaming")
        # It is promoted; the old primary lives on, and is no upstream any more.
        standby.wait_for_replay(primary.end_of_wal())
        standby.promote()
        ours.await_text("switched to timeline 2")
        fill(standby, 1)
        wait_until(lambda: bool(list(archive.glob("00000002" + "?" * 16))), "timeline 2")
        assert ours.stop() == 0
    fill(primary, 2)
    held, end = files_of(archive), end_mark(archive)
    refused(primary, "demoted", "starting timeline 2 is not present in the server")
