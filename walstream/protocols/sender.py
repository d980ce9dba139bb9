"""The walsender: serves a provider's WAL to standbys and backup tools, in both dialects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.errors import CommandError, EndOfTimeline, ProtocolViolation, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.interfaces import ISlotStore, IWALProvider, WALPosition
from walstream.protocols.answers import Answers
from walstream.protocols.direct import DirectWriter, direct_connection
from walstream.protocols.line import Line
from walstream.protocols.outgoing import OutgoingStream, StreamEvents
from walstream.protocols.phases import SENDER_TRANSITIONS, SenderPhase, after
from walstream.protocols.settings import SenderSettings, client_sender_timeout
from walstream.protocols.stream_request import decide
from walstream.protocols.welcome import Client, Welcome
from walstream.wire import messages
from walstream.wire.commands import StartReplication
from walstream.wire.copydata import UnknownStandbyMessage
from walstream.wire.dialect2009 import StartReplication2009, parse_2009
from walstream.wire.frames import Frame, FrameReader, frontend_limit
from walstream.wire.grammar import parse_command
from walstream.wire.messages import Column, ColumnType
from walstream.wire.stream import WALPayload

__all__ = ["WALSender"]

_NEXT_TIMELINE = [Column("next_tli", ColumnType.INT8), Column("next_tli_startpos", ColumnType.TEXT)]


@implementer(IPushProducer)
class WALSender(Line):
    """Serves one client.

    It is its transport's push producer from the first byte to the last. While the transport has
    enough, a stream rests, and outside of a stream no further command is read.

    :ivar phase: see `SenderPhase`.
    :ivar pid: the session's number, as the client learns it from BackendKeyData.
    :ivar client: who it is; None until the startup packet has come.
    :ivar stream: what is being streamed; None outside of a stream.
    :param gone: called once when the connection is gone.
    :param cancel: called with a pid and a key that a CancelRequest names.
    """

    _log = Logger()

    def __init__(
        self,
        provider: IWALProvider,
        slots: ISlotStore,
        settings: SenderSettings,
        clock: IReactorTime,
        pid: int,
        key: bytes,
        gone: Callable[[WALSender], None],
        cancel: Callable[[int, bytes], None],
    ) -> None:
        super().__init__(clock, settings.close_timeout)
        self.phase = SenderPhase.STARTUP
        self.pid = pid
        self.key = key
        self.client: Client | None = None
        self.stream: OutgoingStream | None = None
        self._provider = provider
        self._slots = slots
        self._settings = settings
        self._gone = gone
        self._welcome = Welcome(provider, pid, key, cancel)
        self._reader = FrameReader(frontend_limit)
        self._answers = Answers(provider, slots, settings, pid, self.send)
        self._direct: DirectWriter | None = None
        self._slot: str | None = None
        self._timeline = 0
        self._successor: EndOfTimeline | None = None
        self._output_full = False

    # What Twisted calls.

    def connectionMade(self) -> None:
        """A client has connected, and has a while to say who it is."""
        self.open(self._settings.startup_timeout)

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sent."""
        try:
            if self.phase is SenderPhase.STARTUP:
                self._start_up(data)
            elif self.phase is not SenderPhase.CLOSED:
                self._reader.feed(data)
                self._take_frames()
        except UnknownStandbyMessage as error:
            self.close(str(error))  # without a word to the client, as PostgreSQL
        except ProtocolViolation as error:
            self._fatal(CommandError(error.sqlstate, str(error)))

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The connection is gone, and all that the session had with it."""
        self.phase = SenderPhase.CLOSED
        self.stop_timer()
        self._end_stream()
        self._slots.end_session(self.pid)
        if self.client is not None:
            self._log.info(
                "replication connection {pid} ended: {client}: {reason}",
                pid=self.pid,
                client=str(self.client),
                reason=self.close_reason,
            )
        self._gone(self)

    # What the transport calls: IPushProducer.

    def pauseProducing(self) -> None:
        """The transport has enough."""
        self._output_full = True
        if self.stream is not None:
            self.stream.pause()
        else:
            self.pause_reading()

    def resumeProducing(self) -> None:
        """The transport takes more."""
        self._output_full = False
        if self.stream is not None:
            self.stream.resume()
        elif self.phase is not SenderPhase.ANSWERING:
            self.resume_reading()

    def stopProducing(self) -> None:
        """The transport is gone; `connectionLost` follows."""
        self._end_stream()

    # What the service asks for.

    def shut_down(self) -> None:
        """The service stops: streams end as those of a PostgreSQL server that shuts down."""
        if self.stream is not None and self.stream.payload is WALPayload.MODERN:
            if self.phase is SenderPhase.STREAMING:
                self.phase = SenderPhase.SHUTTING_DOWN
                self.stream.await_acknowledgement()
                return
        elif self.stream is not None:
            self._end_copy()
            return
        self._fatal(CommandError("57P01", "terminating connection due to administrator command"))

    def cancel_stream(self) -> None:
        """A CancelRequest names this session: its stream is broken off, the session goes on."""
        if self.phase is SenderPhase.STREAMING:
            self._break_off(CommandError("57014", "canceling statement due to user request"))

    def abort(self, reason: str) -> None:
        """Close at once."""
        self.phase = SenderPhase.CLOSED
        self._end_stream()
        super().abort(reason)

    # Startup.

    def _start_up(self, data: bytes) -> None:
        self._welcome.feed(data)
        try:
            while (answer := self._welcome.next()) is not None:
                self.send(answer)
        except CommandError as error:
            self._turn_away(error)
            return
        except ProtocolViolation as error:
            self.close(str(error))  # it may speak any protocol: there is no answer
            return
        if self._welcome.finished:
            self.close("cancel request")
        elif self._welcome.client is not None:
            self._let_in(self._welcome.client)

    def _turn_away(self, error: CommandError) -> None:
        legacy = self._welcome.legacy_refusal(error)
        if legacy is None:
            self._fatal(error)
        else:
            self.send(legacy)
            self.close(error.message)

    def _let_in(self, client: Client) -> None:
        self.client = client
        self.let_in()
        self.phase = SenderPhase.READY
        if (connection := direct_connection(self.transport)) is not None:
            self._direct = DirectWriter(connection, self._settings.send_buffer)
        self._log.info(
            "replication connection {pid} authorized: {client}", pid=self.pid, client=str(client)
        )
        self._reader.feed(self._welcome.take_rest())
        self._take_frames()

    # Messages.

    def _take_frames(self) -> None:
        """Handle what has arrived; while a command is answered nothing is read."""
        while self.phase not in (SenderPhase.ANSWERING, SenderPhase.CLOSED):
            frame = self._reader.next()
            if frame is None:
                return
            self._handle(frame)

    def _handle(self, frame: Frame) -> None:
        before, kind = self.phase, chr(frame.kind)
        try:
            self.phase = after(SENDER_TRANSITIONS, before, frame.kind)
        except ProtocolViolation as error:
            raise _violation(before, frame.kind, self.stream) from error
        if self.phase is SenderPhase.CLOSED:
            self.close(self.close_reason)
        elif kind == "Q" and self.phase is SenderPhase.ANSWERING:
            self._do(self._execute(messages.parse_query(frame.body)))
        elif kind == "d" and self.stream is not None:
            self._receive(self.stream, frame.body)
        elif kind == "c" and self.phase is SenderPhase.ANSWERING:
            self._do(self._answer_copy_done(before))
        elif before is SenderPhase.READY and self.phase is SenderPhase.SKIPPING:
            refusal = "extended query protocol not supported in a replication connection"
            self.send(messages.error_response("ERROR", "08P01", refusal))
        elif kind == "S":
            self.send(messages.ready_for_query())

    def _receive(self, stream: OutgoingStream, payload: bytes) -> None:
        try:
            if stream.payload is WALPayload.DESIGN_2009:
                raise ProtocolViolation(f"invalid standby closing message type {ord('d')}")
            stream.receive(payload)
        except UnknownStandbyMessage:
            raise
        except ProtocolViolation as error:
            if stream.payload is WALPayload.DESIGN_2009:
                raise
            self._break_off(CommandError(error.sqlstate, str(error)))

    # Commands.

    def _do(self, work: Any) -> None:
        """Do the work of a command; nothing more is read until it is done."""
        self.pause_reading()
        done = Deferred.fromCoroutine(work)
        done.addErrback(self._refuse)
        done.addErrback(self._fail)
        done.addCallback(lambda _: self._done())

    def _done(self) -> None:
        if self.phase in (SenderPhase.ANSWERING, SenderPhase.CLOSED):
            return
        if not self._output_full or self.stream is not None:
            self.resume_reading()
        try:
            self._take_frames()
        except ProtocolViolation as error:
            self._fatal(CommandError(error.sqlstate, str(error)))

    async def _execute(self, text: bytes) -> None:
        command = parse_2009(text) or parse_command(text)
        match command:
            case StartReplication(start=start, timeline=timeline, slot=slot):
                await self._start_stream(timeline, start, slot, WALPayload.MODERN)
            case StartReplication2009(start=start):
                await self._start_stream(None, start, None, WALPayload.DESIGN_2009)
            case _:
                await self._answers.answer(command)
                self._become_ready()

    def _refuse(self, failure: Failure) -> None:
        """Show the client why its command failed; the session goes on."""
        error = failure.value
        if isinstance(error, WALUnavailable):
            error = CommandError(
                "58P01", f"requested WAL segment {error.segment} has already been removed"
            )
        if not isinstance(error, CommandError):
            raise failure
        self._release_slot()
        self.send(_error_response("ERROR", error) + messages.ready_for_query())
        self._become_ready()

    def _fail(self, failure: Failure) -> None:
        """A fault of ours, or of the provider's: the log has it, the client a bland word."""
        self._log.failure("replication connection {pid} failed", failure, pid=self.pid)
        self._fatal(CommandError("XX000", "internal error; see the log of walstream"))

    def _become_ready(self) -> None:
        if self.phase is not SenderPhase.CLOSED:
            self.phase = SenderPhase.READY

    # Streams.

    async def _start_stream(
        self, timeline: int | None, start: LSN, slot: str | None, payload: WALPayload
    ) -> None:
        if slot is not None:
            self._slots.acquire(slot, self.pid)
            self._slot = slot
        request = await decide(self._provider, timeline, start)
        if isinstance(request, EndOfTimeline):
            self._finish_stream(request)
            return
        modern = payload is WALPayload.MODERN
        self.send(messages.copy_both_response() if modern else messages.copy_out_response())
        if request.refusal is not None:
            raise request.refusal
        cursor = await self._provider.open(request.timeline, request.start)
        if self.phase is SenderPhase.CLOSED:
            cursor.close()
            return
        self._timeline = request.timeline
        self._successor = None
        self.phase = SenderPhase.STREAMING
        self.stream = OutgoingStream(
            cursor,
            self.transport,  # type: ignore[arg-type]
            self._direct,
            payload,
            self._settings,
            self._sender_timeout(),
            self._clock,
            StreamEvents(self._flushed, self._cursor_over, self._silent, self._end_copy),
        )
        if self._output_full:
            self.stream.pause()
        self.stream.start()

    def _sender_timeout(self) -> float:
        asked = client_sender_timeout(self.client.parameters) if self.client else None
        return self._settings.sender_timeout if asked is None else asked

    def _flushed(self, flush: int) -> None:
        if self._slot is not None:
            self._slots.advance(self._slot, WALPosition(self._timeline, LSN(flush)))

    def _silent(self) -> None:
        # Without a message, as PostgreSQL: the client would not read it.
        self.abort("terminating walsender process due to replication timeout")

    def _cursor_over(self, failure: Failure) -> None:
        if isinstance(failure.value, EndOfTimeline):
            self._end_timeline(failure.value)
        elif isinstance(failure.value, WALUnavailable):
            self._end_stream()
            self._refuse(failure)
        else:
            self._end_stream()
            self._fail(failure)

    def _end_timeline(self, end: EndOfTimeline) -> None:
        stream = self.stream
        if stream is not None and stream.payload is WALPayload.DESIGN_2009:
            self._end_copy()  # 2009 has no way to another timeline
            return
        self._successor = end
        self.send(messages.copy_done())
        if self.phase is SenderPhase.STREAMING:
            self.phase = SenderPhase.DRAINING

    async def _answer_copy_done(self, before: SenderPhase) -> None:
        """The client's CopyDone has come: ours, if it is not out yet, and the result."""
        self._end_stream()
        if before is SenderPhase.STREAMING:
            self.send(messages.copy_done())
            self._successor = await self._end_of(self._timeline)
        self._finish_stream(self._successor)

    async def _end_of(self, timeline: int) -> EndOfTimeline | None:
        """What follows a timeline, which the client is told even if it stopped early."""
        current = self._provider.end().timeline
        if timeline == current:
            return None
        history = await self._provider.history(current)
        switch_point = history.switch_point(timeline)
        assert switch_point is not None  # only the current timeline has none
        return EndOfTimeline(history.successor(timeline), switch_point)

    def _finish_stream(self, successor: EndOfTimeline | None) -> None:
        """The result of START_REPLICATION. libpq wants both CommandCompletes."""
        self._release_slot()
        if successor is not None:
            next_timeline = str(successor.next_timeline).encode()
            switch_point = str(LSN(successor.switch_point)).encode()
            self.send(messages.row_description(_NEXT_TIMELINE))
            self.send(messages.data_row([next_timeline, switch_point]))
        self.send(messages.command_complete("START_STREAMING"))
        self.send(messages.command_complete("START_REPLICATION"))
        self.send(messages.ready_for_query())
        self._become_ready()

    def _break_off(self, error: CommandError) -> None:
        """End the stream with an error; the session goes on."""
        self._end_stream()
        self._refuse(Failure(error))

    def _end_copy(self) -> None:
        """The end of a stream by shutdown: CommandComplete alone, and the connection closes."""
        self._end_stream()
        self.send(messages.command_complete("COPY 0"))
        self.close("shut down")

    def _end_stream(self) -> None:
        if self.stream is not None:
            self.stream.stop()
            self.stream = None

    def _release_slot(self) -> None:
        if self._slot is not None:
            self._slots.release(self._slot, self.pid)
            self._slot = None

    # The end.

    def _fatal(self, error: CommandError) -> None:
        if self.phase is not SenderPhase.CLOSED:
            self.send(_error_response("FATAL", error))
            self.close(error.message)

    def close(self, reason: str) -> None:
        """Close the connection, and the stream before it."""
        self.phase = SenderPhase.CLOSED
        self._end_stream()
        super().close(reason)


def _error_response(severity: str, error: CommandError) -> bytes:
    return messages.error_response(
        severity, error.sqlstate, error.message, detail=error.detail, hint=error.hint
    )


def _violation(phase: SenderPhase, kind: int, stream: OutgoingStream | None) -> ProtocolViolation:
    """PostgreSQL's words for a message that does not belong."""
    if stream is not None and stream.payload is WALPayload.DESIGN_2009:
        return ProtocolViolation(f"invalid standby closing message type {kind}")
    if phase in (SenderPhase.STREAMING, SenderPhase.DRAINING, SenderPhase.SHUTTING_DOWN):
        return ProtocolViolation(f'invalid standby message type "{chr(kind)}"')
    return ProtocolViolation(f"invalid frontend message type {kind}")
