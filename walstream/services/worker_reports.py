"""What a worker's clients report, on its way to the main process.

A commit of the primary's may be waiting for a report, so each goes out in the turn of the reactor
in which it came, together with the others of that turn. When the main process does not take what
is sent to it, only the newest of each client is kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from walstream.interfaces import WALPosition
from walstream.protocols.standbys import Standby
from walstream.services.worker_channel import (
    AdvanceSlot,
    Channel,
    SentSoFar,
    StandbyLeft,
    StandbysChanged,
)
from walstream.services.worker_standbys import pack_sent, pack_standby
from walstream.services.worker_values import in_pieces

__all__ = ["Reports"]


@implementer(IPushProducer)
class Reports:
    """Gathers a turn's reports; a `StandbyWatcher`, and the channel's push producer."""

    def __init__(self, channel: Channel, clock: IReactorTime) -> None:
        self._channel = channel
        self._clock = clock
        self._standbys: dict[int, list[bytes]] = {}
        self._slots: dict[str, WALPosition] = {}
        self._is_due = self._is_paused = False

    # StandbyWatcher.

    def standby_changed(self, standby: Standby) -> None:
        """See `StandbyWatcher.standby_changed`."""
        now = pack_standby(standby)
        if self._is_paused:
            self._standbys[standby.pid] = [now]
        else:
            self._standbys.setdefault(standby.pid, []).append(now)
            self._send_soon()

    def standby_left(self, standby: Standby) -> None:
        """See `StandbyWatcher.standby_left`."""
        self.send()
        self._channel.tell(StandbyLeft, pid=standby.pid)

    def sent_so_far(self, standbys: Iterable[Standby]) -> None:
        """How far WAL was given to each client's connection, where it was at all."""
        self.send()
        lines = (pack_sent(each) for each in standbys if each.timeline)
        for piece in in_pieces(lines):
            self._channel.tell(SentSoFar, positions=piece)

    # For slots.

    def slot_advanced(self, name: str, restart: WALPosition) -> None:
        """The user of a slot has everything before *restart*."""
        self._slots[name] = restart
        if not self._is_paused:
            self._send_soon()

    def send(self) -> None:
        """Send what there is, before something else is said."""
        standbys, self._standbys = self._standbys, {}
        for piece in in_pieces(line for lines in standbys.values() for line in lines):
            self._channel.tell(StandbysChanged, standbys=piece)
        slots, self._slots = self._slots, {}
        for name, restart in slots.items():
            self._channel.tell(AdvanceSlot, name=name, restart=restart)

    # IPushProducer: the channel calls.

    def pauseProducing(self) -> None:
        """The main process is slow to read."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """It has read."""
        self._is_paused = False
        self.send()

    def stopProducing(self) -> None:
        """It is gone."""

    def _send_soon(self) -> None:
        # Twisted writes to a socket in the next turn anyway, so that this costs no time.
        if not self._is_due:
            self._is_due = True
            self._clock.callLater(0, self._send)

    def _send(self) -> None:
        self._is_due = False
        if not self._is_paused:
            self.send()
