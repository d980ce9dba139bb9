"""Compressed archives on real servers: filled by walstream, by pg_receivewal, and by both."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.integration.load import (
    finished_segments,
    identical,
    pg_receivewal,
    pgbench,
    prepare_pgbench,
)
from tests.servers import Clusters
from tests.servers.daemon import Serving, Walstream, await_streaming, wait_until
from walstream.archive.compression import read_segment
from walstream.archive.filesystem import FileSystem
from walstream.embedded import Cluster

_SIZE = 1 << 20
_FINISHED = re.compile(r"([0-9A-F]{24})(\.gz|\.lz4|\.zst)?")
_KEEP = {"wal_keep_size": "1GB"}


def fill(primary: Cluster, segments: int) -> None:
    """Fill so many segments, with what can be compressed by half."""
    with primary.connect() as connection:
        for _ in range(segments):
            connection.execute(
                "SELECT pg_logical_emit_message(true, 'filling', string_agg(md5(n::text), ''))"
                " FROM generate_series(1, 20000 + (random() * 5000)::int) AS n"
            )
            connection.execute("SELECT pg_switch_wal()")


def forms(archive: Path) -> dict[str, set[str]]:
    """The finished segments, and the suffixes of the files that hold them."""
    found: dict[str, set[str]] = {}
    for path in archive.iterdir():
        match = _FINISHED.fullmatch(path.name)
        if match is not None:
            found.setdefault(match[1], set()).add(match[2] or "")
    return found


def compressed(archive: Path, suffix: str) -> list[str]:
    """The segments that are there in that form alone."""
    return sorted(name for name, suffixes in forms(archive).items() if suffixes == {suffix})


def await_compressed(archive: Path, suffix: str, count: int) -> None:
    """Wait until so many segments are there in that form alone."""
    wait_until(lambda: len(compressed(archive, suffix)) >= count, f"{count} of {suffix}")


def decoded(archive: Path) -> dict[str, bytes]:
    """What every finished segment holds, in whatever form; each must decode to its end."""
    files = FileSystem()
    return {
        name: bytes(read_segment(files, str(archive / f"{name}{suffix}"), _SIZE))
        for name, suffixes in forms(archive).items()
        for suffix in suffixes
    }


def assert_is_wal_of(primary: Cluster, archive: Path) -> None:
    """Every finished segment is the primary's, byte by byte, and none is missing in between."""
    contents = decoded(archive)
    for name, content in contents.items():
        assert content == (primary.data / "pg_wal" / name).read_bytes(), f"{name} differs"
    numbers = sorted(int(name[8:16], 16) << 12 | int(name[16:], 16) for name in contents)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def receive(primary: Cluster, archive: Path, *options: str, log: Path) -> Walstream:
    """``walstream receive`` from *primary*."""
    return Walstream("receive", "-d", primary.conninfo(), "-D", archive, *options, log=log)


def receive_by_pg_receivewal(
    primary: Cluster, archive: Path, segments: int, *options: str
) -> subprocess.CompletedProcess[str]:
    """Have pg_receivewal receive so many segments, and a part of the next, and end."""
    before = len(forms(archive)) if archive.exists() else 0
    with pg_receivewal(primary.installation, archive, primary.conninfo(), *options) as client:
        # A server that has just switched says nothing before there is something new.
        primary.query("SELECT pg_logical_emit_message(true, 'into', 'the next segment')")
        wait_until(lambda: bool(list(archive.glob("*.partial"))), "begun")
        fill(primary, segments)
        wait_until(lambda: len(forms(archive)) >= before + segments, f"{segments} more")
        primary.query("SELECT pg_logical_emit_message(true, 'into', 'the next segment')")
        wait_until(lambda: bool(list(archive.glob("*.partial"))), "a part of the next")
        client.send_signal(signal.SIGINT)
        _, errors = client.communicate(timeout=30)
    return subprocess.CompletedProcess(client.args, client.returncode, "", errors)


