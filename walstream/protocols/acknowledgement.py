"""What a receiver tells its upstream, and when: status updates, answers, and the two timeouts.

The positions come from the sink as they are; nothing here can make a byte durable, and nothing
else reports. PostgreSQL's rules: documentation, "Streaming Replication Protocol", *Standby status
update*; ``wal_sender_timeout`` and ``wal_receiver_timeout``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.interfaces import IWALSink
from walstream.protocols.silence import SilenceWatch
from walstream.wire.copydata import StandbyStatus, pg_time

__all__ = ["Acknowledgement", "AcknowledgementSettings"]


@dataclass(frozen=True, slots=True)
class AcknowledgementSettings:
    """When and what to report.

    :ivar interval: seconds between status updates; 0 for none but those that are asked for.
    :ivar reports_flush: whether the flush position is reported at all. It makes us eligible as a
        synchronous standby, and it is what moves a slot on.
    :ivar synchronous: make durable, and report, every batch of WAL as it comes.
    :ivar heartbeat: seconds between status updates while the sink makes us wait, when a keepalive
        of the server's could not be read: well under its ``wal_sender_timeout``.
    :ivar receive_timeout: seconds of silence after which the server is given up; it is asked for
        a sign of life after half of them. 0 for never.
    :ivar wall_clock: the time of day, as a Unix time, that status updates carry; the reactor's
        unless told otherwise. Nothing else goes by it: it may be set.
    """

    interval: float
    reports_flush: bool
    synchronous: bool
    heartbeat: float
    receive_timeout: float
    wall_clock: Callable[[], float] | None = None


class Acknowledgement:
    """Reports one stream's progress to the upstream.

    :param send: takes a status update's payload to the server.
    :param give_up: called when the server has been silent for too long.
    :param failed: called with the failure when a flush fails.
    """

    _log = Logger()

    def __init__(
        self,
        sink: IWALSink,
        settings: AcknowledgementSettings,
        clock: IReactorTime,
        send: Callable[[bytes], None],
        give_up: Callable[[], None],
        failed: Callable[[Failure], None],
    ) -> None:
        self._sink = sink
        self._settings = settings
        self._clock = clock
        self._send = send
        self._failed = failed
        self._running = False
        self._paused = False
        self._flushing = False
        self._reported_flush = 0
        # Up to which position to flush was asked for; at first all that this stream did not bring.
        self._asked = sink.written
        self._next_report: IDelayedCall | None = None
        self._silence = SilenceWatch(
            clock, settings.receive_timeout, lambda: self.report(ask_for_reply=True), give_up
        )

    def start(self) -> None:
        """The stream has begun: report at once, as real standbys do."""
        self._running = True
        self._silence.start()
        self.report()

    def stop(self) -> None:
        """The stream is over: no timer is left behind."""
        self._running = False
        self._silence.stop()
        if self._next_report is not None and self._next_report.active():
            self._next_report.cancel()
        self._next_report = None

    def report(self, *, ask_for_reply: bool = False) -> None:
        """Send a status update with the sink's positions as they are now."""
        sink = self._sink
        flush = sink.flushed if self._settings.reports_flush else 0
        # What is durable was written, even if this stream has not come that far yet: after a
        # reconnect the current segment is received again from its start.
        write = max(sink.written, flush)
        now = pg_time((self._settings.wall_clock or self._clock.seconds)())
        self._send(StandbyStatus(write, flush, 0, now, ask_for_reply).pack())
        self._reported_flush = flush
        self._schedule_report()

    def answer(self) -> None:
        """The server asks for a reply: it gets one at once, and another as soon as more is durable.

        The second lets a primary that shuts down go: it waits for the flush position to reach
        the end of what it sent (protocol documentation, keepalive message).
        """
        self.report()
        if self._settings.reports_flush:
            self._flush()

    def received(self) -> None:
        """Bytes have arrived, whatever they are."""
        self._silence.heard()

    def batch_over(self) -> None:
        """All WAL that one read brought has been given to the sink."""
        if self._settings.synchronous:
            self._flush()

    def pause(self) -> None:
        """The sink makes us wait: from now on nothing that the server asks can be read."""
        self._paused = True
        self._silence.suspend()
        if self._running:
            self.report()

    def resume(self) -> None:
        """Reading goes on."""
        self._paused = False
        self._silence.resume()
        self._schedule_report()

    def _flush(self) -> None:
        written = self._sink.written
        if self._flushing or not self._running or max(self._asked, self._sink.flushed) >= written:
            return
        self._flushing = True
        self._asked = written
        self._sink.flush().addCallbacks(self._flushed, self._flush_failed)

    def _flushed(self, _: object) -> None:
        self._flushing = False
        if not self._running:
            return
        if self._sink.flushed != self._reported_flush:
            self.report()
        self.batch_over()  # what came meanwhile

    def _flush_failed(self, failure: Failure) -> None:
        self._flushing = False
        if self._running:
            self._failed(failure)

    def _schedule_report(self) -> None:
        if self._next_report is not None and self._next_report.active():
            self._next_report.cancel()
        self._next_report = None
        interval = self._settings.interval
        if self._paused:
            interval = min(interval or self._settings.heartbeat, self._settings.heartbeat)
        if self._running and interval > 0:
            self._next_report = self._clock.callLater(interval, self.report)
