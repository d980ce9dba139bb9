"""What a walsender answers to the commands that are not a stream, in both dialects."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatchmethod

from walstream.errors import CommandError, WALUnavailable
from walstream.formats.segments import history_file_name
from walstream.interfaces import ISlotStore, IWALProvider, Slot, SystemIdentity, WALPosition
from walstream.protocols.settings import SenderSettings, major_version, parameters, show
from walstream.wire import commands, dialect2009
from walstream.wire.grammar import NEWEST
from walstream.wire.messages import (
    Column,
    ColumnType,
    command_complete,
    data_row,
    ready_for_query,
    row_description,
)

__all__ = ["Answers"]

_TAG_2009 = "SELECT"
_REMOVED = "58P01"
_ATTEMPTS = 5


class Answers:
    """Answers one session's commands out of a provider and a slot store.

    :param pid: the session's number, under which it uses slots.
    :param send: takes complete messages to the client.
    """

    def __init__(
        self,
        provider: IWALProvider,
        slots: ISlotStore,
        settings: SenderSettings,
        pid: int,
        send: Callable[[bytes], None],
    ) -> None:
        self._provider = provider
        self._slots = slots
        self._settings = settings
        self._pid = pid
        self._send = send

    async def answer(self, command: object) -> None:
        """Send the whole answer to *command*, ReadyForQuery included.

        :raises CommandError: what the client is to be shown instead, or as well.
        """
        await self._answer(command)
        self._send(ready_for_query())

    @singledispatchmethod
    async def _answer(self, command: object) -> None:
        raise CommandError(
            "0A000",
            f"{_name(command)} is not available from a WAL archive",
            hint="Send this command to a PostgreSQL server.",
        )

    # Today's commands.

    @_answer.register
    async def _identify_system(self, _: commands.IdentifySystem) -> None:
        identity, end = self._identity(), self._provider.end()
        # The timeline became an int8 in PostgreSQL 16.
        old = major_version(identity.server_version) < 16
        columns = [
            Column("systemid", ColumnType.TEXT),
            Column("timeline", ColumnType.INT4 if old else ColumnType.INT8),
            Column("xlogpos", ColumnType.TEXT),
            Column("dbname", ColumnType.TEXT),
        ]
        row = (str(identity.system_identifier), str(end.timeline), str(end.lsn), None)
        self._result(columns, row, "IDENTIFY_SYSTEM")

    @_answer.register
    async def _show(self, command: commands.Show) -> None:
        if command.name.lower() == "all":
            self._show_all()
            return
        value = show(command.name, self._identity(), self._settings)
        if value is None:
            raise CommandError("42704", f'unrecognized configuration parameter "{command.name}"')
        self._result([Column(command.name, ColumnType.TEXT)], (value,), "SHOW")

    def _show_all(self) -> None:
        names = ("name", "setting", "description")
        self._send(row_description([Column(name, ColumnType.TEXT) for name in names]))
        for name, value in parameters(self._identity(), self._settings).items():
            self._send(data_row([name.encode(), value.encode(), None]))
        self._send(command_complete("SHOW"))

    @_answer.register
    async def _timeline_history(self, command: commands.FetchTimelineHistory) -> None:
        # The contents became text in PostgreSQL 14; the bytes are the same, never escaped.
        old = major_version(self._identity().server_version) < 14
        columns = [
            Column("filename", ColumnType.TEXT),
            Column("content", ColumnType.BYTEA if old else ColumnType.TEXT),
        ]
        # As PostgreSQL, which finds out that there is no such file when the row is due.
        self._send(row_description(columns))
        name = history_file_name(command.timeline)
        try:
            content = await self._provider.history_file(command.timeline)
        except WALUnavailable as error:
            raise CommandError(
                "58P01", f'could not open file "pg_wal/{name}": No such file or directory'
            ) from error
        self._send(data_row([name.encode(), content]))
        self._send(command_complete("TIMELINE_HISTORY"))

    @_answer.register
    async def _create_slot(self, command: commands.CreateReplicationSlot) -> None:
        if command.plugin is not None:
            raise CommandError(
                "55000",
                "logical decoding is not available from a WAL archive",
                hint="Create logical slots on a PostgreSQL server.",
            )
        slot = await self._create(command)
        columns = [
            Column(name, ColumnType.TEXT)
            for name in ("slot_name", "consistent_point", "snapshot_name", "output_plugin")
        ]
        # A physical slot has no consistent point, with or without reserved WAL.
        self._result(columns, (slot.name, "0/0", None, None), "CREATE_REPLICATION_SLOT")

    @_answer.register
    async def _read_slot(self, command: commands.ReadReplicationSlot) -> None:
        columns = [
            Column("slot_type", ColumnType.TEXT),
            Column("restart_lsn", ColumnType.TEXT),
            Column("restart_tli", ColumnType.INT8),
        ]
        slot = await self._slots.read(command.name)
        restart = slot.restart if slot is not None else None
        row = (
            "physical" if slot is not None else None,
            str(restart.lsn) if restart is not None else None,
            str(await self._timeline_of(restart)) if restart is not None else None,
        )
        self._result(columns, row, "READ_REPLICATION_SLOT")

    @_answer.register
    async def _drop_slot(self, command: commands.DropReplicationSlot) -> None:
        await self._slots.drop(command.name, wait=command.wait, pid=self._pid)
        self._send(command_complete("DROP_REPLICATION_SLOT"))

    @_answer.register
    async def _alter_slot(self, command: commands.AlterReplicationSlot) -> None:
        slot = await self._slots.read(command.name)
        if slot is None:
            raise CommandError("42704", f'replication slot "{command.name}" does not exist')
        self._check_usable(slot)
        raise CommandError(
            "0A000", "cannot use ALTER_REPLICATION_SLOT with a physical replication slot"
        )

    # The design of December 2009.

    @_answer.register
    async def _get_system_identifier(self, _: dialect2009.GetSystemIdentifier) -> None:
        row = (str(self._identity().system_identifier),)
        self._result([Column("systemid", ColumnType.TEXT)], row, _TAG_2009)

    @_answer.register
    async def _get_timeline(self, _: dialect2009.GetTimeline) -> None:
        row = (str(self._provider.end().timeline),)
        self._result([Column("timeline", ColumnType.INT4)], row, _TAG_2009)

    @_answer.register
    async def _get_backup_history(self, command: dialect2009.GetBackupHistoryFile) -> None:
        file = await self._provider.backup_history(command.start)
        if file is None:
            raise CommandError(
                "58P01",
                f"there is no backup history file for a backup that started at {command.start}",
                hint="Such a file comes into an archive by the server's archive_command.",
            )
        columns = [Column("filename", ColumnType.TEXT), Column("content", ColumnType.TEXT)]
        self._send(row_description(columns))
        self._send(data_row([file.name.encode(), file.content]))
        self._send(command_complete(_TAG_2009))

    # Slots.

    async def use_slot(self, name: str) -> str:
        """Acquire a slot for a stream; its name.

        :raises CommandError: as `ISlotStore.acquire`, and if the slot is lost.
        """
        self._check_usable(await self._slots.acquire(name, self._pid))
        return name

    def _check_usable(self, slot: Slot) -> None:
        """Refuse a slot that is lost, as far as the version that is announced does.

        PostgreSQL up to 17 lets a client go on that asks for WAL that there is, and the slot is
        good again once the client has reported a position.
        """
        if slot.invalidation is None:
            return
        if slot.invalidation == "wal_removed" and self.major < 18:
            return
        raise CommandError(
            "55000",
            f'can no longer access replication slot "{slot.name}"',
            detail=f'This replication slot has been invalidated due to "{slot.invalidation}".',
        )

    async def _create(self, command: commands.CreateReplicationSlot) -> Slot:
        for attempt in range(_ATTEMPTS):
            restart = self._reservation() if command.reserve_wal else None
            try:
                return await self._slots.create(
                    command.name, self._pid, temporary=command.temporary, restart=restart
                )
            except CommandError as error:
                if error.sqlstate == "53400" and error.hint and self.major < 17:
                    error.hint = error.hint.replace('"', "")
                # The WAL that was to be reserved has gone meanwhile: there is some that has not.
                if error.sqlstate != _REMOVED or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _timeline_of(self, restart: WALPosition) -> int:
        """On which timeline a position lies in the history of the current one."""
        history = await self._provider.history(self._provider.end().timeline)
        return history.timeline_at(restart.lsn)

    @property
    def major(self) -> int:
        """The version that is announced, or the newest one."""
        identity = self._provider.identity
        return NEWEST if identity is None else major_version(identity.server_version)

    # What they have in common.

    def _result(self, columns: list[Column], row: tuple[str | None, ...], tag: str) -> None:
        values = [
            value.encode("utf-8", "surrogateescape") if value is not None else None for value in row
        ]
        self._send(row_description(columns) + data_row(values) + command_complete(tag))

    def _identity(self) -> SystemIdentity:
        identity = self._provider.identity
        if identity is None:
            raise CommandError("57P03", "the database system is starting up")
        return identity

    def _reservation(self) -> WALPosition:
        """What RESERVE_WAL holds back: all from the current segment's start on."""
        end = self._provider.end()
        return WALPosition(end.timeline, self._identity().segment_size.floor(end.lsn))


def _name(command: object) -> str:
    match command:
        case commands.BaseBackup():
            return "BASE_BACKUP"
        case commands.UploadManifest():
            return "UPLOAD_MANIFEST"
        case commands.StartLogicalReplication():
            return "START_REPLICATION … LOGICAL"
    return type(command).__name__
