"""Cursors: each reads the WAL of one timeline, from images and memory that all of them share.

What is durable is read from images of the files; what is served before it is durable, from memory
only (see `recent`).

A cursor is woken for every piece of WAL that comes, and there may be a thousand of them: what is
done between a wake-up and a read has to be little.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.archive.images import WINDOW, Image, Images
from walstream.archive.places import Place
from walstream.archive.tail import Tail
from walstream.errors import WalstreamError, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.interfaces import IWALCursor, WALPosition

__all__ = ["Cursor"]

_NOTHING = memoryview(b"")


@implementer(IWALCursor)
class Cursor:
    """Reads from one image at a time, of a segment or a window, and has the next one ready in time.

    At most two are mapped for it, which it shares with whoever reads there too. Beyond the durable
    end it reads recent WAL, a piece at a time, which nobody maps.
    """

    def __init__(
        self,
        timeline: int,
        position: int,
        size: SegmentSize,
        tail: Tail,
        images: Images,
        place: Place | None = None,
    ) -> None:
        """
        :param place: where it is said what it needs, if it matters.
        """
        self.position = position
        self._timeline = timeline
        self._size = size
        self._window = min(size, WINDOW)
        self._tail = tail
        self._images = images
        self._place = place
        self._place_until = 0
        self._image: Image | None = None
        self._next: Image | None = None
        self._loading: int | None = None
        self._waiter: Deferred[None] | None = None
        self._is_closed = False

    @property
    def available(self) -> int:
        """See `IWALCursor.available`."""
        return self._tail.available(self._timeline, self.position)

    def read(self, limit: int) -> memoryview:
        """See `IWALCursor.read`. An image's end is a segment's, or a window's in it."""
        start = self.position
        if self._is_recent():
            return self._read_recent(limit)
        image = self._image
        if image is None or not image.start <= start < image.end or image.is_stale:
            image = self._turn_over()
            if image is None:
                return _NOTHING
        end = min(start + limit, self._available_in_files(), image.end)
        if end <= start:
            return _NOTHING
        self.position = end
        if end > image.middle and self._next is None and self._loading is None:
            self._look_ahead(image.end)
        return image.view[start - image.start : end - image.start]

    def ready(self) -> Deferred[None]:
        """See `IWALCursor.ready`."""
        if self._waiter is not None:
            raise RuntimeError("one ready() is outstanding already")
        if self._is_closed:
            return fail(RuntimeError("the cursor is closed"))
        waiter = self._waiter = Deferred(self._cancelled)
        self._proceed()
        return waiter

    def close(self) -> None:
        """See `IWALCursor.close`."""
        self._is_closed = True
        self._drop_images()
        if self._place is not None:
            self._place.leave()
        if self._waiter is not None:
            self._waiter.cancel()

    # Waiting.

    def _proceed(self) -> None:
        """See whether there is something to read now, or what there is to wait for."""
        waiter = self._waiter
        if waiter is None:
            return
        if self.position >= self.available:
            self._wait_for_more(waiter)
        elif self._is_recent():
            if self._tail.recent.view(self.position):
                self._waiter = None
                waiter.callback(None)
            else:
                self._tail.wait(self._proceed)
        elif self._image_at_hand():
            self._waiter = None
            waiter.callback(None)
        elif self._loading is None:
            self._load(self.position)

    def _wait_for_more(self, waiter: Deferred[None]) -> None:
        over: WalstreamError | None = self._tail.is_over(self._timeline, self.position)
        if over is None and (gap := self._tail.gap_at(self.position)) is not None:
            segment = self._size.name(self._timeline, self._size.number(self.position))
            over = WALUnavailable(segment, gap=str(gap))
        if over is not None:
            self._waiter = None
            waiter.errback(over)
        else:
            self._tail.wait(self._proceed)

    def _cancelled(self, _: Deferred[None]) -> None:
        self._waiter = None
        self._tail.leave(self._proceed)

    # What is not durable yet.

    def _is_recent(self) -> bool:
        """Whether what comes next is in memory only, as far as it is to be trusted."""
        tail = self._tail
        return self.position >= tail.durable and self._timeline == tail.end.timeline

    def _read_recent(self, limit: int) -> memoryview:
        start = self.position
        view = self._tail.recent.view(start)[: max(0, min(limit, self.available - start))]
        if view and self._place is not None and start >= self._place_until:
            begin = self._size.floor(start)
            self._place_until = begin + self._size
            self._place.move(WALPosition(self._timeline, begin))
        self.position = start + len(view)
        return view

    def _available_in_files(self) -> int:
        available = self.available
        if self._timeline == self._tail.end.timeline:
            return min(available, self._tail.durable)
        return available

    # Images.

    def _image_at_hand(self) -> bool:
        image = self._image
        if image is None or not image.start <= self.position < image.end or image.is_stale:
            image = self._turn_over()
        return image is not None

    def _turn_over(self) -> Image | None:
        """Go over to the image of `position`, if it is at hand."""
        if self._image is not None:
            self._images.release(self._image)
        image, self._image, self._next = self._next, None, None
        if image is None:
            return None
        if image.is_stale or not image.start <= self.position < image.end:
            self._images.release(image)
            return None
        self._image = image
        if self._place is not None:
            self._place.move(WALPosition(self._timeline, LSN(image.start)))
        return image

    def _look_ahead(self, position: int) -> None:
        if position < self.available:
            self._load(position)

    def _load(self, position: int) -> None:
        self._loading = start = position - position % self._window
        size = self._size
        acquired = self._images.acquire(self._timeline, size.number(start), size.offset(start))
        acquired.addCallbacks(self._loaded, self._not_loaded)

    def _loaded(self, image: Image) -> None:
        self._loading = None
        if self._is_closed:
            self._images.release(image)
            return
        self._next = image
        self._proceed()

    def _not_loaded(self, failure: Failure) -> None:
        """Of what is only looked ahead for, it is told when its turn comes."""
        start, self._loading = self._loading, None
        waiter = self._waiter
        if waiter is None:
            return
        if start == self.position - self.position % self._window:
            self._waiter = None
            waiter.errback(failure)
        else:
            self._proceed()

    def _drop_images(self) -> None:
        for image in (self._image, self._next):
            if image is not None:
                self._images.release(image)
        self._image = self._next = None
