"""Where status updates go out: from the reactor's thread, or from one that has just synced WAL.

A commit that waits for us waits for one message of 39 bytes. To have the reactor's thread woken
up for it costs as much as a quick sync does, so the thread that has made WAL durable may send the
message itself, past the transport, on a plain connection. What keeps that safe:

* For as long as a line is open, nothing else is written to the connection: what a stream's client
  says besides status updates, it says by `send`.
* Every message is sent under a lock, by one call to the socket, which either takes the whole
  message or shows that the connection is congested. Then the line goes over to the transport, for
  good, and the rest of the message before anything else: the server has not read for a long time,
  so no commit waits for speed here.
* The line has a descriptor of its own, and closes it under the same lock: that one's number can't
  have become another connection's while a thread is about to send.
* The positions of a line never go back, whichever thread was the faster.
* What is durable here and what a policy allows come from different threads, and meet here.

TLS, other transports and tests go the ordinary way.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Lock
from typing import Any

from twisted.internet.interfaces import ITransport

from walstream.interfaces import NO_LIMITS, ReportLimits
from walstream.protocols.direct import direct_connection
from walstream.protocols.synchronous import SynchronousDuty
from walstream.wire.copydata import status_message

__all__ = ["StatusLine"]


class StatusLine:
    """Reports positions to the server of one stream.

    :param now: the time of day in Unix seconds, for the messages; nothing goes by it.
    :param reports_flush: whether to report a flush position; else it is 0.
    :param reports_apply: whether to report it as the apply position too; else that is 0.
    :ivar flushed: the flush position that was last reported.
    :ivar asks_for_reply: let the next report ask for a reply.
    """

    def __init__(
        self,
        transport: ITransport,
        now: Callable[[], float],
        *,
        reports_flush: bool,
        reports_apply: bool,
    ) -> None:
        self.flushed = 0
        self.asks_for_reply = False
        self._transport = transport
        self._now = now
        self._reports_flush = reports_flush
        self._reports_apply = reports_apply
        self._lock = Lock()
        self._limits = NO_LIMITS
        # How far we are ourselves, and what was reported.
        self._own_written = self._own_flushed = 0
        self._written = self._applied = 0
        self._unsent = b""
        connection = direct_connection(transport)
        handle: Any = connection.getHandle() if connection is not None else None
        self._socket: socket.socket | None = handle.dup() if handle is not None else None

    @classmethod
    def of(
        cls, transport: ITransport, now: Callable[[], float], duty: SynchronousDuty
    ) -> StatusLine:
        """A line for a receiver that owes this to its server."""
        return cls(
            transport, now, reports_flush=duty.reports_flush, reports_apply=duty.reports_apply
        )

    def limit(self, limits: ReportLimits) -> None:
        """Report nothing beyond, from now on; what was reported before stays."""
        with self._lock:
            self._limits = limits

    def report(self, written: int, flushed: int, *, ask_for_reply: bool = False) -> None:
        """Report positions; to be called in the reactor's thread."""
        with self._lock:
            self._learn(written, flushed)
            left = self._send_first(self._message(ask_for_reply))
        if left:
            self._transport.write(left)

    def has_news(self, written: int, flushed: int) -> bool:
        """Whether a report of these positions would tell what commits may be waiting for.

        What was only written is worth no report of its own: it will soon be durable. But if that is
        not reported then, since others have to have it too, a position by itself is.
        """
        with self._lock:
            self._learn(written, flushed)
            return self._has_news()

    @property
    def is_held_back(self) -> bool:
        """Whether the flush position will not be reported, even if all is durable here."""
        with self._lock:
            return self._reports_flush and self._limits.flush < self._own_written

    @property
    def reported(self) -> tuple[int, int, int]:
        """What was last reported as written, durable and applied."""
        with self._lock:
            return self._written, self.flushed, self._applied

    @property
    def has_unsent(self) -> bool:
        """Whether what `report_now` had to say, or its end, waits for the next `report`."""
        return bool(self._unsent)

    def report_now(self, written: int, flushed: int) -> bool:
        """Report positions from any thread, if that can be done at once; whether it was."""
        with self._lock:
            self._learn(written, flushed)
            if self._limits is not NO_LIMITS and not self._has_news():
                return True
            if self._socket is None:
                return False
            return self._send(self._message(False))

    def send(self, message: bytes) -> None:
        """Say something else; to be called in the reactor's thread."""
        with self._lock:
            left = self._send_first(message)
        if left:
            self._transport.write(left)

    def close(self) -> None:
        """Report nothing from other threads any more. The reactor's may still do so."""
        with self._lock:
            self._drop()

    # All of this is done under the lock.

    def _learn(self, written: int, flushed: int) -> None:
        if flushed > self._own_flushed and self._reports_flush:
            self._own_flushed = flushed
        # What is durable was written, even if this stream has not come that far yet: after a
        # reconnect the current segment is received again from its start.
        self._own_written = max(self._own_written, written, self._own_flushed)

    def _positions(self) -> tuple[int, int, int]:
        """What may be reported: write, flush, apply."""
        limits = self._limits
        write = max(self._written, min(self._own_written, limits.write))
        flush = max(self.flushed, min(self._own_flushed, limits.flush))
        apply = max(self._applied, min(flush, limits.apply)) if self._reports_apply else 0
        return write, flush, apply

    def _has_news(self) -> bool:
        write, flush, apply = self._positions()
        if flush > self.flushed or apply > self._applied:
            return True
        return self._limits is not NO_LIMITS and write > self._written

    def _message(self, ask_for_reply: bool) -> bytes:
        self._written, self.flushed, self._applied = self._positions()
        ask_for_reply, self.asks_for_reply = ask_for_reply or self.asks_for_reply, False
        return status_message(
            self._written, self.flushed, self._applied, self._now(), ask_for_reply
        )

    def _send_first(self, message: bytes) -> bytes:
        """Send on the socket, if there is one; what goes by the transport instead."""
        if self._socket is not None:
            if self._send(message):
                return b""
            message = b""
        message, self._unsent = self._unsent + message, b""
        return message

    def _send(self, message: bytes) -> bool:
        """Send on the socket; what it does not take is the transport's, and so is all else then."""
        assert self._socket is not None
        try:
            sent = self._socket.send(message)
        except OSError:
            sent = 0  # full, or the connection is gone: the transport will see which
        if sent == len(message):
            return True
        self._unsent = message[sent:]
        self._drop()
        return False

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
