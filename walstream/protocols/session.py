"""A client's session with a walsender: lets it in, and takes its messages one at a time.

What a sender is built on, as a receiver is on `walstream.protocols.client`. It knows when a message
is wanted and which may come; what a command does, and how WAL is streamed, is the sender's. How the
client comes in is `walstream.protocols.entering`'s, of which nothing is left then.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from walstream.errors import CommandError, ProtocolViolation
from walstream.formats.lsn import LSN
from walstream.interfaces import IPermit
from walstream.protocols.entering import Entering, Guest
from walstream.protocols.error_words import as_command_error, error_response, not_allowed
from walstream.protocols.line import Line
from walstream.protocols.patience import Patience
from walstream.protocols.phases import SENDER_TRANSITIONS, SenderPhase, after
from walstream.protocols.serving import Serving
from walstream.protocols.session_log import SessionLog
from walstream.protocols.welcome import Client
from walstream.wire import messages
from walstream.wire.copydata import UnknownStandbyMessage
from walstream.wire.encryption import Encryption
from walstream.wire.frames import Frame, FrameReader, frontend_limit

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
_BUSY = frozenset({SenderPhase.ANSWERING, SenderPhase.CLOSED})


@implementer(IPushProducer, IHandshakeListener)
class Session(Line):
    """One client's session.

    It is its transport's push producer from the first byte to the last. Outside of a stream no
    further command is taken while the transport has enough, or while a command is answered: so a
    client that asks without end and never reads has to wait, with what it sends, for itself.

    :ivar phase: see `SenderPhase`.
    :ivar pid: the session's number, as the client learns it from BackendKeyData.
    :ivar key: what a CancelRequest has to know; None until the client was told.
    :ivar entering: the client's way in; None once it is in.
    :ivar client: who it is; None until it was let in.
    :ivar encryption: the connection's TLS; None until then, and if it is not encrypted.
    """

    _log = Logger()

    def __init__(self, serving: Serving, pid: int, key: bytes) -> None:
        super().__init__(serving.clock, serving.settings.close_timeout)
        self.phase = SenderPhase.ENTERING
        self.pid = pid
        self.key: bytes | None = None
        self.client: Client | None = None
        self.encryption: Encryption | None = None
        self.output_full = False
        self._serving = serving
        self._lines = SessionLog(pid, serving.clock)
        self.entering: Entering | None = Entering(
            serving, pid, key, self.send, self._regulate, self._lines
        )
        self._entry: Deferred[None] | None = None
        self._permit: IPermit | None = None
        self._reader = FrameReader(frontend_limit)
        self._patience = Patience(serving.clock, serving.settings.message_timeout, self.abort)
        self._is_taking = False

    # What Twisted calls.

    def connectionMade(self) -> None:
        """A client has connected, and has a while to come in."""
        try:
            self._meet()
        except Exception:
            # It is this client's alone: who has handed it over serves others, too.
            self.fail(Failure())

    def _meet(self) -> None:
        address = self.peer_address()
        self._lines.connected(address)
        self.open(self._serving.settings.startup_timeout)
        host = None if address is None else address[0]
        self._serving.limits.strangers.enter(self.pid, host, self._crowd_out)
        assert self.entering is not None, "a connection is made once"
        entry = self.entering.begin(self.transport).addCallbacks(self._let_in, self._turn_away)
        self._entry = entry.addErrback(self.fail)

    def dataReceived(self, data: bytes) -> None:
        """Take what the client sent."""
        if self.phase is SenderPhase.CLOSED:
            return
        if self.entering is not None:
            self.entering.receive(data)
        else:
            self._reader.feed(data)
            self._take_frames()

    def handshakeCompleted(self) -> None:
        """The connection is encrypted."""
        if self.entering is not None and self.phase is not SenderPhase.CLOSED:
            self.entering.handshake_completed()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        if self.entering is not None and self.phase is not SenderPhase.CLOSED:
            self.entering.connection_lost(reason)
        super().connectionLost(reason)
        self.phase = SenderPhase.CLOSED
        self._leave()
        self._serving.limits.admission.leave(self.pid)
        self._lines.ended(self.close_reason, self.progress())

    # What the transport calls: IPushProducer.

    def pauseProducing(self) -> None:
        """The transport has enough. A stream still hears its client."""
        self.output_full = True
        if self.phase not in _STREAMS:
            self._regulate()

    def resumeProducing(self) -> None:
        """The transport takes more."""
        self.output_full = False
        self._take_frames()

    def stopProducing(self) -> None:
        """The transport is gone; `connectionLost` follows."""

    # Coming in, and leaving.

    def _let_in(self, guest: Guest | None) -> None:
        if guest is None:
            self.close("cancel request")
            return
        if self.phase is SenderPhase.CLOSED:
            guest.permit.leave()  # somebody did not mind being cancelled
            return
        self.entering = None
        self.client, self.encryption = guest.client, guest.encryption
        self._permit, self.key = guest.permit, guest.key
        self._serving.limits.strangers.leave(self.pid)
        self.let_in()
        self.phase = SenderPhase.READY
        self._lines.authorized(self.encryption)
        self.send(guest.greeting)
        self._reader.feed(guest.unread)
        self._take_frames()

    def _turn_away(self, failure: Failure) -> Failure | None:
        """The client does not come in; the failure, if that is no fault of the client's."""
        error = failure.value
        if self.phase is SenderPhase.CLOSED:
            return None  # it is gone, and what was done for it was cancelled
        if isinstance(error, CommandError):
            self._lines.refused(error)
            assert self.entering is not None, "it is not in"
            self.send(self.entering.refusal(error))
            self.close(error.message)
        elif isinstance(error, ProtocolViolation):
            self.close(str(error))  # it may speak any protocol: there is no answer
        else:
            return failure
        return None

    def _crowd_out(self) -> None:
        self.abort("too many connections have not said who they are")

    def check_stream(self, timeline: int, start: LSN) -> None:
        """The client asks for WAL.

        :raises CommandError: if it may not have that.
        """
        assert self._permit is not None, "only who was let in can ask for a stream"
        self._permit.check_stream(timeline, start)

    def _leave(self) -> None:
        """Nothing is done for the client any more, nor waited for, nor counted."""
        self._patience.stop()
        self._serving.limits.strangers.leave(self.pid)
        if self._entry is not None:
            self._entry.cancel()
        if self._permit is not None:
            self._permit.leave()

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
        except ProtocolViolation as error:
            self.fatal(CommandError(error.sqlstate, str(error)))
        finally:
            self._is_taking = False
        self._regulate(anew=has_taken)

    def _next(self) -> Frame | None:
        try:
            return self._reader.next()
        except ProtocolViolation as error:
            self.close(str(error))  # a length that there cannot be: no answer, as PostgreSQL
            return None

    def _wants_more(self) -> bool:
        """Whether anything of the client is wanted now."""
        if self.phase in _BUSY:
            return False
        if self.entering is not None and not self.entering.listens:
            return False
        return self.phase in _STREAMS or not self.output_full

    def _regulate(self, *, anew: bool = False) -> None:
        """Read what is wanted, and no more; and have patience with what is owed, not for ever.

        :param anew: a whole message has come: if another is begun already, that has its own time.
        """
        if self.phase is SenderPhase.CLOSED:
            return
        owed = None
        if self._wants_more():
            self.resume_reading()
            owed = "a message" if self._reader.has_begun else None
        else:
            self.pause_reading()
            owed = "reading an answer" if self.output_full else None
        self._patience.wait_for(owed, anew=anew)

    def _handle(self, frame: Frame) -> None:
        before, kind = self.phase, chr(frame.kind)
        try:
            self.phase = after(SENDER_TRANSITIONS, before, frame.kind)
        except ProtocolViolation as error:
            raise not_allowed(before, frame.kind) from error
        match kind, self.phase:
            case _, SenderPhase.CLOSED:
                self.close(self.close_reason)
            case "Q", SenderPhase.ANSWERING:
                self._do(self._query(frame.body))
            case "c", SenderPhase.ANSWERING:
                self._do(self.answer_copy_done())
            case "d", phase if phase in _STREAMS:
                self.take_copy_data(frame.body)
            case "S", SenderPhase.READY:
                self.send(messages.ready_for_query())
            case "F", SenderPhase.READY:
                self._refuse_extended("fastpath function calls")
                self.send(messages.ready_for_query())
            case _, SenderPhase.SKIPPING if before is SenderPhase.READY:
                self._refuse_extended("extended query protocol")

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
            self._regulate()  # a stream, which has just ended, goes on reading then

    def refuse(self, failure: Failure) -> Failure | None:
        """Show the client why its command failed; the session goes on."""
        error = as_command_error(failure.value)
        if error is None:
            return failure
        self.command_failed()
        self.send(error_response("ERROR", error) + messages.ready_for_query())
        self.become_ready()
        return None

    def fail(self, failure: Failure) -> None:
        """A fault of ours, or of the provider's: the log has it, the client a bland word."""
        self._log.failure("replication connection {pid} failed", failure, pid=self.pid)
        self.fatal(CommandError("XX000", "internal error; see the log of walstream"))

    def fatal(self, error: CommandError) -> None:
        """Show the client an error that ends the session, and close."""
        if self.phase is not SenderPhase.CLOSED:
            self.send(error_response("FATAL", error))
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