@pytest.mark.parametrize(("method", "suffix"), [("zstd", ".zst"), ("lz4:3", ".lz4"), ("1", ".gz")])
def test_compressed_segments_are_those_of_pg_receivewal(
    clusters: Clusters, tmp_path: Path, method: str, suffix: str
) -> None:
    """All but the newest are compressed, and decode to the same bytes; it can go on with them."""
    primary = clusters.primary(settings=_KEEP)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with (
        receive(primary, ours, "-Z", method, log=tmp_path / "log") as walstream,
        pg_receivewal(clusters.installation, theirs, primary.conninfo()),
    ):
        for name in ("walstream", "pg_receivewal"):  # both begin with the same segment
            await_streaming(primary, name)
        for _ in range(2):
            fill(primary, 5)
            wait_until(lambda: len(compressed(ours, "")) == 1, "all compressed but one")
        wait_until(lambda: len(forms(ours)) == len(forms(theirs)) >= 10, "the same number")
        await_compressed(ours, suffix, len(forms(theirs)) - 1)
        assert walstream.stop() == 0
    assert compressed(ours, "") == finished_segments(theirs)[-1:]
    plain = decoded(theirs)
    assert {name: content for name, content in decoded(ours).items() if name in plain} == plain
    assert not list((ours / ".walstream" / "compressing").iterdir())
    receive_by_pg_receivewal(primary, ours, 2)
    assert_is_wal_of(primary, ours)


def test_it_is_killed_while_it_compresses(clusters: Clusters, tmp_path: Path) -> None:
    """Each segment is whole in one form at least, and the next run finishes what is left."""
    primary = clusters.primary(settings=_KEEP)
    archive = tmp_path / "archive"
    with receive(primary, archive, log=tmp_path / "plain") as walstream:
        walstream.await_text("starting log streaming")
        fill(primary, 12)
        wait_until(lambda: len(forms(archive)) >= 12, "12 segments")
        walstream.kill()
    for target in (2, 5, 8):
        with receive(primary, archive, "-Z", "gzip:9", log=tmp_path / "killed") as walstream:
            wait_until(lambda: len(compressed(archive, ".gz")) >= target, f"{target} of .gz")  # noqa: B023
            walstream.kill()
        assert_is_wal_of(primary, archive)
    with receive(
        primary, archive, "-Z", "zstd", "--compress-jobs=2", log=tmp_path / "log"
    ) as walstream:
        wait_until(lambda: len(compressed(archive, "")) == 1, "all compressed but one")
        assert walstream.stop() == 0
    assert_is_wal_of(primary, archive)
    assert all(len(suffixes) == 1 for suffixes in forms(archive).values())
    assert not list((archive / ".walstream" / "compressing").iterdir())


def test_a_mixed_archive_is_served_while_it_is_compressed(
    clusters: Clusters, tmp_path: Path
) -> None:
    """A standby and pg_receivewal read it from its beginning, through segments of every form."""
    primary = clusters.primary(settings=_KEEP)
    prepare_pgbench(primary)
    archive, copy = tmp_path / "archive", tmp_path / "copy"
    for number, method in enumerate(("lz4", "gzip", "none")):
        with receive(primary, archive, "-Z", method, log=tmp_path / f"log{number}") as walstream:
            walstream.await_text("starting log streaming")
            if not forms(archive):
                standby = clusters.standby(primary)
                standby.stop()
            before = len(forms(archive))
            fill(primary, 4)
            wait_until(lambda: len(forms(archive)) >= before + 4, "4 more")  # noqa: B023
            wait_until(lambda: method == "none" or len(compressed(archive, "")) == 1, method)  # noqa: B023
            walstream.kill()
    assert compressed(archive, ".lz4")
    assert compressed(archive, ".gz")
    assert compressed(archive, "")
    first = min(forms(archive))
    copy.mkdir(mode=0o700)
    (copy / first).write_bytes(decoded(archive)[first])  # pg_receivewal goes on behind it
    with (
        receive(primary, archive, "-Z", "zstd:12", log=tmp_path / "log") as walstream,
        Serving("send", "-D", archive, log=tmp_path / "send") as sender,
        pg_receivewal(clusters.installation, copy, sender.conninfo()),
    ):
        standby.follow(sender.conninfo())
        standby.start()
        walstream.await_text("starting log streaming")
        with pgbench(primary):
            wait_until(lambda: len(compressed(archive, ".zst")) >= 8, "8 of .zst")
        fill(primary, 1)
        primary.query("SELECT pg_logical_emit_message(true, 'into', 'the next segment')")
        fill(primary, 1)
        standby.wait_for_replay(primary.end_of_wal())
        count = len(forms(archive))
        wait_until(lambda: len(forms(copy)) >= count, f"{count} segments in the copy")
        wait_until(lambda: len(compressed(archive, "")) == 1, "all compressed but one")
        assert "cannot serve" not in sender.text, sender.text
        assert walstream.stop() == 0
        assert sender.stop() == 0
    assert_is_wal_of(primary, archive)
    assert_is_wal_of(primary, copy)


