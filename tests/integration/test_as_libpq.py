"""Who is let in by which server, and who is refused by which words: beside libpq, the newest."""

from __future__ import annotations

import os
import re
from itertools import product
from tempfile import TemporaryDirectory

import psycopg
import pytest
import pytest_twisted

from tests.integration.attempts import libpq, walstream
from tests.servers import Clusters, on_versions
from tests.servers.clusters import reload

# A role for each method, all with the same password, of which there is an md5 hash in two cases.
METHODS = {
    "t": "trust",
    "p": "password",
    "m": "md5",
    "s": "scram-sha-256",
    "r": "reject",
    "m_of_scram": "md5",
    "s_of_md5": "scram-sha-256",
}
HASHED = ("m", "s_of_md5")
USERS = (*METHODS, "nobody")
# For whom a few of the demands will do.
BRIEFLY = ("r", "m_of_scram", "s_of_md5", "nobody")

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
ON_LOGIN = """
CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    IF session_user <> 'postgres' THEN RAISE EXCEPTION 'nobody logs in'; END IF;
END $$;
CREATE EVENT TRIGGER refuse ON login EXECUTE FUNCTION refuse();
"""
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
            f"SET password_encryption = '{'md5' if user in HASHED else 'scram-sha-256'}';"
            f" CREATE ROLE {user} LOGIN REPLICATION PASSWORD 'sesame'"
        )
    primary.allow(
        "host all postgres 127.0.0.1/32 trust",
        *(f"host replication {user} 127.0.0.1/32 {method}" for user, method in METHODS.items()),
    )
    reload(primary)
    differences, refused_in_cleartext = [], 0
    cases = [*product(USERS, DEMANDS, PASSWORDS), *product("t", MISTAKES, PASSWORDS[:1])]
    # An empty value is none; but libpq, once it is asked for a password, allows nothing then.
    cases.append(("t", "require_auth=''", PASSWORDS[0]))
    for user, demand, password in cases:
        few = password != PASSWORDS[0] or user in BRIEFLY
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


# The lines of methods that a receiver does not have, or that ask as ``password`` does; and what
# their scripts demand: kerberos, ldap, modules/oauth_validator.
LINES = {
    "g": "gss include_realm=1",
    "d": "radius radiusservers=127.0.0.1 radiussecrets=secret",
    "o": "oauth issuer=https://256.256.256.256 scope=openid",
}
DEMANDED = (
    ("g", "require_auth=sspi"),
    ("g", "require_auth=!gss"),
    ("g", "require_auth=scram-sha-256"),
    ("d", "require_auth=scram-sha-256"),
    ("d", "require_auth=!password"),
    ("o", "require_auth=!oauth"),
    ("o", "require_auth=scram-sha-256"),
    ("o", "require_auth=!password,!oauth"),
    ("o", "require_auth=none"),
    ("o", "require_auth=!oauth,!scram-sha-256"),
)
# What a receiver says where libpq would go on.
NOT_OURS = {
    "g": "the server asks for authentication by GSSAPI; supported are",
    "d": IN_CLEARTEXT,
    "o": "the server asks for authentication by SASL by OAUTHBEARER; supported are",
}


@on_versions(18)
@pytest_twisted.ensureDeferred
async def test_methods_that_are_not_ours(clusters: Clusters) -> None:
    """Who demands another method is told so in libpq's words, and others are told what is not.

    A trigger on logins, which would refuse all of them, is a database's, and never met.
    """
    primary = clusters.primary(settings={"oauth_validator_libraries": "none"})
    for user in (*LINES, "t"):
        primary.query(f"CREATE ROLE {user} LOGIN REPLICATION")
    primary.query(ON_LOGIN)
    primary.allow(
        "host postgres t 127.0.0.1/32 trust",
        "host replication t 127.0.0.1/32 trust",
        *(f"host replication {user} 127.0.0.1/32 {line}" for user, line in LINES.items()),
    )
    primary.reload()
    place = f"host=127.0.0.1 port={primary.port} sslmode=disable gssencmode=disable"
    for user, demand in DEMANDED:
        conninfo = f"{place} dbname=replication user={user} password=sesame {demand}"
        theirs, said = libpqs(conninfo), await ours(conninfo)
        assert theirs.startswith("authentication method requirement"), (user, demand, theirs)
        assert theirs in said, (user, demand, theirs, said)
    for user, words in NOT_OURS.items():
        assert words in await ours(f"{place} user={user} password=sesame")
    assert not await ours(f"{place} user=t")
    with pytest.raises(psycopg.OperationalError, match="nobody logs in"):
        psycopg.connect(f"{place} dbname=postgres user=t")
