"""What a receiver tells its upstream, and when: status updates, answers, and the two timeouts.

The positions come from the sink as they are, and a policy may hold them back; nothing here can
make a byte durable, and nothing else reports. PostgreSQL's rules: documentation, "Streaming
Replication Protocol", *Standby status update*; ``wal_sender_timeout`` and
``wal_receiver_timeout``; for which commit a report lets go, ``syncrep.c``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.interfaces import NO_LIMITS, IPromptSink, IReportPolicy, IWALSink
from walstream.protocols.farewell import Farewell
from walstream.protocols.feedback import FeedbackReporter
from walstream.protocols.progress import ReceiverProgress
from walstream.protocols.receiver_settings import ReceiverSettings
from walstream.protocols.silence import SilenceWatch
from walstream.protocols.status_line import StatusLine
from walstream.protocols.synchronous import SynchronousDuty

__all__ = ["Acknowledgement", "AcknowledgementSettings"]

# Seconds after its arrival within which WAL is made durable, and reported, if it is not as it
# comes. A commit may wait for it, for a reason that we have not heard of.
_LAZY = 1.0


@dataclass(frozen=True, slots=True)
class AcknowledgementSettings:
    """When to report.

    :ivar interval: seconds between status updates; 0 for none but those that are asked for.
    :ivar reports_flush: whether the flush position is reported, and so worth having.
    :ivar heartbeat: seconds between status updates while the sink makes us wait, when a keepalive
        of the server's could not be read: well under its ``wal_sender_timeout``.
    :ivar receive_timeout: seconds of silence after which the server is given up; it is asked for
        a sign of life after half of them. 0 for never.
    """

    interval: float
    reports_flush: bool
    heartbeat: float
    receive_timeout: float

    @classmethod
    def of(
        cls, settings: ReceiverSettings, duty: SynchronousDuty, sender_timeout: float
    ) -> AcknowledgementSettings:
        """What a receiver's settings mean for a server with this ``wal_sender_timeout``."""
        return cls(
            interval=settings.status_interval,
            reports_flush=duty.reports_flush,
            heartbeat=(sender_timeout or 60.0) / 3,
            receive_timeout=settings.receive_timeout,
        )


