"""One stream from anywhere: out of a mixed archive to the live tail, and where it has to end."""

from __future__ import annotations

import errno
import shutil
import time
from functools import partial
from pathlib import Path

import pytest

from tests.integration.load import (
    await_segments,
    finished_segments,
    pg_receivewal,
    pgbench,
    prepare_pgbench,
)
from tests.integration.test_hub import have_the_same_rows
from tests.integration.test_send import archive_of, outcome
from tests.servers import Clusters, every_version
from tests.servers.clusters import left_alone
from tests.servers.daemon import Serving, await_streaming, wait_until
from tests.torture.failing import Failing, compilers_are_available
from walstream.archive.codecs import CODECS
from walstream.formats.compression import Compression

_FORMS = ("none", "zstd:1", "gzip:1", "lz4:1")


def compress(path: Path, method: str) -> Path:
    """Replace a segment by a compressed one, as anybody may; its new path."""
    compression = Compression.parse(method)
    if compression is None:
        return path
    codec, content = CODECS[compression.method], path.read_bytes()
    target = path.with_name(f"{path.name}.{codec.suffix}")
    target.write_bytes(b"".join(codec.encode([content], compression, len(content))))
    path.unlink()
    return target


def sessions(sender: Serving, name: str) -> int:
    """How many a client had."""
    return sum(name in line and "authorized" in line for line in sender.text.splitlines())


def test_from_a_mixed_archive_to_the_live_tail(clusters: Clusters, tmp_path: Path) -> None:
    """A standby of an old backup catches up under load, in one session, and stays on."""
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    prepare_pgbench(primary)
    archive = tmp_path / "archive"
    options = ("-d", primary.conninfo(), "-D", archive, "--serve", "written")
    with Serving("hub", *options, log=tmp_path / "log") as hub:
        await_streaming(primary)
        backup = primary.directory / "backup"
        primary.base_backup(backup, "-X", "none")
        with pgbench(primary):
            await_segments(archive, 20)
            for number, name in enumerate(finished_segments(archive)[:-2]):
                compress(archive / name, _FORMS[number % len(_FORMS)])
            standby = clusters.standby_of(backup, hub.conninfo(application_name="late"), "late")
            await_segments(archive, len(finished_segments(archive)) + 3)
        have_the_same_rows(primary, standby)
        # Now it waits at the tail, where each commit reaches it.
        primary.query("UPDATE pgbench_branches SET bbalance = bbalance + 1")
        have_the_same_rows(primary, standby)
        assert sessions(hub, "late") == 1
        assert "ERROR" not in standby.log_tail()


