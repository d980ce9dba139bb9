"""WAL of real servers is checked as it comes, and when it is kept: damage is found, and refused."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import pytest
from crc32c import crc32c

from tests.integration.load import await_segments, finished_segments
from tests.servers import Clusters, every_version
from tests.servers.daemon import Walstream, wait_until
from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import ArchivePaths
from walstream.archive.verification import Verification
from walstream.formats.pages import PAGE_SIZE, SegmentHeader
from walstream.formats.records import RecordHeader, walk
from walstream.formats.segments import SegmentSize

_SIZE = SegmentSize(1 << 20)


def verify(archive: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """``walstream verify``, in a process of its own: its exit status, and what it says."""
    command = [sys.executable, "-m", "walstream", "verify", "--json", *options, str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


@contextmanager
def changed(path: Path, offset: int) -> Iterator[None]:
    """A file with another byte in it, which is put right again."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 0x24]))
    try:
        yield
    finally:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(byte)


def records_in(archive: Path, name: str) -> list[RecordHeader]:
    """The records that begin in a segment and end in it."""
    content = (archive / name).read_bytes()
    start = SegmentHeader.parse(content).address
    return list(walk(content, start, _SIZE, crc32c=crc32c))


def assert_found(archive: Path, segments: int) -> None:
    """A byte that is changed in any record of any segment is found, and where it is."""
    chance = random.Random(os.environ.get("PYTEST_XDIST_WORKER", "20"))
    names = [name for name in finished_segments(archive) if records_in(archive, name)]
    for name in chance.sample(names, segments):
        record = chance.choice(records_in(archive, name))
        while True:
            position = chance.randrange(record.lsn, record.end)
            if position % PAGE_SIZE >= 40 and position - record.lsn < record.length:
                break
        with changed(archive / name, _SIZE.offset(position)):
            found = list(Verification(FileSystem(), ArchivePaths(str(archive))).findings())
        assert name in {finding.subject for finding in found}, f"{position:X} in {record}"


@every_version
def test_wal_of_servers_is_good(clusters: Clusters, tmp_path: Path) -> None:
    """Received with ``--verify=records`` over a promotion; and every change to it is found."""
    primary = clusters.primary(settings={"wal_keep_size": "64MB"})
    standby = clusters.standby(primary)
    archive = tmp_path / "archive"
    options: list[str | Path] = [
        "-d",
        standby.conninfo(),
        "-D",
        archive,
        "--verify=records",
        "--synchronous",
    ]
    with Walstream("receive", *options, log=tmp_path / "log") as ours:
        ours.await_text("starting log streaming")
        primary.query(
            "CREATE TABLE t AS SELECT g, repeat('x', g % 300) FROM generate_series(1, 9000) AS g"
        )
        primary.query("UPDATE t SET g = g + 1")
        primary.query("SELECT pg_logical_emit_message(false, 'walstream', repeat('y', 2500000))")
        primary.query("SELECT pg_switch_wal()")
        primary.query("CHECKPOINT")
        standby.wait_for_replay(primary.end_of_wal())
        standby.promote()
        ours.await_text("switched to timeline 2")
        standby.query("INSERT INTO t SELECT g FROM generate_series(1, 20000) g")
        standby.query("SELECT pg_switch_wal()")
        wait_until(lambda: len(list(archive.glob("00000002" + "?" * 16))) >= 2, "two segments")
        assert ours.stop() == 0
        assert "damaged" not in ours.text

    status, said = verify(archive)
    assert (status, said["summary"]["faults"]) == (0, 0), said
    assert said["summary"]["segments"] == len(list(archive.glob("0" * 7 + "?" * 17 + "*")))
    assert said["summary"]["records"] > 10_000
    assert_found(archive, 6)
    first, second = (archive / name for name in finished_segments(archive)[1:3])
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert {first.name, second.name} <= {each["subject"] for each in verify(archive)[1]["findings"]}


@pytest.mark.parametrize("level", ["headers", "records"])
def test_damaged_wal_of_a_server_is_not_acknowledged(
    clusters: Clusters, tmp_path: Path, level: str
) -> None:
    """What the server's disk has damaged is refused, and taken once it is put right."""
    primary = clusters.primary(settings={"wal_keep_size": "64MB"})
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")
    primary.query("CREATE TABLE t AS SELECT g FROM generate_series(1, 60000) g")
    primary.query("SELECT pg_switch_wal()")
    primary.query("INSERT INTO t VALUES (1)")
    names = finished_segments(primary.data / "pg_wal")
    damaged = names[2]
    offset = 30 * PAGE_SIZE + (8 if level == "headers" else 4000)
    archive = tmp_path / "archive"
    options: list[str | Path] = [
        "-d",
        primary.conninfo(),
        "-D",
        archive,
        "-S",
        "archive",
        f"--verify={level}",
    ]
    with (
        changed(primary.data / "pg_wal" / damaged, offset),
        Walstream("receive", *options, log=tmp_path / "log") as ours,
    ):
        ours.await_text("damaged WAL at")
        ours.await_text("trying again")
        assert damaged not in finished_segments(archive)
        query: LiteralString = "SELECT pg_walfile_name(restart_lsn) <= %s FROM pg_replication_slots"
        assert primary.query(query, damaged) == [(True,)]
    with Walstream("receive", *options, log=tmp_path / "log") as ours:
        await_segments(archive, 4)
        assert ours.stop() == 0
    assert verify(archive)[0] == 0


def test_on_all_cores(clusters: Clusters, tmp_path: Path) -> None:
    """As many processes as there are cores find the same as one."""
    primary = clusters.primary(settings={"wal_keep_size": "256MB"})
    primary.query("CREATE TABLE t AS SELECT g FROM generate_series(1, 1300000) g")
    primary.query("SELECT pg_switch_wal()")
    primary.stop()
    archive = tmp_path / "archive"
    archive.mkdir()
    names = finished_segments(primary.data / "pg_wal")
    for name in names:
        content = (primary.data / "pg_wal" / name).read_bytes()
        if SegmentHeader.parse(content).address <= _SIZE.start(len(names)):
            (archive / name).write_bytes(content)
    reports = []
    with changed(archive / names[40], 5000), changed(archive / names[70], 9000):
        for jobs in ("1", "2", "3"):
            _, said = verify(archive, "--jobs", jobs)
            del said["summary"]["seconds"]
            reports.append(said)
    assert reports[0] == reports[1] == reports[2]
    subjects = {finding["subject"] for finding in reports[0]["findings"]}
    assert {names[40], names[70]} <= subjects
