"""Hot standby feedback: what all clients of a sender want kept, told to the upstream as one.

A standby with ``hot_standby_feedback`` says which rows its queries may still need: its oldest
transaction. A primary that is to keep them has to hear the oldest of all standbys', and has to hear
of it when nobody needs them any more. Messages: documentation, "Streaming Replication Protocol",
*Hot standby feedback*; which values count: ``ProcessStandbyHSFeedbackMessage`` in ``walsender.c``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from walstream.protocols.standbys import Standby, Standbys
from walstream.wire.copydata import HotStandbyFeedback, pg_time
from walstream.wire.messages import copy_data

__all__ = [
    "NO_FEEDBACK",
    "FeedbackReporter",
    "FeedbackSource",
    "Horizon",
    "MergedFeedback",
    "merged",
]

# Transaction numbers below are none that a query could see (FirstNormalTransactionId).
_FIRST_XID = 3
_XID_BITS = 32
_XID_MASK = (1 << _XID_BITS) - 1

# A transaction that is further back than half of the numbers is none of the recent past, and a
# server ignores whoever names it (TransactionIdInRecentPast).
_RECENT = 1 << (_XID_BITS - 1)

# Seconds in which changes are gathered: with hundreds of standbys there is always one.
_GATHERING = 0.2


@dataclass(frozen=True, slots=True)
class Horizon:
    """What is to be kept: the oldest transactions that somebody needs, 64 bits wide; 0: none.

    :ivar xmin: for queries.
    :ivar catalog_xmin: for logical decoding, which needs the catalogs' rows only.
    """

    xmin: int = 0
    catalog_xmin: int = 0

    @classmethod
    def of(cls, feedback: HotStandbyFeedback) -> Horizon:
        """What a standby wants."""
        return cls(
            _full(feedback.xmin_epoch, feedback.xmin),
            _full(feedback.catalog_xmin_epoch, feedback.catalog_xmin),
        )

    def __bool__(self) -> bool:
        return self.xmin > 0 or self.catalog_xmin > 0

    def message(self, unix_seconds: float) -> bytes:
        """The message, as a whole CopyData.

        Servers before PostgreSQL 10 take it too: they leave alone what they do not know of it.
        """
        feedback = HotStandbyFeedback(
            pg_time(unix_seconds),
            self.xmin & _XID_MASK,
            self.xmin >> _XID_BITS,
            self.catalog_xmin & _XID_MASK,
            self.catalog_xmin >> _XID_BITS,
        )
        return copy_data(feedback.pack())


def merged(horizons: Iterable[Horizon]) -> Horizon:
    """What keeps everything that any of them needs."""
    every = list(horizons)
    return Horizon(
        _oldest([each.xmin for each in every if each.xmin]),
        _oldest([each.catalog_xmin for each in every if each.catalog_xmin]),
    )


def _full(epoch: int, xid: int) -> int:
    return epoch << _XID_BITS | xid if xid >= _FIRST_XID else 0


def _oldest(transactions: Collection[int]) -> int:
    """The oldest of them, but for those that cannot be of the same time as most of the others.

    A server would ignore the whole message because of them, and with it all the others.
    """
    if not transactions:
        return 0
    middle = sorted(transactions)[len(transactions) // 2]
    return min(each for each in transactions if abs(each - middle) < _RECENT)


class FeedbackSource(Protocol):
    """Knows what the upstream is to keep."""

    @property
    def horizon(self) -> Horizon:
        """What is to be kept at this moment."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Call *changed* from now on when `horizon` has changed; one watcher at a time."""

    def unwatch(self) -> None:
        """Tell nobody any more."""


class _NoFeedback:
    horizon = Horizon()

    def watch(self, changed: Callable[[], None]) -> None:
        """Nothing ever changes."""

    def unwatch(self) -> None:
        """Nobody is told anything."""


NO_FEEDBACK: FeedbackSource = _NoFeedback()
"""Nothing is to be kept. That is said too: a slot remembers what was to be, until it is told."""


@dataclass(slots=True)
class _Client:
    feedback: HotStandbyFeedback
    horizon: Horizon
    heard: float  # by the reactor's clock, in seconds
    is_silent: bool = False


