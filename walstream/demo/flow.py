"""The rows that go in at the primary and come out at the standby, and what the three say of it.

Synchronous, on three connections that it keeps: all of it belongs in one thread.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any, LiteralString

import psycopg

from walstream.demo.sample import Look, Rows
from walstream.embedded import Cluster, EmbeddedError
from walstream.errors import WalstreamError
from walstream.formats.lsn import INVALID, LSN

__all__ = ["Flow", "RowsDiffer"]

_CREATE = (
    "CREATE TABLE demo "
    "(id bigint PRIMARY KEY, written_at timestamptz NOT NULL, content text NOT NULL)"
)
_INSERT = (
    "INSERT INTO demo SELECT id, clock_timestamp(), md5(random()::text) "
    "FROM generate_series(%s::bigint, %s::bigint) AS id"
)
_ROWS = (
    "SELECT count(*), coalesce(bit_xor(hashtextextended(demo::text, 0)), 0) "
    "FROM demo WHERE id > %s AND id <= %s"
)
_PRIMARY = "SELECT pg_current_wal_lsn()::text, (SELECT count(*) FROM pg_stat_replication)"
_STANDBY = "SELECT pg_last_wal_replay_lsn()::text, (SELECT coalesce(max(id), 0) FROM demo)"
# PostgreSQL's documentation, "Streaming Replication Protocol": its third column is the position.
_HUB = "IDENTIFY_SYSTEM"
_HUB_POSITION = 2

# A server that does not answer for so long is not well.
_CONNECT_SECONDS = 10
_NAME = "walstream demo"
_PARAMETERS: Mapping[str, str | int] = {
    "application_name": _NAME,
    "connect_timeout": _CONNECT_SECONDS,
    "options": "-c statement_timeout=10s",
}

# The hub lets nobody in before it knows whose WAL it has.
_FIRST_WAL_TIMEOUT = 15.0
_POLL_SECONDS = 0.02

_Connection = psycopg.Connection[tuple[Any, ...]]


class RowsDiffer(WalstreamError):
    """The standby has not the rows that the primary has."""


class Flow:
    """Writes rows on the primary, and finds them on the standby.

    The rows have the numbers from 1 on in ``id``, so the greatest of them is their count.

    :ivar written: how many rows were written.
    """

    _primary: _Session
    _hub: _Session
    _standby: _Session

    def __init__(self) -> None:
        self.written = 0
        self._cleanup = ExitStack()

    def open_primary(self, primary: Cluster) -> None:
        """Connect to the primary, and make the table there."""
        self._primary = self._session("primary", primary.connect(**_PARAMETERS))
        self._primary.execute(_CREATE)

    def open_hub(self, conninfo: str) -> None:
        """Connect to the hub, as a standby would, and wait until it has WAL."""
        deadline = time.monotonic() + _FIRST_WAL_TIMEOUT
        while True:
            try:
                self._hub = self._session("hub", _connect_to_hub(conninfo))
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)
        while self._hub_position() == INVALID:
            if time.monotonic() > deadline:
                raise EmbeddedError(f"the hub has no WAL after {_FIRST_WAL_TIMEOUT:g} s")
            time.sleep(_POLL_SECONDS)

    def open_standby(self, standby: Cluster) -> None:
        """Connect to the standby, which has the table already, by its base backup."""
        self._standby = self._session("standby", standby.connect(**_PARAMETERS))

    def write(self, count: int) -> None:
        """Write so many rows more, in one transaction."""
        if count:
            self._primary.execute(_INSERT, self.written + 1, self.written + count)
            self.written += count

    def look(self) -> Look:
        """Ask all three; the standby first, so that nobody seems to be ahead of its upstream."""
        standby, read_back = self._standby.row(_STANDBY)
        hub = self._hub_position()
        primary, walsenders = self._primary.row(_PRIMARY)
        return Look(LSN.parse(primary), hub, LSN.parse(standby), read_back, walsenders)

    def compare(self, after: int, upto: int) -> Rows:
        """The rows with an ``id`` over *after* and up to *upto*, which both have alike.

        :raises RowsDiffer: if they do not.
        """
        bounds = (after, upto)
        primary, standby = (
            Rows(*server.row(_ROWS, *bounds)) for server in (self._primary, self._standby)
        )
        if primary != standby or primary.count != upto - after:
            raise RowsDiffer(
                f"of the rows {after + 1} to {upto}, the primary has {primary.count} (checksum "
                f"{primary.checksum_text}) and the standby {standby.count} (checksum "
                f"{standby.checksum_text}): has another client changed the table demo?"
            )
        return primary

    def close(self) -> None:
        """Close the connections, whether they are still good or not."""
        self._cleanup.close()

    def _session(self, name: str, connection: _Connection) -> _Session:
        return _Session(name, self._cleanup.enter_context(closing(connection)))

    def _hub_position(self) -> LSN:
        return LSN.parse(self._hub.row(_HUB)[_HUB_POSITION])


class _Session:
    """A connection whose errors say with whom it is."""

    def __init__(self, name: str, connection: _Connection) -> None:
        self._name = name
        self._connection = connection

    def execute(self, query: LiteralString, *values: object) -> psycopg.Cursor[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values or None)
        except psycopg.Error as error:
            text = "; ".join(str(error).split("\n"))
            raise EmbeddedError(f"the {self._name} failed: {text}") from error

    def row(self, query: LiteralString, *values: object) -> tuple[Any, ...]:
        row = self.execute(query, *values).fetchone()
        if row is None:
            raise EmbeddedError(f"the {self._name} has no answer to {query}")
        return row


def _connect_to_hub(conninfo: str) -> _Connection:
    return psycopg.connect(
        conninfo,
        autocommit=True,
        replication="true",
        # Prepared statements are not for replication.
        prepare_threshold=None,
        # Without it, the hub's texts come as bytes.
        client_encoding="UTF8",
        application_name=_NAME,
        connect_timeout=_CONNECT_SECONDS,
    )
