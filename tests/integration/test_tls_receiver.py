"""TLS to a real server: what walstream does, beside what libpq does, case by case."""

from __future__ import annotations

import subprocess
from itertools import product
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
import pytest_twisted
from cryptography.hazmat.primitives import serialization
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from tests.certificates import Authority, write_key
from tests.integration.tls import Known, give_tls
from tests.servers import Clusters, on_versions
from walstream.embedded import Cluster
from walstream.errors import Disconnected, FormatError
from walstream.protocols.client import ReplicationClient
from walstream.services.endpoint import UpstreamAddress, UpstreamEndpoint
from walstream.upstream import parse_conninfo

NOTHING = "sslrootcert=/nonexistent sslcert=/nonexistent"


class Clients(Factory):
    """Makes clients that log in, and no more."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> ReplicationClient:
        return ReplicationClient(cast(UpstreamAddress, addr).login)


async def walstream(conninfo: str) -> str:
    """How walstream comes in: ``ssl``, ``plain``, or what it says."""
    try:
        upstream = parse_conninfo(conninfo, {"HOME": "/nonexistent"})
    except FormatError as error:
        return str(error)
    try:
        connecting: Deferred[Any] = UpstreamEndpoint(cast(Any, reactor), upstream).connect(
            Clients()
        )
        client: ReplicationClient = await connecting
    except Disconnected as error:
        return str(error)
    kind = "plain" if client.encryption is None else "ssl"
    client.abort(Disconnected("seen"))
    return kind


def libpq(conninfo: str) -> str:
    """The same of libpq."""
    try:
        connection = psycopg.connect(conninfo, replication="true", autocommit=True)
    except psycopg.Error as error:
        return str(error)
    with connection:
        return "ssl" if connection.pgconn.ssl_in_use else "plain"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Knows the servers."""
    return Authority(tmp_path, "authority")


def connections(server: Cluster) -> int:
    """How many connections the server has seen."""
    return server.log.read_text().count("connection received:")


def address(server: Cluster) -> str:
    """Where it is, with nothing that decides about TLS."""
    return f"host=127.0.0.1 port={server.port} dbname=postgres {NOTHING}"


HBA = (
    "local all all trust",
    "host all,replication postgres 127.0.0.1/32 trust",
    "hostssl all,replication ssluser 127.0.0.1/32 trust",
    "hostnossl all,replication nossluser 127.0.0.1/32 trust",
)
USERS = ("postgres", "ssluser", "nossluser")
MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def with_roles(clusters: Clusters, *, tls: bool, authority: Authority) -> Cluster:
    """A server that lets some users in encrypted only, and others only not."""
    primary = clusters.primary("with-tls" if tls else "without", settings={"log_connections": "on"})
    for user in ("ssluser", "nossluser"):
        primary.query(f"CREATE ROLE {user} LOGIN REPLICATION")
    primary.allow(*HBA)
    if tls:
        give_tls(primary, authority.issue("localhost", "127.0.0.1", stem="server"))
    primary.restart()
    return primary


@on_versions(18)
@pytest_twisted.ensureDeferred
async def test_negotiation(clusters: Clusters, authority: Authority) -> None:
    """PostgreSQL's ``libpq/005_negotiate_encryption``: every user, mode, negotiation and server.

    Both come in the same way, or are told the same, in as many connections.
    """
    for tls in (True, False):
        server = with_roles(clusters, tls=tls, authority=authority)
        where = f"{address(server)} sslrootcert={authority.certificate}"
        for user, mode, way in product(USERS, MODES, ("postgres", "direct")):
            options = f"user={user} sslmode={mode} sslnegotiation={way}"
            await assert_the_same(server, f"{where} {options}")


async def assert_the_same(server: Cluster, conninfo: str) -> None:
    """Both come in alike."""
    before = connections(server)
    theirs = libpq(conninfo)
    between = connections(server)
    ours = await walstream(conninfo)
    after = connections(server)
    if theirs in ("ssl", "plain"):
        assert ours == theirs, conninfo
    else:
        assert core(theirs) in ours, conninfo
    assert after - between == between - before, conninfo


def core(said: str) -> str:
    """What libpq says in the end, without where."""
    last = said.rpartition("failed: ")[2].removeprefix("connection is bad: ")
    return last.splitlines()[0].replace("  ", " ")


