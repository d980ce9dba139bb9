"""The clients of a walsender as others see them: who they are, and what they last reported.

The sessions keep this up to date, and the world reads it: what is reported upstream for all
of them, hot standby feedback, the status page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from walstream.protocols.lag import NO_LAGS, EndHistory, Lags
from walstream.wire.copydata import HotStandbyFeedback

__all__ = ["Standby", "StandbyState", "StandbyWatcher", "Standbys"]


class StandbyState(Enum):
    """What a client is about: ``pg_stat_replication.state``, in its words."""

    STARTUP = "startup"
    CATCHUP = "catchup"
    STREAMING = "streaming"
    STOPPING = "stopping"


@dataclass(slots=True, eq=False)
class Standby:
    """One client, from its login to its end.

    All positions are byte positions, and 0 for what is not known. Those that it reported are its
    word: they may go back, and lie beyond what was sent.

    :ivar pid: the session's number.
    :ivar user: the role it logged in as.
    :ivar application_name: how it wants to be called; empty if it did not say.
    :ivar address: where it comes from, and the port; None for a UNIX socket.
    :ivar connected: when it was let in, in Unix seconds.
    :ivar slot: the slot that it uses.
    :ivar timeline: the timeline that is streamed to it; 0 outside of a stream.
    :ivar sent: how far WAL was given to the connection, when that was last looked at.
    :ivar lags: how far behind in time its positions are.
    :ivar replied: when it last said anything in a stream, in Unix seconds; None before.
    :ivar reply_time: the time of day in its last status update, by its own clock.
    :ivar feedback: its last hot standby feedback.
    """

    pid: int
    user: str
    application_name: str
    address: tuple[str, int] | None
    connected: float
    state: StandbyState = StandbyState.STARTUP
    slot: str | None = None
    timeline: int = 0
    sent: int = 0
    write: int = 0
    flush: int = 0
    apply: int = 0
    lags: Lags = NO_LAGS
    replied: float | None = None
    reply_time: float | None = None
    feedback: HotStandbyFeedback | None = None

    def no_longer_streams(self) -> None:
        """Its stream is over: nothing that it reported in it counts any more."""
        self.state, self.slot, self.timeline = StandbyState.STARTUP, None, 0
        self.sent = self.write = self.flush = self.apply = 0
        self.lags = NO_LAGS
        self.replied = self.reply_time = self.feedback = None


class StandbyWatcher(Protocol):
    """Who wants to know what becomes of standbys."""

    def standby_changed(self, standby: Standby) -> None:
        """It is new, has reported something, or is in another state."""

    def standby_left(self, standby: Standby) -> None:
        """It is gone."""


class Standbys:
    """All clients of this moment, in the order in which they came.

    :ivar ends: when our WAL's end was where, for all of them.
    """

    def __init__(self) -> None:
        self.ends = EndHistory()
        self._standbys: dict[int, Standby] = {}
        self._watchers: list[StandbyWatcher] = []

    def __iter__(self) -> Iterator[Standby]:
        return iter(list(self._standbys.values()))

    def __len__(self) -> int:
        return len(self._standbys)

    def watch(self, watcher: StandbyWatcher) -> None:
        """Tell *watcher* from now on."""
        self._watchers.append(watcher)

    def changed(self, standby: Standby) -> None:
        """A client is new, has reported something, or is in another state."""
        self._standbys[standby.pid] = standby
        for watcher in self._watchers:
            watcher.standby_changed(standby)

    def left(self, standby: Standby) -> None:
        """A client is gone; nothing happens if it was never there."""
        if self._standbys.pop(standby.pid, None) is not None:
            for watcher in self._watchers:
                watcher.standby_left(standby)
