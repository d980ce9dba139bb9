"""From a cursor to a connection: the producer that a walsender registers while it streams.

Flow control is Twisted's. The pump writes until the transport pauses it, and goes on when it is
resumed; when the cursor has nothing, it waits for the cursor. What a client that stops reading
costs is therefore a constant: the transport's buffer (64 KiB and one message) or, on the direct
way, the socket's send buffer and one batch of views of memory that all clients share.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IPushProducer, ITransport
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.formats.pages import PAGE_SIZE
from walstream.interfaces import IWALCursor
from walstream.protocols.direct import DirectWriter
from walstream.protocols.rate import Pace
from walstream.wire.copydata import pg_time
from walstream.wire.stream import WALPayload, wal_message_head

__all__ = ["WALPump"]

# WAL in one message at most (MAX_SEND_SIZE in PostgreSQL's walsender.c: 16 blocks).
MESSAGE_SIZE = 16 * PAGE_SIZE
# What one client may send before the others have their turn. Mostly its turn is over before, since
# its socket is full: measured with 50 clients that catch up, each costs another's live tail half a
# millisecond with this and with a quarter of it, and one client alone needs less CPU with this.
QUANTUM = 4 << 20

_UNLIMITED = 1 << 62


@implementer(IPushProducer)
class WALPump:
    """Moves WAL from a cursor to a transport.

    :param wall_clock: the time of day in Unix seconds, which goes into the messages.
    :param idle: called whenever the cursor has nothing more to give for the moment.
    :param over: called once with the failure that ended the cursor: EndOfTimeline,
        WALUnavailable, or a fault of the provider's.
    """

    def __init__(
        self,
        cursor: IWALCursor,
        transport: ITransport,
        direct: DirectWriter | None,
        payload: WALPayload,
        wall_clock: Callable[[], float],
        idle: Callable[[], None],
        over: Callable[[Failure], None],
        *,
        pace: Pace | None = None,
    ) -> None:
        """
        :param pace: how fast WAL may go out; None for as fast as the transport takes it.
        """
        self._cursor = cursor
        self._transport = transport
        self._direct = direct
        self._payload = payload
        self._wall_clock = wall_clock
        self._idle = idle
        self._over = over
        self._pace = pace
        if pace is not None:
            pace.wake = self._run
        self._batch_limit = direct.batch if direct is not None else 1
        self._paused = False
        self._stopped = False
        self._running = False
        self._waiting = False

    @property
    def sent(self) -> int:
        """The byte position up to which WAL was given to the connection."""
        return self._cursor.position

    @property
    def caught_up(self) -> bool:
        """Whether everything that may be sent was."""
        return self._cursor.position >= self._cursor.available

    def resumeProducing(self) -> None:
        """Send until told to pause, or until there is nothing to send. Also the way to start."""
        self._paused = False
        self._run()

    def pauseProducing(self) -> None:
        """Send nothing until resumed. May come at any time, and more than once."""
        self._paused = True

    def stopProducing(self) -> None:
        """Send nothing any more, and let go of the cursor."""
        if not self._stopped:
            self._stopped = True
            if self._pace is not None:
                self._pace.stop()
            self._cursor.close()

    def _run(self) -> None:
        if self._running:
            return  # called from within: the loop below goes on
        self._running = True
        try:
            self._send_while_wanted()
        finally:
            self._running = False

    def _send_while_wanted(self) -> None:
        sent = 0
        while not self._paused and not self._stopped:
            if self._direct is not None and not self._direct.may_write():
                return
            allowance = _UNLIMITED if self._pace is None else self._allowance(self._pace)
            if not allowance:
                return  # the pace wakes us
            batch = self._next_batch(allowance)
            if not batch:
                if self._waiting or not self._wait():
                    return
                continue
            if self._direct is None:
                self._transport.writeSequence([bytes(part) for part in batch])
                continue
            sent += self._direct.write(batch)
            if sent >= QUANTUM:
                self._direct.pause_producer()

    def _allowance(self, pace: Pace) -> int:
        """How much the pace allows; asked only when there is something to send."""
        left = self._cursor.available - self._cursor.position
        return pace.allowance(left) if left > 0 else _UNLIMITED

    def _next_batch(self, allowance: int) -> list[bytes | memoryview]:
        """Messages as the parts they are sent in: head, WAL, head, WAL, …

        :param allowance: how much WAL they may hold; the rest of a page more if it is that little.
        """
        cursor = self._cursor
        begin, available = cursor.position, cursor.available
        parts: list[bytes | memoryview] = []
        if begin >= available:
            return parts  # as after each piece that comes to a client that has all
        now = pg_time(self._wall_clock())
        for _ in range(self._batch_limit):
            start = cursor.position
            limit = _message_size(start, available, min(begin + allowance - start, MESSAGE_SIZE))
            wal = cursor.read(limit) if limit > 0 else None
            if not wal:
                break
            parts.append(wal_message_head(self._payload, start, len(wal), available, now))
            parts.append(wal)
        if self._pace is not None:
            self._pace.take(cursor.position - begin)
        return parts

    def _wait(self) -> bool:
        """Wait for the cursor; whether it has something already."""
        self._idle()
        if self._stopped or self._paused:
            return False
        self._waiting = True
        self._cursor.ready().addCallback(self._ready).addErrback(self._ended)
        return not self._waiting

    def _ready(self, _: object) -> None:
        self._waiting = False
        self._run()

    def _ended(self, failure: Failure) -> None:
        if self._stopped or failure.check(CancelledError):
            return
        self.stopProducing()
        self._over(failure)


def _message_size(start: int, available: int, most: int) -> int:
    """How much WAL the next message holds: a full one ends at a page's end, as PostgreSQL's do."""
    left = available - start
    if left <= most or most <= 0:
        return min(left, most)
    return min(left, max(most - (start + most) % PAGE_SIZE, PAGE_SIZE - start % PAGE_SIZE))
