"""One stream of a walsender: WAL out, status updates in, keepalives, and the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime, ITransport
from twisted.python.failure import Failure

from walstream.interfaces import IWALCursor
from walstream.protocols.direct import DirectWriter
from walstream.protocols.lag import LagTracker
from walstream.protocols.pump import WALPump
from walstream.protocols.rate import Pace
from walstream.protocols.settings import SenderSettings
from walstream.protocols.silence import SilenceWatch
from walstream.protocols.standbys import Standby, StandbyState
from walstream.wire.copydata import (
    HotStandbyFeedback,
    Keepalive,
    StandbyStatus,
    parse_standby_message,
    pg_time,
    unix_time,
)
from walstream.wire.messages import copy_data
from walstream.wire.stream import WALPayload

__all__ = ["OutgoingStream", "StreamEvents"]


@dataclass(frozen=True, slots=True)
class StreamEvents:
    """Whom a stream tells what.

    :ivar changed: the client has reported something, or has caught up.
    :ivar flushed: the client has made WAL durable up to this byte position.
    :ivar over: the cursor ended, with this failure.
    :ivar silent: the client gave no sign of life for the whole of ``wal_sender_timeout``.
    :ivar acknowledged: asked to, the client has acknowledged everything there is.
    """

    changed: Callable[[], None]
    flushed: Callable[[int], None]
    over: Callable[[Failure], None]
    silent: Callable[[], None]
    acknowledged: Callable[[], None]


class OutgoingStream:
    """Streams a cursor's WAL to a client.

    :param standby: the client, of which is kept up to date what concerns the stream.
    :param lag: measures how late it is.
    :param timeout: ``wal_sender_timeout`` in seconds; 0 for never.
    :param pace: how fast WAL may go out; None for as fast as the client takes it.
    """

    def __init__(
        self,
        cursor: IWALCursor,
        standby: Standby,
        lag: LagTracker,
        transport: ITransport,
        direct: DirectWriter | None,
        payload: WALPayload,
        settings: SenderSettings,
        timeout: float,
        clock: IReactorTime,
        events: StreamEvents,
        pace: Pace | None = None,
    ) -> None:
        self._standby = standby
        self._lag = lag
        self._cursor = cursor
        self.payload = payload
        self._transport = transport
        self._settings = settings
        self._events = events
        self._awaits_acknowledgement = False
        self._output_full = False
        self._keepalive_owed = False
        self._reply_owed = False  # whether that keepalive asks for a reply
        self._reply_awaited = False
        self._pump = WALPump(
            cursor,
            transport,
            direct,
            payload,
            settings.wall_clock,
            self._idle,
            events.over,
            pace=pace,
        )
        # A client of 2009 sends nothing at all: its silence means nothing.
        watched = timeout if payload is WALPayload.MODERN else 0.0
        self._silence = SilenceWatch(clock, watched, self._ask_for_reply, events.silent)

    @property
    def sent(self) -> int:
        """The byte position up to which WAL was given to the connection."""
        return self._pump.sent

    @property
    def available(self) -> int:
        """The byte position up to which the client may have WAL at this moment."""
        return self._cursor.available

    def start(self) -> None:
        """Begin, or rest until `resume` if `pause` came first."""
        self._silence.start()
        if not self._output_full:
            self._pump.resumeProducing()

    def stop(self) -> None:
        """Send nothing more, and let go of the cursor."""
        self._silence.stop()
        self._pump.stopProducing()

    def pause(self) -> None:
        """The connection takes no more for the moment."""
        self._output_full = True
        self._pump.pauseProducing()

    def resume(self) -> None:
        """The connection takes more."""
        self._output_full = False
        if self._keepalive_owed:
            reply_owed, self._keepalive_owed, self._reply_owed = self._reply_owed, False, False
            self.keepalive(reply_requested=reply_owed)
        self._pump.resumeProducing()

    def await_acknowledgement(self) -> None:
        """Send what there still is, then ask until the client has acknowledged all of it.

        As PostgreSQL's walsenders do when the server shuts down (`WalSndDone`).
        """
        self._awaits_acknowledgement = True
        if self._pump.caught_up:
            self._check_acknowledgement()

    def receive(self, payload: bytes) -> None:
        """Take a CopyData payload of the client's.

        :raises ProtocolViolation: for one that PostgreSQL would not take either.
        """
        self._silence.heard()
        self._reply_awaited = False
        message = parse_standby_message(payload)
        self._standby.replied = self._settings.wall_clock()
        self._standby.sent = self.sent
        if isinstance(message, HotStandbyFeedback):
            self._standby.feedback = message
        else:
            self._take_status(message)
        self._events.changed()

    def keepalive(self, *, reply_requested: bool = False) -> None:
        """Send a keepalive; while the connection takes nothing, at most one is owed."""
        self._reply_awaited = self._reply_awaited or reply_requested
        if self._output_full:
            self._keepalive_owed = True
            self._reply_owed = self._reply_owed or reply_requested
            return
        now = pg_time(self._settings.wall_clock())
        self._transport.write(copy_data(Keepalive(self.sent, now, reply_requested).pack()))

    def _take_status(self, status: StandbyStatus) -> None:
        standby = self._standby
        self._lag.note_end(self._cursor.available)
        standby.write, standby.flush, standby.apply = status.write, status.flush, status.apply
        standby.lags = self._lag.reported(self.sent, status.write, status.flush, status.apply)
        standby.reply_time = unix_time(status.send_time)
        if status.reply_requested:
            self.keepalive()
        if status.flush:
            self._events.flushed(status.flush)
        if self._awaits_acknowledgement and self._pump.caught_up:
            self._check_acknowledgement()

    def _check_acknowledgement(self) -> None:
        # A client that does not report a flush position is taken by its write position.
        if (self._standby.flush or self._standby.write) == self.sent:
            self._awaits_acknowledgement = False
            self._events.acknowledged()
        elif not self._reply_awaited:
            self.keepalive(reply_requested=True)

    def _ask_for_reply(self) -> None:
        self.keepalive(reply_requested=True)

    def _idle(self) -> None:
        self._lag.note_end(self._cursor.available)
        if self._standby.state is StandbyState.CATCHUP and self._pump.caught_up:
            self._standby.state = StandbyState.STREAMING
            self._standby.sent = self.sent
            self._events.changed()
        if self._awaits_acknowledgement and self._pump.caught_up:
            self._check_acknowledgement()
