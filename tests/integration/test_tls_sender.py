"""TLS of ``walstream send`` and ``hub`` to real clients, beside a real server's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.integration.tls import SSL_REQUEST, STARTUP, give_tls, handshake, raw, small_archive
from tests.servers import Clusters, on_versions
from tests.servers.daemon import Serving


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Knows the servers."""
    return Authority(tmp_path, "authority")


@on_versions(17, 18)
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
