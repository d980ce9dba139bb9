"""Clients that begin a little ahead of what there is, and wait for it.

A standby that was restored from an archive's files may be ahead of the server that it is to stream
from, which has received less yet, or was not told yet that it is durable. PostgreSQL refuses it; it
comes again and is refused again, each time after it has looked through its archive.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from walstream.errors import CommandError, EndOfTimeline
from walstream.interfaces import IWALProvider
from walstream.protocols.stream_request import StreamRequest, ahead, forked

__all__ = ["Hold"]


class Hold:
    """Has the client of one session wait, at most so many *seconds*.

    :param refuse: ends the stream with that error.
    """

    def __init__(
        self,
        provider: IWALProvider,
        clock: IReactorTime,
        seconds: float,
        refuse: Callable[[CommandError], None],
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._seconds = seconds
        self._refuse = refuse
        self._request: StreamRequest | None = None
        self._timer: IDelayedCall | None = None

    def begin(self, request: StreamRequest) -> None:
        """A stream begins: if it is ahead, wait for its WAL."""
        if request.is_ahead:
            self._request = request
            self._timer = self._clock.callLater(self._seconds, self.give_up)

    def end(self) -> None:
        """The stream is over."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._request = self._timer = None

    def give_up(self) -> None:
        """If its WAL has not come, the client has waited long enough."""
        request = self._request
        self.end()
        if request is not None:
            error = ahead(request.start, self._provider.end().lsn)
            if error is not None:
                self._refuse(error)

    def has_forked(self, end: EndOfTimeline) -> bool:
        """Whether the timeline was left before what the client waits for: that was refused then."""
        request = self._request
        if request is None or request.start <= end.switch_point:
            return False
        self._refuse(forked(request.timeline, request.start, end.switch_point))
        return True
