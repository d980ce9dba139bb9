"""``walstream receive`` against real servers, beside real pg_receivewal."""

from __future__ import annotations

from pathlib import Path

from tests.integration.load import (
    await_segments,
    finished_segments,
    identical,
    pg_receivewal,
    pgbench,
    prepare_pgbench,
    without_gap,
)
from tests.servers import Clusters, every_version
from tests.servers.clusters import reload
from tests.servers.daemon import Walstream, await_streaming, wait_until
from walstream.embedded import Cluster


def receive(
    primary: Cluster, archive: Path, *options: str, log: Path, **conninfo: str
) -> Walstream:
    """``walstream receive`` from *primary*."""
    upstream = primary.conninfo(**conninfo)
    return Walstream("receive", "-d", upstream, "-D", archive, *options, log=log)


@every_version
def test_finished_segments_are_those_of_pg_receivewal(clusters: Clusters, tmp_path: Path) -> None:
    """While pgbench writes, 20 segments arrive and are byte-identical to pg_receivewal's."""
    primary = clusters.primary()
    prepare_pgbench(primary)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with (
        receive(primary, ours, log=tmp_path / "log") as walstream,
        pg_receivewal(clusters.installation, theirs, primary.conninfo()),
    ):
        for name in ("walstream", "pg_receivewal"):
            await_streaming(primary, name)
        with pgbench(primary):
            await_segments(ours, 20)
        primary.query("SELECT pg_switch_wal()")
        assert len(identical(ours, theirs, 20)) >= 20
        assert walstream.stop() == 0
    partial = list(ours.glob("*.partial"))
    assert len(partial) <= 1, "more than one segment is unfinished"
    assert all(path.stat().st_size == 1 << 20 for path in partial)


@every_version
def test_it_goes_on_where_it_was_killed(clusters: Clusters, tmp_path: Path) -> None:
    """Killed and started again, it leaves no gap, and what was finished stays as it was."""
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    prepare_pgbench(primary)
    archive = tmp_path / "archive"
    with pgbench(primary):
        for target in (5, 10, 15):
            with receive(primary, archive, log=tmp_path / "log") as walstream:
                await_segments(archive, target)
                walstream.kill()
    with receive(primary, archive, log=tmp_path / "log") as walstream:
        count = len(finished_segments(archive))
        primary.query("SELECT pg_switch_wal()")
        await_segments(archive, count + 1)
        assert walstream.stop() == 0
    assert without_gap(archive)
    names = finished_segments(archive)
    assert identical(archive, primary.data / "pg_wal", len(names)) == names


def test_it_stops_at_the_end_position(clusters: Clusters, tmp_path: Path) -> None:
    """--endpos: exit status 0 once WAL beyond it was received."""
    primary = clusters.primary()
    primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 10000) AS n")
    endpos = primary.end_of_wal()
    archive = tmp_path / "archive"
    with receive(primary, archive, "-E", endpos, "-n", log=tmp_path / "log") as walstream:
        walstream.await_text("starting log streaming")
        primary.query("SELECT pg_switch_wal()")
        primary.query("CREATE TABLE beyond AS SELECT 1")
        assert walstream.wait() == 0, walstream.text


def test_it_starts_where_a_slot_holds_wal_back(clusters: Clusters, tmp_path: Path) -> None:
    """--slot: an empty archive begins with the slot's segment, and the slot moves on."""
    primary = clusters.primary()
    primary.query("SELECT pg_create_physical_replication_slot('archive', true)")
    held = primary.query("SELECT pg_walfile_name(restart_lsn) FROM pg_replication_slots")[0][0]
    for _ in range(3):
        primary.query("CREATE TABLE IF NOT EXISTS numbers AS SELECT generate_series(1, 1000) AS n")
        primary.query("SELECT pg_switch_wal()")
        primary.query("INSERT INTO numbers VALUES (1)")
    archive = tmp_path / "archive"
    with receive(primary, archive, "-S", "archive", "-s", "1", log=tmp_path / "log") as walstream:
        await_segments(archive, 3)
        assert finished_segments(archive)[0] == held
        wait_until(
            lambda: (
                primary.query(
                    "SELECT restart_lsn > '0/0' AND pg_walfile_name(restart_lsn) > %s"
                    " FROM pg_replication_slots",
                    held,
                )
                == [(True,)]
            ),
            "the slot's position beyond its beginning",
        )
        assert walstream.stop() == 0


