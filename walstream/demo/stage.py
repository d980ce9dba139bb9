"""All that the demo shows, behind Deferreds: the servers and the rows in threads, the hub not.

Knows in which order things start and end; not for how long, nor how it looks.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from walstream.archive.lane import ThreadLane
from walstream.demo.flow import Flow
from walstream.demo.hub import Hub
from walstream.demo.sample import Look, Rows
from walstream.demo.servers import Servers
from walstream.embedded import EmbeddedError
from walstream.formats.segments import SegmentSize

__all__ = ["Stage", "Step"]

# WAL and rows grow for as long as the demo runs; others need room, too.
_LEAST_FREE = 100 << 20


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the way up.

    :ivar text: what is being done.
    """

    text: str
    take: Callable[[], Deferred[None]]


class Stage:
    """The primary, the hub, the standby, and the rows that flow.

    :param reactor: for the hub, and to come back to from the threads.
    """

    def __init__(self, reactor: Any) -> None:
        self._servers = Servers()
        self._flow = Flow()
        self._hub = Hub(reactor)
        # The servers end with the thread that started them: it is theirs, and lives until then.
        self._servers_lane = ThreadLane(reactor, "demo-servers")
        self._rows_lane = ThreadLane(reactor, "demo-rows")

    @property
    def directory(self) -> Path:
        """The temporary directory, once the first step is taken."""
        return self._servers.directory

    @property
    def written(self) -> int:
        """How many rows were written."""
        return self._flow.written

    @property
    def segment_size(self) -> SegmentSize:
        """The servers'."""
        return self._servers.segment_size

    def steps(self) -> Sequence[Step]:
        """How to get it up; each step needs those before it."""
        return [
            Step("finding PostgreSQL", lambda: self._servers_lane.run(self._servers.prepare)),
            Step("starting a primary", self._start_primary),
            Step("starting the hub, which follows the primary", self._start_hub),
            Step("starting a standby, which follows the hub", self._start_standby),
        ]

    def introduction(self) -> str:
        """What is up, and how to connect to it."""
        servers = self._servers
        psql = shutil.which("psql") or servers.installation.tool("psql")
        # Not any: an older one than the server refuses to work.
        receivewal = servers.installation.tool("pg_receivewal")
        hub, primary, standby = (
            f"-h 127.0.0.1 -p {port} -U postgres"
            for port in (self._hub.port, servers.primary.port, servers.standby.port)
        )
        return (
            f"\nPostgreSQL {servers.version} runs as user {servers.account.name}, "
            f"in {servers.directory}\n\n"
            f"  primary   {psql} {primary}\n"
            f"  hub       {receivewal} {hub} -D DIRECTORY\n"
            f"            primary_conninfo = '{self._hub.conninfo()}'\n"
            f"  standby   {psql} {standby}\n"
            f"  rows      SELECT * FROM demo ORDER BY id DESC LIMIT 5;\n"
        )

    def failed(self) -> Deferred[object]:
        """Fires, with a failure or without one, when the hub has ended by itself."""
        return self._hub.finished()

    def write(self, count: int) -> Deferred[None]:
        """Write so many rows."""
        return self._rows_lane.run(lambda: self._flow.write(count))

    def look(self) -> Deferred[Look]:
        """See how far everything is."""
        return self._rows_lane.run(self._look)

    def compare(self, after: int, upto: int) -> Deferred[Rows]:
        """See `Flow.compare`."""
        return self._rows_lane.run(lambda: self._flow.compare(after, upto))

    def close(self) -> Deferred[None]:
        """End everything that is up, and remove the directory; fires when it is done."""
        return Deferred.fromCoroutine(self._close())

    def _start_primary(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start_primary_with_rows())

    async def _start_primary_with_rows(self) -> None:
        await self._servers_lane.run(self._servers.start_primary)
        await self._rows_lane.run(lambda: self._flow.open_primary(self._servers.primary))

    def _start_hub(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start_hub_with_wal())

    async def _start_hub_with_wal(self) -> None:
        await self._hub.start(self._servers.primary.conninfo(), self.directory / "archive")
        # The base backup comes after, so the hub will have all that the standby wants.
        await self._rows_lane.run(lambda: self._flow.open_hub(self._hub.conninfo()))

    def _start_standby(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start_standby_with_rows())

    async def _start_standby_with_rows(self) -> None:
        conninfo = self._hub.conninfo(application_name="standby")
        await self._servers_lane.run(lambda: self._servers.start_standby(conninfo))
        await self._rows_lane.run(lambda: self._flow.open_standby(self._servers.standby))

    def _look(self) -> Look:
        if shutil.disk_usage(self.directory).free < _LEAST_FREE:
            raise EmbeddedError(
                f"less than {_LEAST_FREE >> 20} MB are left where {self.directory} is: "
                "make room there, or write fewer rows with --rows"
            )
        return self._flow.look()

    async def _close(self) -> None:
        try:
            await self._hub.stop()
        finally:
            try:
                await self._servers_lane.run(self._servers.end)
            finally:
                # A query that waited for a server has failed by now.
                await self._rows_lane.run(self._flow.close)
                await gatherResults([self._rows_lane.close(), self._servers_lane.close()])
