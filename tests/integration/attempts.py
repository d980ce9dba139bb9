"""Attempts to come in as a walreceiver does, by libpq and by walstream, and how each ends."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import psycopg
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from walstream.errors import Disconnected, WalstreamError
from walstream.protocols.client import ReplicationClient
from walstream.services.endpoint import UpstreamAddress, UpstreamEndpoint
from walstream.upstream import parse_conninfo

__all__ = ["CLIENTS", "NOTHING", "authenticated", "core", "libpq", "walstream"]

NOTHING = "sslrootcert=/nonexistent sslcert=/nonexistent"
"""Options of a client that goes by no file."""

# Nothing of a user's home.
_ENVIRONMENT = {"HOME": "/nonexistent"}


class _Clients(Factory):
    """Makes clients that log in, and no more."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> ReplicationClient:
        return ReplicationClient(cast(UpstreamAddress, addr).login)


async def walstream(conninfo: str, environment: Mapping[str, str] = _ENVIRONMENT) -> str:
    """How walstream comes in: ``ssl``, ``plain``, or what it says."""
    try:
        upstream = parse_conninfo(conninfo, environment)
        connecting: Deferred[Any] = UpstreamEndpoint(cast(Any, reactor), upstream).connect(
            _Clients()
        )
        client: ReplicationClient = await connecting
    except WalstreamError as error:
        return str(error)
    kind = "plain" if client.encryption is None else "ssl"
    client.abort(Disconnected("seen"))
    return kind


def libpq(conninfo: str) -> str:
    """The same of libpq, the newest."""
    try:
        connection = psycopg.connect(conninfo, replication="true", autocommit=True)
    except psycopg.Error as error:
        return str(error)
    with connection:
        return "ssl" if connection.pgconn.ssl_in_use else "plain"


async def _libpq(conninfo: str) -> str:
    return libpq(conninfo)


CLIENTS: Mapping[str, Callable[[str], Awaitable[str]]] = {"libpq": _libpq, "walstream": walstream}
"""Both, as one may be asked for the other."""


def core(said: str) -> str:
    """What libpq says in the end, without where."""
    last = said.rpartition("failed: ")[2].removeprefix("connection is bad: ")
    return last.splitlines()[0].replace("  ", " ")


def authenticated(log: str) -> set[str]:
    """Who was let in by what, says a server's log or ours."""
    return set(re.findall(r'connection authenticated: ((?:identity|user)="[^"]*" method=\S+)', log))
