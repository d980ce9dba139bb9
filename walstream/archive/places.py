"""The places where this process reads an archive, told to whoever removes WAL from it.

Each cursor has a place; what is told is the one that is furthest back, before the first byte is
read from there. Places that move forward are told of soon, since to hold back more than is needed
does no harm. Where places were a moment ago is told too: a client that lost its connection, or goes
over to another timeline, comes back and asks again for the segment that it was in.
"""

from __future__ import annotations

from operator import attrgetter
from threading import Lock
from typing import TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.archive.paths import ArchivePaths
from walstream.archive.readers import ReaderFile
from walstream.archive.trail import Trail
from walstream.formats.positions import WALPosition

__all__ = ["Place", "Places"]

T = TypeVar("T")


class Place:
    """Where one cursor reads."""

    def __init__(self, places: Places, position: WALPosition) -> None:
        self.position = position
        self._places = places

    def move(self, position: WALPosition) -> None:
        """Nothing before *position* is needed any more."""
        if position.lsn > self.position.lsn:
            before, self.position = self.position, position
            self._places.moved(before, position)

    def leave(self) -> None:
        """Nothing is needed any more. To be called once, or more often."""
        self._places.left(self)


class Places:
    """All places of this process in one archive. Jobs in the lane write the file.

    An archive on a disk that this process can't write to is read without anybody being told.
    """

    _log = Logger()

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        lane: Lane,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        :param clock: what time it is, for where places were a moment ago; without one, that is
            not told.
        """
        self._trail = Trail(clock, self._oldest_changed) if clock is not None else None
        self._file = ReaderFile(files, paths)
        self._paths = paths
        self._lane = lane
        self._places: set[Place] = set()
        # How many are at each position: a thousand that read the same are a few.
        self._counts: dict[WALPosition, int] = {}
        self._oldest: WALPosition | None = None
        # What the file says, once a job that wrote it is over; None if that is nothing.
        self._told: WALPosition | None = None
        self._lately_told: WALPosition | None = None
        self._one_at_a_time = Lock()
        self._telling = 0
        self._is_used = self._is_closed = self._has_failed = False

    def enter(self, position: WALPosition) -> Deferred[Place]:
        """Begin to read at *position*; fires when whoever removes WAL knows."""
        return Deferred.fromCoroutine(self._enter(position))

    def moved(self, before: WALPosition, now: WALPosition | None) -> None:
        """A place that was at *before* is at *now*, or with None gone."""
        self._counts[before] -= 1
        if not self._counts[before]:
            del self._counts[before]
        if now is not None:
            self._counts[now] = self._counts.get(now, 0) + 1
        if self._trail is not None and not self._is_closed:
            self._trail.add(before)
        self._oldest_changed()

    def _oldest_changed(self) -> None:
        oldest = min(self._counts, key=attrgetter("lsn"), default=None)
        is_known = oldest == self._oldest and self._lately() == self._lately_told
        if not is_known and not self._is_closed:
            self._oldest = oldest
            self._start_telling().addErrback(self._failed)

    def left(self, place: Place) -> None:
        """A place is gone."""
        if place in self._places:
            self._places.remove(place)
            self.moved(place.position, None)

    def close(self) -> Deferred[None]:
        """Nothing is read any more."""
        self._is_closed = True
        if self._trail is not None:
            self._trail.close()
        return self._lane.run(self._forget) if self._is_used else succeed(None)

    async def _enter(self, position: WALPosition) -> Place:
        place = Place(self, position)
        self._places.add(place)
        self._counts[position] = self._counts.get(position, 0) + 1
        if self._oldest is None or position.lsn < self._oldest.lsn:
            self._oldest = position
        # What is being told at this moment may be a position that is further on.
        if self._telling or self._told is None or position.lsn < self._told.lsn:
            try:
                await self._start_telling()
            except OSError:
                self._failed(Failure())
            except BaseException:
                place.leave()
                raise
        return place

    def _start_telling(self) -> Deferred[None]:
        self._is_used = True
        self._telling += 1
        return self._lane.run(self._tell).addBoth(self._has_told)

    def _has_told(self, result: T) -> T:
        self._telling -= 1
        return result

    def _forget(self) -> None:
        with self._one_at_a_time:
            self._file.close()

    def _tell(self) -> None:
        # In whatever order these jobs run, each tells what is true when it does.
        with self._one_at_a_time:
            oldest, told, lately = self._oldest, self._told, self._lately()
            if oldest == told and lately == self._lately_told:
                return
            if oldest is not None and (told is None or oldest.lsn < told.lsn):
                self._file.begin(oldest, lately)
            else:
                self._file.move(oldest, lately)
            self._told, self._lately_told = oldest, lately

    def _lately(self) -> WALPosition | None:
        lately = self._trail.oldest if self._trail is not None else None
        oldest = self._oldest
        return lately if oldest is None or lately is None or lately.lsn < oldest.lsn else None

    def _failed(self, failure: Failure) -> None:
        if failure.check(OSError) is None:
            self._log.failure("the archive's readers could not be told of", failure)
        elif not self._has_failed:
            self._log.warn(
                "{path} cannot be written, so a prune elsewhere does not know what is read here: "
                "{error}",
                path=self._paths.readers,
                error=failure.getErrorMessage(),
            )
        self._has_failed = True
