"""Clients that commit for as long as they are let, and write down what was confirmed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql
from psycopg.errors import Diagnostic

from tests.torture.record import Record

__all__ = ["Clients", "make_table", "table"]

# Said with the success of a commit that is not, or may not be, on the standby.
_CANCELLED = "01000"


def table(epoch: int) -> sql.Identifier:
    """The name of an epoch's table."""
    return sql.Identifier(f"commits_{epoch}")


def make_table(connection: psycopg.Connection[Any], epoch: int) -> None:
    """Make an epoch's table. Not to be confirmed by a standby, which may be away."""
    connection.execute("SET synchronous_commit = local")
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} (client int, counter bigint, filler text,"
            " PRIMARY KEY (client, counter))"
        ).format(table(epoch))
    )


class Clients:
    """Threads with a connection each, which is made again whenever it is lost.

    :param conninfo: says where the primary is now.
    :ivar epoch: the number of the table that is written to.
    :ivar synchronous_commit: the setting of the sessions, from their next commit on.
    """

    def __init__(self, conninfo: Callable[[], str], record: Record, count: int) -> None:
        self.epoch = 0
        self.synchronous_commit = "on"
        self._conninfo = conninfo
        self._record = record
        self._may_run = threading.Event()
        self._is_over = threading.Event()
        first = record.next_client
        self._threads = [
            threading.Thread(target=self._run, args=(first + number,), daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        """Start the threads; they commit as soon as they may `resume`."""
        for thread in self._threads:
            thread.start()

    def resume(self) -> None:
        """Commit."""
        self._may_run.set()

    def pause(self) -> None:
        """Begin no more commits; those that wait for the standby wait on."""
        self._may_run.clear()

    def stop(self) -> None:
        """End. The primary must confirm what waits, or be gone."""
        self._is_over.set()
        self._may_run.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self, client: int) -> None:
        # What is random here is what nobody repeats: how the threads get along is random anyway.
        session = _Session(client, self._record)
        while not self._is_over.is_set():
            self._may_run.wait()
            try:
                session.commit(self._conninfo(), self.epoch, self.synchronous_commit)
            except psycopg.Error:
                session.close()
                time.sleep(0.02)
        session.close()


class _Session:
    def __init__(self, client: int, record: Record) -> None:
        self._client = client
        self._record = record
        self._counter = 0
        self._random = random.Random(client)
        self._connection: psycopg.Connection[Any] | None = None
        self._setting = ""
        self._was_cancelled = False

    def commit(self, conninfo: str, epoch: int, synchronous_commit: str) -> None:
        """Commit one row, and write it down if that was confirmed."""
        if self._connection is None:
            self._connection = psycopg.connect(conninfo, autocommit=True, connect_timeout=5)
            self._connection.add_notice_handler(self._notice)
            self._setting = ""
        if self._setting != synchronous_commit:
            self._connection.execute(
                sql.SQL("SET synchronous_commit = {}").format(sql.Literal(synchronous_commit))
            )
            self._setting = synchronous_commit
        self._counter += 1
        self._was_cancelled = False
        self._connection.execute(
            sql.SQL("INSERT INTO {} VALUES (%s, %s, %s)").format(table(epoch)),
            (self._client, self._counter, "x" * self._random.choice((0, 10, 100, 1000))),
        )
        if not self._was_cancelled:
            self._record.confirmed(epoch, self._client, self._counter)

    def close(self) -> None:
        """Give the connection up, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()

    def _notice(self, diagnostic: Diagnostic) -> None:
        self._was_cancelled = self._was_cancelled or diagnostic.sqlstate == _CANCELLED
