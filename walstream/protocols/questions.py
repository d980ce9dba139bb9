"""What a receiver asks its server before and between streams, in both dialects.

Each method is one query and the reading of its answer; what to make of the answers is decided in
`walstream.protocols.start`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred

from walstream.errors import FormatError, ProtocolViolation, ServerError
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.interfaces import BackupHistoryFile, WALPosition
from walstream.protocols.settings import duration, major_version
from walstream.wire import dialect2009, grammar

__all__ = ["Answer", "IdentifiedSystem", "Questions", "next_timeline"]

_UNDEFINED_FILE = "58P01"
_UNDEFINED_OBJECT = "42704"

_UINT32 = 0xFFFFFFFF
_UINT64 = 0xFFFFFFFFFFFFFFFF
# Of what is a text, the longest by far is synchronous_standby_names.
_LONGEST_TEXT = 10_000


@dataclass(slots=True)
class Answer:
    """What a query was answered with.

    :ivar columns: the names of the columns; empty if there was no result set.
    :ivar rows: their values; None is NULL.
    :ivar streams: a stream has begun (CopyBothResponse, CopyOutResponse) instead.
    """

    columns: list[str] = field(default_factory=list)
    rows: list[list[bytes | None]] = field(default_factory=list)
    streams: bool = False

    def row(self, at_least: int = 1) -> list[bytes | None]:
        """The only row.

        :raises ProtocolViolation: if there is another number of rows, or there are too few columns.
        """
        if len(self.rows) != 1 or len(self.rows[0]) < at_least:
            raise ProtocolViolation(
                f"expected one row of at least {at_least} columns, "
                f"got {len(self.rows)} rows of {len(self.columns)}"
            )
        return self.rows[0]

    def texts(self, at_least: int = 1) -> list[str]:
        """The only row as text, NULL as the empty string."""
        return [_short(value or b"").decode("utf-8", "replace") for value in self.row(at_least)]


@dataclass(frozen=True, slots=True)
class IdentifiedSystem:
    """The answer to IDENTIFY_SYSTEM.

    :ivar end: the server's current timeline, and its flush position on it.
    """

    system_identifier: int
    end: WALPosition


class Questions:
    """Asks a server.

    :param query: asks one query (`ReplicationClient.query`).
    :param parameters: the server's ParameterStatus values.
    """

    def __init__(
        self, query: Callable[[str], Deferred[Answer]], parameters: Mapping[str, str]
    ) -> None:
        self._query = query
        self._parameters = parameters

    @property
    def server_version(self) -> str:
        """The server's version as it words it; ``0`` if it did not say."""
        return self._parameters.get("server_version", "0")

    @property
    def server_major(self) -> int:
        """The server's major version: 18 for ``18.6`` and ``18beta1``, 9 for ``9.6.24``."""
        return major_version(self.server_version)

    # Today's protocol.

    async def identify_system(self) -> IdentifiedSystem:
        """IDENTIFY_SYSTEM."""
        system, timeline, position, *_ = (await self._query(grammar.IdentifySystem().text())).texts(
            3
        )
        return IdentifiedSystem(
            _number("system identifier", system, _UINT64),
            WALPosition(_timeline("timeline", timeline), LSN.parse(position)),
        )

    async def segment_size(self) -> SegmentSize:
        """``wal_segment_size``."""
        return SegmentSize.from_setting(await self._setting("wal_segment_size"))

    async def sender_timeout(self) -> float:
        """``wal_sender_timeout`` in seconds, 0 if it is off."""
        setting = await self._setting("wal_sender_timeout")
        seconds = duration(setting)
        if seconds is None:
            raise FormatError(f"the server's wal_sender_timeout is not a duration: {setting!r}")
        return seconds

    async def standby_demands(self) -> tuple[str, str]:
        """``synchronous_standby_names`` and ``synchronous_commit``."""
        names = await self._setting("synchronous_standby_names")
        return names, await self._setting("synchronous_commit")

    async def timeline_history(self, timeline: int) -> bytes:
        """The contents of a timeline's history file."""
        answer = await self._query(grammar.FetchTimelineHistory(timeline).text())
        return answer.row(2)[1] or b""

    async def slot_position(self, slot: str) -> WALPosition | None:
        """Where a slot holds WAL back (READ_REPLICATION_SLOT, 15 and later); None: nowhere yet.

        :raises ServerError: if there is no such slot, in the words of ``pg_receivewal``.
        """
        kind, position, timeline, *_ = (
            await self._query(grammar.ReadReplicationSlot(slot).text())
        ).texts(3)
        if not kind:
            raise ServerError(
                "ERROR",
                _UNDEFINED_OBJECT,
                f'replication slot "{slot}" does not exist',
                hint="Create it with pg_create_physical_replication_slot(name, true).",
            )
        if not position:
            return None
        return WALPosition(_timeline("timeline", timeline), LSN.parse(position))

    async def _setting(self, name: str) -> str:
        return (await self._query(grammar.Show(name).text())).texts()[0]

    # The design of December 2009.

    async def get_system_identifier(self) -> int:
        """GET_SYSTEM_IDENTIFIER."""
        answer = await self._query(dialect2009.GetSystemIdentifier().text())
        return _number("system identifier", answer.texts()[0], _UINT64)

    async def get_timeline(self) -> int:
        """GET_TIMELINE."""
        answer = await self._query(dialect2009.GetTimeline().text())
        return _timeline("timeline", answer.texts()[0])

    async def get_backup_history_file(self, start: LSN) -> BackupHistoryFile | None:
        """GET_BACKUP_HISTORY_FILE; None if the server has none for this position."""
        try:
            answer = await self._query(dialect2009.GetBackupHistoryFile(start).text())
        except ServerError as error:
            if error.sqlstate == _UNDEFINED_FILE:
                return None
            raise
        name, content = answer.row(2)[:2]
        return BackupHistoryFile((name or b"").decode("ascii", "replace"), content or b"")


def next_timeline(answer: Answer) -> WALPosition:
    """The row that ends a stream of a historic timeline: what follows it, and from where.

    :raises WalstreamError: if there is no such row.
    """
    timeline, position, *_ = answer.texts(2)
    return WALPosition(_timeline("next timeline", timeline), LSN.parse(position))


def _timeline(what: str, text: str) -> int:
    timeline = _number(what, text, _UINT32)
    if timeline == 0:
        raise ProtocolViolation(f"the server's {what} is 0, which is none")
    return timeline


def _number(what: str, text: str, largest: int) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", text) or int(text) > largest:
        raise ProtocolViolation(f"the server's {what} is not a number: {text[:100]!r}")
    return int(text)


def _short(value: bytes) -> bytes:
    if len(value) > _LONGEST_TEXT:
        raise ProtocolViolation(f"a value of {len(value)} bytes, where a name or a number is due")
    return value