class MergedFeedback:
    """The oldest that any of a sender's clients needs.

    A client counts until it is gone, takes it back, or says nothing at all any more.

    :param silence: seconds; who has said nothing for so long does not count until it does.
    """

    def __init__(self, standbys: Standbys, clock: IReactorTime, silence: float) -> None:
        self.horizon = Horizon()
        self._clock = clock
        self._silence = silence
        self._clients: dict[int, _Client] = {}
        self._changed: Callable[[], None] | None = None
        self._gathering: IDelayedCall | None = None
        self._look: IDelayedCall | None = None
        for standby in standbys:
            self.standby_changed(standby)
        standbys.watch(self)

    # FeedbackSource

    def watch(self, changed: Callable[[], None]) -> None:
        """See `FeedbackSource.watch`."""
        self._merge()  # nobody is told of it: who watches looks for a start
        self._changed = changed

    def unwatch(self) -> None:
        """See `FeedbackSource.unwatch`: no timer is left."""
        self._changed = None
        for call in (self._gathering, self._look):
            if call is not None and call.active():
                call.cancel()
        self._gathering = self._look = None

    # StandbyWatcher

    def standby_changed(self, standby: Standby) -> None:
        """See `StandbyWatcher.standby_changed`: called for each status update of each client."""
        feedback = standby.feedback
        if feedback is None:
            self._forget(standby)
            return
        client = self._clients.get(standby.pid)
        if client is None:
            client = _Client(feedback, Horizon.of(feedback), 0.0)
            self._clients[standby.pid] = client
            self._gather()
        client.heard = self._clock.seconds()
        if client.is_silent:
            client.is_silent = False
            self._gather()
        if feedback is not client.feedback:
            before, client.horizon = client.horizon, Horizon.of(feedback)
            client.feedback = feedback
            if client.horizon != before:
                self._gather()

    def standby_left(self, standby: Standby) -> None:
        """See `StandbyWatcher.standby_left`."""
        self._forget(standby)

    def _forget(self, standby: Standby) -> None:
        client = self._clients.pop(standby.pid, None)
        if client is not None and client.horizon:
            self._gather()

    def _gather(self) -> None:
        if self._changed is not None and self._gathering is None:
            self._gathering = self._clock.callLater(_GATHERING, self._merge)

    def _merge(self) -> None:
        self._gathering = None
        self._see_who_is_silent()
        clients = self._clients.values()
        before = self.horizon
        self.horizon = merged(each.horizon for each in clients if not each.is_silent)
        if self.horizon != before and self._changed is not None:
            self._changed()

    def _see_who_is_silent(self) -> None:
        """Look again when the next one may have been silent for too long."""
        if self._look is not None and self._look.active():
            self._look.cancel()
        self._look = None
        now, next_look = self._clock.seconds(), None
        for client in self._clients.values():
            due = client.heard + self._silence
            client.is_silent = now >= due
            if client.horizon and not client.is_silent:
                next_look = due if next_look is None else min(next_look, due)
        if next_look is not None:
            self._look = self._clock.callLater(next_look - now, self._merge)


class FeedbackReporter:
    """Tells one stream's server: when the stream begins, when there is news, and now and then.

    :param interval: seconds after which what is to be kept is said again; 0: never.
    :param wall_clock: the time of day in Unix seconds, for the messages.
    """

    def __init__(
        self,
        source: FeedbackSource,
        clock: IReactorTime,
        interval: float,
        wall_clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._clock = clock
        self._interval = interval
        self._wall_clock = wall_clock
        self._send: Callable[[bytes], None] | None = None
        self._repetition: IDelayedCall | None = None

    def start(self, send: Callable[[bytes], None]) -> None:
        """The stream has begun: say what there is, or that there is nothing, as standbys do."""
        self._send = send
        self._source.watch(self._say)
        self._say()

    def stop(self) -> None:
        """The stream is over."""
        self._send = None
        self._source.unwatch()
        self._cancel()

    def _say(self) -> None:
        if self._send is None:
            return
        horizon = self._source.horizon
        self._send(horizon.message(self._wall_clock()))
        self._cancel()
        if horizon and self._interval:
            self._repetition = self._clock.callLater(self._interval, self._say)

    def _cancel(self) -> None:
        if self._repetition is not None and self._repetition.active():
            self._repetition.cancel()
        self._repetition = None