# PostgreSQL's ``ssl/001_ssltests``, as far as it is about the client: options, and what both say
# when they do not come in. {} is the directory with the certificates.
CERTIFICATES = {
    # Whom to trust.
    "sslmode=require sslrootcert=invalid": "",
    "sslmode=verify-ca sslrootcert=invalid": 'root certificate file "invalid" does not exist',
    "sslmode=verify-full sslrootcert=invalid": 'root certificate file "invalid" does not exist',
    "sslmode=require sslrootcert={}/stranger.crt": "certificate verify failed",
    "sslmode=prefer sslrootcert={}/stranger.crt": "",
    "sslmode=verify-ca sslrootcert={}/stranger.crt": "certificate verify failed",
    "sslmode=require sslrootcert={}/authority.crt": "",
    "sslmode=verify-ca sslrootcert={}/authority.crt": "",
    "sslmode=verify-full sslrootcert={}/authority.crt": "",
    "sslmode=verify-ca sslrootcert={}/both.crt": "",
    "sslrootcert=system": "certificate verify failed",
    "sslrootcert=system sslmode=verify-ca": "weak sslmode",
    # Which host.
    "sslmode=verify-full sslrootcert={}/authority.crt host=localhost": "",
    "sslmode=verify-full sslrootcert={}/authority.crt host=a.wildcard.test": "",
    "sslmode=verify-full sslrootcert={}/authority.crt host=a.b.wildcard.test": (
        'server certificate for "localhost" (and 2 other names) does not match host name '
        '"a.b.wildcard.test"'
    ),
    "sslmode=verify-ca sslrootcert={}/authority.crt host=wronghost.test": "",
    "sslmode=verify-full sslrootcert={}/authority.crt host=wronghost.test": (
        "does not match host name"
    ),
    "sslmode=verify-full sslrootcert={}/authority.crt host=127.0.0.2": "does not match host name",
    "sslmode=verify-full sslrootcert={}/authority.crt host=''": "host name must be specified",
    # What is revoked.
    "sslmode=verify-ca sslrootcert={}/authority.crt sslcrl={}/others.crl": "",
    "sslmode=verify-ca sslrootcert={}/authority.crt sslcrl={}/server.crl": (
        "certificate verify failed"
    ),
    "sslmode=verify-ca sslrootcert={}/authority.crt sslcrl={}/stranger.crl": (
        "certificate verify failed"
    ),
    "sslmode=verify-ca sslrootcert={}/authority.crt sslcrldir={}/crls": "certificate verify failed",
    # Which versions.
    "sslmode=require ssl_min_protocol_version=TLSv1.2 ssl_max_protocol_version=TLSv1.2": "",
    "sslmode=require ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2": (
        "invalid SSL protocol version range"
    ),
    "sslmode=require ssl_min_protocol_version=incorrect": (
        'invalid "ssl_min_protocol_version" value: "incorrect"'
    ),
    "sslmode=require sslsni=0": "",
    # Our own certificate.
    "sslmode=require user=cert": "connection requires a valid client certificate",
    "sslmode=require user=cert sslcert={}/cert.crt sslkey={}/cert.key": "",
    "sslmode=allow user=cert sslcert={}/cert.crt sslkey={}/cert.key": "",
    "sslmode=require user=cert sslcert={}/cert.crt sslkey={}/missing.key": (
        "certificate present, but not private key file"
    ),
    "sslmode=require user=cert sslcert={}/cert.crt sslkey={}/open.key": (
        "has group or world access"
    ),
    "sslmode=require user=cert sslcert={}/cert.crt sslkey={}/other.key": ("key values mismatch"),
    "sslmode=require user=cert sslcert={}/cert.crt sslkey={}/secret.key sslpassword=sesame": "",
    "sslmode=require user=cert sslcert={}/cert.crt sslkey={}/secret.key sslpassword=wrong": (
        "could not load private key file"
    ),
    "sslmode=require user=cert sslcert={}/cert.crt sslkey={}/cert.der": "",
    "sslmode=require user=cert sslcertmode=disable sslcert={}/cert.crt sslkey={}/cert.key": (
        "connection requires a valid client certificate"
    ),
    "sslmode=require sslcertmode=require sslcert={}/cert.crt sslkey={}/cert.key": "",
    "sslmode=require sslcertmode=require": (
        "server accepted connection without a valid SSL certificate"
    ),
    "sslmode=disable sslcertmode=require": "server did not request an SSL certificate",
    "sslmode=require user=cert sslcert={}/other.crt sslkey={}/other.key": (
        'certificate authentication failed for user "cert"'
    ),
    "sslmode=require user=cert sslcert={}/false.crt sslkey={}/false.key": "unknown ca",
    "sslmode=require user=cert sslcert={}/late.crt sslkey={}/late.key": "certificate expired",
    "sslmode=require user=cert sslcert={}/gone.crt sslkey={}/gone.key": "certificate revoked",
    # Whether it falls back.
    "sslmode=prefer sslcert={}/cert.crt sslkey={}/open.key": "",
    # Passwords, bound to the connection.
    "sslmode=require user=scram password=sesame channel_binding=require": "",
    "sslmode=require user=scram password=sesame channel_binding=prefer": "",
    "sslmode=require user=scram password=sesame channel_binding=disable": "",
    "sslmode=require user=scram password=wrong": "password authentication failed",
    "sslmode=prefer user=scram password=wrong": "password authentication failed",
    "sslmode=disable user=scram password=sesame channel_binding=require": (
        "channel binding required, but SSL not in use"
    ),
    "sslmode=require channel_binding=require": (
        "channel binding required, but server authenticated client without channel binding"
    ),
}


