"""TLS of ``walstream send`` and ``hub`` to real clients, beside a real server's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import psycopg
import pytest

from tests.certificates import Authority, Issued
from tests.integration.load import (
    await_segments,
    finished_segments,
    identical,
    pg_receivewal,
    pgbench,
    prepare_pgbench,
)
from tests.integration.test_hub import have_the_same_rows
from tests.integration.tls import (
    SSL_REQUEST,
    STARTUP,
    give_tls,
    handshake,
    raw,
    said,
    shown_serial,
    small_archive,
)
from tests.servers import Clusters, on_versions
from tests.servers.daemon import Serving, wait_until
from tests.unit.archives import BUILT


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Knows the servers."""
    return Authority(tmp_path, "authority")


@on_versions(17)
def test_ways_into_tls(clusters: Clusters, tmp_path: Path, authority: Authority) -> None:
    """Every opening ends as it does with a real server: SSLRequest or not, and each ALPN."""
    issued = authority.issue("localhost", "localhost", "127.0.0.1")
    primary = clusters.primary()
    give_tls(primary, issued)
    primary.restart()
    archive = small_archive(tmp_path / "archive")
    tls = ("--tls-certificate", issued.certificate, "--tls-key", issued.key)
    protocols = (["postgresql"], None, ["http/1.1"], ["http/1.1", "postgresql"])
    ways = [(alpn, direct) for alpn in protocols for direct in (True, False)]
    with Serving("send", "-D", archive, *tls, log=tmp_path / "log") as sender:
        theirs = [handshake(primary.port, alpn, direct=direct) for alpn, direct in ways]
        ours = [handshake(sender.port, alpn, direct=direct) for alpn, direct in ways]
        assert ours == theirs
        assert theirs[0] == "postgresql, R"
        # What was sent in the clear is never taken for the client's, before S or after.
        assert raw(primary.port, SSL_REQUEST, STARTUP)[:1] == b"S"
        assert raw(sender.port, SSL_REQUEST, STARTUP)[:1] == b"S"
        assert raw(primary.port, SSL_REQUEST + STARTUP)[1:2] not in (b"R", b"S")
        assert b"received unencrypted data after SSL request" in raw(
            sender.port, SSL_REQUEST + STARTUP
        )
    refused = (
        "received direct SSL connection request without ALPN protocol negotiation extension",
        "could not accept SSL connection: host=127.0.0.1",
        "wrong version number",
    )
    assert all(words in sender.text for words in refused)
    assert "SSL enabled (protocol=TLSv1.3, cipher=TLS_AES_256_GCM_SHA384, bits=256)" in sender.text


def tls_options(issued: Issued) -> tuple[str | Path, ...]:
    """How to offer TLS."""
    return ("--tls-certificate", issued.certificate, "--tls-key", issued.key)


@on_versions(15, 18)
def test_negotiation_with_us(clusters: Clusters, tmp_path: Path, authority: Authority) -> None:
    """Every version's pg_receivewal, in every mode, comes in as it does at a real server."""
    issued = authority.issue("localhost", "localhost", "127.0.0.1")
    primary = clusters.primary(settings={"log_connections": "on"})
    archive = small_archive(tmp_path / "archive")
    ways = ["postgres"] if clusters.installation.major < 17 else ["postgres", "direct"]
    modes = ("disable", "allow", "prefer", "require", "verify-full")
    for options in ((), tls_options(issued)):
        if options:
            give_tls(primary, issued)
            primary.restart()
        log = tmp_path / f"log-{len(options)}"
        with Serving("send", "-D", archive, *options, log=log) as sender:
            for mode in modes:
                for way in ways:
                    common = {"sslmode": mode, "sslrootcert": str(authority.certificate)}
                    if way == "direct":
                        common["sslnegotiation"] = way
                    theirs = drop_slot(clusters, primary.conninfo(**common))
                    ours = drop_slot(clusters, sender.conninfo(**common))
                    assert ours == theirs, (mode, way)
            authorized = [line for line in sender.text.splitlines() if "authorized" in line]
        encrypted = [line for line in primary.log.read_text().splitlines() if "SSL enabled" in line]
        theirs_encrypted, ours_encrypted = len(encrypted), sum("SSL" in line for line in authorized)
        assert ours_encrypted == theirs_encrypted
        assert bool(ours_encrypted) is bool(options)


