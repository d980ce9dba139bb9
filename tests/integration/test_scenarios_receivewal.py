"""PostgreSQL's own tests of pg_receivewal, with ``walstream receive`` in its place.

They are those of ``src/bin/pg_basebackup/t/020_pg_receivewal.pl``. Elsewhere: an empty directory
and a slot (``test_receive.py``). What differs on purpose: a slot is made with WAL reserved,
segments are compressed when they are finished and never before, and there is no ``--no-sync``.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import lz4.frame
import pytest

from tests.integration.load import finished_segments
from tests.servers import Clusters
from tests.servers.daemon import Walstream, wait_until
from walstream.embedded import Cluster
from walstream.tap.options import ReceiveOptions


def run_to_the_end(primary: Cluster, archive: Path, *options: str, log: Path) -> str:
    """Write some WAL, receive it, and end behind it; what walstream said."""
    primary.query("CREATE TABLE IF NOT EXISTS numbers (n int)")
    primary.query("INSERT INTO numbers SELECT generate_series(1, 100)")
    primary.query("SELECT pg_switch_wal()")
    endpos = primary.end_of_wal()
    primary.query("INSERT INTO numbers SELECT generate_series(1, 100)")
    where = ("receive", "-d", primary.conninfo(), "-D", archive)
    with Walstream(*where, "-E", endpos, "-n", *options, log=log) as ours:
        assert ours.wait() == 0, ours.text
        return ours.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--archive is missing"),
        (("--create-slot", "--drop-slot", "-S", "test"), "cannot use --create-slot together with"),
        (("--create-slot",), "--create-slot needs a slot to be specified using --slot"),
        (("-D", "archive", "--compress", "none:1"), "does not accept a compression level"),
    ],
)
def test_option_errors(options: Sequence[str], message: str) -> None:
    """020: what pg_receivewal refuses to do is refused in its words."""
    with pytest.raises(Exception, match=message):
        ReceiveOptions().parseOptions(["-d", "host=db1", *options])  # type: ignore[no-untyped-call]


def test_a_slot_is_made_and_dropped(primary: Cluster, tmp_path: Path) -> None:
    """020: --create-slot and --drop-slot; and --if-not-exists makes a second one no error."""

    def act(*options: str) -> int:
        upstream = ("receive", "-d", primary.conninfo(), "--slot", "test")
        with Walstream(*upstream, *options, log=tmp_path / "log") as ours:
            return ours.wait()

    assert act("--create-slot") == 0
    slot = "SELECT slot_type, restart_lsn IS NOT NULL FROM pg_replication_slots"
    assert primary.query(slot) == [("physical", True)]
    assert act("--create-slot") == 1
    assert act("--create-slot", "--if-not-exists") == 0
    assert act("--drop-slot") == 0
    assert primary.query(slot) == []


def test_the_forms_of_the_segments(primary: Cluster, tmp_path: Path) -> None:
    """020: --endpos leaves one partial; it is finished by the next run, in whatever form."""
    archive = tmp_path / "archive"
    run_to_the_end(primary, archive, "--synchronous", log=tmp_path / "log")
    for options, suffix in (
        (("--compress", "gzip:1"), ".gz"),
        (("--compress", "lz4"), ".lz4"),
        (("--compress", "none"), ""),
    ):
        (partial,) = archive.glob("*.partial")
        finished = archive / f"{partial.stem}{suffix}"
        with Walstream(
            *("receive", "-d", primary.conninfo(), "-D", archive, *options), log=tmp_path / "log"
        ) as ours:
            # The newest finished segment is left as it is.
            for _ in range(2):
                primary.query("SELECT pg_logical_emit_message(true, '', 'x')")
                primary.query("SELECT pg_switch_wal()")
            primary.query("SELECT pg_logical_emit_message(true, '', 'x')")
            wait_until(finished.exists, f"{finished.name} there")
            wait_until(lambda: any(archive.glob("*.partial")), "the next one begun")
            assert ours.stop() == 0
        assert _decoded(finished) == (primary.data / "pg_wal" / partial.stem).read_bytes()
    assert len(list(archive.glob("*.partial"))) == 1
    assert {path.stat().st_mode & 0o777 for path in archive.glob("0*")} == {0o600}
    assert archive.stat().st_mode & 0o777 == 0o700


def _decoded(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".lz4":
        decoded: bytes = lz4.frame.decompress(content)
        return decoded
    return content


def test_a_slot_that_is_not_there(primary: Cluster, tmp_path: Path) -> None:
    """020: replication slot "nonexistent" does not exist."""
    arguments = ("receive", "-d", primary.conninfo(), "-D", tmp_path / "archive", "-n")
    with Walstream(*arguments, "--slot", "nonexistent", log=tmp_path / "log") as ours:
        assert ours.wait() == 1
        assert 'replication slot "nonexistent" does not exist' in ours.text


def test_a_standby_is_promoted_and_its_slot_resumed(clusters: Clusters, tmp_path: Path) -> None:
    """020: an archive that begins at a standby's slot has both timelines' segments, and history."""
    primary = clusters.primary()
    standby = clusters.standby(primary)
    # A standby makes restart points only behind checkpoints that it has replayed.
    primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 100) AS n")
    primary.query("CHECKPOINT")
    standby.wait_for_replay(primary.end_of_wal())
    standby.query("SELECT pg_create_physical_replication_slot('archive', true)")
    restart = standby.query("SELECT restart_lsn - '0/0' FROM pg_replication_slots")[0][0]
    primary.query("SELECT pg_switch_wal()")
    primary.query("INSERT INTO numbers SELECT generate_series(1, 100)")
    standby.wait_for_replay(primary.end_of_wal())
    standby.promote()
    archive = tmp_path / "archive"
    run_to_the_end(standby, archive, "--slot", "archive", log=tmp_path / "log")
    names = finished_segments(archive)
    assert f"00000001{int(restart) >> 20:016X}" in names
    assert any(name.startswith("00000002") for name in names)
    assert (archive / "00000002.history").exists()
    with Walstream(
        *("receive", "-d", standby.conninfo(), "-D", archive, "-S", "archive"), log=tmp_path / "log"
    ) as ours:
        standby.query("SELECT pg_switch_wal()")
        wait_until(lambda: len(finished_segments(archive)) > len(names), "resumed")
        assert ours.stop() == 0
