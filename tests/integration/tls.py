"""Clients that come to TLS in every way, and what they are told."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psycopg
from cryptography import x509

from tests.certificates import Authority, Issued
from tests.unit.archives import BUILT, SIZE, record_wal
from walstream.embedded import Cluster
from walstream.wire.startup import startup_message

__all__ = [
    "GSSENC_REQUEST",
    "SSL_REQUEST",
    "Known",
    "by_hash",
    "give_tls",
    "handshake",
    "raw",
    "said",
    "shown_serial",
    "small_archive",
]

SSL_REQUEST = bytes.fromhex("00000008 04D2162F")
GSSENC_REQUEST = bytes.fromhex("00000008 04D21630")
STARTUP = startup_message({"user": "postgres", "replication": "true"})


class Known:
    """A certificate and its key, by the beginning of their files' names."""

    def __init__(self, stem: Path) -> None:
        self.certificate = stem.with_suffix(".crt")
        self.key = stem.with_suffix(".key")


def small_archive(directory: Path, segments: int = 4) -> Path:
    """An archive of a few segments, with which a sender has something to say."""
    directory.mkdir(mode=0o700)
    for number in range(SIZE.number(BUILT.start), SIZE.number(BUILT.start) + segments):
        (directory / SIZE.name(1, number)).write_bytes(record_wal(SIZE.start(number), SIZE))
    return directory


def by_hash(directory: Path, lists: Mapping[Authority, Path]) -> Path:
    """A directory of lists of what is revoked, named as ``c_rehash`` does."""
    directory.mkdir()
    for authority, path in lists.items():
        command = ["openssl", "x509", "-hash", "-noout", "-in", str(authority.certificate)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (directory / f"{done.stdout.strip()}.r0").write_bytes(path.read_bytes())
    return directory


def give_tls(
    cluster: Cluster,
    issued: Issued | Known,
    authority: Authority | Known | None = None,
    revoked: Path | None = None,
) -> dict[str, str]:
    """The settings by which a server has TLS, with copies of the files that belong to it."""
    settings = {"ssl": "on", **cluster_files(cluster, issued, authority, revoked)}
    cluster.configure(settings)
    return settings


def cluster_files(
    cluster: Cluster,
    issued: Issued | Known,
    authority: Authority | Known | None,
    revoked: Path | None,
) -> dict[str, str]:
    """Copies that the server's user may read."""
    files = {"ssl_cert_file": issued.certificate, "ssl_key_file": issued.key}
    if authority is not None:
        files["ssl_ca_file"] = authority.certificate
    if revoked is not None:
        files["ssl_crl_file"] = revoked
    named = {}
    for setting, path in files.items():
        copy = cluster.directory / f"tls-{path.name}"
        copy.write_bytes(path.read_bytes())
        copy.chmod(0o600)
        cluster.account.own(copy)
        named[setting] = str(copy)
    return named


def raw(port: int, *pieces: bytes) -> bytes:
    """What is answered to *pieces* in the clear, each sent when the one before was answered."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        answer = b""
        for piece in pieces:
            connection.sendall(piece)
            with contextlib.suppress(ConnectionError):
                answer += connection.recv(4096)
        with contextlib.suppress(ConnectionError, TimeoutError):
            connection.settimeout(5)
            while more := connection.recv(4096):
                answer += more
        return answer


def handshake(
    port: int, alpn: list[str] | None, *, direct: bool, context: ssl.SSLContext | None = None
) -> str:
    """What comes of a TLS connection: the protocol chosen and whether a session begins."""
    context = context or ssl._create_unverified_context()
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        if not direct:
            connection.sendall(SSL_REQUEST)
            answer = connection.recv(1)
            if answer != b"S":
                return f"answered {answer!r}"
        try:
            encrypted = context.wrap_socket(connection)
        except (ssl.SSLError, OSError) as error:
            return getattr(error, "reason", None) or type(error).__name__
        with encrypted:
            try:
                encrypted.sendall(STARTUP)
                answer = encrypted.recv(1)
            except (ssl.SSLError, OSError) as error:
                return f"handshake, then {getattr(error, 'reason', None) or 'end'}"
            return f"{encrypted.selected_alpn_protocol()}, {answer.decode() or 'end'}"


def shown_serial(port: int) -> int:
    """The serial number of the certificate that a server shows."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(SSL_REQUEST)
        assert connection.recv(1) == b"S"
        with ssl._create_unverified_context().wrap_socket(connection) as encrypted:
            certificate = encrypted.getpeercert(binary_form=True)
            assert certificate is not None
            return x509.load_der_x509_certificate(certificate).serial_number


def said(conninfo: str) -> str:
    """What libpq says of a connection attempt; empty if it succeeds."""
    try:
        psycopg.connect(conninfo, replication="true", autocommit=True).close()
    except psycopg.OperationalError as error:
        return str(error)
    return ""