class Acknowledgement:
    """Reports one stream's progress to the upstream.

    :param line: takes the reports.
    :param give_up: called when the server has been silent for too long.
    :param failed: called with the failure when a flush fails.
    :param synchronous: make durable, and report, every batch of WAL as it comes; without it, all
        within a second.
    :param timeline: the stream's.
    :param policy: what holds the reports back; None: nothing.
    :param feedback: has hot standby feedback sent as well; None: none ever is.
    """

    _log = Logger()

    def __init__(
        self,
        sink: IWALSink,
        settings: AcknowledgementSettings,
        clock: IReactorTime,
        line: StatusLine,
        give_up: Callable[[], None],
        failed: Callable[[Failure], None],
        *,
        synchronous: bool,
        timeline: int = 0,
        policy: IReportPolicy | None = None,
        feedback: FeedbackReporter | None = None,
    ) -> None:
        self._sink = sink
        self._prompt_sink: IPromptSink | None = IPromptSink(sink, None)
        self._settings = settings
        self._clock = clock
        self._line = line
        self._failed = failed
        self._synchronous = synchronous
        self._timeline = timeline
        self._policy = policy
        self._feedback = feedback
        self._farewell = Farewell()
        self._running = False
        self._paused = False
        self._flushing = False
        # Up to which position to flush was asked for; at first all that this stream did not bring.
        self._asked = sink.written
        self._has_caught_up = False
        self._expects_reply = False
        self._server_end = 0
        self._last_report = 0.0
        self._next_report: IDelayedCall | None = None
        self._next_flush: IDelayedCall | None = None
        self._silence = SilenceWatch(
            clock, settings.receive_timeout, lambda: self.report(ask_for_reply=True), give_up
        )

    @property
    def progress(self) -> ReceiverProgress:
        """How far the stream is at this moment."""
        return ReceiverProgress(self._server_end, *self._line.reported, self._silence.seconds)

    def start(self) -> None:
        """The stream has begun: report at once, as real standbys do."""
        self._running = True
        if self._prompt_sink is not None:
            self._prompt_sink.watch_durable(self._durable, self._durable_in_reactor)
        self._silence.start()
        if self._policy is not None:
            self._policy.begin(self._timeline, self._limits_moved)
            self._line.limit(self._policy.limits)
        if 0 < self._sink.flushed <= self._sink.written:
            # If there is no WAL that we lack, this report is the one that commits wait for.
            self._repeat_next()
        self.report()
        if self._feedback is not None:
            self._feedback.start(self._line.send)

    def stop(self) -> None:
        """The stream is over: no timer is left behind, and no other thread reports any more."""
        self._running = False
        self._line.close()
        if self._prompt_sink is not None:
            self._prompt_sink.unwatch_durable()
        self._silence.stop()
        if self._feedback is not None:
            self._feedback.stop()
        self._let_go_of_policy()
        for call in (self._next_report, self._next_flush):
            if call is not None and call.active():
                call.cancel()
        self._next_report = self._next_flush = None

    def be_synchronous(self, synchronous: bool) -> None:
        """From now on make durable, and report, every batch as it comes; or within a second."""
        self._synchronous = synchronous
        self._batch_is_written()

    def report(self, *, ask_for_reply: bool = False) -> None:
        """Send a status update with the sink's positions as they are now."""
        sink = self._sink
        self._line.report(sink.written, sink.flushed, ask_for_reply=ask_for_reply)
        self._last_report = self._clock.seconds()
        if self._next_report is None:
            self._schedule_report()

    def answer(self, server_time: int = 0) -> None:
        """The server asks for a reply: it gets one at once, and another as soon as more is durable.

        The second lets a primary that shuts down go: it waits for the flush position to reach
        the end of what it sent (protocol documentation, keepalive message). No commit waits for us
        then any more, so what a policy waits for is not waited for either.

        :param server_time: when it asked, by its clock, in microseconds.
        """
        if self._farewell.asks(server_time) and self._line.is_held_back:
            self._log.info(
                "the server is shutting down, and waits for us alone: what is durable here is "
                "reported, whatever the standbys have"
            )
            self._let_go_of_policy()
            self._line.limit(NO_LIMITS)
        self.report(ask_for_reply=self._line.is_held_back)
        if self._settings.reports_flush:
            self._flush()

    def replied(self, server_time: int = 0) -> None:
        """The server has sent a keepalive that asks for nothing: the answer to what we asked."""
        self._farewell.answers(server_time)
        if self._expects_reply:
            self._expects_reply = False
            self.report()

    def received(self) -> None:
        """Bytes have arrived, whatever they are."""
        self._silence.heard()

    def batch_over(self, server_end: int) -> None:
        """All WAL that one read brought has been given to the sink.

        :param server_end: how far the server had WAL to send, by its own word; 0: not known.
        """
        self._server_end = max(self._server_end, server_end)
        self._batch_is_written()
        if not self._has_caught_up and 0 < server_end <= self._sink.written:
            self._has_caught_up = True
            self._repeat_next()
            if self._sink.flushed >= self._sink.written:
                self.report()

    def pause(self) -> None:
        """The sink makes us wait: from now on nothing that the server asks can be read."""
        self._paused = True
        self._silence.suspend()
        if self._running:
            self.report()
            self._schedule_report()

    def resume(self) -> None:
        """Reading goes on."""
        self._paused = False
        self._silence.resume()
        self._last_report = self._clock.seconds()
        self._schedule_report()

    # Making durable.

    def _batch_is_written(self) -> None:
        if self._synchronous:
            if self._prompt_sink is not None and self._running:
                self._prompt_sink.sync_soon()
            else:
                self._flush()
        elif self._next_flush is None and self._settings.reports_flush and self._has_unflushed():
            self._next_flush = self._clock.callLater(_LAZY, self._flush_lazily)

    def _has_unflushed(self) -> bool:
        return self._running and self._sink.written > max(self._asked, self._sink.flushed)

    def _flush(self) -> None:
        if self._flushing or not self._has_unflushed():
            return
        self._flushing = True
        self._asked = self._sink.written
        self._sink.flush().addCallbacks(self._flushed, self._flush_failed)

    def _flush_lazily(self) -> None:
        self._next_flush = None
        self._report_what_is_new()  # segments that were finished since
        self._flush()

    def _flushed(self, _: object) -> None:
        self._flushing = False
        if not self._running:
            return
        self._report_what_is_new()
        self._batch_is_written()  # what came meanwhile

    def _flush_failed(self, failure: Failure) -> None:
        self._flushing = False
        if self._running:
            self._failed(failure)

    def _durable(self, lsn: int) -> bool:
        """Called by a prompt sink, in the thread that has made WAL durable up to *lsn*."""
        return not self._synchronous or self._line.report_now(self._sink.written, lsn)

    def _durable_in_reactor(self) -> None:
        """Called by a prompt sink afterwards, in the reactor's thread."""
        if self._synchronous and self._running:
            self._report_what_is_new()

    # Reporting.

    def _report_what_is_new(self) -> None:
        has_news = self._line.has_news(self._sink.written, self._sink.flushed)
        if has_news or self._line.has_unsent:
            self.report()

    def _limits_moved(self) -> None:
        if self._policy is not None:
            self._line.limit(self._policy.limits)
            self._report_what_is_new()

    def _let_go_of_policy(self) -> None:
        policy, self._policy = self._policy, None
        if policy is not None:
            policy.end()

    def _repeat_next(self) -> None:
        """Have the next report repeated once the server has seen it.

        A walsender lets commits go for reports only once it has sent all WAL that there was, and
        finds that out after it has read what we say at the same moment. So what commits wait for
        may be durable and reported, and would not be reported again until more comes.
        """
        if self._settings.reports_flush:
            self._expects_reply = self._line.asks_for_reply = True

    def _report_if_due(self) -> None:
        self._next_report = None
        if self._clock.seconds() >= self._last_report + self._interval():
            self.report()
        else:
            self._schedule_report()

    def _schedule_report(self) -> None:
        """Look whether a report is due when it may be; reports in between move only the date."""
        if self._next_report is not None and self._next_report.active():
            self._next_report.cancel()
        self._next_report = None
        interval = self._interval()
        if self._running and interval > 0:
            due = self._last_report + interval
            seconds = max(0.0, due - self._clock.seconds())
            self._next_report = self._clock.callLater(seconds, self._report_if_due)

    def _interval(self) -> float:
        interval, heartbeat = self._settings.interval, self._settings.heartbeat
        return min(interval or heartbeat, heartbeat) if self._paused else interval
