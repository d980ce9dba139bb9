"""Who is let in by which server, and who is refused by which words: beside libpq, the newest."""

from __future__ import annotations

import os
import re
from itertools import product
from tempfile import TemporaryDirectory

import pytest_twisted

from tests.integration.attempts import libpq, walstream
from tests.servers import Clusters, on_versions

# A role for each method, all with the same password.
METHODS = {"t": "trust", "p": "password", "m": "md5", "s": "scram-sha-256", "r": "reject"}
USERS = (*METHODS, "nobody")
TURNED_AWAY = ("r", "nobody")

PASSWORDS = ("password=sesame", "password=wrong", "")
# Those of PostgreSQL's ``authentication/001_password``, and more.
DEMANDS = (
    "",
    "require_auth=scram-sha-256",
    "require_auth=md5",
    "require_auth=password",
    "require_auth=none",
    "require_auth=gss",
    "require_auth=sspi",
    "require_auth=password,scram-sha-256",
    "require_auth=scram-sha-256,password,md5",
    "require_auth=none,scram-sha-256",
    "require_auth=gss,sspi,oauth",
    "require_auth=!none",
    "require_auth=!gss",
    "require_auth=!sspi",
    "require_auth=!password",
    "require_auth=!md5",
    "require_auth=!scram-sha-256",
    "require_auth=!password,!md5",
    "require_auth=!password,!scram-sha-256",
    "require_auth=!password,!md5,!scram-sha-256",
    "channel_binding=disable",
    "channel_binding=require",
    "channel_binding=require require_auth=scram-sha-256",
    "channel_binding=maybe",
)
# These end before there is a connection.
MISTAKES = (
    "require_auth=bogus",
    "require_auth=none,abcdefg",
    "require_auth=scram-sha-256,!md5",
    "require_auth=!password,!none,scram-sha-256",
    "require_auth=md5,!password",
    "require_auth=password,md5,password",
    "require_auth=!password,!md5,!password",
    "require_auth=none,md5,none",
    "require_auth=!none,!md5,!none",
    "require_auth=scram-sha-256,scram-sha-256",
    "require_auth=!scram-sha-256,!scram-sha-256",
)

#: What libpq says, and what we say instead.
OURS = {
    "fe_sendauth: no password supplied": "the server asks for a password, and none is known",
}
IN_CLEARTEXT = "the server asks for the password in cleartext"


async def ours(conninfo: str) -> str:
    """What walstream says; nothing if it is let in."""
    said = await walstream(conninfo)
    return "" if said == "plain" else said


def libpqs(conninfo: str) -> str:
    """What libpq says; nothing if it is let in."""
    said = libpq(conninfo)
    if said == "plain":
        return ""
    said = re.sub(r"^connection (failed|is bad): ", "", said.splitlines()[0])
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
    differences, refused_in_cleartext = [], 0
    cases = [*product(USERS, DEMANDS, PASSWORDS), *product("t", MISTAKES, PASSWORDS[:1])]
    # An empty value is none; but libpq, once it is asked for a password, allows nothing then.
    cases.append(("t", "require_auth=''", PASSWORDS[0]))
    for user, demand, password in cases:
        few = password != PASSWORDS[0] or user in TURNED_AWAY
        if few and demand not in DEMANDS[:4]:
            continue
        place = f"host=127.0.0.1 port={primary.port} sslmode=disable gssencmode=disable"
        conninfo = f"{place} dbname=replication user={user} {password} {demand}"
        theirs, said = libpqs(conninfo), await ours(conninfo)
        if IN_CLEARTEXT in said and user == "p" and "=password" not in demand:
            refused_in_cleartext += 1
        elif OURS.get(theirs, theirs) not in said or bool(theirs) is not bool(said):
            differences.append((user, password, demand, theirs, said))
    assert not differences, "\n".join(map(str, differences))
    assert refused_in_cleartext


@on_versions(18)
@pytest_twisted.ensureDeferred
async def test_who_runs_it(clusters: Clusters) -> None:
    """requirepeer: the account that runs the server at a UNIX socket, and no other."""
    # The cluster's own name is too long for a socket's.
    with TemporaryDirectory() as directory:
        primary = clusters.primary(settings={"unix_socket_directories": "."})
        os.symlink(primary.data, f"{directory}/data")
        place = f"host={directory}/data port={primary.port} dbname=replication user=postgres"
        owner = primary.account.name
        for required in (owner, "nobody-else", ""):
            conninfo = f"{place} requirepeer='{required}'"
            theirs, said = libpqs(conninfo), await ours(conninfo)
            assert theirs.rpartition("failed: ")[2] in said
            assert bool(theirs) is bool(said) is (required == "nobody-else"), (theirs, said)
            if said:
                assert f'but actual peer user name is "{owner}"' in said
