"""Images: segment files mapped into memory, read-only, and shared by all who read them.

A mapping is served from directly, without a copy or a system call, so nothing about it may go
wrong later: only a file of its full size is mapped, its header is checked, and its pages are read
ahead in a lane, where a bad disk is an error and not a SIGBUS. What remains is a file that someone
shortens while it is mapped; nothing that works on archives does.

Nobody closes a mapping. The views that were given out keep it, and it goes with the last of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from mmap import mmap

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.archive.lane import Lane

__all__ = ["Image", "Images"]

# The pages are the kernel's to take back, but they count as this process's memory.
_SPARE_BYTES = 256 << 20


class Image:
    """One mapped segment.

    :ivar view: its bytes, all of them, valid or not.
    :ivar start: the position of the first.
    :ivar end: the position behind the last.
    :ivar middle: the position from which on the next segment should be made ready.
    :ivar is_stale: whether another file has taken the place of the mapped one.
    """

    __slots__ = ("end", "is_stale", "key", "middle", "start", "users", "view")

    def __init__(self, mapping: mmap, start: int) -> None:
        self.view = memoryview(mapping)
        self.start = start
        self.end = start + len(mapping)
        self.middle = start + len(mapping) // 2
        self.is_stale = False
        self.key = (0, 0)
        self.users = 0


class Images:
    """The images that are in use, and a few that were.

    :param load: makes the job that maps a segment, given its timeline and number.
    :param spare: how many to keep that nobody uses; of large segments it is fewer.
    """

    _log = Logger()

    def __init__(
        self, lane: Lane, load: Callable[[int, int], Callable[[], Image]], spare: int = 8
    ) -> None:
        self._lane = lane
        self._load = load
        self._spare = spare
        self._used: dict[tuple[int, int], Image] = {}
        self._unused: OrderedDict[tuple[int, int], Image] = OrderedDict()
        self._loading: dict[tuple[int, int], list[Deferred[Image]]] = {}

    def acquire(self, timeline: int, number: int) -> Deferred[Image]:
        """The image of a segment. Every one that is acquired has to be released.

        :raises WALUnavailable: (in the Deferred) if there is none.
        """
        key = timeline, number
        image = self._used.get(key) or self._unused.pop(key, None)
        if image is not None:
            self._used[key] = image
            image.users += 1
            return succeed(image)
        acquired: Deferred[Image] = Deferred()
        waiting = self._loading.get(key)
        if waiting is not None:
            waiting.append(acquired)
            return acquired
        self._loading[key] = waiting = [acquired]
        self._lane.run(self._load(timeline, number)).addBoth(self._loaded, key, waiting)
        return acquired

    def release(self, image: Image) -> None:
        """One user less."""
        image.users -= 1
        if image.users or image.is_stale:
            return
        del self._used[image.key]
        self._unused[image.key] = image
        if len(self._unused) > min(self._spare, max(_SPARE_BYTES // len(image.view), 1)):
            self._unused.popitem(last=False)

    def forget(self, timeline: int, number: int) -> None:
        """Another file holds the segment now: who reads on has to acquire it again."""
        key = timeline, number
        self._loading.pop(key, None)
        image = self._used.pop(key, None) or self._unused.pop(key, None)
        if image is not None:
            image.is_stale = True

    def clear(self) -> None:
        """Let go of all images that nobody uses."""
        self._unused.clear()

    def _loaded(
        self, result: Image | Failure, key: tuple[int, int], waiting: list[Deferred[Image]]
    ) -> None:
        is_current = self._loading.get(key) is waiting
        if is_current:
            del self._loading[key]
        if isinstance(result, Failure):
            if (error := result.value) is not None and error.__cause__ is not None:
                self._log.error("cannot serve WAL: {reason}", reason=str(error.__cause__))
            for acquired in waiting:
                acquired.errback(result)
            return
        result.key = key
        result.is_stale = not is_current
        result.users = len(waiting)
        if is_current:
            self._used[key] = result
        for acquired in waiting:
            acquired.callback(result)
