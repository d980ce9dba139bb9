"""A promotion upstream, followed by ``walstream receive`` and through ``walstream hub``."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.defects.scenes import die_in_a_record
from tests.integration.chain import KEEP, any_of, follow, switch_and_crash
from tests.integration.load import await_segments, finished_segments, identical
from tests.servers import Clusters, every_version
from tests.servers.clusters import left_alone
from tests.servers.daemon import Serving, Walstream, await_streaming, wait_until


@every_version
def test_a_promotion_is_followed(clusters: Clusters, tmp_path: Path) -> None:
    """The history file, the old timeline's last segment and the new timeline's WAL are archived."""
    primary = clusters.primary(settings=KEEP)
    standby = clusters.standby(primary)
    archive = tmp_path / "archive"
    with Walstream(
        "receive", "-d", standby.conninfo(), "-D", archive, log=tmp_path / "log"
    ) as ours:
        ours.await_text("starting log streaming")
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 50000) AS n")
        standby.wait_for_replay(primary.end_of_wal())
        standby.promote()
        ours.await_text("switched to timeline 2")
        standby.query("INSERT INTO numbers SELECT generate_series(1, 50000)")
        standby.query("SELECT pg_switch_wal()")
        new = "00000002" + "?" * 16
        wait_until(lambda: len(list(archive.glob(new))) >= 2, "two segments of timeline 2")
        assert ours.stop() == 0
    history = (standby.data / "pg_wal" / "00000002.history").read_bytes()
    assert (archive / "00000002.history").read_bytes() == history
    assert list(archive.glob("00000001*.partial")), "the old timeline's last segment is gone"
    names = [path.name for path in archive.glob(new)]
    assert set(names) <= set(identical(archive, standby.data / "pg_wal", len(names)))


@every_version
def test_a_hub_leads_its_standby_over(clusters: Clusters, tmp_path: Path) -> None:
    """A standby behind the hub goes on to the new timeline without a restart."""
    primary = clusters.primary(settings=KEEP)
    middle = clusters.standby(primary, name="middle")
    archive = tmp_path / "archive"
    with Serving("hub", "-d", middle.conninfo(), "-D", archive, log=tmp_path / "log") as relay:
        await_streaming(middle)
        last = clusters.standby(primary, relay.conninfo(), "last")
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 50000) AS n")
        last.wait_for_replay(primary.end_of_wal())
        middle.promote()
        middle.query("INSERT INTO numbers SELECT generate_series(1, 50000)")
        await_segments(archive, 1)
        last.wait_for_replay(middle.end_of_wal())
        assert last.query("SELECT count(*) FROM numbers") == [(100000,)]


def ranges(archive: Path) -> list[dict[str, Any]]:
    """What the archive's ledger says that it holds."""
    found: list[dict[str, Any]] = json.loads((archive / ".walstream" / "ledger.json").read_text())[
        "ranges"
    ]
    return found


def assert_contiguous(archive: Path, *timelines: int) -> None:
    """The timelines follow on one another, and every segment in between is there."""
    held = ranges(archive)
    assert [each["timeline"] for each in held] == list(timelines)
    for one, two in pairwise(held):
        assert one["end"] == two["start"], held
    numbers = {
        int(name[8:16], 16) << 12 | int(name[16:], 16) for name in finished_segments(archive)
    }
    assert numbers == set(range(min(numbers), max(numbers) + 1))
    for timeline in timelines[1:]:
        assert (archive / f"{timeline:08X}.history").exists()


def test_promotions_on_a_segment_boundary(clusters: Clusters, tmp_path: Path) -> None:
    """Twice in a row, from host to host: each timeline ends where a segment does."""
    primary = clusters.primary(settings=KEEP)
    first = clusters.standby(primary, name="first", settings=KEEP)
    second = clusters.standby(primary, name="second", settings=KEEP)
    archive = tmp_path / "archive"
    hosts = any_of(first, second)
    with Walstream("receive", "-d", hosts, "-D", archive, log=tmp_path / "log") as ours:
        ours.await_text("starting log streaming")
        switch_and_crash(primary, first, second)
        first.promote()
        ours.await_text("switched to timeline 2")
        follow(second, first)
        switch_and_crash(first, second)
        second.promote()
        ours.await_text("switched to timeline 3")
        second.query("SELECT pg_switch_wal()")
        wait_until(lambda: bool(list(archive.glob("00000003" + "?" * 16))), "timeline 3")
        assert ours.stop() == 0
    assert_contiguous(archive, 1, 2, 3)
    for each in ranges(archive)[1:]:
        assert each["start"].endswith("00000"), "the timeline did not begin with a segment"