def drop_slot(clusters: Clusters, conninfo: str) -> str:
    """What pg_receivewal says in the end when it is to drop a slot that there is not."""
    tool = clusters.installation.tool("pg_receivewal")
    command: list[str | Path] = [tool, "-d", conninfo, "--drop-slot", "-S", "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    last = done.stderr.strip().splitlines()[-1]
    return last.rpartition(" failed: ")[2]


@on_versions(15, 18)
def test_all_the_way(clusters: Clusters, tmp_path: Path, authority: Authority) -> None:
    """Primary, hub, standby and pg_receivewal, encrypted and verified at each step, under load."""
    issued = authority.issue("localhost", "localhost", "127.0.0.1")
    primary = clusters.primary(settings={"wal_keep_size": "1GB"})
    give_tls(primary, issued)
    primary.allow("hostssl all,replication all 127.0.0.1/32 trust")
    primary.restart()
    prepare_pgbench(primary)
    trust = {"sslmode": "verify-full", "sslrootcert": str(authority.certificate)}
    archive, copy = tmp_path / "archive", tmp_path / "copy"
    upstream = primary.conninfo(**trust)
    options = ("-d", upstream, "-D", archive, *tls_options(issued))
    root = clusters.all[0].directory / "tls-root.crt"
    shutil.copy(authority.certificate, root)
    root.chmod(0o644)
    with Serving("hub", *options, log=tmp_path / "log") as relay:
        relay.await_text("starting log streaming")
        through = relay.conninfo(sslmode="verify-full", sslrootcert=str(root))
        standby = clusters.standby(primary, f"{through} application_name=standby")
        with pgbench(primary), pg_receivewal(clusters.installation, copy, through) as client:
            await_segments(copy, 4)
            identical(archive, copy, 4)
            client.send_signal(signal.SIGINT)
            assert client.wait(30) == 0
        have_the_same_rows(primary, standby)
        ssl = primary.query(
            "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)"
            " WHERE application_name = 'walstream'"
        )
        assert ssl == [(True,)]
        assert relay.text.count("SSL enabled (protocol=TLSv1.3") == 2
        assert relay.stop() == 0
    assert "shut down" in relay.text


def test_a_client_that_does_not_read(
    clusters: Clusters, tmp_path: Path, authority: Authority
) -> None:
    """It costs a constant, and nobody else's time; when it reads on, it gets all."""
    primary = clusters.primary(wal_segment_size=16, settings={"wal_keep_size": "4GB"})
    archive, copy, second = (tmp_path / name for name in ("archive", "copy", "second"))
    issued = authority.issue("localhost", "127.0.0.1")
    with pg_receivewal(clusters.installation, archive, primary.conninfo()):
        for _ in range(8):
            primary.query("SELECT pg_logical_emit_message(false, 'a', repeat('b', 15000000))")
        primary.query("SELECT pg_switch_wal()")
        await_segments(archive, 6)
    with Serving("send", "-D", archive, *tls_options(issued), log=tmp_path / "log") as sender:
        conninfo = sender.conninfo(sslmode="require")
        begin = finished_segments(archive)[0]
        for directory in (copy, second):
            directory.mkdir(mode=0o700)
            shutil.copy(archive / begin, directory)
        with pg_receivewal(clusters.installation, copy, conninfo) as client:
            sender.await_text("authorized")
            await_segments(copy, 2)
            client.send_signal(signal.SIGSTOP)
            before = sender.memory()
            with pg_receivewal(clusters.installation, second, conninfo):
                identical(archive, second, 6)
            assert sender.memory() - before < 8 << 20
            client.send_signal(signal.SIGCONT)
            identical(archive, copy, 6)
        assert sender.stop() == 0


def test_client_certificates(clusters: Clusters, tmp_path: Path, authority: Authority) -> None:
    """Who shows one gets as far with it as at a real server; who shows none comes in."""
    server = authority.issue("localhost", "127.0.0.1", stem="server")
    stranger = Authority(tmp_path, "stranger")
    good, gone = authority.issue("good"), authority.issue("gone")
    revoked = authority.revoke(gone)
    shown = [good, gone, authority.issue("late", expired=True), stranger.issue("false")]
    primary = clusters.primary()
    give_tls(primary, server, authority, revoked)
    primary.restart()
    archive = small_archive(tmp_path / "archive")
    options = ("--tls-ca", authority.certificate, "--tls-crl", revoked)
    with Serving(
        "send", "-D", archive, *tls_options(server), *options, log=tmp_path / "log"
    ) as sender:
        for version in ("TLSv1.2", "TLSv1.3"):
            for each in (None, *shown):
                common = {"sslmode": "require", "ssl_max_protocol_version": version}
                if each is not None:
                    common |= {"sslcert": str(each.certificate), "sslkey": str(each.key)}
                theirs, ours = said(primary.conninfo(**common)), said(sender.conninfo(**common))
                assert ours.rpartition(": ")[2] == theirs.rpartition(": ")[2], (version, each)
                assert bool(theirs) is (each not in (None, good))
        for words in ("certificate revoked", "certificate has expired", "unable to get local"):
            assert words in sender.text


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_new_certificate(tmp_path: Path, authority: Authority, processes: str) -> None:
    """SIGHUP: new connections have it, streams go on; a wrong one changes nothing, loudly."""
    archive = small_archive(tmp_path / "archive")
    issued = authority.issue("first", "127.0.0.1", stem="server")
    trust = {"sslmode": "verify-full", "sslrootcert": str(authority.certificate)}
    options = (*tls_options(issued), "--processes", processes)
    with (
        Serving("send", "-D", archive, *options, log=tmp_path / "log") as sender,
        psycopg.connect(
            sender.conninfo(**trust), replication="true", autocommit=True
        ) as connection,
    ):
        assert shown_serial(sender.port) == issued.x509.serial_number
        renewed = authority.issue("second", "127.0.0.1", stem="server")
        os.kill(sender.process.pid, signal.SIGHUP)

        def shows_the_new_one() -> bool:
            return shown_serial(sender.port) == renewed.x509.serial_number

        # Whichever worker is asked.
        wait_until(lambda: all(shows_the_new_one() for _ in range(4)), "the new one")
        issued.key.write_text("nonsense")
        os.kill(sender.process.pid, signal.SIGHUP)
        sender.await_text("TLS was not reloaded, the old certificate stays in force")
        assert shown_serial(sender.port) == renewed.x509.serial_number
        assert said(sender.conninfo(**trust)) == ""
        result = connection.pgconn.exec_(b"IDENTIFY_SYSTEM")
        assert result.status == psycopg.pq.ExecStatus.TUPLES_OK
        connection.close()  # or it would have some seconds to see that it is closed
        assert sender.stop() == 0


def test_a_file_system_that_hangs(tmp_path: Path, authority: Authority) -> None:
    """SIGHUP, and the certificate cannot be read: nobody notices, nor does the end wait for it."""
    archive = small_archive(tmp_path / "archive")
    issued = authority.issue("localhost", "127.0.0.1", stem="server")
    before = issued.x509.serial_number
    with Serving("send", "-D", archive, *tls_options(issued), log=tmp_path / "log") as sender:
        renewed = authority.issue("localhost", "127.0.0.1", stem="server")
        content = issued.certificate.read_bytes()
        issued.certificate.unlink()
        os.mkfifo(issued.certificate)  # whoever reads it waits for a writer
        os.kill(sender.process.pid, signal.SIGHUP)
        sender.await_text("received SIGHUP")
        for _ in range(3):
            assert shown_serial(sender.port) == before
        issued.certificate.write_bytes(content)
        wait_until(lambda: shown_serial(sender.port) == renewed.x509.serial_number, "the new one")
        os.kill(sender.process.pid, signal.SIGHUP)
        wait_until(lambda: sender.text.count("received SIGHUP") == 2, "told again")
        assert sender.stop() == 0
        assert "Traceback" not in sender.text


def test_in_the_middle_of_it(tmp_path: Path, authority: Authority) -> None:
    """A handshake that does not end costs its time, and nobody else's, at every stage of it.

    Of too many that are there at the same time, the oldest have to go.
    """
    archive = small_archive(tmp_path / "archive")
    issued = authority.issue("localhost", "127.0.0.1")
    with Serving("send", "-D", archive, *tls_options(issued), log=tmp_path / "log") as sender:
        hello = client_hello()
        stages = (b"", SSL_REQUEST, b"\x16\x03\x01", hello[:60], hello)
        # Fewer than the strangers that there may be (100): none of them has to go.
        waiting = [socket.create_connection(("127.0.0.1", sender.port)) for _ in range(90)]
        for number, each in enumerate(waiting):
            each.sendall(stages[number % len(stages)])
        for number, each in enumerate(waiting):
            if stages[number % len(stages)] == SSL_REQUEST:
                assert each.recv(1) == b"S"
                each.sendall(hello[: number * 5])
        assert said(sender.conninfo(sslmode="require")) == ""
        assert not any(is_cut_off(each) for each in waiting)
        more = [socket.create_connection(("127.0.0.1", sender.port)) for _ in range(30)]
        wait_until(lambda: all(map(is_cut_off, waiting[:20])), "rid of the oldest")
        assert said(sender.conninfo(sslmode="require")) == ""
        assert not any(map(is_cut_off, more))
        for each in (*waiting, *more):
            each.close()
        assert said(sender.conninfo(sslmode="require")) == ""
        assert sender.stop() == 0
        assert "Traceback" not in sender.text


def client_hello() -> bytes:
    """The first words of a client that begins with TLS."""
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(["postgresql"])
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


def is_cut_off(connection: socket.socket) -> bool:
    """Whether the connection is closed, behind what has been said on it."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


@on_versions(17)
def test_no_session_is_resumed(clusters: Clusters, tmp_path: Path, authority: Authority) -> None:
    """Nor anything renegotiated: who comes again begins anew, as at a real server."""
    issued = authority.issue("localhost", "127.0.0.1")
    primary = clusters.primary()
    give_tls(primary, issued)
    primary.restart()
    archive = small_archive(tmp_path / "archive")
    with Serving("send", "-D", archive, *tls_options(issued), log=tmp_path / "log") as sender:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for port in (primary.port, sender.port):
                assert not is_resumed(port, version), (port, version)
        for port in (primary.port, sender.port):
            assert renegotiates(port) == "no renegotiation"
        assert said(sender.conninfo(sslmode="require")) == ""


def is_resumed(port: int, version: ssl.TLSVersion) -> bool:
    """Whether a client that comes again goes on with the session that it had."""
    context = ssl._create_unverified_context()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["postgresql"])
    session: ssl.SSLSession | None = None
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", port), 5) as connection,
            context.wrap_socket(connection, session=session) as wrapped,
        ):
            wrapped.sendall(STARTUP)
            assert wrapped.recv(1) == b"R"  # tickets, if there are any, have come before
            if wrapped.session_reused:
                return True
            session = wrapped.session
    return False


def renegotiates(port: int) -> str:
    """What openssl is told when it wants another handshake on a connection of TLS 1.2."""
    command = f"openssl s_client -connect 127.0.0.1:{port} -starttls postgres -tls1_2"
    done = subprocess.run(
        command.split(), input="R\n", capture_output=True, text=True, timeout=20, check=False
    )
    return "no renegotiation" if "no renegotiation" in done.stderr else done.stderr[-500:]


def test_cancel_request(tmp_path: Path, authority: Authority) -> None:
    """libpq sends it encrypted, as the connection was: the stream ends, and the session goes on."""
    archive = small_archive(tmp_path / "archive")
    issued = authority.issue("localhost", "127.0.0.1")
    trust = {"sslmode": "verify-full", "sslrootcert": str(authority.certificate)}
    with (
        Serving("send", "-D", archive, *tls_options(issued), log=tmp_path / "log") as sender,
        psycopg.connect(
            sender.conninfo(**trust), replication="true", autocommit=True
        ) as connection,
    ):
        wire = connection.pgconn
        result = wire.exec_(f"START_REPLICATION 0/{BUILT.start:X}".encode())
        assert result.status == psycopg.pq.ExecStatus.COPY_BOTH
        connection.cancel_safe(timeout=10)
        while wire.get_copy_data(0)[0] > 0:
            pass
        ended = wire.get_result()
        assert ended is not None
        assert "canceling statement due to user request" in ended.error_message.decode()
        assert wire.get_result() is None
        assert wire.exec_(b"IDENTIFY_SYSTEM").status == psycopg.pq.ExecStatus.TUPLES_OK
