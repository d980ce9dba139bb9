"""A login that is bound to its TLS connection, and somebody who would like it not to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest_twisted
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from tests.certificates import Authority
from tests.integration.test_tls_receiver import core, libpq, walstream
from tests.integration.tls import give_tls
from tests.servers import Clusters
from tests.servers.interceptor import (
    Edit,
    Interceptor,
    asking_for_cleartext,
    without_channel_binding,
)
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


@dataclass(frozen=True)
class Attack:
    """What somebody in the middle does, and what both clients say of it."""

    options: str
    said: str
    edit: Edit = bytes
    encrypts: bool = True


ATTACKS = (
    Attack("sslmode=verify-full sslrootcert={root}", "certificate verify failed"),
    Attack("sslmode=require", "SCRAM channel binding check failed"),
    Attack("sslmode=require channel_binding=require", "SCRAM channel binding check failed"),
    Attack(
        "sslmode=require channel_binding=require",
        "channel binding is required, but server did not offer an authentication method that "
        "supports channel binding",
        without_channel_binding,
    ),
    Attack("sslmode=require", "SCRAM channel binding negotiation error", without_channel_binding),
    Attack(
        "sslmode=require channel_binding=require",
        "channel binding required but not supported by server's authentication request",
        asking_for_cleartext,
    ),
    Attack(
        "sslmode=require require_auth=scram-sha-256",
        'authentication method requirement "scram-sha-256" failed: server requested a cleartext '
        "password",
        asking_for_cleartext,
    ),
    Attack(
        "sslmode=prefer",
        "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection",
        encrypts=False,
    ),
    Attack("sslmode=require", "server does not support SSL, but SSL was required", encrypts=False),
)


@pytest_twisted.ensureDeferred
async def test_somebody_in_the_middle(clusters: Clusters, tmp_path: Path) -> None:
    """He decrypts, passes on, and takes away: both clients notice, and he learns no password."""
    authority, other = Authority(tmp_path, "authority"), Authority(tmp_path, "other")
    forged = other.issue("localhost", "127.0.0.1", stem="forged")
    server = with_password(clusters, authority)
    for attack in ATTACKS:
        files = (forged.certificate, forged.key)
        with Interceptor(server.port, *files, attack.edit, encrypts=attack.encrypts) as middle:
            options = attack.options.format(root=authority.certificate)
            conninfo = (
                f"host=127.0.0.1 port={middle.port} dbname=postgres user=wal password={SECRET} "
                f"sslcert=/nonexistent sslrootcert=/nonexistent {options}"
            )
            theirs, ours = await in_thread(libpq, conninfo), await walstream(conninfo)
            assert attack.said in theirs, (attack, theirs)
            assert attack.said in ours, (attack, ours)
            assert SECRET.encode() not in middle.heard
    # What libpq gives away, and we don't.
    with Interceptor(server.port, forged.certificate, forged.key, asking_for_cleartext) as middle:
        conninfo = (
            f"host=127.0.0.1 port={middle.port} dbname=postgres user=wal password={SECRET} "
            "sslmode=require sslcert=/nonexistent sslrootcert=/nonexistent"
        )
        assert "in cleartext" in await walstream(conninfo)
        assert SECRET.encode() not in middle.heard
        await in_thread(libpq, conninfo)
        assert SECRET.encode() in middle.heard


async def in_thread(function: Any, conninfo: str) -> Any:
    """libpq waits for the interceptor, which is in a thread: so is this."""
    from twisted.internet.threads import deferToThread

    return await deferToThread(function, conninfo)


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
