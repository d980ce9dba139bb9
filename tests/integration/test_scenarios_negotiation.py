"""PostgreSQL's own tests of how encryption is negotiated, with walstream at either end.

They are ``libpq/t/005_negotiate_encryption.pl`` and ``postmaster/t/004_negotiate.pl``;
docs/reference/scenarios.md has the table of all.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import pytest_twisted

from tests.certificates import Authority
from tests.integration.attempts import CLIENTS, NOTHING
from tests.integration.tls import GSSENC_REQUEST, SSL_REQUEST, give_tls, small_archive
from tests.servers import Clusters, on_versions
from tests.servers.daemon import Serving, Walstream
from tests.servers.tracer import Tracer
from walstream.embedded import Account, Cluster
from walstream.wire.messages import parse_error

HBA = """
local        all         postgres                trust
host         all         postgres  127.0.0.1/32  trust
local        replication localuser               trust
host         replication testuser  127.0.0.1/32  trust
hostssl      replication ssluser   127.0.0.1/32  trust
hostnossl    replication nossluser 127.0.0.1/32  trust
hostgssenc   replication gssuser   127.0.0.1/32  trust
hostnogssenc replication nogssuser 127.0.0.1/32  trust
hostssl      replication certuser  127.0.0.1/32  cert
"""
USERS = ("localuser", "testuser", "ssluser", "nossluser", "gssuser", "nogssuser", "certuser")

# What happens by sslmode; "direct" is sslmode=require with sslnegotiation=direct. The same whether
# gssencmode is "disable" or "prefer", since the client has no credentials.
Expected = dict[str, str]

PLAIN = "connect, authok -> plain"
NO_TLS = "connect, sslreject -> fail"
NO_DIRECT_TLS = "connect, directsslreject -> fail"
NO_ENTRY = "connect, authfail -> fail"
ENCRYPTED = "connect, sslaccept, authok -> ssl"
DIRECT = "connect, directsslaccept, authok -> ssl"
NO_ENTRY_ENCRYPTED = "connect, sslaccept, authfail -> fail"
NO_ENTRY_DIRECT = "connect, directsslaccept, authfail -> fail"
# 004_sni: who is asked for no certificate can show none.
NO_AUTHORITIES = "client certificates can only be checked if a root certificate store is available"

ANYHOW_WITHOUT_TLS: Expected = {
    "disable": PLAIN,
    "allow": PLAIN,
    "prefer": "connect, sslreject, authok -> plain",
    "require": NO_TLS,
    "direct": NO_DIRECT_TLS,
}
NOHOW_WITHOUT_TLS: Expected = {
    "disable": NO_ENTRY,
    "allow": "connect, authfail, reconnect, sslreject -> fail",
    "prefer": "connect, sslreject, authfail -> fail",
    "require": NO_TLS,
    "direct": NO_DIRECT_TLS,
}
ANYHOW: Expected = {
    "disable": PLAIN,
    "allow": PLAIN,
    "prefer": ENCRYPTED,
    "require": ENCRYPTED,
    "direct": DIRECT,
}

WITHOUT_TLS: dict[str, Expected] = {
    "testuser": ANYHOW_WITHOUT_TLS,
    "ssluser": NOHOW_WITHOUT_TLS,
    "nossluser": ANYHOW_WITHOUT_TLS,
    "gssuser": NOHOW_WITHOUT_TLS,
    "nogssuser": ANYHOW_WITHOUT_TLS,
}
WITH_TLS: dict[str, Expected] = {
    "testuser": ANYHOW,
    "ssluser": {
        "disable": NO_ENTRY,
        "allow": "connect, authfail, reconnect, sslaccept, authok -> ssl",
        "prefer": ENCRYPTED,
        "require": ENCRYPTED,
        "direct": DIRECT,
    },
    "nossluser": {
        "disable": PLAIN,
        "allow": PLAIN,
        "prefer": "connect, sslaccept, authfail, reconnect, authok -> plain",
        "require": NO_ENTRY_ENCRYPTED,
        "direct": NO_ENTRY_DIRECT,
    },
    "gssuser": {
        "disable": NO_ENTRY,
        "allow": "connect, authfail, reconnect, sslaccept, authfail -> fail",
        "prefer": "connect, sslaccept, authfail, reconnect, authfail -> fail",
        "require": NO_ENTRY_ENCRYPTED,
        "direct": NO_ENTRY_DIRECT,
    },
    "nogssuser": ANYHOW,
}


def cases(expected: dict[str, Expected]) -> Iterator[tuple[str, str]]:
    """Options, and what happens by them."""
    for user, by_mode in expected.items():
        for mode, happens in by_mode.items():
            gss = ("disable", "prefer") if user == "testuser" else ("disable",)
            for gssencmode in gss:
                yield options(user, gssencmode, mode), happens
    # These end before anything is sent.
    for mode in ANYHOW:
        yield options("testuser", "require", mode), "- -> fail"
    for gssencmode, mode in product(("disable", "prefer"), ("disable", "allow", "prefer")):
        weak = options("testuser", gssencmode, mode)
        yield f"{weak} sslnegotiation=direct", "- -> fail"


def options(user: str, gssencmode: str, mode: str) -> str:
    """In a connection string."""
    way = "sslmode=require sslnegotiation=direct" if mode == "direct" else f"sslmode={mode}"
    return f"user={user} gssencmode={gssencmode} {way}"


def with_users(clusters: Clusters, sockets: Path | None = None) -> Cluster:
    """A server with the users.

    :param sockets: a directory, in which it listens too.
    """
    settings = {}
    if sockets is not None:
        Account.for_servers().make_directory(sockets)
        settings["unix_socket_directories"] = str(sockets)
    primary = clusters.primary(settings=settings, hba=HBA.splitlines())
    for user in USERS:
        primary.query(f"CREATE ROLE {user} LOGIN REPLICATION")
    return primary


@on_versions(18)
@pytest_twisted.ensureDeferred
async def test_every_way_to_come_to_terms(clusters: Clusters, tmp_path: Path) -> None:
    """005_negotiate_encryption: each user, sslmode, sslnegotiation and gssencmode, step by step.

    libpq and walstream, each at a server and at walstream, with TLS and without, do the same.
    """
    authority = Authority(tmp_path, "authority")
    issued = authority.issue("localhost", "127.0.0.1")
    primary = with_users(clusters)
    archive = small_archive(tmp_path / "archive")
    (tmp_path / "hba").write_text(HBA)
    rules: tuple[str | Path, ...] = ("send", "-D", archive, "--hba", tmp_path / "hba")
    tls = ("--tls-certificate", issued.certificate, "--tls-key", issued.key)
    wrong = []
    for table, more in ((WITHOUT_TLS, ()), (WITH_TLS, tls)):
        if more:
            give_tls(primary, issued)
            primary.restart()
        with ExitStack() as stack:
            log = tmp_path / f"log-{len(more)}"
            sender = stack.enter_context(Serving(*rules, *more, log=log))
            servers = {"postgresql": primary.port, "walstream": sender.port}
            tracers = {name: stack.enter_context(Tracer(port)) for name, port in servers.items()}
            for (chosen, expected), (client, attempt), (server, tracer) in product(
                cases(table), CLIENTS.items(), tracers.items()
            ):
                where = f"host=127.0.0.1 port={tracer.port} dbname=postgres {NOTHING}"
                told = tracer.told(await attempt(f"{where} {chosen}"))
                if told != expected:
                    wrong.append((client, server, chosen, told, expected))
            for attempt in CLIENTS.values() if more else ():
                for port in servers.values():
                    where = f"host=127.0.0.1 port={port} user=certuser {NOTHING}"
                    assert NO_AUTHORITIES in await attempt(f"{where} sslmode=require")
    assert not wrong, "\n".join(map(str, wrong))


# What a server says to an SSLRequest that cannot make a process for it, in the form of protocol 3
# and in that of 2.
OUT_OF_MEMORY = b"E\0\0\0\x21SFATAL\0C53200\0Mout of memory\0\0"
IN_OLD_FORM = b"ECould not fork new process for connection: out of memory\n\0"

FAULTS: dict[bytes, Expected] = {
    OUT_OF_MEMORY: dict.fromkeys(("prefer", "require"), "connect, error -> fail"),
    IN_OLD_FORM: dict.fromkeys(("prefer", "require"), "connect, error -> fail"),
    # It gives the handshake up.
    b"S": {
        "prefer": "connect, sslaccept, authfail, reconnect, authok -> plain",
        "require": "connect, sslaccept, authfail -> fail",
        "allow": PLAIN,
    },
    b"x": {"prefer": "connect, error -> fail"},
}


@pytest_twisted.ensureDeferred
async def test_a_server_in_trouble(clusters: Clusters) -> None:
    """005_negotiate_encryption: a server that fails at an SSLRequest, or in the handshake.

    An error is not shown, and not taken for a server without TLS (CVE-2024-10977).
    """
    primary = with_users(clusters)
    with Tracer(primary.port) as tracer:
        where = f"host=127.0.0.1 port={tracer.port} dbname=postgres user=testuser {NOTHING}"
        for answer, expected in FAULTS.items():
            tracer.answer = answer
            for (mode, happens), attempt in product(expected.items(), CLIENTS.values()):
                said = await attempt(f"{where} gssencmode=disable sslmode={mode}")
                assert tracer.told(said) == happens, (answer, mode, said)
                assert "memory" not in said
                if answer.startswith(b"E"):
                    assert "server sent an error response during SSL exchange" in said


@pytest_twisted.ensureDeferred
async def test_over_a_unix_socket(clusters: Clusters, directory: Path, tmp_path: Path) -> None:
    """005_negotiate_encryption: nobody asks for encryption there, and nobody would get it."""
    authority = Authority(tmp_path, "authority")
    issued = authority.issue("localhost")
    sockets = directory / "sockets"
    primary = with_users(clusters, sockets)
    give_tls(primary, issued)
    primary.restart()
    archive = small_archive(tmp_path / "archive")
    (tmp_path / "hba").write_text(HBA)
    path = sockets / ".s.PGSQL.5433"
    command = ("send", "-D", archive, "--hba", tmp_path / "hba", "--listen", f"unix:{path}")
    tls = ("--tls-certificate", issued.certificate, "--tls-key", issued.key)
    with Walstream(*command, *tls, log=tmp_path / "log") as sender:
        sender.await_text("listening on")
        for port, attempt in product((primary.port, 5433), CLIENTS.values()):
            where = f"host={sockets} port={port} user=localuser dbname=postgres {NOTHING}"
            for mode in ("disable", "prefer", "require"):
                assert await attempt(f"{where} gssencmode=prefer sslmode={mode}") == "plain", mode
            assert await attempt(f"{where} gssencmode=require") not in ("plain", "ssl")
        for order in ORDERS:
            theirs, ours = (
                ask(sockets / f".s.PGSQL.{port}", order) for port in (primary.port, 5433)
            )
            assert ours == theirs, order
            assert "unsupported frontend protocol 1234." in ours[1], order


# 004_negotiate: each encryption may be asked for once; then it is taken for another protocol.
ORDERS = (
    (SSL_REQUEST, SSL_REQUEST),
    (GSSENC_REQUEST, GSSENC_REQUEST),
    (SSL_REQUEST, GSSENC_REQUEST, SSL_REQUEST),
    (GSSENC_REQUEST, SSL_REQUEST, GSSENC_REQUEST),
)


def ask(path: Path, order: tuple[bytes, ...]) -> tuple[bytes, str]:
    """What is answered to requests for encryption on a UNIX socket, and the error behind it."""
    answers = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        for request in order:
            connection.sendall(request)
            answers += connection.recv(4096)
    number = answers.count(b"N", 0, len(order))
    return answers[:number], str(parse_error(answers[number + 5 :]))
