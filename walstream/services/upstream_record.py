"""What became of the connection to the upstream, for whoever wants to look."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

__all__ = ["UpstreamRecord", "UpstreamState"]


class UpstreamState(Enum):
    """What a receiving service is about."""

    CONNECTING = "connecting"
    STARTING = "starting"
    STREAMING = "streaming"
    WAITING = "waiting"
    STOPPED = "stopped"


class UpstreamRecord:
    """Noted by a receiving service as it goes. Times are in Unix seconds.

    :ivar host: the server that we are, or were last, connected to.
    :ivar connected: since when we are; None while we are not.
    :ivar streaming: since when it streams; None while it does not.
    :ivar error: what ended the last attempt or connection; None if nothing ever did.
    :ivar failed: when that was.
    :ivar retry: when it is tried again; None if it is not waited for.
    """

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self.state = UpstreamState.STOPPED
        self.host: str | None = None
        self.connected: float | None = None
        self.streaming: float | None = None
        self.error: str | None = None
        self.failed: float | None = None
        self.retry: float | None = None
        self._now = wall_clock

    def connecting(self) -> None:
        """One more attempt."""
        self._is(UpstreamState.CONNECTING)

    def connects(self, host: str) -> None:
        """A server has let us in."""
        self.host, self.connected = host, self._now()
        self.state = UpstreamState.STARTING

    def streams(self) -> None:
        """It sends WAL."""
        self.streaming = self._now()
        self.state = UpstreamState.STREAMING

    def waits(self, error: str, seconds: float) -> None:
        """It is over, and tried again after so many seconds."""
        self._failed(error)
        self._is(UpstreamState.WAITING)
        self.retry = self._now() + seconds

    def stops(self, error: str | None) -> None:
        """It is over for good: in order, or with an error."""
        if error is not None:
            self._failed(error)
        self._is(UpstreamState.STOPPED)

    def _failed(self, error: str) -> None:
        self.error, self.failed = error, self._now()

    def _is(self, state: UpstreamState) -> None:
        self.state = state
        self.connected = self.streaming = self.retry = None
