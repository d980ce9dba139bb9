"""The walreceiver: fills a sink from a server, in either dialect."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.errors import (
    Disconnected,
    NotSynchronous,
    ServerError,
    SinkFailed,
    WalstreamError,
)
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALSink, WALPosition
from walstream.protocols.acknowledgement import Acknowledgement
from walstream.protocols.downstream import NOBODY, Downstream
from walstream.protocols.gap import cross_gap, is_removed
from walstream.protocols.login import Login
from walstream.protocols.phases import ReceiverPhase
from walstream.protocols.progress import ReceiverProgress
from walstream.protocols.questions import Answer, Questions, next_timeline
from walstream.protocols.receiver_settings import Dialect, ReceiverSettings, StreamEnd
from walstream.protocols.reporting import Reporting
from walstream.protocols.start import StreamStart, follow_timeline, start_2009, start_modern
from walstream.protocols.stream_client import StreamClient
from walstream.protocols.synchronous import StandbyDemands, SynchronousDuty, ask_demands
from walstream.wire import dialect2009, grammar, messages
from walstream.wire.copydata import parse_keepalive
from walstream.wire.frames import Frame
from walstream.wire.stream import StreamReader

__all__ = ["Dialect", "ReceiverSettings", "StreamEnd", "WALReceiver"]


# What a stream is closed with: the server's answer, or its error.
_Closing = Deferred[Answer | Exception]
_ERROR_OF: Any = attrgetter("value")


@implementer(IPushProducer)
class WALReceiver(StreamClient):
    """Receives WAL over one connection and gives it to a sink.

    It is the sink's push producer: a sink that can't take more pauses it, it pauses the
    connection, and TCP pauses the server.

    :param duty: what we owe to the server's commits, if that is to outlive this connection.
    :param downstream: for whom the WAL is received besides: what they have, and what they need.
    :ivar finished: fires with a `StreamEnd` once the connection is over and the sink has kept
        everything that came; fails with the error that ended it.
    """

    _log = Logger()

    def __init__(
        self,
        sink: IWALSink,
        login: Login,
        settings: ReceiverSettings,
        clock: IReactorTime,
        duty: SynchronousDuty | None = None,
        downstream: Downstream = NOBODY,
    ) -> None:
        super().__init__(login, settings.dialect, clock, settings.receive_timeout)
        self.finished: Deferred[StreamEnd] = Deferred()
        self._sink = sink
        self._settings = settings
        self._duty = SynchronousDuty(settings) if duty is None else duty
        self._reporting = Reporting(settings, clock, self._duty, downstream)
        self._streaming: Deferred[None] | None = None
        self._has_streamed = False
        self._stop_requested = False
        self._stream_over: Deferred[StreamEnd | None] | None = None
        # What becomes of the WAL that comes, if it is not for the sink.
        self._take: Callable[[int, memoryview], None] | None = None
        self._acknowledgement: Acknowledgement | None = None
        self._reading_paused = False
        self._gone: Deferred[None] = Deferred()

    # What a service asks for.

    def streaming(self) -> Deferred[None]:
        """Wait until a stream has begun. To be called once.

        :raises WalstreamError: (in the Deferred) what ended the connection before.
        """
        waiter: Deferred[None] = Deferred(lambda _: setattr(self, "_streaming", None))
        if self._has_streamed:
            waiter.callback(None)
        elif self._lost is not None:
            waiter.errback(self._lost)
        else:
            self._streaming = waiter
        return waiter

    @property
    def progress(self) -> ReceiverProgress | None:
        """How far the stream is; None while there is none, or it is one of 2009."""
        if self._stream_over is None or self._acknowledgement is None:
            return None
        return self._acknowledgement.progress

    def stop(self) -> Deferred[None]:
        """End in order: what came is made durable and reported, the stream ended, the line closed.

        Fires when the connection is gone.
        """
        self._stop_requested = True
        if self._stream_over is not None:
            self._end_stream(StreamEnd.STOPPED)
        elif self.phase is not ReceiverPhase.STOPPING:
            self.close(Disconnected("stopped before a stream had begun"))
        self._gone.chainDeferred(waiter := Deferred[None]())
        return waiter

    def learn(self, demands: StandbyDemands) -> None:
        """Live up to what the server demands of its standbys, which it was asked elsewhere."""
        try:
            self._live_up_to(demands)
        except NotSynchronous as error:
            self.abort(error)
            return
        if self._acknowledgement is not None:
            self._acknowledgement.be_synchronous(self._duty.is_synchronous)

    # What Twisted calls.

    def connectionMade(self) -> None:
        """Log in, and do all the rest, until the connection is over."""
        super().connectionMade()
        Deferred.fromCoroutine(self._converse()).addBoth(self._finish)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The connection is gone, and with it the stream."""
        super().connectionLost(reason)
        if not self._gone.called:
            self._gone.callback(None)

    # What the sink calls: IPushProducer.

    def pauseProducing(self) -> None:
        """The sink has enough: stop reading. The rest of the last read still goes to it."""
        self._reading_paused = True
        if self._acknowledgement is not None:
            self._acknowledgement.pause()
        self.pause_reading()

    def resumeProducing(self) -> None:
        """The sink takes more: read on."""
        self._reading_paused = False
        if self._acknowledgement is not None:
            self._acknowledgement.resume()
        self.resume_reading()

    def stopProducing(self) -> None:
        """The sink has failed: nothing more is received, or acknowledged."""
        self.abort(SinkFailed("the sink takes no more WAL"))

    # The conversation.

    async def _converse(self) -> StreamEnd:
        await self.logged_in()
        questions = Questions(self.ask, self.parameters)
        start = await self._find_start(questions)
        position = start.position
        while True:
            if self._modern:
                # Anew for each timeline: a promotion makes a primary of a standby.
                self._live_up_to(await ask_demands(questions, self.parameters))
            try:
                outcome = await self._receive_stream(position, start.sender_timeout)
            except ServerError as error:
                if self._sink.written != position.lsn or not self._modern:
                    raise  # it had begun; or nobody can say what lies behind a gap
                position = await self._cross_gap(questions, error, position)
                continue
            if isinstance(outcome, StreamEnd):
                return outcome
            await follow_timeline(questions, self._sink, outcome)
            self._log.info(
                "switched to timeline {timeline} at {lsn}",
                timeline=outcome.timeline,
                lsn=str(outcome.lsn),
            )
            position = WALPosition(outcome.timeline, start.segment_size.floor(outcome.lsn))

    async def _find_start(self, questions: Questions) -> StreamStart:
        settings = self._settings
        if self._modern:
            return await start_modern(
                questions, self._sink, slot=settings.slot, start=settings.start_position
            )
        return await start_2009(
            questions, self._sink, size=settings.segment_size, start=settings.start_position
        )

    async def _cross_gap(
        self, questions: Questions, error: ServerError, position: WALPosition
    ) -> WALPosition:
        accepted = self._settings.accept_gap
        return await cross_gap(questions, self._sink, error, position, accepted, self._has_wal)

    async def _has_wal(self, position: WALPosition) -> bool:
        """Whether the server has the WAL there: a stream that ends when the first of it comes."""
        self._acknowledgement = None
        self._take = lambda start, data: self._end_stream(StreamEnd.STOPPED)
        try:
            answer = await self._ask_for_stream(position, slot=None)
            if answer.streams:
                closing = self.expect_answer().addErrback(_ERROR_OF)
                over = self._stream_over = Deferred()
                await self._close_stream(await self.in_time(over), closing)
        except ServerError as error:
            if is_removed(error):
                return False
            raise
        finally:
            self._take = None
        if self._stop_requested:
            raise Disconnected("stopped before a stream had begun")
        return True

    async def _receive_stream(
        self, position: WALPosition, sender_timeout: float
    ) -> StreamEnd | WALPosition:
        """Receive one stream. The result: why it ended, or where the next timeline begins."""
        sink = self._sink
        await sink.begin(position.timeline, position.lsn)
        self._log.info(
            "starting log streaming at {lsn} (timeline {timeline})",
            lsn=str(position.lsn),
            timeline=position.timeline,
        )
        sink.registerProducer(self, True)
        try:
            answer = await self._ask_for_stream(position, self._settings.slot)
            if answer.streams:
                end, closing = await self._until_over(position.timeline, sender_timeout)
        finally:
            sink.unregisterProducer()
            await sink.finish()
            if self._reading_paused:
                self.resumeProducing()
        if not answer.streams:
            # The old timeline ends exactly where we wanted to start: there is no stream at all.
            return next_timeline(answer)
        answer = await self._close_stream(end, closing)
        if end is not None:
            self._log.info("stopped log streaming at {lsn}", lsn=str(LSN(sink.written)))
            return end
        return next_timeline(answer)

    def _live_up_to(self, demands: StandbyDemands | None) -> None:
        # The server may know us by another name than ours.
        name = self.parameters.get("application_name", self._login.application_name)
        self._duty.learn(demands, name)

    def _ask_for_stream(self, position: WALPosition, slot: str | None) -> Deferred[Answer]:
        if self._modern:
            command = grammar.StartReplication(position.lsn, position.timeline, slot)
            return self.ask(command.text())
        return self.ask(dialect2009.StartReplication2009(position.lsn).text())

    async def _until_over(
        self, timeline: int, sender_timeout: float
    ) -> tuple[StreamEnd | None, _Closing]:
        """Take WAL until the stream is over, by whoever's wish; and what it will be closed with."""
        # An error is a result here: if another comes first, nobody looks at this one.
        closing = self.expect_answer().addErrback(_ERROR_OF)
        self._stream_over = Deferred()
        if self._modern:
            self._acknowledge(timeline, sender_timeout)
        self._has_streamed = True
        if self._streaming is not None:
            streaming, self._streaming = self._streaming, None
            streaming.callback(None)
        try:
            return await self._stream_over, closing
        finally:
            self._stream_over = None
            if self._acknowledgement is not None:
                self._acknowledgement.stop()

    async def _close_stream(self, end: StreamEnd | None, closing: _Closing) -> Answer:
        if end is not None and not self._modern:
            # Nothing but Terminate can be said to a stream of 2009.
            self.close(Disconnected("the stream was ended"))
            return Answer()
        if self._error is not None and self._error.severity != "ERROR":
            raise self._error  # the server says nothing more, and may be slow to hang up
        in_stream = self.phase in (ReceiverPhase.STOPPING, ReceiverPhase.QUERYING)
        if in_stream and self._error is None:
            if self._acknowledgement is not None:
                self._acknowledgement.report()
            self.send(messages.copy_done())
        answer = await self.in_time(closing)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _acknowledge(self, timeline: int, sender_timeout: float) -> None:
        assert self.transport is not None, "a stream has begun, so there is a connection"
        self._acknowledgement = self._reporting.of_stream(
            self._sink,
            self.transport,
            timeline,
            sender_timeout,
            self.server_is_silent,
            lambda failure: self.abort(SinkFailed(failure.getErrorMessage())),
        )
        self._acknowledgement.start()

    def _finish(self, result: StreamEnd | Failure) -> None:
        if isinstance(result, Failure) and self._stop_requested and result.check(Disconnected):
            result = StreamEnd.STOPPED
        if not isinstance(result, Failure):
            self.close(Disconnected("the stream was ended"))
            self.finished.callback(result)
            return
        if isinstance(result.value, WalstreamError):
            self.close(result.value)
        else:
            self._log.failure("the receiver failed", result)
            self.close(Disconnected("the receiver failed"))
        self.finished.errback(result)

    # The stream.

    def received(self) -> None:
        """Something of a stream has arrived, and not just a byte of it."""
        if self._acknowledgement is not None:
            self._acknowledgement.received()
        else:
            self._silence.heard()

    def take_stream(self, stream: StreamReader, data: memoryview) -> None:
        """Give WAL to the sink, and handle everything else."""
        take = self._take or self._sink.write
        is_news = True
        for event in stream.events(data):
            if self.phase is ReceiverPhase.CLOSED:
                return
            if is_news:
                is_news = False
                self.received()
            if isinstance(event, Frame):
                self.handle(event)
                if self.phase not in (ReceiverPhase.STREAMING, ReceiverPhase.STOPPING):
                    self.leave_stream(stream)
                    return
            elif self.phase is ReceiverPhase.STREAMING:
                take(*event)
        if self._acknowledgement is not None:
            self._acknowledgement.batch_over(stream.server_end)
        end = self._settings.end_position
        if end is not None and self._sink.written > end:
            self._end_stream(StreamEnd.END_POSITION)

    def handle_in_stream(self, frame: Frame) -> None:
        """Do what a message in a stream asks for, or means."""
        match chr(frame.kind):
            case "d":
                keepalive = parse_keepalive(frame.body)
                if self._acknowledgement is None:
                    return
                if keepalive.reply_requested:
                    self._acknowledgement.answer(keepalive.send_time)
                else:
                    self._acknowledgement.replied(keepalive.send_time)
            case "c" | "E":
                self._end_stream(None)
            case "C":
                raise Disconnected("replication stream was terminated by the server")

    def _end_stream(self, end: StreamEnd | None) -> None:
        """The stream is over for us: by our wish, with *end*, or by the server's, with None."""
        if end is not None and self.phase is ReceiverPhase.STREAMING:
            self.phase = ReceiverPhase.STOPPING
        over, self._stream_over = self._stream_over, None
        if over is not None:
            over.callback(end)

    def connection_over(self, reason: WalstreamError) -> None:
        """The connection has ended: so has the stream, and so do all who wait for it."""
        waiting = (self._streaming, self._stream_over)
        self._streaming = self._stream_over = None
        for deferred in waiting:
            if deferred is not None:
                deferred.errback(reason)
