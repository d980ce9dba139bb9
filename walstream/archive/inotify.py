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

_Changed = Callable[[Collection[str]], None]

# A segment is finished when it gets its name, or, if it is copied into place, when that is over.
_ENTRIES = inotify.IN_MOVED_TO | inotify.IN_CLOSE_WRITE | inotify.IN_CREATE
_OWN_ENTRIES = inotify.IN_MODIFY | inotify.IN_MOVED_TO | inotify.IN_CREATE


class INotifyWatch:
    """Watches the archive directory, and walstream's own in it as soon as there is one."""

    def __init__(self, paths: ArchivePaths, reactor: object) -> None:
        self._paths = paths
        self._reactor = reactor
        self._notifier: _Notifier | None = None

    def start(self, changed: _Changed) -> None:
        """See `Watch.start`.

        :raises ArchiveError: if the directory cannot be watched.
        """

        def lost() -> None:
            # One of the two directories is gone. If it is ours, the other can still be watched.
            self._notifier = None
            if os.path.isdir(self._paths.root):
                self.start(changed)
            changed(())

        try:
            self._notifier = _Notifier(self._reactor, changed, lost)
            self._notifier.watch_directory(self._paths.root, _ENTRIES, self._watch_own)
        except inotify.INotifyError as error:
            self.stop()
            raise ArchiveError(
                f"cannot watch {self._paths.root} ({error}): is fs.inotify.max_user_instances or "
                "max_user_watches too low?"
            ) from error
        self._watch_own(self._paths.own)
        self._notifier.startReading()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """See `Watch.stop`."""
        if self._notifier is not None:
            self._notifier.connectionLost(Failure(ConnectionDone()))  # type: ignore[no-untyped-call]
            self._notifier = None

    def _watch_own(self, path: str) -> None:
        if path == self._paths.own and self._notifier is not None and os.path.isdir(path):
            self._notifier.watch_directory(path, _OWN_ENTRIES, _ignore)


class _Notifier(inotify.INotify):
    """Gives the changes that one read brings all at once: in bulk there are hundreds.

    When a watched directory is removed, Twisted's class closes itself; `lost` is called then.
    """

    def __init__(self, reactor: object, changed: _Changed, lost: Callable[[], None]) -> None:
        super().__init__(reactor)  # type: ignore[no-untyped-call]
        self._changed = changed
        self._lost = lost
        self._seen: set[str] = set()

    def watch_directory(self, path: str, mask: int, also: Callable[[str], None]) -> None:
        """Watch a directory, once; *also* is told of each change at once."""

        def note(_: object, changed: FilePath[bytes], events: int) -> None:
            text = os.fsdecode(changed.path)
            self._seen.add(text)
            also(text)

        self.watch(FilePath(path), mask, callbacks=[note])  # type: ignore[no-untyped-call]

    def doRead(self) -> None:
        """Take what the kernel has to tell."""
        super().doRead()  # type: ignore[no-untyped-call]
        seen, self._seen = self._seen, set()
        if not self.connected:
            self._lost()
        elif seen:
            self._changed(seen)


def _ignore(_: str) -> None:
    pass
