"""Our WAL is WAL to PostgreSQL's own tools, and its WAL is WAL to us, on every version."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from crc32c import crc32c

from tests.servers import Clusters, every_version
from walstream.embedded import Installation
from walstream.formats.lsn import LSN
from walstream.formats.pages import PAGE_SIZE, SegmentHeader, major_version
from walstream.formats.records import RecordHeader, end_of_wal, walk
from walstream.formats.segments import SegmentSize, parse_segment_file
from walstream.testing.wal import WALBuilder

_SIZE = SegmentSize(1 << 20)
_RECORD = re.compile(r"len \(rec/tot\): +\d+/ *(\d+),.* lsn: (\S+), prev (\S+), desc: (\w+)")


class _Dumped(NamedTuple):
    """What pg_waldump says of a record."""

    length: int
    lsn: LSN
    previous: LSN
    kind: str


def _dump(
    installation: Installation, directory: Path, names: Sequence[str]
) -> tuple[list[_Dumped], str]:
    """The records that pg_waldump finds in these segments, and what it says at the end of WAL."""
    program = installation.tool("pg_waldump")
    arguments: list[str | Path] = [program, "-p", directory, min(names), max(names)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=60)
    records = [
        _Dumped(int(length), LSN.parse(lsn), LSN.parse(previous), kind)
        for length, lsn, previous, kind in _RECORD.findall(done.stdout)
    ]
    assert len(records) == len(done.stdout.splitlines())
    return records, done.stderr


def _found(records: Sequence[RecordHeader]) -> list[tuple[int, LSN, LSN]]:
    return [(record.length, record.lsn, record.previous) for record in records]


def _complains_of(end: LSN) -> str:
    # It always does at the end of WAL; "wanted 24" became "expected at least 24" in 16.
    return rf"invalid record length at {end}: [a-z ]+ 24, got 0"


def _write(wal: WALBuilder, directory: Path) -> list[str]:
    segments = wal.segments()
    for name, content in segments.items():
        (directory / name).write_bytes(content)
    return list(segments)


@every_version
def test_pg_waldump_reads_what_was_built(installation: Installation, directory: Path) -> None:
    """It finds each record, and nothing wrong before the end."""
    wal = WALBuilder(segment_size=_SIZE, major=installation.major)
    for size in (0, 1, 255, 256, 3 * PAGE_SIZE, _SIZE + 5000):
        wal.noop(size)
    wal.fill_to(wal.end - wal.end % PAGE_SIZE + 2 * PAGE_SIZE - 8)
    wal.noop()  # its header is split
    wal.fill_segment()
    wal.noop()
    wal.switch()
    wal.noop()
    wal.crash()
    wal.noop(2 * PAGE_SIZE)

    records, complaint = _dump(installation, directory, _write(wal, directory))

    assert [record[:3] for record in records] == _found(wal.records)
    assert {record.kind for record in records} == {"NOOP", "SWITCH", "OVERWRITE_CONTRECORD"}
    assert re.search(_complains_of(wal.end), complaint)


@every_version
def test_pg_waldump_follows_a_child_timeline(installation: Installation, directory: Path) -> None:
    """A branch goes on where its parent was left, in a segment of its own."""
    parent = WALBuilder(segment_size=_SIZE, major=installation.major)
    parent.noop(3 * PAGE_SIZE)
    child = parent.branch(2)
    child.noop(3 * PAGE_SIZE)
    child.switch()
    child.noop()

    records, complaint = _dump(installation, directory, _write(child, directory))

    assert [record[:3] for record in records] == _found(child.records)
    assert re.search(_complains_of(child.end), complaint)


@every_version
def test_walk_reads_the_wal_of_a_server(clusters: Clusters) -> None:
    """It finds the records that pg_waldump finds, with the same lengths."""
    primary = clusters.primary(settings={"wal_keep_size": "64MB"})
    primary.query(
        "CREATE TABLE t AS SELECT g, repeat('x', g % 300) FROM generate_series(1, 9000) g"
    )
    primary.query("CHECKPOINT")
    primary.query("UPDATE t SET g = g + 1")
    primary.query("SELECT pg_switch_wal()")
    primary.query("SELECT pg_logical_emit_message(false, 'walstream', repeat('y', 2500000))")
    primary.stop()
    directory = primary.data / "pg_wal"
    names = [path.name for path in directory.iterdir() if parse_segment_file(path.name, _SIZE)]
    wal = b"".join((directory / name).read_bytes() for name in sorted(names))
    header = SegmentHeader.parse(wal)

    records, _ = _dump(primary.installation, directory, names)
    walked = list(walk(wal, header.address, _SIZE, crc32c=crc32c))

    assert [record[:3] for record in records] == _found(walked)
    assert end_of_wal(wal, header.address, _SIZE, crc32c=crc32c).lsn == walked[-1].end
    assert major_version(header.magic) == primary.installation.major
    assert any(record.is_switch for record in walked)
    assert any(record.length > 2 * _SIZE for record in walked)