@pytest.mark.skipif(not compilers_are_available(), reason="there is no C compiler")
def test_what_was_served_cannot_be_kept(
    clusters: Clusters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's disk fails under load: a standby that was ahead of it waits in its stream."""
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    prepare_pgbench(primary)
    archive = tmp_path / "archive"
    failing = Failing(tmp_path, archive)
    options = ("-d", primary.conninfo(), "-D", archive, "--serve", "written")
    with monkeypatch.context() as environment:
        for name, value in failing.environment.items():
            environment.setenv(name, value)
        hub = Serving("hub", *options, log=tmp_path / "log")
    with hub:
        await_streaming(primary)
        standby = clusters.standby(primary, hub.conninfo(application_name="ahead"))
        with pgbench(primary):
            for call in ("fdatasync", "fsync"):
                await_segments(archive, len(finished_segments(archive)) + 2)
                failures = hub.text.count("could not make durable")
                with failing.calls(**{call: errno.EIO}):
                    wait_until(partial(has_failed, hub, failures), "a failure")
        have_the_same_rows(primary, standby)
        assert sessions(hub, "ahead") == 1
        assert "ERROR" not in standby.log_tail()
        assert "FATAL" not in standby.log_tail()


def has_failed(hub: Serving, failures: int) -> bool:
    """Whether its disk has failed once more."""
    return hub.text.count("could not make durable") > failures


def cut_short(path: Path) -> None:
    """Half of the file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("method", "damage", "said"),
    [
        ("none", Path.unlink, "has already been removed"),
        ("zstd:1", cut_short, "is damaged: it ends before its stream does"),
        ("none", cut_short, "524288 bytes and not 1048576"),
    ],
)
def test_a_hole_ends_a_stream(
    clusters: Clusters, tmp_path: Path, method: str, damage: object, said: str
) -> None:
    """With an error that names it; everything before it has come, and nothing behind it."""
    primary = clusters.primary()
    for number in range(5):
        primary.query("SELECT pg_switch_wal(), pg_logical_emit_message(true, 'x', %s)", str(number))
    archive, copy = archive_of(primary, tmp_path / "archive"), tmp_path / "copy"
    names = finished_segments(archive)
    assert len(names) >= 5
    copy.mkdir(mode=0o700)
    shutil.copy(archive / names[0], copy)
    damage(compress(archive / names[3], method))  # type: ignore[operator]
    with (
        Serving("send", "-D", archive, log=tmp_path / "log") as sender,
        pg_receivewal(clusters.installation, copy, sender.conninfo(), "-n") as client,
    ):
        assert client.wait(20) != 0
        assert client.stderr is not None
        text = client.stderr.read()
        assert f"requested WAL segment {names[3]} has already been removed" in text
        assert said in text
        assert finished_segments(copy) == names[:3]


def test_ahead_of_the_archive(clusters: Clusters, tmp_path: Path) -> None:
    """A client that has more files than we have WAL is held, and gets what comes next.

    The walreceivers of 15 to 18, in their newest versions, wait by themselves: they ask how far we
    are until we are there. Those before, and pg_receivewal, do not.
    """
    primary = clusters.primary()
    for number in range(4):
        primary.query("SELECT pg_switch_wal(), pg_logical_emit_message(true, 'x', %s)", str(number))
    files = archive_of(primary, tmp_path / "files")
    *names, last, missing = finished_segments(files)
    archive, copy = tmp_path / "archive", tmp_path / "copy"
    for directory, held in ((archive, names), (copy, [*names, last])):
        directory.mkdir(mode=0o700)
        for name in held:
            shutil.copy(files / name, directory)
    with (
        Serving("send", "-D", archive, log=tmp_path / "log") as sender,
        pg_receivewal(clusters.installation, copy, sender.conninfo(), "-n") as client,
    ):
        sender.await_text("pg_receivewal")
        time.sleep(0.5)  # refused, it would have ended
        assert client.poll() is None
        for name in (last, missing):
            shutil.copy(files / name, archive)
        wait_until(lambda: (copy / missing).exists(), "the segment that was waited for")
        assert (copy / missing).read_bytes() == (files / missing).read_bytes()
        assert client.poll() is None
        assert sessions(sender, "pg_receivewal") == 1


@every_version
def test_a_client_of_another_history(clusters: Clusters, tmp_path: Path) -> None:
    """Who is behind a fork, ahead, or on no timeline of ours gets a promoted server's own words."""
    primary = clusters.primary()
    primary.query("SELECT pg_switch_wal()")
    standby = clusters.standby(primary)
    switch_point = primary.end_of_wal()
    standby.wait_for_replay(switch_point)
    standby.promote()
    log = tmp_path / "log"
    options = ("-d", standby.conninfo(), "-D", tmp_path / "archive", "--hold-ahead", "0")
    with Serving("hub", *options, log=log) as hub:
        hub.await_text("starting log streaming")
        standby.query("SELECT pg_logical_emit_message(true, 'x', repeat('x', 1000))")
        with left_alone(standby):  # some of the words tell where WAL ends
            wait_until(lambda: hub.end() == (2, standby.end_of_wal()), "all there is")
            for command in (
                "START_REPLICATION FF/0 TIMELINE 2",
                "START_REPLICATION 1/0 TIMELINE 1",
                "START_REPLICATION 0/1000000 TIMELINE 3",
                "START_REPLICATION 0/1000000 TIMELINE 4294967295",
                "TIMELINE_HISTORY 3",
            ):
                theirs, ours = (outcome(each.conninfo(), command) for each in (standby, hub))
                assert ours == theirs, command
