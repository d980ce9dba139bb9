"""Watches an archive directory with Linux's inotify. Importing it elsewhere is an ImportError."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from twisted.internet import inotify
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath

from walstream.archive.paths import ArchivePaths
from walstream.errors import ArchiveError

__all__ = ["INotifyWatch"]

# A segment is finished when it gets its name, or, if it is copied into place, when that is over.
_ENTRIES = inotify.IN_MOVED_TO | inotify.IN_CLOSE_WRITE | inotify.IN_CREATE
_END_MARK = inotify.IN_MODIFY | inotify.IN_MOVED_TO | inotify.IN_CREATE


class INotifyWatch:
    """Watches the archive directory, and walstream's own in it as soon as there is one."""

    def __init__(self, paths: ArchivePaths, reactor: object) -> None:
        self._paths = paths
        self._reactor = reactor
        self._notifier: _Notifier | None = None

    def start(self, changed: Callable[[Collection[str]], None]) -> None:
        """See `Watch.start`.

        :raises ArchiveError: if the directory cannot be watched.
        """
        try:
            notifier = self._notifier = _Notifier(self._reactor, changed)
            notifier.watch_directory(self._paths.root, _ENTRIES, self._entry_changed)
        except inotify.INotifyError as error:
            self.stop()
            raise ArchiveError(
                f"cannot watch {self._paths.root} ({error}): is fs.inotify.max_user_instances or "
                "max_user_watches too low?"
            ) from error
        self._watch_own()
        notifier.startReading()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """See `Watch.stop`."""
        if self._notifier is not None:
            lost = Failure(ConnectionDone())
            self._notifier.connectionLost(lost)  # type: ignore[no-untyped-call]
            self._notifier = None

    def _entry_changed(self, path: str) -> None:
        if path == self._paths.own:
            self._watch_own()

    def _watch_own(self) -> None:
        if self._notifier is not None and os.path.isdir(self._paths.own):
            self._notifier.watch_directory(self._paths.own, _END_MARK, None)


class _Notifier(inotify.INotify):
    """Gives the changes that one read brings all at once: in bulk there are hundreds."""

    def __init__(self, reactor: object, changed: Callable[[Collection[str]], None]) -> None:
        super().__init__(reactor)  # type: ignore[no-untyped-call]
        self._changed = changed
        self._paths: set[str] = set()

    def watch_directory(self, path: str, mask: int, also: Callable[[str], None] | None) -> None:
        def note(_: object, changed: FilePath[bytes], events: int) -> None:
            text = os.fsdecode(changed.path)
            self._paths.add(text)
            if also is not None:
                also(text)

        self.watch(FilePath(path), mask, callbacks=[note])  # type: ignore[no-untyped-call]

    def doRead(self) -> None:
        super().doRead()  # type: ignore[no-untyped-call]
        paths, self._paths = self._paths, set()
        if paths:
            self._changed(paths)
