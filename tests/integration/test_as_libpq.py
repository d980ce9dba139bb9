"""Who is let in by which server, and who is refused by which words: beside libpq, that is, psql."""

from __future__ import annotations

import re
import subprocess
from itertools import product
from typing import Any, cast

import pytest_twisted
from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from tests.servers import Clusters, installation, on_versions, selected_majors
from walstream.errors import Disconnected, WalstreamError
from walstream.protocols.client import ReplicationClient
from walstream.services.endpoint import UpstreamAddress, UpstreamEndpoint
from walstream.upstream import parse_conninfo

reactor = cast(Any, _reactor)

# A role for each method, all with the same password.
METHODS = {"t": "trust", "p": "password", "m": "md5", "s": "scram-sha-256", "r": "reject"}
USERS = (*METHODS, "nobody")

PASSWORDS = ("password=sesame", "password=wrong", "")
DEMANDS = (
    "",
    "require_auth=scram-sha-256",
    "require_auth=md5",
    "require_auth=password",
    "require_auth=none",
    "require_auth=none,scram-sha-256",
    "require_auth=gss,sspi,oauth",
    "require_auth=!none",
    "require_auth=!scram-sha-256",
    "require_auth=!password,!md5",
    "channel_binding=disable",
    "channel_binding=require",
    "channel_binding=require require_auth=scram-sha-256",
    "channel_binding=maybe",
    "require_auth=bogus",
    "require_auth=md5,md5",
    "require_auth=!md5,password",
    "require_auth=md5,!password",
)

#: What libpq says, and what we say instead.
OURS = {
    "fe_sendauth: no password supplied": "the server asks for a password, and none is known",
}
IN_CLEARTEXT = "the server asks for the password in cleartext"


class _Clients(Factory):
    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> ReplicationClient:
        address: object = addr
        assert isinstance(address, UpstreamAddress)
        return ReplicationClient(address.login)


async def ours(conninfo: str) -> str:
    """What walstream says; nothing if it is let in."""
    try:
        upstream = parse_conninfo(conninfo, {"HOME": "/nonexistent"})
        client = cast(
            ReplicationClient, await UpstreamEndpoint(reactor, upstream).connect(_Clients())
        )
    except WalstreamError as error:
        return str(error)
    client.close(Disconnected("it was let in"))
    return ""


def libpqs(psql: str, conninfo: str) -> str:
    """What psql says; nothing if it is let in."""
    done = subprocess.run(
        [psql, "--no-password", "-Atc", "IDENTIFY_SYSTEM", f"{conninfo} replication=true"],
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": "/nonexistent", "LC_ALL": "C"},
        timeout=20,
    )
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().removeprefix("psql: error: ").splitlines()[0]
    said = re.sub(r'^connection to server at "[^"]*", port \d+ failed: ', "", said)
    return said.replace("FATAL:  ", "FATAL: ")


@on_versions(15, 18)
@pytest_twisted.ensureDeferred
async def test_as_libpq(clusters: Clusters) -> None:
    """The same are let in, and the others refused in the same words, but for what we refuse more.

    That is one thing: a password in cleartext to a server that could be anybody's.
    """
    primary = clusters.primary()
    for user in METHODS:
        primary.query(
            f"SET password_encryption = '{'md5' if user == 'm' else 'scram-sha-256'}';"
            f" CREATE ROLE {user} LOGIN REPLICATION PASSWORD 'sesame'"
        )
    primary.allow(
        *(f"host replication {user} 127.0.0.1/32 {method}" for user, method in METHODS.items())
    )
    primary.reload()
    # The newest: it knows all of the options.
    psql = str(installation(max(selected_majors())).tool("psql"))
    differences, refused_in_cleartext = [], 0
    for user, demand, password in product(USERS, DEMANDS, PASSWORDS):
        if password != PASSWORDS[0] and demand not in DEMANDS[:4]:
            continue
        place = f"host=127.0.0.1 port={primary.port} sslmode=disable gssencmode=disable"
        conninfo = f"{place} dbname=replication user={user} {password} {demand}"
        theirs, said = libpqs(psql, conninfo), await ours(conninfo)
        if IN_CLEARTEXT in said and user == "p" and "=password" not in demand:
            refused_in_cleartext += 1
        elif OURS.get(theirs, theirs) not in said or bool(theirs) is not bool(said):
            differences.append((user, password, demand, theirs, said))
    assert not differences, "\n".join(map(str, differences))
    assert refused_in_cleartext
