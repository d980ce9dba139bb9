"""In which ways clients come: each is a connection string, and what should come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.client_matrix.rules import PASSWORD

__all__ = [
    "ANOTHER_VERSION",
    "ANY_CLIENT",
    "DIFFERENT",
    "DIRECT",
    "EVERY",
    "FAILURES",
    "METHODS",
    "NEWEST",
    "PACKET",
    "PACKETS",
    "PG_RECEIVEWAL",
    "PSQL",
    "PSYCOPG2",
    "STANDBY",
    "Case",
]

PG_RECEIVEWAL, STANDBY, PSYCOPG2, PSQL = "pg_receivewal", "standby", "psycopg2", "psql"
PACKET: Final = "startup packet"
# psql is what SQL is asked for with; what it is told otherwise, pg_receivewal is.
ANY_CLIENT: Final = (PG_RECEIVEWAL, STANDBY, PSYCOPG2)

_ROOT = {"sslrootcert": "authority"}
_CLEAR = {"sslmode": "disable"}
_TLS = {"sslmode": "require"}
_VERIFIED = {"sslmode": "verify-full", **_ROOT}
_PROTOCOL_3_2 = {"min_protocol_version": "3.2", "max_protocol_version": "3.2"}
_BOUND = {"channel_binding": "require"}


@dataclass(frozen=True)
class Case:
    """One way to come.

    :ivar name: what is particular about it.
    :ivar user: by which the rule is chosen.
    :ivar facts: more of the connection string; files of TLS by their names.
    :ivar password: what the client has, if it has one.
    :ivar since: the first version of libpq that knows what is asked of it.
    :ivar clients: who can come like that.
    """

    name: str
    user: str
    facts: Mapping[str, str] = field(default_factory=dict)
    password: str | None = PASSWORD
    since: int = 15
    clients: Sequence[str] = ANY_CLIENT

    @property
    def word(self) -> str:
        """Its name as one word."""
        return "".join(each if each.isalnum() else "-" for each in self.name)


def _certificate(name: str) -> dict[str, str]:
    return {**_TLS, "sslcert": name, "sslkey": name}


METHODS: Final = (
    Case("trust", "trusted", _CLEAR, None),
    Case("trust, verify-full", "trusted", _VERIFIED, None),
    Case("trust, a database that does not exist", "trusted", {**_CLEAR, "dbname": "none"}, None),
    Case("scram-sha-256, not encrypted", "plain", _CLEAR),
    Case("scram-sha-256, where TLS is not wanted", "plain", {"sslmode": "prefer"}),
    Case("md5, of a SCRAM verifier", "hashed", _CLEAR),
    Case("scram-sha-256", "secret", {**_TLS, "channel_binding": "disable"}),
    Case("scram-sha-256, where TLS is wanted", "secret", {"sslmode": "allow"}),
    Case("scram-sha-256-plus", "secret", {**_TLS, **_BOUND}),
    Case(
        "scram-sha-256-plus, TLS 1.2",
        "secret",
        {**_TLS, **_BOUND, "ssl_max_protocol_version": "TLSv1.2"},
    ),
    Case("scram-sha-256-plus, verify-full", "secret", {**_VERIFIED, **_BOUND}),
    Case("scram-sha-256, demanded", "secret", {**_TLS, "require_auth": "scram-sha-256"}, since=16),
    Case("verify-ca, another host name", "secret", {"sslmode": "verify-ca", **_ROOT}),
    Case("cert", "certified", _certificate("certified"), None),
    Case("cert, verify-full", "certified", {**_certificate("certified"), **_VERIFIED}, None),
    Case("cert, of a map", "mapped", _certificate("friend"), None),
    Case("scram-sha-256, clientcert=verify-full", "certain", {**_certificate("certain"), **_BOUND}),
    Case("scram-sha-256, clientcert=verify-ca", "signed", _certificate("friend")),
    Case("peer, of a map", "peered", {"host": "socket"}, None),
)
# What only new clients know, some of which old servers do not.
DIRECT: Final = Case(
    "direct TLS", "secret", {**_VERIFIED, **_BOUND, "sslnegotiation": "direct"}, since=17
)
NEWEST: Final = (
    Case(
        "protocol 3.2, if it is there", "secret", {**_TLS, "max_protocol_version": "3.2"}, since=18
    ),
    Case("protocol 3.2", "secret", {**_TLS, **_PROTOCOL_3_2}, since=18),
)

FAILURES: Final = (
    # Passwords.
    Case("wrong password", "plain", _CLEAR, "sesame"),
    Case("wrong password, scram-sha-256-plus", "secret", {**_TLS, **_BOUND}, "sesame"),
    Case("wrong password, encrypted and not", "hashed", {"sslmode": "prefer"}, "sesame"),
    Case("no password", "plain", _CLEAR, None),
    Case("no password, scram-sha-256-plus", "secret", {**_TLS, **_BOUND}, None),
    # Users.
    Case("no such user", "ghost", _CLEAR),
    Case("no such user, scram-sha-256-plus", "ghost", {**_TLS, **_BOUND}),
    Case("a user without a password", "empty", _CLEAR),
    # Rules.
    Case("no rule", "nobody", _CLEAR),
    Case("no rule, encrypted", "nobody", _TLS),
    Case("no rule, encrypted and not", "nobody", {"sslmode": "prefer"}),
    Case("no rule for this address", "elsewhere", _CLEAR, None),
    Case("no rule for replication", "querying", _CLEAR, None),
    Case("not encrypted, as the rule wants it", "secret", _CLEAR),
    Case("encrypted, which the rule does not want", "plain", _TLS),
    Case("reject", "rejected", _CLEAR, None),
    Case("reject, encrypted", "rejected", _TLS, None),
    # What the client demands.
    Case("channel_binding=require without TLS", "plain", {**_CLEAR, **_BOUND}),
    Case("channel_binding=require, trust", "trusted", {**_TLS, **_BOUND}, None),
    Case("channel_binding=require, cert", "certified", {**_certificate("certified"), **_BOUND}),
    Case("scram-sha-256 demanded, trust", "trusted", {"require_auth": "scram-sha-256"}, since=16),
    Case("md5 demanded, scram-sha-256", "secret", {**_TLS, "require_auth": "md5"}, since=16),
    # The server's certificate.
    Case("verify-full, another host name", "secret", {**_VERIFIED, "host": "elsewhere.invalid"}),
    Case(
        "verify-full, another authority", "secret", {**_VERIFIED, "sslrootcert": "other-authority"}
    ),
    Case("verify-full, no sslrootcert", "secret", {**_VERIFIED, "sslrootcert": "missing"}),
    Case(
        "TLS 1.1",
        "secret",
        {**_TLS, "ssl_min_protocol_version": "TLSv1.1", "ssl_max_protocol_version": "TLSv1.1"},
    ),
    # The client's certificate.
    Case("no certificate", "certified", _TLS, None),
    Case(
        "a certificate that is not sent",
        "certified",
        {**_TLS, "sslcertmode": "disable"},
        None,
        since=16,
    ),
    Case("another user's certificate", "certified", _certificate("friend"), None),
    Case("another user's certificate, by a map", "mapped", _certificate("certified"), None),
    Case("a certificate of another authority", "certified", _certificate("forged"), None),
    Case("an expired certificate", "certified", _certificate("expired"), None),
    Case("a revoked certificate", "certified", _certificate("revoked"), None),
    Case(
        "a revoked certificate, TLS 1.2",
        "certified",
        {**_certificate("revoked"), "ssl_max_protocol_version": "TLSv1.2"},
        None,
    ),
    Case("no certificate, clientcert=verify-full", "certain", {**_TLS, **_BOUND}),
    Case("another user's certificate, clientcert=verify-full", "certain", _certificate("friend")),
    Case("wrong password, clientcert=verify-full", "certain", _certificate("certain"), "sesame"),
    Case("no certificate, clientcert=verify-ca", "signed", _TLS),
    # UNIX sockets.
    Case("peer, another account", "unpeered", {"host": "socket"}, None),
)

_NO_ATTRIBUTES = (
    "a role is needed where a rule asks for a password, and nowhere else; it has no attributes"
)
_NO_VALIDITY = "a verifier is good until it is taken away: VALID UNTIL is not part of it"
_NO_DATABASE = "there is no database, whoever asks, so nobody is asked who he is"
_DATABASE = {**_CLEAR, "dbname": "postgres"}
_SQL = (PSYCOPG2, PSQL)

# Startup packets that no libpq sends, or only the newest, when it is told to.
PACKETS: Final = (
    Case("protocol 2.0", "2.0", clients=(PACKET,)),
    Case("protocol 4.0", "4.0", clients=(PACKET,)),
    Case("protocol 3.9999", "3.9999", clients=(PACKET,)),
    Case("an option of the protocol", "3.0", {"_pq_.unheard_of": "x"}, clients=(PACKET,)),
)

# By what they are, and why: what a server does otherwise.
DIFFERENT: Final[Mapping[str, Sequence[Case]]] = {
    _NO_ATTRIBUTES: (
        Case("trust, a role that does not exist", "unknown", _CLEAR, None),
        Case("trust, a role without LOGIN", "nologin", _CLEAR, None),
        Case("trust, a role without REPLICATION", "ordinary", _CLEAR, None),
    ),
    _NO_VALIDITY: (Case("a password that is not valid any more", "outdated", _CLEAR),),
    _NO_DATABASE: (
        Case(
            "replication=database",
            "postgres",
            {**_DATABASE, "replication": "database"},
            None,
            clients=_SQL,
        ),
        Case(
            "replication=database, no rule",
            "plain",
            {**_DATABASE, "replication": "database"},
            None,
            clients=_SQL,
        ),
        Case(
            "a database that does not exist",
            "postgres",
            {**_CLEAR, "dbname": "none", "replication": "database"},
            None,
            clients=_SQL,
        ),
        Case("SQL", "postgres", {**_DATABASE, "replication": "false"}, None, clients=(PSQL,)),
    ),
}

EVERY: Final = (
    *METHODS,
    DIRECT,
    *NEWEST,
    *FAILURES,
    *PACKETS,
    *(case for cases in DIFFERENT.values() for case in cases),
)
# What the tools of other versions are sent with.
ANOTHER_VERSION: Final = (
    Case("another version, scram-sha-256-plus", "secret", {**_VERIFIED, **_BOUND}),
    Case("another version, wrong password", "secret", {**_VERIFIED, **_BOUND}, "sesame"),
    DIRECT,
    *NEWEST,
)
