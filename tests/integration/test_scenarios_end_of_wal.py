"""PostgreSQL's 039_end_of_wal for a standby behind walstream, and a standby that asks for more.

docs/reference/scenarios.md has the table of all scenarios. How walstream itself reads the end of
WAL is in ``tests/unit/test_end_of_wal.py``.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import BinaryIO

from tests.integration.chain import (
    KEEP,
    await_true,
    count,
    insert,
    replication,
    running_hub,
    running_sender,
    walreceiver,
)
from tests.integration.load import finished_segments
from tests.servers import Clusters
from tests.servers.daemon import wait_until
from tests.servers.proxy import Proxy
from tests.servers.restoring import Restorer, Restoring, copy_from
from walstream.embedded import Cluster
from walstream.formats.lsn import LSN

_SEGMENT, _PAGE = 1 << 20, 8192

# What is wrong with a record that goes on on the next page: where, counted from the record's header
# or from the next page's; what is there instead; and what a server says of it. The fields' places
# are those of XLogRecord (xlogrecord.h) and XLogPageHeaderData (xlog_internal.h).
_RECORD_DAMAGE = (
    (0, bytes(4), "invalid record length"),
    (0, b"\x17\0\0\0", "invalid record length"),
    (8, b"\1", "record with incorrect prev-link"),
    (17, b"\x64", "invalid resource manager ID 100"),
    (1000, b"damage", "incorrect resource manager data checksum"),
)
_PAGE_DAMAGE = (
    (0, b"\0\0", "invalid magic number"),
    (2, b"\0\0", "there is no contrecord flag"),
    (8, bytes(8), "unexpected pageaddr"),
    (16, b"\1\0\0\0", "invalid contrecord length"),
)


def record_of_two_pages(primary: Cluster) -> LSN:
    """Write a record that begins in the middle of a page and goes on on the next; where it begins.

    It is not the last one in its segment, which is finished.
    """
    with primary.connect() as connection:

        def write(length: int) -> LSN:
            command = "SELECT pg_logical_emit_message(false, '', repeat('x', %s))"
            row = connection.execute(command, [length]).fetchone()
            assert row is not None
            return LSN.parse(row[0])

        connection.execute("SELECT pg_switch_wal()")
        begins = write(1000)
        while not 1000 < begins % _PAGE < 6000:
            begins = write(500)
        write(10000)
        connection.execute("SELECT pg_switch_wal()")
    return LSN(begins + -begins % 8)


def test_damage_is_told_and_not_replayed(
    clusters: Clusters, directory: Path, tmp_path: Path
) -> None:
    """039_end_of_wal: each kind of damage in an archive is the end of WAL to a standby.

    It says which, stays where it is, and goes on, once restarted, when the segment is put right.
    """
    primary = clusters.primary(settings=KEEP)
    archive, base = tmp_path / "archive", directory / "base"
    with running_hub(primary.conninfo(), archive) as hub:
        primary.base_backup(base, "-X", "none")
        begins = record_of_two_pages(primary)
        end = insert(primary, 10)
        await_true(primary, "SELECT flush_lsn >= %s::pg_lsn FROM pg_stat_replication", end)
        assert hub.stop() == 0
    segment = archive / f"00000001{begins // _SEGMENT:016X}"
    record = begins % _SEGMENT
    page = record - record % _PAGE + _PAGE
    damages = [(record + at, wrong, told) for at, wrong, told in _RECORD_DAMAGE]
    damages += [(page + at, wrong, told) for at, wrong, told in _PAGE_DAMAGE]
    good = segment.read_bytes()
    standby = clusters.made_of(base, "standby")
    with running_sender(archive) as sender, segment.open("r+b") as file:
        standby.follow(sender.conninfo())
        damaged = range(0)
        for offset, wrong, told in damages:
            # At no moment is the record whole: the standby tries again all the time.
            put(file, offset, wrong)
            if offset not in damaged:
                put(file, damaged.start, good[damaged.start : damaged.stop])
            damaged = range(offset, offset + len(wrong))
            restart(standby)
            wait_until(lambda: told in standby.log.read_text(), told)  # noqa: B023
            replayed = standby.query("SELECT pg_last_wal_replay_lsn()")[0][0]
            assert begins - 8 < LSN.parse(replayed) <= begins, told
        put(file, damaged.start, good[damaged.start : damaged.stop])
        restart(standby)
        standby.wait_for_replay(end)
        assert count(standby) == 10


def restart(standby: Cluster) -> None:
    """Start a server anew, with a new log: only then it fetches WAL again that it has already."""
    standby.kill()
    standby.log.unlink(missing_ok=True)
    standby.start()


def put(file: BinaryIO, offset: int, content: bytes) -> None:
    """Write over a piece of a file."""
    file.seek(offset)
    file.write(content)
    file.flush()


def test_what_is_behind_the_end_is_not_served(
    clusters: Clusters, directory: Path, tmp_path: Path
) -> None:
    """039_end_of_wal: an unfinished segment with anything behind its durable end, after a crash."""
    primary = clusters.primary(settings=KEEP)
    archive, base = tmp_path / "archive", directory / "base"
    with running_hub(primary.conninfo(), archive) as hub:
        primary.base_backup(base, "-X", "none")
        end = insert(primary, 10)
        await_true(primary, "SELECT flush_lsn >= %s::pg_lsn FROM pg_stat_replication", end)
        hub.kill()
    (partial,) = archive.glob("*.partial")
    with running_sender(archive) as sender:
        with replication(sender.conninfo()) as connection:
            answer = connection.pgconn.exec_(b"IDENTIFY_SYSTEM").get_value(0, 2)
        held = LSN.parse((answer or b"").decode())
        assert held >= LSN.parse(end)
        with partial.open("r+b") as file:
            put(file, held % _SEGMENT, b"\xab" * (_SEGMENT - held % _SEGMENT))
        standby = clusters.standby_of(base, sender.conninfo(), "standby")
        standby.wait_for_replay(end)
        received = "SELECT flushed_lsn, status FROM pg_stat_wal_receiver"
        expected = [(str(held), "streaming")]
        wait_until(lambda: standby.query(received) == expected, f"all of it, up to {held}")
    with running_hub(primary.conninfo(), archive, port=sender.port):
        end = insert(primary, 10)
        standby.wait_for_replay(end)
        assert count(standby) == 20
    assert "magic" not in standby.log.read_text()


def test_a_standby_that_was_restored_ahead_of_the_hub(
    clusters: Clusters, directory: Path, tmp_path: Path
) -> None:
    """N11: files took it to the end of a segment of which the hub has the beginning.

    It is not sent away again and again, and streams when that WAL comes.
    """
    primary = clusters.primary(settings=KEEP)
    archive, base = tmp_path / "archive", directory / "base"
    with (
        Proxy(primary.port) as proxy,
        running_hub(primary.conninfo(port=proxy.port), archive) as hub,
    ):
        primary.base_backup(base, "-X", "none")
        end = insert(primary, 10)
        await_true(primary, "SELECT flush_lsn >= %s::pg_lsn FROM pg_stat_replication", end)
        proxy.stall()
        insert(primary, 10)
        last = primary.query("SELECT pg_walfile_name(pg_switch_wal())")[0][0]
        assert last not in finished_segments(archive)
        standby = clusters.made_of(base, "standby")
        files = primary.data / "pg_wal"
        with Restoring(
            standby.directory, standby.data, copy_finished(files, last), standby.account
        ) as restoring:
            standby.configure({"restore_command": restoring.command})
            standby.follow(hub.conninfo(application_name="ahead"))
            standby.start()
            wait_until(lambda: last in restoring.restored, "restored to the end of the segment")
            hub.await_text("application_name=ahead")
            time.sleep(1)
            assert "is ahead of the WAL flush position" not in standby.log.read_text()
            proxy.release()
            standby.wait_for_replay(insert(primary, 10))
            assert count(standby) == 30
            walreceiver(standby)
            assert restoring.restored[-1] == last, "it did not stream"
        assert hub.text.count("application_name=ahead") == 1, "it was sent away"


def copy_finished(directory: Path, last: str) -> Restorer:
    """A ``restore_command`` that brings segments up to one of that name."""
    restore = copy_from(directory)
    return lambda name, target: restore(name, target) if name <= last else 1
