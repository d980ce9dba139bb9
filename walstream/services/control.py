"""The control socket: whoever connects gets one JSON document of how the process is, and no more.

It is in the archive, where ``walstream status`` finds it, and follows that: an archive that is let
go of, moved or unmounted has no socket, and gets one when it is back. Nothing that happens to the
socket, or to those who connect to it, disturbs the process: without it all goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from os.path import join
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.archive.directory import ArchiveDirectory
from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane, ThreadLane
from walstream.archive.paths import ArchivePaths
from walstream.archive.process_names import new_name
from walstream.archive.serving import ServedArchive
from walstream.archive.tenure import is_root_unchanged
from walstream.errors import ArchiveLost
from walstream.services.control_document import Document
from walstream.services.control_files import SocketFile, remove_stale
from walstream.services.control_port import ControlFactory, ControlPort

__all__ = [
    "IN_ARCHIVE",
    "NOWHERE",
    "ArchivePlace",
    "ControlSocket",
    "FixedPlace",
    "Place",
    "control_sockets",
]

# Seconds between two looks whether the socket is where it should be.
_INTERVAL: Final = 1.0
#: What stands for the archive, instead of a path.
IN_ARCHIVE: Final = "archive"
#: What stands for no control socket at all.
NOWHERE: Final = "none"


class Place(Protocol):
    """Where a control socket belongs. Its methods wait for the disk."""

    def make(self) -> SocketFile:
        """Make it.

        :raises ArchiveLost: if the archive is not ours at this moment.
        :raises OSError: if it cannot be made.
        """

    def holds(self, file: SocketFile) -> bool:
        """Whether *file* is where it belongs, and the archive is ours.

        :raises OSError: if it cannot be told.
        """


class FixedPlace:
    """A path of the operator's choice (``--control``)."""

    def __init__(self, path: str) -> None:
        self._path = path

    def make(self) -> SocketFile:
        """See `Place.make`."""
        return SocketFile.make(self._path)

    def holds(self, file: SocketFile) -> bool:
        """See `Place.holds`."""
        return file.is_there()


class ArchivePlace:
    """In the archive's ``.walstream/control``.

    :param assure: proves that the archive is ours, or raises `ArchiveLost`; None if nobody can
        tell: the directory that is there now is taken for it then.
    """

    def __init__(self, paths: ArchivePaths, assure: Callable[[], None] | None = None) -> None:
        self._paths = paths
        self._assure = assure or is_root_unchanged(FileSystem(), paths)

    def make(self) -> SocketFile:
        """See `Place.make`."""
        self._assure()
        for directory in (self._paths.own, self._paths.control):
            if not os.path.isdir(directory):
                os.mkdir(directory, 0o700)
        remove_stale(self._paths.control)
        return SocketFile.make(join(self._paths.control, new_name()))

    def holds(self, file: SocketFile) -> bool:
        """See `Place.holds`."""
        try:
            self._assure()
        except ArchiveLost:
            return False
        return file.is_there()


class ControlSocket:
    """Has a control socket where it belongs, from `open` to `close`; a `Storage` of the hub's.

    :param document: the pieces of a document, made as they are asked for.
    :param lane: a thread of its own; closed with it.
    :param look: called every second.
    """

    _log = Logger()

    def __init__(
        self,
        place: Place,
        document: Callable[[], Iterable[bytes]],
        lane: Lane,
        reactor: Any,
        look: Callable[[], None] = lambda: None,
    ) -> None:
        self._place = place
        self._lane = lane
        self._reactor = reactor
        self._look = look
        self.factory = ControlFactory(document, reactor)
        self._file: SocketFile | None = None
        self._port: ControlPort | None = None
        self._busy = DeferredLock()
        self._is_closed = self._is_released = False
        self._said = ""
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor

    def open(self) -> Deferred[None]:
        """Begin; fires when the socket is there, or the log says why not."""
        self._loop.start(_INTERVAL, now=False).addErrback(self._failed)
        return Deferred.fromCoroutine(self._see_to_it())

    def close(self) -> Deferred[None]:
        """End: the socket is gone, and so are its readers."""
        self._is_closed = True
        if self._loop.running:
            self._loop.stop()
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        async with self._busy:
            await self._let_go()
        self.factory.abort_all()
        await self._lane.close()

    def _tick(self) -> Deferred[None]:
        try:
            self._look()
        except Exception:
            self._failed(Failure())
        # A LoopingCall waits for it, so there is never a second one.
        return Deferred.fromCoroutine(self._see_to_it())

    async def _see_to_it(self) -> None:
        async with self._busy:
            if self._is_closed:
                return
            try:
                await (self._make() if self._file is None else self._check(self._file))
            except ArchiveLost:
                await self._let_go()  # whoever has lost it says so
            except OSError as error:
                await self._let_go()
                self._say(error)
            except Exception:
                self._failed(Failure())

    async def _make(self) -> None:
        self._is_released = False
        file = await self._lane.run(self._place.make)
        self._file, self._said = file, ""
        self._port = ControlPort(file.listener, self.factory, self._reactor)
        self._port.start()
        if self._is_released:
            await self._let_go()

    async def _check(self, file: SocketFile) -> None:
        if not await self._lane.run(partial(self._place.holds, file)):
            await self._let_go()

    def release(self) -> None:
        """Let go of the archive at once: somebody may have to unmount it."""
        self._is_released = True
        Deferred.fromCoroutine(self._let_go()).addErrback(self._failed)

    async def _let_go(self) -> None:
        file, port = self._file, self._port
        self._file = self._port = None
        if port is not None:
            port.stop()
        if file is not None:
            await self._lane.run(file.remove)

    def _say(self, error: OSError) -> None:
        reason = str(error)
        if reason != self._said:
            self._said = reason
            self._log.warn(
                "there is no control socket, so walstream status sees nothing of this process: "
                "{reason}; --control=PATH puts it elsewhere, --control=none does without",
                reason=reason,
            )

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the control socket failed", failure)


def control_sockets(
    reactor: Any, control: str, archive: ServedArchive, document: Document
) -> Iterator[ControlSocket]:
    """The control socket of a process, or none.

    :param control: `IN_ARCHIVE`, `NOWHERE`, or the path of the socket.
    """
    if control == NOWHERE:
        return
    place: Place = FixedPlace(control)
    if control == IN_ARCHIVE:
        assure = archive.assure if isinstance(archive, ArchiveDirectory) else None
        place = ArchivePlace(archive.paths, assure)
    lane = ThreadLane(reactor, "walstream-control")
    made = ControlSocket(place, document.pieces, lane, reactor, document.look)
    if control == IN_ARCHIVE and isinstance(archive, ArchiveDirectory):
        archive.watch_release(made.release)
    yield made
