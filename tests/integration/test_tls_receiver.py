"""TLS to a real server: what walstream does, beside what libpq does, case by case."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from cryptography.hazmat.primitives import serialization

from tests.certificates import Authority, write_key
from tests.integration.attempts import NOTHING, libpq, walstream
from tests.integration.tls import Known, by_hash, give_tls
from tests.servers import Clusters
from walstream.embedded import Cluster


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Knows the servers."""
    return Authority(tmp_path, "authority")


def address(server: Cluster) -> str:
    """Where it is, with nothing that decides about TLS."""
    return f"host=127.0.0.1 port={server.port} dbname=postgres {NOTHING}"


NOT_BY_MD5 = "channel binding required but not supported by server's authentication request"
# PostgreSQL's ``ssl/001_ssltests`` and ``ssl/002_scram``, as far as they are about the client, and
# more: options, and what both say when they do not come in. {} is where the certificates are.
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
    "sslmode=require ssl_max_protocol_version=incorrect": (
        'invalid "ssl_max_protocol_version" value: "incorrect"'
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
    "sslmode=require user=cert sslcert={}/cert.crt sslkey={}/secret.der sslpassword=wrong": (
        "could not load private key file"
    ),
    "sslmode=require sslcertmode=allow": "",
    "sslmode=require user=cert sslcertmode=allow sslcert={}/cert.crt sslkey={}/cert.key": "",
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
    "sslmode=require user=scram password=sesame channel_binding=invalid_value": (
        'invalid channel_binding value: "invalid_value"'
    ),
    "sslmode=require user=scram password=sesame channel_binding=disable "
    "require_auth=scram-sha-256": "",
    "sslmode=require user=scram password=sesame channel_binding=require "
    "require_auth=scram-sha-256": "",
    "sslmode=require user=md5 password=sesame channel_binding=require": NOT_BY_MD5,
    "sslmode=require user=md5 password=sesame channel_binding=require require_auth=md5": NOT_BY_MD5,
    "sslmode=require user=cert sslcert={}/cert.crt sslkey={}/cert.key channel_binding=require": (
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
    by_hash(tmp_path / "crls", {authority: revoked})
    write_key(tmp_path / "open.key", cert.private_key, mode=0o644)
    write_key(tmp_path / "secret.key", cert.private_key, password=b"sesame")
    for name, form, encryption in (
        ("cert", serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()),
        (
            "secret",
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"sesame"),
        ),
    ):
        der = tmp_path / f"{name}.der"
        der.write_bytes(
            cert.private_key.private_bytes(serialization.Encoding.DER, form, encryption)
        )
        der.chmod(0o600)
    return tmp_path


@pytest_twisted.ensureDeferred
async def test_certificates(clusters: Clusters, certificates: Path, authority: Authority) -> None:
    """Every case ends alike: encrypted or not, and in the same words where it is refused."""
    server = clusters.primary(settings={"password_encryption": "scram-sha-256"})
    server.query("CREATE ROLE cert LOGIN REPLICATION")
    server.query("CREATE ROLE scram LOGIN REPLICATION PASSWORD 'sesame'")
    server.query(
        "SET password_encryption = 'md5'; CREATE ROLE md5 LOGIN REPLICATION PASSWORD 'sesame'"
    )
    server.allow(
        "hostssl all,replication cert 127.0.0.1/32 cert",
        "host all,replication scram 127.0.0.1/32 scram-sha-256",
        "host all,replication md5 127.0.0.1/32 md5",
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
    # libpq reads no key that is encrypted and not in PEM form.
    key = f"sslkey={certificates}/secret.der sslpassword=sesame sslcert={certificates}/cert.crt"
    assert await walstream(f"{address(server)} user=cert sslmode=require {key}") == "ssl"
