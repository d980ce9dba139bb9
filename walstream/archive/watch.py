"""Tells when files of an archive directory change that another process writes.

Linux tells by itself (inotify(7)); elsewhere the directory is looked at every second.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from walstream.archive.paths import ArchivePaths

__all__ = ["PollingWatch", "Watch", "make_watch"]

_Changed = Callable[[Collection[str]], None]
_log = Logger()


class Watch(Protocol):
    """Watches a directory from `start` to `stop`."""

    def start(self, changed: _Changed) -> None:
        """Call *changed* with the paths that may have changed; none means any may have."""

    def stop(self) -> None:
        """Call it no more."""


class PollingWatch:
    """Says every second that anything may have changed."""

    def __init__(self, clock: IReactorTime, interval: float = 1.0) -> None:
        self._clock = clock
        self._interval = interval
        self._look: LoopingCall | None = None

    def start(self, changed: _Changed) -> None:
        """See `Watch.start`."""
        self._look = LoopingCall(changed, ())
        self._look.clock = self._clock
        self._look.start(self._interval, now=False)

    def stop(self) -> None:
        """See `Watch.stop`."""
        if self._look is not None and self._look.running:
            self._look.stop()


def make_watch(paths: ArchivePaths, reactor: object) -> Watch:
    """The best watch that there is on this system."""
    try:
        from walstream.archive.inotify import INotifyWatch

        return INotifyWatch(paths, reactor)
    except ImportError:
        _log.info(
            "this system cannot tell when files change: {archive} is looked at every second",
            archive=paths.root,
        )
        return PollingWatch(IReactorTime(reactor))
