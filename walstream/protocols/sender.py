"""The walsender: serves a provider's WAL to standbys and backup tools, in both dialects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hmac import compare_digest

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from walstream.errors import CommandError, EndOfTimeline, ProtocolViolation, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALCursor, WALPosition
from walstream.protocols.answers import Answers
from walstream.protocols.arrivals import Arrivals
from walstream.protocols.delayed import open_delayed
from walstream.protocols.direct import DirectWriter
from walstream.protocols.direct_tls import writer_for
from walstream.protocols.hold import Hold
from walstream.protocols.lag import LagTracker
from walstream.protocols.outgoing import OutgoingStream, StreamEvents
from walstream.protocols.phases import SenderPhase
from walstream.protocols.serving import Serving
from walstream.protocols.session import Session
from walstream.protocols.session_slot import SessionSlot
from walstream.protocols.settings import client_sender_timeout
from walstream.protocols.standbys import Standby, StandbyState
from walstream.protocols.stream_request import StreamRequest, cancelled, decide, end_of, result_of
from walstream.wire import messages
from walstream.wire.commands import StartReplication
from walstream.wire.copydata import UnknownStandbyMessage
from walstream.wire.dialect2009 import StartReplication2009, parse_2009
from walstream.wire.grammar import parse_command
from walstream.wire.stream import WALPayload

__all__ = ["WALSender"]


class WALSender(Session):
    """Serves one client.

    While the transport has enough, a stream rests, and outside of a stream no further command is
    taken: see `Session`.

    :ivar stream: what is being streamed; None outside of a stream.
    :ivar standby: the client as others see it; None before it was let in.
    :ivar is_delayed: whether it gets WAL later than others.
    :param gone: called once when the connection is gone.
    """

    def __init__(
        self, serving: Serving, pid: int, key: bytes, gone: Callable[[WALSender], None]
    ) -> None:
        super().__init__(serving, pid, key)
        self.stream: OutgoingStream | None = None
        self.standby: Standby | None = None
        self.is_delayed = False
        self._gone = gone
        self._slot = SessionSlot(serving.slots, pid)
        self._direct: DirectWriter | None = None
        self._timeline = 0
        self._successor: EndOfTimeline | None = None
        self._is_stopping = False
        self._is_cancelled = False
        self._hold = Hold(
            serving.provider, serving.clock, serving.settings.hold_ahead, self._break_off
        )
        self._reached: tuple[int, int] | None = None

    # What Twisted and the transport call.

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone, and all that the session had with it."""
        self._end_stream()
        super().connectionLost(reason)
        self._slot.give_up()
        if self.standby is not None:
            self._serving.standbys.left(self.standby)
        self._gone(self)

    def pauseProducing(self) -> None:
        """The transport has enough."""
        super().pauseProducing()
        if self.stream is not None:
            self.stream.pause()

    def resumeProducing(self) -> None:
        """The transport takes more."""
        super().resumeProducing()
        if self.stream is not None:
            self.stream.resume()

    def stopProducing(self) -> None:
        """The transport is gone; `connectionLost` follows."""
        self._end_stream()

    def let_in(self) -> None:
        """The client has said who it is."""
        super().let_in()
        client = self.client
        assert client is not None, "it has said who it is"
        self.standby = Standby(
            self.pid,
            client.user,
            client.application_name,
            self.peer_address(),
            self._serving.settings.wall_clock(),
        )
        self._changed()

    def progress(self) -> str:
        """How far the last stream came."""
        if self._reached is None:
            return ""
        sent, flushed = self._reached
        return f", sent {LSN(sent)}, flushed {LSN(flushed)}"

    # What the service asks for.

    def look(self) -> None:
        """Have `standby` tell how far WAL was given to the connection at this moment."""
        if self.stream is not None and self.standby is not None:
            self.standby.sent = self.stream.sent

    def shut_down(self) -> None:
        """The service stops: streams end as those of a PostgreSQL server that shuts down."""
        self._is_stopping = True
        self._hold.give_up()
        if self.phase is SenderPhase.STREAMING:
            assert self.stream is not None
            self.phase = SenderPhase.SHUTTING_DOWN
            self._standby_is(StandbyState.STOPPING)
            self.stream.await_acknowledgement()
        elif self.phase is SenderPhase.STREAMING_2009:
            self._end_copy()
        elif self.phase not in (SenderPhase.DRAINING, SenderPhase.SHUTTING_DOWN):
            self._say_goodbye()

    def terminate(self) -> None:
        """The session has to end at once, as after pg_terminate_backend."""
        if self.phase is not SenderPhase.CLOSED:
            self._say_goodbye()
            self._slot.give_up()  # the client may take a while to notice, and it is wanted now

    def cancel(self, key: bytes) -> None:
        """A CancelRequest names this session: nothing happens if that is not its key."""
        if self.key is not None and compare_digest(self.key, key):
            self.cancel_stream()

    def cancel_stream(self) -> None:
        """The stream is broken off, the session goes on."""
        if self.phase in (SenderPhase.STREAMING, SenderPhase.STREAMING_2009):
            self._break_off(cancelled())
        else:
            self._is_cancelled = True  # a stream that is about to begin

    # Commands.

    async def execute(self, text: bytes) -> None:
        """Execute a command."""
        try:
            await self._execute(text)
        finally:
            if self.phase is SenderPhase.CLOSED:
                self._slot.give_up()  # the client did not wait: what it made is nobody's

    async def _execute(self, text: bytes) -> None:
        answers = self._answers()
        self._is_cancelled = False
        command = parse_2009(text) or parse_command(text, answers.major)
        match command:
            case StartReplication(start=start, timeline=timeline, slot=slot):
                await self._start_stream(timeline, start, slot, WALPayload.MODERN)
            case StartReplication2009(start=start):
                await self._start_stream(None, start, None, WALPayload.DESIGN_2009)
            case _:
                await answers.answer(command)
                self.become_ready()

    def _answers(self) -> Answers:
        # SHOW tells a client of its own timeout: it lives by the answer.
        settings = replace(self._serving.settings, sender_timeout=self._sender_timeout())
        serving = self._serving
        return Answers(serving.provider, serving.slots, settings, self.pid, self.send)

    def command_failed(self) -> None:
        """Give up all slots, temporary ones for good: as PostgreSQL does after any error."""
        self._slot.give_up()

    def become_ready(self) -> None:
        """The command is done, in whatever way: the next one may come, or goodbye is said."""
        super().become_ready()
        if self._is_stopping:
            self._say_goodbye()

    # Streams.

    async def _start_stream(
        self, timeline: int | None, start: LSN, slot: str | None, payload: WALPayload
    ) -> None:
        if slot is not None:
            self._slot.name = await self._answers().use_slot(slot)
            if self.phase is SenderPhase.CLOSED:
                return
        provider, settings = self._serving.provider, self._serving.settings
        arrivals = self._serving.limits.arrivals_for(settings, self._application_name())
        self.is_delayed = arrivals is not None
        modern = payload is WALPayload.MODERN
        may_wait = modern and settings.hold_ahead > 0
        self.check_stream(timeline or provider.end().timeline, start)
        request = await decide(provider, timeline, start, may_wait=may_wait)
        if isinstance(request, EndOfTimeline):
            if arrivals is None:
                self._finish_stream(request)
                return
            # It is told in a stream, when it has been known for long enough.
            assert timeline is not None, "the current timeline has no end"
            request = StreamRequest(timeline, start)
        self.send(messages.copy_both_response() if modern else messages.copy_out_response())
        if request.refusal is not None:
            raise request.refusal
        cursor = await self._open(request, arrivals)
        if self.phase is SenderPhase.CLOSED or self._is_cancelled:
            cursor.close()
            if self._is_cancelled:
                raise cancelled()
            return
        self.phase = SenderPhase.STREAMING if modern else SenderPhase.STREAMING_2009
        self._stream(request, cursor, payload)

    async def _open(self, request: StreamRequest, arrivals: Arrivals | None) -> IWALCursor:
        provider = self._serving.provider
        cursor = await provider.open(request.timeline, request.start)
        if arrivals is None:
            return cursor
        self._log.info(
            "replication connection {pid} gets WAL when it is {delay} s old",
            pid=self.pid,
            delay=f"{arrivals.delay:g}",
        )
        return await open_delayed(cursor, request.timeline, provider, arrivals, self._clock)

    def _stream(self, request: StreamRequest, cursor: IWALCursor, payload: WALPayload) -> None:
        serving = self._serving
        self._timeline = request.timeline
        self._successor = None
        assert self.standby is not None, "only who was let in can ask for a stream"
        self.standby.timeline, self.standby.slot = request.timeline, self._slot.name
        self.standby.sent = request.start
        self._standby_is(StandbyState.CATCHUP)
        self.stream = OutgoingStream(
            cursor,
            self.standby,
            LagTracker(serving.standbys.ends, self._clock.seconds),
            self.transport,  # type: ignore[arg-type]
            self._direct_writer(),
            payload,
            serving.settings,
            self._sender_timeout(),
            self._clock,
            StreamEvents(
                changed=self._changed,
                flushed=self._flushed,
                over=self._cursor_over,
                silent=self._silent,
                acknowledged=self._acknowledged,
            ),
            serving.limits.pace(serving.settings, self._clock),
        )
        self._hold.begin(request)
        if self.output_full:
            self.stream.pause()
        self.stream.start()

    def _application_name(self) -> str:
        return self.client.application_name if self.client else ""

    def _direct_writer(self) -> DirectWriter | None:
        if self._direct is None:
            send_buffer = self._serving.settings.send_buffer
            self._direct = writer_for(self.transport, send_buffer)
        return self._direct

    def _sender_timeout(self) -> float:
        asked = client_sender_timeout(self.client.parameters) if self.client else None
        return self._serving.settings.sender_timeout if asked is None else asked

    def take_copy_data(self, payload: bytes) -> None:
        """Take what a standby says of itself; what is too short ends its stream."""
        assert self.stream is not None
        try:
            self.stream.receive(payload)
        except UnknownStandbyMessage:
            raise
        except ProtocolViolation as error:
            self._break_off(CommandError(error.sqlstate, str(error)))

    def _changed(self) -> None:
        if self.standby is not None:
            self._serving.standbys.changed(self.standby)

    def _standby_is(self, state: StandbyState) -> None:
        if self.standby is not None:
            self.standby.state = state
            self._changed()

    def _flushed(self, flush: int) -> None:
        self._slot.advance(WALPosition(self._timeline, LSN(flush)))

    def _silent(self) -> None:
        # Without a message, as PostgreSQL: the client would not read it.
        self.abort("terminating walsender process due to replication timeout")

    def _cursor_over(self, failure: Failure) -> None:
        if isinstance(failure.value, EndOfTimeline):
            if not self._hold.has_forked(failure.value):
                self._end_timeline(failure.value)
        elif isinstance(failure.value, WALUnavailable):
            self._end_stream()
            self.refuse(failure)
        else:
            self.fail(failure)

    def _end_timeline(self, end: EndOfTimeline) -> None:
        if self.phase is SenderPhase.STREAMING_2009:
            self._end_copy()  # 2009 has no way to another timeline
            return
        self._successor = end
        self.send(messages.copy_done())
        self.phase = SenderPhase.DRAINING

    async def answer_copy_done(self) -> None:
        """The client's CopyDone has come: ours, if it is not out yet, and the result."""
        self._end_stream()
        if self._successor is None:
            # It is told even if the client stopped early.
            self.send(messages.copy_done())
            self._successor = await end_of(self._serving.provider, self._timeline)
        self._finish_stream(self._successor)

    def _finish_stream(self, successor: EndOfTimeline | None) -> None:
        self._slot.release()
        self.send(result_of(successor) + messages.ready_for_query())
        self.become_ready()

    def _break_off(self, error: CommandError) -> None:
        """End the stream with an error; the session goes on."""
        self._end_stream()
        self.refuse(Failure(error))

    def _acknowledged(self) -> None:
        # If the timeline has ended meanwhile, its end is in order as well.
        if self.phase is SenderPhase.SHUTTING_DOWN:
            self._end_copy()

    def _end_copy(self) -> None:
        """The end of a stream by shutdown: CommandComplete alone, and the connection closes."""
        self._end_stream()
        self.send(messages.command_complete("COPY 0"))
        self.close("shut down")

    def _end_stream(self) -> None:
        if self.stream is None:
            return
        self._hold.end()
        assert self.standby is not None, "only who was let in has a stream"
        self.stream.stop()
        self._reached = self.stream.sent, self.standby.flush
        self.stream = None
        self.standby.no_longer_streams()
        self._changed()

    # The end.

    def _say_goodbye(self) -> None:
        self.fatal(CommandError("57P01", "terminating connection due to administrator command"))

    def close(self, reason: str) -> None:
        """Close the connection, and the stream before it."""
        self._end_stream()
        super().close(reason)

    def abort(self, reason: str) -> None:
        """Close at once."""
        self._end_stream()
        super().abort(reason)