def test_two_promotions_while_we_were_down(clusters: Clusters, tmp_path: Path) -> None:
    """Each timeline in between is received, and its history file made if the server lost it."""
    primary = clusters.primary(settings=KEEP)
    first = clusters.standby(primary, name="first", settings=KEEP)
    second = clusters.standby(primary, name="second", settings=KEEP)
    archive = tmp_path / "archive"
    with Walstream(
        "receive", "-d", primary.conninfo(), "-D", archive, log=tmp_path / "one"
    ) as ours:
        ours.await_text("starting log streaming")
        primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 50000) AS n")
        await_segments(archive, 1)
        assert ours.stop() == 0
    with left_alone(primary):  # or second would have more of timeline 1 than first
        for old, new in ((primary, first), (first, second)):
            if new is second:
                follow(second, first)
            old.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
            end = old.end_of_wal()
            for standby in (first, second) if new is first else (second,):
                standby.wait_for_replay(end)
            new.promote()
    history = second.data / "pg_wal" / "00000002.history"
    content = history.read_bytes()
    history.unlink()
    second.query("INSERT INTO numbers SELECT generate_series(1, 20000)")
    second.query("SELECT pg_switch_wal()")
    with Walstream("receive", "-d", second.conninfo(), "-D", archive, log=tmp_path / "two") as ours:
        ours.await_text("switched to timeline 3")
        wait_until(lambda: bool(list(archive.glob("00000003" + "?" * 16))), "timeline 3")
        assert ours.stop() == 0
    assert (archive / "00000002.history").read_bytes() == content
    assert list(archive.glob("00000001*.partial")), "the old timeline's last segment is gone"
    assert_contiguous(archive, 1, 2, 3)


def test_an_unfinished_record_is_no_fork(clusters: Clusters, tmp_path: Path) -> None:
    """The primary is killed inside a record of which we have more than the one that follows it:
    that is given up, and the new timeline followed, over several hosts.
    """
    primary = clusters.primary(settings=KEEP)
    standby = clusters.standby(primary, settings=KEEP)
    archive = tmp_path / "archive"
    hosts = any_of(primary, standby, target_session_attrs="read-write")
    arguments = ("receive", "-d", hosts, "-D", archive, "--synchronous")

    with Walstream(*arguments, log=tmp_path / "log") as ours:
        ours.await_text("starting log streaming")
        standby.wait_for_replay(primary.end_of_wal())
        die_in_a_record(primary, archive)
        standby.promote()
        ours.await_text("inside a record that never became whole")
        ours.await_text("switched to timeline 2")
        standby.query("CREATE TABLE numbers AS SELECT generate_series(1, 50000) AS n")
        standby.query("SELECT pg_switch_wal()")
        wait_until(lambda: bool(list(archive.glob("00000002" + "?" * 16))), "timeline 2")
        ours.kill()
    left = ranges(archive)[0]["end"]
    with Walstream(*arguments, log=tmp_path / "again") as ours:
        ours.await_text("starting log streaming")
        standby.query("INSERT INTO numbers SELECT generate_series(1, 50000)")
        standby.query("SELECT pg_switch_wal()")
        new = "00000002" + "?" * 16
        wait_until(lambda: len(list(archive.glob(new))) >= 4, "four segments of timeline 2")
        assert "(timeline 2)" in ours.text
        assert ours.stop() == 0
    assert [(each["timeline"], each["start"]) for each in ranges(archive)][1:] == [(2, left)]
    number = int(left.split("/")[1], 16) >> 20
    assert (archive / f"0000000200000000{number:08X}").exists(), "its first segment is not whole"
    beyond = [path.name for path in archive.glob("00000001*.partial")]
    assert all(int(name[16:24], 16) <= number for name in beyond), beyond
    names = [path.name for path in archive.glob(new)]
    assert set(names) <= set(identical(archive, standby.data / "pg_wal", len(names)))