def test_archives_of_pg_receivewal(clusters: Clusters, tmp_path: Path) -> None:
    """Runs with gzip, lz4 and none over one directory, as in 020_pg_receivewal, are gone on with.

    What it left unfinished and compressed is left alone, and received as a whole.
    """
    primary = clusters.primary(settings=_KEEP)
    archive = tmp_path / "archive"
    for method, suffix in (("gzip:1", ".gz"), ("lz4", ".lz4"), ("none", ""), ("gzip", ".gz")):
        done = receive_by_pg_receivewal(primary, archive, 3, "-Z", method)
        assert done.returncode == 0, done.stderr
        assert len(compressed(archive, suffix)) >= 3, forms(archive)
    assert list(archive.glob("*.gz.partial"))
    theirs = len(forms(archive))
    copy = tmp_path / "copy"
    first = min(forms(archive))
    copy.mkdir(mode=0o700)
    (copy / first).write_bytes(decoded(archive)[first])
    with (
        Serving("send", "-D", archive, log=tmp_path / "send") as sender,
        pg_receivewal(clusters.installation, copy, sender.conninfo()),
    ):
        wait_until(lambda: len(forms(copy)) == theirs, f"{theirs} segments in the copy")
        with receive(primary, archive, "-Z", "zstd", log=tmp_path / "log") as walstream:
            walstream.await_text("starting log streaming")
            fill(primary, 3)
            wait_until(lambda: len(forms(archive)) >= theirs + 3, "3 more")
            wait_until(lambda: len(compressed(archive, "")) == 1, "all compressed but one")
            assert walstream.stop() == 0
        identical(copy, primary.data / "pg_wal", theirs + 3)
        assert sender.stop() == 0
    assert_is_wal_of(primary, archive)


def test_what_a_crash_of_pg_receivewal_left_is_received_again(
    clusters: Clusters, tmp_path: Path
) -> None:
    """It writes a new stream over the beginning of an old one; such a segment does not count."""
    primary = clusters.primary(settings=_KEEP)
    archive = tmp_path / "archive"
    fill(primary, 1)
    primary.query("SELECT pg_logical_emit_message(true, 'into', 'the next segment')")
    client = pg_receivewal(
        clusters.installation, archive, primary.conninfo(), "-Z", "gzip:1", "--synchronous"
    )
    with client as process:
        wait_until(lambda: bool(list(archive.glob("*.gz.partial"))), "begun")
        (partial,) = archive.glob("*.gz.partial")
        for _ in range(100):
            primary.query("SELECT pg_logical_emit_message(true, 'x', md5(random()::text))")
        primary.query(
            "SELECT pg_logical_emit_message(true, 'x', string_agg(md5(random()::text), ''))"
            " FROM generate_series(1, 15000)"
        )
        flushed = "SELECT flush_lsn >= %s FROM pg_stat_replication"
        end = primary.end_of_wal()
        wait_until(lambda: primary.query(flushed, end) == [(True,)], "flushed")
        process.kill()
        process.wait()
    size = partial.stat().st_size
    with pg_receivewal(primary.installation, archive, primary.conninfo(), "-Z", "gzip:9"):
        primary.query("SELECT pg_switch_wal()")
        fill(primary, 1)
        finished = partial.with_suffix("")
        wait_until(finished.exists, "finished")
    assert finished.stat().st_size == size, "pg_receivewal has learnt to truncate"
    for path in archive.iterdir():
        if path.name > finished.name:
            path.unlink()
    with receive(primary, archive, "-Z", "zstd", log=tmp_path / "log") as walstream:
        walstream.await_text(f"{finished.name} is damaged")
        fill(primary, 2)
        await_compressed(archive, ".zst", 2)
        assert walstream.stop() == 0
    assert not finished.exists()
    assert_is_wal_of(primary, archive)
