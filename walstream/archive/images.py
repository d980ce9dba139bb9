"""Images: pieces of segment files mapped into memory, read-only, shared by all who read them.

An image is a segment, or a window of one that is longer than `WINDOW`: so the first byte of a large
segment on a cold disk does not wait for its last, and what a reader has mapped is bounded. Of a
compressed segment it is the whole, which was decoded for it.

A mapping is served from directly, without a copy or a system call, so nothing about it may go
wrong later: only a file of its full size is mapped, its header is checked, and its pages are read
ahead in a lane, where a bad disk is an error and not a SIGBUS. What remains is a file that someone
shortens while it is mapped; nothing that works on archives does. And pages that the kernel takes
back, when memory is short, before a slow client has had them: the reactor's thread reads them.

Nobody closes a mapping. The views that were given out keep it, and it goes with the last of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from mmap import mmap
from typing import TypeAlias

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.archive.lane import Lane

__all__ = ["WINDOW", "Image", "Images", "Load"]

#: What is mapped at a time of a segment that is longer.
WINDOW = 16 << 20

# The pages are the kernel's to take back, but they count as this process's memory. Measured with
# many readers, each in its place: to map a segment anew costs a fifth of what sending it costs.
_SPARE_BYTES = 1 << 30
# Of images of decoded segments, which take up room where temporary files are.
_SPARE_COPIES = 8


class Image:
    """One mapped segment, or a window of one.

    :ivar view: its bytes, all of them, valid or not.
    :ivar start: the position of the first.
    :ivar offset: where in the segment that is.
    :ivar end: the position behind the last.
    :ivar middle: the position from which on the next image should be made ready.
    :ivar is_copy: whether the file is a temporary one, made of a compressed segment.
    :ivar is_stale: whether another file has taken the place of the mapped one.
    """

    __slots__ = ("end", "is_copy", "is_stale", "key", "middle", "offset", "start", "users", "view")

    def __init__(self, mapping: mmap, start: int, offset: int = 0) -> None:
        self.view = memoryview(mapping)
        self.start = start
        self.offset = offset
        self.end = start + len(mapping)
        self.middle = start + len(mapping) // 2
        self.is_copy = False
        self.is_stale = False
        self.key = (0, 0, 0)
        self.users = 0


#: Makes the job that maps the window at an offset of a segment, or more of it: given its timeline,
#: its number, and the offset.
Load: TypeAlias = Callable[[int, int, int], Callable[[], Image]]


class Images:
    """The images that are in use, and a few that were.

    One image of a segment is loaded at a time: it may be good for all who wait for one.

    :param spare: how many to keep that nobody uses; of large ones it is fewer.
    """

    _log = Logger()

    def __init__(self, lane: Lane, load: Load, spare: int = 64) -> None:
        self._lane = lane
        self._load = load
        self._spare = spare
        # By timeline, segment number, and offset in the segment.
        self._used: dict[tuple[int, int, int], Image] = {}
        self._unused: OrderedDict[tuple[int, int, int], Image] = OrderedDict()
        # By timeline and segment number: who waits, for which offset.
        self._loading: dict[tuple[int, int], list[tuple[int, Deferred[Image]]]] = {}

    def acquire(self, timeline: int, number: int, offset: int = 0) -> Deferred[Image]:
        """An image of a segment that has its byte at *offset*, which is where a window begins.

        Every one that is acquired has to be released.

        :raises WALUnavailable: (in the Deferred) if there is none.
        """
        image = self._find((timeline, number, offset))
        if image is None and offset and (whole := self._find((timeline, number, 0))) is not None:
            image = whole if offset < whole.end - whole.start else None
        if image is not None:
            self._unused.pop(image.key, None)
            self._used[image.key] = image
            image.users += 1
            return succeed(image)
        acquired: Deferred[Image] = Deferred()
        waiting = self._loading.get((timeline, number))
        if waiting is not None:
            waiting.append((offset, acquired))
        else:
            self._start_loading(timeline, number, [(offset, acquired)])
        return acquired

    def release(self, image: Image) -> None:
        """One user less."""
        image.users -= 1
        if image.users or image.is_stale:
            return
        del self._used[image.key]
        self._unused[image.key] = image
        copies = [key for key, spare in self._unused.items() if spare.is_copy]
        if len(copies) > _SPARE_COPIES:
            del self._unused[copies[0]]
        elif len(self._unused) > min(self._spare, max(_SPARE_BYTES // len(image.view), 1)):
            self._unused.popitem(last=False)

    def forget(self, timeline: int, number: int) -> None:
        """Another file holds the segment now: who reads on has to acquire it again."""
        self._forget(lambda key: key == (timeline, number))

    def forget_from(self, timeline: int, number: int) -> None:
        """Another file will hold that segment, and others the ones after it."""
        self._forget(lambda key: key[0] == timeline and key[1] >= number)

    def clear(self) -> None:
        """Let go of all images that nobody uses."""
        self._unused.clear()

    def _find(self, key: tuple[int, int, int]) -> Image | None:
        return self._used.get(key) or self._unused.get(key)

    def _forget(self, is_meant: Callable[[tuple[int, int]], bool]) -> None:
        for segment in filter(is_meant, list(self._loading)):
            del self._loading[segment]
        for images in (self._used, self._unused):
            for key in [key for key in images if is_meant(key[:2])]:
                images.pop(key).is_stale = True

    def _start_loading(
        self, timeline: int, number: int, waiting: list[tuple[int, Deferred[Image]]]
    ) -> None:
        self._loading[timeline, number] = waiting
        offset = waiting[0][0]
        loading = self._lane.run(self._load(timeline, number, offset))
        loading.addBoth(self._loaded, (timeline, number, offset), waiting)

    def _loaded(
        self,
        result: Image | Failure,
        key: tuple[int, int, int],
        waiting: list[tuple[int, Deferred[Image]]],
    ) -> None:
        timeline, number, asked = key
        is_current = self._loading.get((timeline, number)) is waiting
        if is_current:
            del self._loading[timeline, number]
        if isinstance(result, Failure):
            if (error := result.value) is not None and error.__cause__ is not None:
                self._log.error("cannot serve WAL: {reason}", reason=str(error.__cause__))
            # What is wrong with one window need not be with another.
            served = [each for each in waiting if each[0] == asked]
        else:
            size = result.end - result.start
            begin = result.offset
            served = [each for each in waiting if begin <= each[0] < begin + size]
            result.is_stale = not is_current
            result.users = len(served)
            result.key = timeline, number, begin
            if is_current and self._find(result.key) is not None:
                result.key = key  # the whole beside a window: it was compressed meanwhile
            if is_current:
                self._used[result.key] = result
        rest = [each for each in waiting if each not in served]
        if rest and (timeline, number) not in self._loading:
            self._start_loading(timeline, number, rest)
            rest = []
        for _, acquired in served:
            acquired.callback(result)
        for offset, acquired in rest:
            self.acquire(timeline, number, offset).chainDeferred(acquired)
