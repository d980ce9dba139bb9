"""A client's session with a walsender: lets it in, and takes its messages one at a time.

What a sender is built on, as a receiver is on `walstream.protocols.client`. It knows when a message
is wanted and which may come; what a command does, and how WAL is streamed, is the sender's.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.errors import CommandError, ProtocolViolation, WALUnavailable
from walstream.formats.log_text import printable
from walstream.formats.lsn import LSN
from walstream.interfaces import IGate, IPermit, IWALProvider
from walstream.protocols.applicant import applicant
from walstream.protocols.encrypting import Encrypting, TLSServer
from walstream.protocols.entrance import Entrance
from walstream.protocols.limits import Limits
from walstream.protocols.line import Line
from walstream.protocols.patience import Patience
from walstream.protocols.phases import SENDER_TRANSITIONS, SenderPhase, after
from walstream.protocols.settings import SenderSettings
from walstream.protocols.welcome import Client, Welcome
from walstream.wire import messages
from walstream.wire.copydata import UnknownStandbyMessage
from walstream.wire.encryption import Encryption
from walstream.wire.frames import Frame, FrameReader, Frontend, frontend_limit

__all__ = ["Session"]

_STREAMS = frozenset(
    {
        SenderPhase.STREAMING,
        SenderPhase.STREAMING_2009,
        SenderPhase.DRAINING,
        SenderPhase.SHUTTING_DOWN,
    }
)
# No message is taken while something is done for the last one.
_BUSY = frozenset({SenderPhase.ADMITTING, SenderPhase.ANSWERING, SenderPhase.CLOSED})


@implementer(IPushProducer, IHandshakeListener)
class Session(Line):
    """One client's session.

    It is its transport's push producer from the first byte to the last. Outside of a stream no
    further command is taken while the transport has enough, or while a command is answered: so a
    client that asks without end and never reads has to wait, with what it sends, for itself.

    :ivar phase: see `SenderPhase`.
    :ivar pid: the session's number, as the client learns it from BackendKeyData.
    :ivar client: who it is; None until it was let in.
    :param cancel: called with a pid and a key that a CancelRequest names.
    :param limits: what the sessions share, of which this one takes its part.
    :param gate: decides whether the client comes in.
    :param tls: how connections are encrypted; None if they are not.
    """

    _log = Logger()

    def __init__(
        self,
        provider: IWALProvider,
        settings: SenderSettings,
        clock: IReactorTime,
        pid: int,
        key: bytes,
        cancel: Callable[[int, bytes], None],
        limits: Limits,
        gate: IGate,
        tls: TLSServer | None = None,
    ) -> None:
        super().__init__(clock, settings.close_timeout)
        self.phase = SenderPhase.STARTUP
        self.pid = pid
        self.key = key
        self.client: Client | None = None
        self.output_full = False
        self._startup_timeout = settings.startup_timeout
        self._limits = limits
        self._encrypting = Encrypting(tls)
        self._welcome = Welcome(provider, pid, key, cancel)
        self._entrance = Entrance(gate, limits.admission, pid, self.send, self._proved)
        self._entering: Deferred[None] | None = None
        self._is_refused = False
        self._reader = FrameReader(self._authentication_limit)
        self._patience = Patience(clock, settings.message_timeout, self.abort)
        self._is_taking = False
        self._origin = "[unknown]"
        self._since = 0.0

    @property
    def encryption(self) -> Encryption | None:
        """The connection's TLS; None if it is not encrypted."""
        return self._encrypting.encryption

    # What Twisted calls.

    def connectionMade(self) -> None:
        """A client has connected, and has a while to say who it is."""
        address = self.peer_address()
        self._origin = "host=[local]" if address is None else "host={} port={}".format(*address)
        self._since = self._clock.seconds()
        self.open(self._startup_timeout)
        self._welcome.may_encrypt = self._encrypting.is_possible(self.transport)
        self._limits.strangers.enter(self.pid, self._crowd_out)

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sent."""
        if self.phase is SenderPhase.STARTUP:
            if self._encrypting.begins(data) and self._welcome.may_encrypt:
                self._encrypting.start(self.transport, data)
            else:
                self._start_up(data)
        elif self.phase is not SenderPhase.CLOSED:
            self._reader.feed(data)
            self._take_frames()

    def handshakeCompleted(self) -> None:
        """The connection is encrypted."""
        try:
            self._encrypting.finish(self.transport)
        except ProtocolViolation as error:
            self._log_no_encryption(str(error))
            self.close(str(error))
            return
        self._welcome.encrypted()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        if self.phase is SenderPhase.STARTUP:
            why = self._encrypting.failure(self.transport, reason)
            if why is not None:
                self._log_no_encryption(why)
        super().connectionLost(reason)
        self.phase = SenderPhase.CLOSED
        self._leave()
        self._limits.admission.leave(self.pid)
        self._log_end()

    def _log_end(self) -> None:
        if self.client is not None:
            self._log.info(
                "replication connection {pid} ended: {client} {origin}: {reason}; "
                "session time {duration}{progress}",
                pid=self.pid,
                client=str(self.client),
                origin=self._origin,
                reason=printable(self.close_reason),
                duration=_session_time(self._clock.seconds() - self._since),
                progress=self.progress(),
            )
        elif self._welcome.client is not None and not self._is_refused:
            self._log.info(
                "replication connection {pid} did not come in: {client} {origin}: {reason}",
                pid=self.pid,
                client=str(self._welcome.client),
                origin=self._origin,
                reason=printable(self.close_reason),
            )

    # What the transport calls: IPushProducer.

    def pauseProducing(self) -> None:
        """The transport has enough. A stream still hears its client."""
        self.output_full = True
        if self.phase not in _STREAMS:
            self.pause_reading()
            self._wait(anew=False)

    def resumeProducing(self) -> None:
        """The transport takes more."""
        self.output_full = False
        self._take_frames()

    def stopProducing(self) -> None:
        """The transport is gone; `connectionLost` follows."""

    # Startup.

    def _start_up(self, data: bytes) -> None:
        self._welcome.feed(data)
        try:
            while (answer := self._welcome.next()) is not None:
                self.send(answer)
            if self._welcome.awaits_encryption:
                self._encrypting.start(self.transport)
                return
        except CommandError as error:
            self._turn_away(error)
            return
        except ProtocolViolation as error:
            self.close(str(error))  # it may speak any protocol: there is no answer
            return
        if self._welcome.finished:
            self.close("cancel request")
        elif self._welcome.client is not None:
            self._reader.feed(self._welcome.take_rest())
            self._admit(self._ask(self._welcome.client))

    def _crowd_out(self) -> None:
        self.abort("too many connections have not said who they are")

    def _log_no_encryption(self, why: str) -> None:
        self._log.warn(
            "replication connection {pid}: could not accept SSL connection: {origin}: {reason}",
            pid=self.pid,
            origin=self._origin,
            reason=printable(why),
        )

    def _turn_away(self, error: CommandError) -> None:
        client = f"{self._welcome.client} " if self._welcome.client is not None else ""
        detail = f": {error.log_detail}" if error.log_detail else ""
        self._log.warn(
            "replication connection {pid} refused: {client}{origin}: {reason}{detail}",
            pid=self.pid,
            client=client,
            origin=self._origin,
            reason=printable(error.message),
            detail=printable(detail),
        )
        self._is_refused = True
        legacy = self._welcome.legacy_refusal(error)
        if legacy is None:
            self.fatal(error)
        else:
            self.send(legacy)
            self.close(error.message)

    # Authentication.

    async def _ask(self, client: Client) -> bool:
        version = self._welcome.server_version
        applying = applicant(client, self.transport, self.encryption)
        return await self._entrance.ask(applying, version)

    def _admit(self, work: Coroutine[Deferred[Any], Any, bool]) -> None:
        """Go on when it is known whether the client comes in; it has to wait so long."""
        self.phase = SenderPhase.ADMITTING
        entering = Deferred.fromCoroutine(work).addCallbacks(self._admitted, self._not_admitted)
        self._entering = entering.addErrback(self.fail)
        if self.phase is SenderPhase.ADMITTING:
            self.pause_reading()

    def _admitted(self, is_in: bool) -> None:
        if self.phase is SenderPhase.CLOSED:
            return
        if is_in:
            assert self._welcome.client is not None, "it has said who it is"
            self._let_in(self._welcome.client)
        else:
            self.phase = SenderPhase.AUTHENTICATING
        self._take_frames()

    def _not_admitted(self, failure: Failure) -> Failure | None:
        if self.phase is SenderPhase.CLOSED:
            return None  # it is gone, and what was done for it was cancelled
        if not isinstance(failure.value, CommandError):
            return failure
        self._turn_away(failure.value)
        return None

    def _proved(self, permit: IPermit) -> None:
        if permit.identity is not None:
            self._log.info(
                "replication connection {pid}: connection authenticated: {identity}",
                pid=self.pid,
                identity=permit.identity,
            )

    def _authentication_limit(self, kind: int) -> int:
        """How long a message may be until the client is in."""
        if kind != Frontend.PASSWORD:
            raise CommandError(
                "08P01", f"expected {self._entrance.expects}, got message type {kind}"
            )
        return self._entrance.longest

    def _no_password(self, error: ProtocolViolation) -> CommandError:
        """What PostgreSQL says of a message that is too long or too short to be an answer."""
        assert self._welcome.client is not None, "it has said who it is"
        message = f'password authentication failed for user "{self._welcome.client.user}"'
        return CommandError("28P01", message, log_detail=str(error))

    def _let_in(self, client: Client) -> None:
        self.client = client
        self._limits.strangers.leave(self.pid)
        self.let_in()
        self._reader.limit = frontend_limit
        self.phase = SenderPhase.READY
        self._log.info(
            "replication connection {pid} authorized: {client}{encryption} {origin}",
            pid=self.pid,
            client=str(client),
            encryption=f" {self.encryption}" if self.encryption is not None else "",
            origin=self._origin,
        )
        self.send(self._welcome.greeting())

    def check_stream(self, timeline: int, start: LSN) -> None:
        """The client asks for WAL.

        :raises CommandError: if it may not have that.
        """
        assert self._entrance.permit is not None, "only who was let in can ask for a stream"
        self._entrance.permit.check_stream(timeline, start)

    def _leave(self) -> None:
        """Nothing is done for the client any more, nor waited for, nor counted."""
        self._patience.stop()
        self._limits.strangers.leave(self.pid)
        if self._entering is not None:
            self._entering.cancel()
        self._entrance.leave()

    # Messages.

    def _take_frames(self) -> None:
        """Handle what has arrived, as far as it is wanted now; read on if more is."""
        if self._is_taking:
            return  # called from within: the loop below goes on
        self._is_taking = True
        has_taken = False
        try:
            while self._wants_more() and (frame := self._next()) is not None:
                has_taken = True
                self._handle(frame)
        except UnknownStandbyMessage as error:
            self.close(str(error))  # without a word to the client, as PostgreSQL
        except CommandError as error:
            self._turn_away(error)
        except ProtocolViolation as error:
            if self.phase is SenderPhase.AUTHENTICATING:
                self._turn_away(self._no_password(error))
            else:
                self.fatal(CommandError(error.sqlstate, str(error)))
        finally:
            self._is_taking = False
        if self._wants_more():
            self.resume_reading()
        elif self.phase is not SenderPhase.CLOSED:
            self.pause_reading()
        self._wait(anew=has_taken)

    def _next(self) -> Frame | None:
        try:
            return self._reader.next()
        except ProtocolViolation as error:
            if self.phase is SenderPhase.AUTHENTICATING:
                raise
            self.close(str(error))  # a length that there cannot be: no answer, as PostgreSQL
            return None

    def _wait(self, *, anew: bool) -> None:
        """Have patience with a client that is in the middle of something, but not for ever."""
        owed = None
        if self._wants_more():
            owed = "a message" if self._reader.has_begun else None
        elif self.output_full and self.phase is not SenderPhase.CLOSED:
            owed = "reading an answer"
        self._patience.wait_for(owed, anew=anew)

    def _wants_more(self) -> bool:
        if self.phase in _BUSY:
            return False
        return self.phase in _STREAMS or not self.output_full

    def _handle(self, frame: Frame) -> None:
        before, kind = self.phase, chr(frame.kind)
        try:
            self.phase = after(SENDER_TRANSITIONS, before, frame.kind)
        except ProtocolViolation as error:
            raise _violation(before, frame.kind) from error
        if self.phase is SenderPhase.CLOSED:
            self.close(self.close_reason)
        elif self.phase is SenderPhase.ADMITTING:
            self._admit(self._entrance.prove(frame.body))
        elif kind == "Q" and self.phase is SenderPhase.ANSWERING:
            self._do(self._query(frame.body))
        elif kind == "c" and self.phase is SenderPhase.ANSWERING:
            self._do(self.answer_copy_done())
        elif kind == "d" and self.phase in _STREAMS:
            self.take_copy_data(frame.body)
        elif before is SenderPhase.READY and self.phase is SenderPhase.SKIPPING:
            self._refuse_extended("extended query protocol")
        elif kind == "F" and self.phase is SenderPhase.READY:
            self._refuse_extended("fastpath function calls")
            self.send(messages.ready_for_query())
        elif kind == "S":
            self.send(messages.ready_for_query())

    def _refuse_extended(self, what: str) -> None:
        self.command_failed()
        refusal = f"{what} not supported in a replication connection"
        self.send(messages.error_response("ERROR", "08P01", refusal))

    async def _query(self, body: bytes) -> None:
        try:
            text = messages.parse_query(body)
        except ProtocolViolation as error:
            raise CommandError(error.sqlstate, str(error)) from error
        await self.execute(text)

    def _do(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do the work of a command; no further message is taken until it is done."""
        done = Deferred.fromCoroutine(work)
        done.addErrback(self.refuse)
        done.addCallback(lambda _: self._take_frames())
        done.addErrback(self.fail)

    # What a subclass does, and what it does it with.

    async def execute(self, text: bytes) -> None:
        """Execute a command, and leave `SenderPhase.ANSWERING`."""
        raise NotImplementedError

    async def answer_copy_done(self) -> None:
        """The client has ended its half of a stream: answer, and `become_ready`."""
        raise NotImplementedError

    def take_copy_data(self, payload: bytes) -> None:
        """Take what the client sends to a stream."""
        raise NotImplementedError

    def progress(self) -> str:
        """What the log says of the session when it is over, besides: it follows a figure."""
        return ""

    def command_failed(self) -> None:
        """The client is about to be shown an error, after which the session goes on."""

    def become_ready(self) -> None:
        """The command is done, in whatever way: the next one may come."""
        if self.phase is SenderPhase.CLOSED:
            return
        self.phase = SenderPhase.READY
        if self.output_full:
            self.pause_reading()  # a stream, which has just ended, goes on reading then

    def refuse(self, failure: Failure) -> Failure | None:
        """Show the client why its command failed; the session goes on."""
        error = failure.value
        if isinstance(error, WALUnavailable):
            error = CommandError(
                "58P01",
                f"requested WAL segment {error.segment} has already been removed",
                detail=_why(error),
            )
        if not isinstance(error, CommandError):
            return failure
        self.command_failed()
        self.send(_error_response("ERROR", error) + messages.ready_for_query())
        self.become_ready()
        return None

    def fail(self, failure: Failure) -> None:
        """A fault of ours, or of the provider's: the log has it, the client a bland word."""
        self._log.failure("replication connection {pid} failed", failure, pid=self.pid)
        self.fatal(CommandError("XX000", "internal error; see the log of walstream"))

    def fatal(self, error: CommandError) -> None:
        """Show the client an error that ends the session, and close."""
        if self.phase is not SenderPhase.CLOSED:
            self.send(_error_response("FATAL", error))
            self.close(error.message)

    def close(self, reason: str) -> None:
        """Let what was written out, then close."""
        self.phase = SenderPhase.CLOSED
        self._leave()
        super().close(reason)

    def abort(self, reason: str) -> None:
        """Close at once."""
        self.phase = SenderPhase.CLOSED
        self._leave()
        super().abort(reason)


def _session_time(seconds: float) -> str:
    """As PostgreSQL's ``log_disconnections`` words it."""
    minutes, rest = divmod(max(0.0, seconds), 60)
    return f"{int(minutes) // 60}:{int(minutes) % 60:02}:{rest:06.3f}"


def _why(error: WALUnavailable) -> str | None:
    if error.gap is not None:
        return f"The archive has a gap {error.gap}."
    if error.reason is not None:
        return f"The archive has a file of it, which cannot be served: {error.reason}."
    return None


def _error_response(severity: str, error: CommandError) -> bytes:
    return messages.error_response(
        severity, error.sqlstate, error.message, detail=error.detail, hint=error.hint
    )


def _violation(phase: SenderPhase, kind: int) -> ProtocolViolation:
    """PostgreSQL's words for a message that does not belong."""
    if phase is SenderPhase.STREAMING_2009:
        return ProtocolViolation(f"invalid standby closing message type {kind}")
    if phase in _STREAMS:
        return ProtocolViolation(f'invalid standby message type "{chr(kind)}"')
    return ProtocolViolation(f"invalid frontend message type {kind}")
