"""The small files of an archive: timeline histories and backup histories.

They are copied byte by byte, and one that is held is never replaced by another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred, succeed

from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.archive.paths import ArchivePaths
from walstream.errors import FormatError, SinkFailed, TimelineMismatch, WALUnavailable
from walstream.formats.segments import history_file_name, is_backup_history_name
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import BackupHistoryFile

__all__ = ["Documents"]


class Documents:
    """Reads the small files in one lane, and stores them in another.

    :ivar histories: the timelines whose history files are held.
    :ivar assure: called before one is stored; proves that the archive is ours, or raises.
    """

    def __init__(
        self, files: FileSystem, paths: ArchivePaths, reading: Lane, writing: Lane
    ) -> None:
        self.histories: set[int] = set()
        self.assure: Callable[[], None] = _nothing
        self._files = files
        self._paths = paths
        self._reading = reading
        self._writing = writing

    def history(self, timeline: int) -> Deferred[TimelineHistory]:
        """The parsed history of a timeline; see `IWALProvider.history`."""
        if timeline == 1:
            return succeed(TimelineHistory(1, ()))
        return self.history_file(timeline).addCallback(partial(TimelineHistory.parse, timeline))

    def history_file(self, timeline: int) -> Deferred[bytes]:
        """The contents of a history file; see `IWALProvider.history_file`."""
        name = history_file_name(timeline)

        def read() -> bytes:
            try:
                return self._files.read(self._paths.of(name))
            except FileNotFoundError:
                raise WALUnavailable(name) from None

        return self._reading.run(read)

    def backup_history(self, name: str) -> Deferred[BackupHistoryFile | None]:
        """The backup history file *name*, if it is held."""

        def read() -> BackupHistoryFile | None:
            try:
                return BackupHistoryFile(name, self._files.read(self._paths.of(name)))
            except FileNotFoundError:
                return None

        return self._reading.run(read)

    async def store_history(self, timeline: int, content: bytes) -> None:
        """Keep a timeline history file, durably.

        :raises FormatError: if it is none.
        :raises TimelineMismatch: if one is held that tells another history.
        :raises SinkFailed: if it could not be kept.
        """
        history = TimelineHistory.parse(timeline, content)
        await self._store(
            history_file_name(timeline),
            content,
            lambda held: _descent(TimelineHistory.parse(timeline, held)) == _descent(history),
        )
        self.histories.add(timeline)

    async def store_backup_history(self, file: BackupHistoryFile) -> None:
        """Keep a backup history file, durably; errors as `store_history`."""
        # A name from a server becomes a path, so it must be nothing else.
        if not is_backup_history_name(file.name):
            raise FormatError(f"{file.name!r} is not the name of a backup history file")
        await self._store(file.name, file.content, file.content.__eq__)

    async def _store(self, name: str, content: bytes, agrees: Callable[[bytes], bool]) -> None:
        path = self._paths.of(name)

        def store() -> bool:
            self.assure()
            kept = content
            if self._files.find_size(path) is not None:
                kept = self._files.read(path)
                if not agrees(kept):
                    return False
            # One that is there may not be durable: it got its name, and then a sync failed.
            self._files.store(self._paths.incoming, path, kept)
            return True

        try:
            agreed = await self._writing.run(store)
        except OSError as error:
            raise SinkFailed(f"could not store {path}: {error.strerror}") from error
        if not agreed:
            raise TimelineMismatch(
                f"{path} tells something else than the server's {name} does: they are not of the "
                "same cluster, or two servers were promoted to the same timeline"
            )


def _nothing() -> None:
    pass


def _descent(history: TimelineHistory) -> list[tuple[int, int]]:
    return [(past.timeline, past.switch_point) for past in history.ancestors]
