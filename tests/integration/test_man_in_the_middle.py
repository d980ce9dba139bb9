"""Somebody in the middle, between a receiver and a real server with TLS and SCRAM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from tests.certificates import Authority, Issued
from tests.integration.tls import give_tls
from tests.servers import Clusters
from tests.servers.interceptor import (
    Edit,
    Interceptor,
    asking_for_cleartext,
    without_channel_binding,
)
from tests.unit.log_capture import captured_log
from walstream.embedded import Cluster
from walstream.errors import Disconnected
from walstream.protocols.client import ReplicationClient
from walstream.services.endpoint import UpstreamAddress, UpstreamEndpoint
from walstream.upstream import parse_conninfo

reactor = cast(Any, _reactor)

NOT_ENCRYPTED = "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection"
NOT_BOUND = (
    "channel binding is required, but server did not offer an authentication method that "
    "supports channel binding"
)
NOT_BY_THIS = "channel binding required but not supported by server's authentication request"


@dataclass(frozen=True)
class Somebody:
    """In the middle, in some way; what a receiver demands, and what is said."""

    demands: str
    said: str
    edit: Edit = bytes
    encrypts: bool = True


# {} is the file of the authority that has signed the true server's certificate.
EACH = (
    # Nothing protects but the password: the true server finds out.
    Somebody("sslmode=require", "SCRAM channel binding check failed"),
    Somebody("sslmode=require", "SCRAM channel binding negotiation error", without_channel_binding),
    # Or we do.
    Somebody("sslmode=require channel_binding=require", NOT_BOUND, without_channel_binding),
    Somebody("sslmode=require", "the password in cleartext", asking_for_cleartext),
    Somebody(
        "sslmode=require require_auth=scram-sha-256",
        "server requested a cleartext password",
        asking_for_cleartext,
    ),
    Somebody("sslmode=require channel_binding=require", NOT_BY_THIS, asking_for_cleartext),
    # It takes the encryption away.
    Somebody("sslmode=prefer", NOT_ENCRYPTED, encrypts=False),
    Somebody("sslmode=require", "server does not support SSL", encrypts=False),
    # It has the wrong certificate.
    Somebody("sslmode=verify-ca sslrootcert={}", "certificate verify failed"),
    Somebody("sslmode=verify-full sslrootcert={}", "certificate verify failed"),
)


class Clients(Factory):
    """Makes clients that log in, and no more."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> ReplicationClient:
        return ReplicationClient(cast(UpstreamAddress, addr).login)


def secured(clusters: Clusters, issued: Issued) -> Cluster:
    """A server that wants TLS, and a password by SCRAM."""
    primary = clusters.primary()
    primary.query("CREATE ROLE walstream LOGIN REPLICATION PASSWORD 'sesame'")
    give_tls(primary, issued)
    primary.allow(
        "hostssl replication walstream 127.0.0.1/32 scram-sha-256",
        "host all all 127.0.0.1/32 trust",
    )
    primary.restart()
    return primary


async def log_in(port: int, demands: str) -> str:
    """What is said of a login; nothing if we are let in."""
    place = f"host=127.0.0.1 port={port} user=walstream password=sesame"
    upstream = parse_conninfo(f"{place} {demands}", {"HOME": "/nonexistent"})
    try:
        client = await UpstreamEndpoint(reactor, upstream).connect(Clients())
    except Disconnected as error:
        return str(error)
    cast(ReplicationClient, client).abort(Disconnected("seen"))
    return ""


@pytest_twisted.ensureDeferred
async def test_somebody_in_the_middle(clusters: Clusters, tmp_path: Path) -> None:
    """It is found out, by the true server or by us, and never hears the password."""
    authority, stranger = Authority(tmp_path, "authority"), Authority(tmp_path, "stranger")
    primary = secured(clusters, authority.issue("localhost", "127.0.0.1", stem="server"))
    forged = stranger.issue("localhost", "127.0.0.1", stem="forged")
    for mode in (
        "require channel_binding=require",
        f"verify-full sslrootcert={authority.certificate}",
    ):
        assert await log_in(primary.port, f"sslmode={mode}") == ""
    for each in EACH:
        demands = each.demands.format(authority.certificate)
        with (
            captured_log() as log,
            Interceptor(
                primary.port, forged.certificate, forged.key, each.edit, encrypts=each.encrypts
            ) as somebody,
        ):
            said = await log_in(somebody.port, demands)
        assert each.said in said, demands
        assert b"sesame" not in somebody.heard
        assert "sesame" not in said + "".join(log)
