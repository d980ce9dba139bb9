"""What others are told of a stream: other processes by the end mark, followers by the provider.

Other processes never learn of WAL that is not durable: after a crash they would have served what
is gone. This one's followers may, if that is wanted.
"""

from __future__ import annotations

from walstream.archive.continuity import begins_at
from walstream.archive.provider import ArchiveProvider
from walstream.archive.stream import Stream
from walstream.archive.tail import Serve
from walstream.archive.tenure import Tenure
from walstream.formats.lsn import INVALID
from walstream.formats.positions import WALPosition
from walstream.formats.timelines import TimelineHistory

__all__ = ["Publication"]


class Publication:
    """Tells how far an archive goes.

    :ivar told: what other processes were told, which they must find again; None if nothing.
    """

    def __init__(self, provider: ArchiveProvider, tenure: Tenure, serve: Serve) -> None:
        self.told: WALPosition | None = None
        self._provider = provider
        self._tenure = tenure
        self._serve = serve
        # Of the stream's timeline, and its first end that is told; whether that came.
        self._history = TimelineHistory(1, ())
        self._first = 0
        self._is_on = False

    def found(self, end: WALPosition, history: TimelineHistory | None) -> None:
        """That is the end, on a timeline of that history, of the archive that is ours now.

        Without a history nothing is served of other timelines.
        """
        now = self._provider.end()
        if end.timeline == now.timeline and now.lsn != INVALID:
            self._provider.extend(end)
        else:
            self._provider.extend(end, history or TimelineHistory(end.timeline, ()))

    def begin(self, history: TimelineHistory, *, goes_on: bool) -> None:
        """A stream begins, on the timeline of that history; where what is held ends, or elsewhere.

        A new timeline's first segment begins with WAL of the old one. Until that has come again,
        followers are better off with the old one.
        """
        self._history = history
        is_new = self._provider.end().timeline != history.timeline
        self._first = begins_at(history) if is_new else 0
        self._is_on = goes_on and not is_new
        if not self._is_on:
            self._provider.begin_anew()

    def synced(self, durable: WALPosition) -> None:
        """That is durable now: tell other processes. In any thread.

        :raises OSError: if they could not be told.
        """
        # The lane may have told a later end already.
        if durable.lsn >= self._first and (self.told is None or self.told < durable):
            self._tenure.mark(durable)
            self.told = durable

    def durable(self, durable: WALPosition) -> None:
        """That is durable now, and other processes know: tell the followers."""
        if durable.lsn >= self._first:
            is_known = self._provider.end().timeline == durable.timeline
            self._provider.extend(durable, None if is_known else self._history)
            self._is_on = True

    @property
    def serves_written(self) -> bool:
        """Whether followers get what the stream takes before it is durable. In any thread.

        Not on a timeline that is new here, or behind a gap, until the first of it is durable: up to
        then the archive still ends where it ended, and may go on elsewhere.
        """
        return self._is_on and self._serve is Serve.WRITTEN

    def taken(self, start: int, data: memoryview) -> None:
        """The stream has taken that: keep it for the followers, if they are to have it."""
        if self._serve is Serve.WRITTEN:
            self._provider.written(self._history.timeline, start, data)

    def written(self, stream: Stream | None) -> None:
        """That stream may have taken more: tell the followers, if they are to have it."""
        if stream is not None and self.serves_written:
            self._provider.extend_written(stream.readable)
