"""A client of a walsender: logs in, asks, and is answered. What a receiver is built on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.errors import Disconnected, ProtocolViolation, ServerError, WalstreamError
from walstream.protocols.login import Login
from walstream.protocols.phases import RECEIVER_TRANSITIONS, ReceiverPhase, after
from walstream.protocols.questions import Answer
from walstream.protocols.told import ToldByServer
from walstream.protocols.unix_peer import peer_check
from walstream.wire import messages
from walstream.wire.authentication import PasswordExchange
from walstream.wire.encryption import Encryption, openssl_words
from walstream.wire.frames import Frame, FrameReader, backend_limit, greeting_limit
from walstream.wire.messages import AuthenticationCode
from walstream.wire.startup import startup_message

__all__ = ["ReplicationClient"]

_T = TypeVar("_T")

# All answers in replication are one row: more shows a mistake, and must not fill the memory.
_MOST_ROWS = 10


class ReplicationClient(Protocol):
    """Logs in to a server in replication mode and asks it one query at a time.

    :ivar phase: see `ReceiverPhase`.
    :ivar encryption: the connection's TLS; None if it is not encrypted.
    :ivar was_let_in: the server has believed who we are, whatever it said then.
    """

    _log = Logger()

    def __init__(self, login: Login) -> None:
        self.phase = ReceiverPhase.AUTHENTICATING
        self.encryption: Encryption | None = None
        self.was_let_in = False
        self._told = ToldByServer()
        self._login = login
        self._exchange = PasswordExchange(login.user, login.password, login.demands)
        self._is_held = False
        self._reader = FrameReader(greeting_limit)
        self._answer = Answer()
        self._error: ServerError | None = None
        self._answered: Deferred[Answer] | None = None
        self._login_waiters: list[Deferred[Mapping[str, str]]] = []
        self._lost: WalstreamError | None = None

    # What a subclass and a service ask for.

    def encrypted(self, encryption: Encryption, *, verified: bool) -> None:
        """The connection is encrypted. To be told before it is made.

        :param verified: whether it is known whose certificate the server has.
        """
        self.encryption = encryption
        self._exchange.over_tls(encryption.end_point, verified=verified)

    @property
    def parameters(self) -> Mapping[str, str]:
        """The server's ParameterStatus values, by name."""
        return self._told.parameters

    @property
    def weakness(self) -> str | None:
        """What the user should know of how the password was sent; None: nothing."""
        return self._exchange.weakness

    def logged_in(self) -> Deferred[Mapping[str, str]]:
        """Wait until the server lets us in; fires with its parameters.

        :raises ServerError: (in the Deferred) when it does not.
        """
        if self._lost is not None:
            return fail(self._lost)
        if self.phase not in (ReceiverPhase.AUTHENTICATING, ReceiverPhase.STARTING):
            return succeed(self.parameters)
        waiter: Deferred[Mapping[str, str]] = Deferred(self._login_waiters.remove)
        self._login_waiters.append(waiter)
        return waiter

    def query(self, text: str) -> Deferred[Answer]:
        """Ask one simple query; nothing else may be outstanding.

        :raises ServerError: (in the Deferred) when the answer is an ErrorResponse.
        :raises Disconnected: (in the Deferred) when the connection ends first.
        """
        if self._lost is not None:
            return fail(self._lost)
        if self.phase is not ReceiverPhase.READY:
            raise RuntimeError(f"query while {self.phase.value}")
        self.phase = ReceiverPhase.QUERYING
        self.send(messages.query(text))
        return self.expect_answer()

    def in_thread(self, job: Callable[[], _T]) -> Deferred[_T]:
        """Have work done that takes long: a server may make a login take half a second."""
        return deferToThread(job)

    def send(self, data: bytes) -> None:
        """Write to the server."""
        if self.transport is not None:
            self.transport.write(data)

    def close(self, reason: WalstreamError) -> None:
        """End the connection in order: Terminate, then close. Whoever waits learns *reason*."""
        if self.phase is ReceiverPhase.CLOSED:
            return
        if self._is_held:
            self.abort(reason)  # a transport that does not read may not notice its end
            return
        self.phase = ReceiverPhase.CLOSED
        self.send(messages.terminate())
        if self.transport is not None:
            self.transport.loseConnection()
        self._lose(reason)

    def abort(self, reason: WalstreamError) -> None:
        """End the connection at once, whatever is outstanding."""
        self.phase = ReceiverPhase.CLOSED
        transport: Any = self.transport  # ITransport does not say that it can be aborted
        if transport is not None:
            transport.abortConnection()
        self._lose(reason)

    # What Twisted calls.

    def connectionMade(self) -> None:
        """Send the startup packet, to whom it is for."""
        transport: Any = self.transport
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        try:
            check = peer_check(transport, self._login.demands.peer)
        except WalstreamError as error:
            self.abort(error)
            return
        if check is None:
            self._say_who_we_are(None)
        else:
            self._hold(check, self._say_who_we_are)

    def dataReceived(self, data: bytes) -> None:
        """Take what the server sent; a violation of the protocol ends the connection."""
        self.receive(memoryview(data))

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The connection is gone: whoever waits learns it."""
        self.phase = ReceiverPhase.CLOSED
        text = "the server closed the connection"
        if reason is not None and not reason.check(ConnectionDone):
            text = openssl_words(reason.value).rstrip(".")
        self._lose(self._error or Disconnected(text))

    def _say_who_we_are(self, _: None) -> None:
        self.send(startup_message(self._login.startup_parameters()))

    # Having a thread do what takes long.

    def _hold(self, job: Callable[[], _T], go_on: Callable[[_T], None]) -> None:
        """Have *job* done, and *go_on* with its result; if it fails, the connection is over.

        What comes meanwhile is handled after that. It is not read either, lest it pile up.
        """
        transport: Any = self.transport
        transport.pauseProducing()
        self._is_held = True
        self.in_thread(job).addBoth(self._let_go_on, go_on)

    def _let_go_on(self, result: _T | Failure, go_on: Callable[[_T], None]) -> None:
        self._is_held = False
        if self.phase is ReceiverPhase.CLOSED:
            return
        if isinstance(result, Failure):
            if not isinstance(result.value, WalstreamError):
                self._log.failure("the login failed", result)
            error = result.value
            self.abort(error if isinstance(error, WalstreamError) else Disconnected(str(error)))
            return
        go_on(result)
        transport: Any = self.transport
        transport.resumeProducing()
        self.receive(memoryview(b""))

    # Taking messages.

    def receive(self, data: memoryview) -> None:
        """As `dataReceived`, from any buffer."""
        try:
            self._reader.feed(data)
            self.take_frames()
        except WalstreamError as error:
            self.abort(error)

    def take_frames(self) -> None:
        """Handle the whole messages that have arrived, while they are ours to handle."""
        while self.reads_frames() and (frame := self._reader.next()) is not None:
            self.handle(frame)

    def reads_frames(self) -> bool:
        """Whether messages are to be handled one by one; a stream has its own reader."""
        return self.phase is not ReceiverPhase.CLOSED and not self._is_held

    def handle(self, frame: Frame) -> None:
        """Handle one message.

        :raises ProtocolViolation: if it is not allowed now.
        """
        self.phase = after(RECEIVER_TRANSITIONS, self.phase, frame.kind)
        match chr(frame.kind):
            case "R":
                self._authenticate(frame.body)
            case "S":
                self._told.parameter(*messages.parse_parameter_status(frame.body))
            case "N":
                self._told.notice(frame.body)
            case "T":
                self._answer.columns = messages.parse_row_description(frame.body)
            case "D":
                self._take_row(messages.parse_data_row(frame.body))
            case "W" | "H":
                self._answer.streams = True
                self._complete()
            case "E":
                self._error = messages.parse_error(frame.body)
                if self.phase is ReceiverPhase.CLOSED:
                    raise self._error
            case "Z":
                self._complete()

    def _take_row(self, row: list[bytes | None]) -> None:
        self._answer.rows.append(row)
        if len(self._answer.rows) > _MOST_ROWS:
            raise ProtocolViolation(f"more than {_MOST_ROWS} rows in answer to a question for one")

    def _authenticate(self, body: bytes) -> None:
        code, data = messages.parse_authentication(body)
        if not self._exchange.is_laborious(code, data):
            self._answer_authentication(code, self._exchange.respond(code, data))
            return
        self._hold(
            partial(self._exchange.respond, code, data),
            partial(self._answer_authentication, code),
        )

    def _answer_authentication(self, code: int, answer: bytes | None) -> None:
        if answer is not None:
            self.send(answer)
        if code == AuthenticationCode.OK:
            self.was_let_in = True
            self.phase = ReceiverPhase.STARTING
            # Only from now on are long messages believed.
            self._reader.limit = backend_limit

    def expect_answer(self) -> Deferred[Answer]:
        """Wait for the next ReadyForQuery, or the next stream; fires with what came before it."""
        self._answer, self._error = Answer(), None
        self._answered = Deferred()
        return self._answered

    def _complete(self) -> None:
        """ReadyForQuery, or a stream's beginning: whoever waits goes on."""
        # Those who wait may ask the next question at once: that one has no answer yet.
        answered, self._answered = self._answered, None
        while self._login_waiters:
            self._login_waiters.pop(0).callback(self.parameters)
        if answered is not None:
            if self._error is not None:
                error, self._error = self._error, None
                answered.errback(error)
            else:
                answered.callback(self._answer)

    def _lose(self, reason: WalstreamError) -> None:
        """Tell everyone who waits that the connection is over; the first reason counts."""
        if self._lost is not None:
            return
        self._lost = reason
        while self._login_waiters:
            self._login_waiters.pop(0).errback(reason)
        if self._answered is not None:
            answered, self._answered = self._answered, None
            answered.errback(reason)
        self.connection_over(reason)

    def connection_over(self, reason: WalstreamError) -> None:
        """For subclasses: the connection has ended, because of *reason*."""
