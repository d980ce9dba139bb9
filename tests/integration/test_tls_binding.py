"""A login that is bound to its TLS connection, with every kind of certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest_twisted
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from tests.certificates import Authority
from tests.integration.test_tls_receiver import core, libpq, walstream
from tests.integration.tls import give_tls
from tests.servers import Clusters
from walstream.embedded import Cluster

SECRET = "open-sesame"


def with_password(clusters: Clusters, authority: Authority) -> Cluster:
    """A server that wants TLS, and a password by SCRAM."""
    server = clusters.primary(settings={"password_encryption": "scram-sha-256"})
    server.query("CREATE ROLE wal LOGIN REPLICATION PASSWORD 'open-sesame'")
    server.allow("hostssl all,replication wal 127.0.0.1/32 scram-sha-256")
    give_tls(server, authority.issue("localhost", "127.0.0.1", stem="server"))
    server.restart()
    return server


@pytest_twisted.ensureDeferred
async def test_every_kind_of_certificate(clusters: Clusters, tmp_path: Path) -> None:
    """What the login is bound to is the hash that the server and libpq take, or none."""
    authority = Authority(tmp_path, "authority")
    server = with_password(clusters, authority)
    pss = padding.PSS(padding.MGF1(hashes.SHA512()), padding.PSS.DIGEST_LENGTH)
    signer = rsa.generate_private_key(65537, 2048)
    kinds: list[tuple[Any, Any, dict[str, Any], str]] = [
        (authority.key, hashes.SHA256(), {}, "ssl"),
        (authority.key, hashes.SHA384(), {}, "ssl"),
        (signer, hashes.SHA256(), {}, "ssl"),
        (signer, hashes.SHA512(), {"rsa_padding": pss}, "ssl"),
        (ed25519.Ed25519PrivateKey.generate(), None, {}, ""),
    ]
    for number, (key, method, how, expected) in enumerate(kinds):
        authority.key = key
        issued = authority.issue(
            "localhost", stem=f"kind-{number}", method=method, no_method=method is None, **how
        )
        give_tls(server, issued)
        server.restart()
        for binding in ("require", "prefer", "disable"):
            conninfo = (
                f"host=127.0.0.1 port={server.port} dbname=postgres user=wal password={SECRET} "
                "sslmode=require sslcert=/nonexistent sslrootcert=/nonexistent "
                f"channel_binding={binding}"
            )
            theirs, ours = libpq(conninfo), await walstream(conninfo)
            if expected or binding == "disable":
                assert (theirs, ours) == ("ssl", "ssl"), (number, binding)
            else:
                assert theirs not in ("ssl", "plain"), core(theirs)
                assert "channel binding is not possible" in ours
