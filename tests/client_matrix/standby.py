"""A standby that runs, and is told to stream from one place after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from tests.client_matrix.cases import Case
from tests.client_matrix.clients import IT_STREAMS, normalized
from tests.client_matrix.world import Place, World
from tests.servers.daemon import wait_until

__all__ = ["Standby"]

# A line of the log begins with the time; the other lines of a message begin with a tab.
_MESSAGE = re.compile(r"^\d{4}-\d\d-\d\d [^\n]*?FATAL:  ([^\n]*(?:\n\t[^\n]*)*)\n", re.MULTILINE)
_BETWEEN = Case("between", "trusted", {"sslmode": "disable"}, None)
_STATUS = (
    "SELECT status FROM pg_stat_wal_receiver"
    " WHERE strpos(conninfo, 'application_name=' || %s || ' ') > 0"
)


class Standby:
    """A standby at a place. One case after the other."""

    def __init__(self, world: World, place: Place) -> None:
        self._world = world
        self._place = place
        self._cluster = place.standby
        self._streams = False

    def come(self, case: Case) -> str:
        """Come like that; what the walreceiver logs of it, or whether rows come."""
        with self._cluster.connect() as connection:
            if not self._streams:
                # What it logs while it tries in vain does not say which way it tries.
                self._tell(_BETWEEN, lambda begin: _streams(connection, _BETWEEN))
            begin = self._tell(
                case, lambda begin: _streams(connection, case) or bool(self._failures(begin))
            )
            self._streams = _streams(connection, case)
            if not self._streams:
                return self._failures(begin)[0]
            row = f"{case.name} at {self._place.port}"
            self._world.primary.query("INSERT INTO come VALUES (%s)", row)
            query = "SELECT count(*) FROM come WHERE who = %s"
            wait_until(
                lambda: connection.execute(query, [row]).fetchone() == (1,),
                f"replayed by {self._cluster}: {row}",
            )
        return IT_STREAMS

    def _tell(self, case: Case, has_ended: Callable[[int], bool]) -> int:
        """Tell it to come like that; from where on its log is of that, when it has come or not."""
        conninfo = self._world.conninfo(case, self._place)
        conninfo = make_conninfo(conninfo, application_name=case.word)
        if case.password is not None:
            conninfo = make_conninfo(conninfo, password=case.password)
        begin = self._cluster.log.stat().st_size
        self._cluster.configure({"primary_conninfo": conninfo})
        self._cluster.reload()
        wait_until(lambda: has_ended(begin), f"told what becomes of {case.name!r}")
        return begin

    def _failures(self, begin: int) -> list[str]:
        """What the walreceiver has said since then, but for its end when it is told to go."""
        with self._cluster.log.open("rb") as log:
            log.seek(begin)
            text = log.read().decode(errors="replace")
        said = (each[1].replace("\t", "") for each in _MESSAGE.finditer(text))
        return [
            normalized(each, self._world, self._place)
            for each in said
            if not each.startswith("terminating walreceiver process due to administrator command")
        ]


def _streams(connection: psycopg.Connection[Any], case: Case) -> bool:
    return bool(connection.execute(_STATUS, [case.word]).fetchone() == ("streaming",))