@every_version
def test_it_logs_in_by_each_method(clusters: Clusters, tmp_path: Path) -> None:
    """Cleartext, md5 and SCRAM-SHA-256; and a wrong password is an error that says so."""
    primary = clusters.primary()
    for method, encryption in (
        ("password", "scram-sha-256"),
        ("md5", "md5"),
        ("scram-sha-256", "scram-sha-256"),
    ):
        primary.query(f"SET password_encryption = '{encryption}'; DROP ROLE IF EXISTS walstream")
        primary.query(
            f"SET password_encryption = '{encryption}';"
            " CREATE ROLE walstream LOGIN REPLICATION PASSWORD 'Sésame'"
        )
        primary.allow(
            f"host replication walstream 127.0.0.1/32 {method}", "host all all 127.0.0.1/32 trust"
        )
        reload(primary)
        archive = tmp_path / method
        log = tmp_path / f"{method}.log"
        login = {"user": "walstream", "require_auth": method}
        with receive(primary, archive, log=log, password="Sésame", **login) as walstream:
            walstream.await_text("starting log streaming")
            assert walstream.stop() == 0
        wrong = tmp_path / f"{method}-wrong.log"
        with receive(
            primary, archive, "--no-loop", log=wrong, password="wrong", **login
        ) as walstream:
            assert walstream.wait() == 1
            assert "password authentication failed" in walstream.text
            assert "Sésame" not in walstream.text


def test_an_archive_takes_one_system_only(clusters: Clusters, tmp_path: Path) -> None:
    """Another cluster's WAL is refused before a byte is written, with both identifiers named."""
    archive = tmp_path / "archive"
    first = clusters.primary()
    with receive(first, archive, log=tmp_path / "first") as walstream:
        wait_until(lambda: any(archive.glob("0*")), "WAL in the archive")
        walstream.stop()
    before = {path.name: path.read_bytes() for path in archive.iterdir() if path.is_file()}
    second = clusters.primary("second", new_system=True)
    with receive(second, archive, log=tmp_path / "second") as walstream:
        assert walstream.wait() == 1
        for cluster in (first, second):
            identifier = cluster.query("SELECT system_identifier FROM pg_control_system()")[0][0]
            assert str(identifier) in walstream.text
    assert before == {path.name: path.read_bytes() for path in archive.iterdir() if path.is_file()}


def test_an_archive_has_one_writer_only(clusters: Clusters, tmp_path: Path) -> None:
    """A second receiver on the same archive ends with an error that names the first."""
    archive = tmp_path / "archive"
    primary = clusters.primary()
    with receive(primary, archive, log=tmp_path / "first") as first:
        first.await_text("starting log streaming")
        with receive(primary, archive, log=tmp_path / "second") as second:
            assert second.wait() == 1
            assert str(first.process.pid) in second.text


def test_it_connects_again_at_once(clusters: Clusters, tmp_path: Path) -> None:
    """When its walsender is ended it is back in well under a second; pg_receivewal takes five."""
    primary = clusters.primary()
    with receive(primary, tmp_path / "archive", log=tmp_path / "log") as walstream:
        walstream.await_text("starting log streaming")
        primary.query("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        wait_until(lambda: walstream.text.count("starting log streaming") == 2, "back", 4)


def test_replication_cannot_be_switched_off(clusters: Clusters, tmp_path: Path) -> None:
    """Neither a connection string nor the environment keeps the receiver from asking for it."""
    primary = clusters.primary()
    with receive(
        primary, tmp_path / "archive", log=tmp_path / "log", replication="off"
    ) as walstream:
        walstream.await_text("starting log streaming")
        assert primary.query("SELECT count(*) FROM pg_stat_replication") == [(1,)]


def test_a_primary_shuts_down_without_waiting_for_it(clusters: Clusters, tmp_path: Path) -> None:
    """A fast stop of the primary ends at once, synchronous or not, and all its WAL is here."""
    for options in ((), ("--synchronous",)):
        primary = clusters.primary()
        archive = tmp_path / f"archive{len(options)}"
        log = tmp_path / f"log{len(options)}"
        with receive(primary, archive, *options, log=log) as walstream:
            walstream.await_text("starting log streaming")
            primary.query("CREATE TABLE numbers AS SELECT generate_series(1, 10000) AS n")
            primary.stop("fast", timeout=30)  # less than the minute that it waits for a standby
            walstream.await_text("trying again")
            assert walstream.stop() == 0