@pytest.fixture
def certificates(tmp_path: Path, authority: Authority) -> Path:
    """The files that the cases name."""
    stranger = Authority(tmp_path, "stranger")
    server = authority.issue("server", "localhost", "*.wildcard.test", "127.0.0.1", stem="server")
    authority.issue("server", "localhost", stem="expired", expired=True)
    (tmp_path / "both.crt").write_bytes(
        stranger.certificate.read_bytes() + authority.certificate.read_bytes()
    )
    authority.issue("other")
    cert = authority.issue("cert")
    gone = authority.issue("gone", subject=cert.x509.subject)
    authority.issue("late", subject=cert.x509.subject, expired=True)
    stranger.issue("false", subject=cert.x509.subject)
    authority.revoke(gone, file="others.crl")
    revoked = authority.revoke(server, file="server.crl")
    stranger.revoke(file="stranger.crl")
    (tmp_path / "crls").mkdir()
    hashed = f"{name_hash(authority)}.r0"
    (tmp_path / "crls" / hashed).write_bytes(revoked.read_bytes())
    write_key(tmp_path / "open.key", cert.private_key, mode=0o644)
    write_key(tmp_path / "secret.key", cert.private_key, password=b"sesame")
    der = cert.private_key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (tmp_path / "cert.der").write_bytes(der)
    (tmp_path / "cert.der").chmod(0o600)
    return tmp_path


def name_hash(authority: Authority) -> str:
    """By which OpenSSL looks for what an authority has issued."""
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(authority.certificate)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest_twisted.ensureDeferred
async def test_certificates(clusters: Clusters, certificates: Path, authority: Authority) -> None:
    """Every case ends alike: encrypted or not, and in the same words where it is refused."""
    server = clusters.primary(settings={"password_encryption": "scram-sha-256"})
    server.query("CREATE ROLE cert LOGIN REPLICATION")
    server.query("CREATE ROLE scram LOGIN REPLICATION PASSWORD 'sesame'")
    server.allow(
        "hostssl all,replication cert 127.0.0.1/32 cert",
        "host all,replication scram 127.0.0.1/32 scram-sha-256",
        "host all,replication all 127.0.0.1/32 trust",
    )
    issued = Known(certificates / "server")
    give_tls(server, issued, authority, certificates / "others.crl")
    server.restart()
    wrong = []
    for options, words in CERTIFICATES.items():
        conninfo = f"hostaddr=127.0.0.1 {address(server)} user=postgres "
        conninfo += options.format(*[certificates] * 3)
        theirs, ours = libpq(conninfo), await walstream(conninfo)
        agreed = words in ours and words in theirs if words else ours == theirs
        if not agreed or (not words and theirs not in ("ssl", "plain")):
            wrong.append((options, theirs, ours))
    assert wrong == [], wrong
