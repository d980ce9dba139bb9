"""A client's way into a session: TLS if it wants that, who it says it is, and whether it is.

`Entering` has the conversation, from the first byte to AuthenticationOk; it reads from above to
below as it is spoken. Each step is a part of its own: TLS is `walstream.protocols.encrypting`'s,
the packets that have no type byte `walstream.protocols.welcome`'s, and what there is to be proved
the gate's (`walstream.gates`). When it is over, all that is left of it is a `Guest`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from walstream.errors import CommandError, ProtocolViolation
from walstream.gates import IExchange, IPermit, Step
from walstream.protocols.admission import too_many_clients
from walstream.protocols.applicant import applicant
from walstream.protocols.encrypting import Encrypting, begins_handshake
from walstream.protocols.phases import ENTRY_TRANSITIONS, EntryPhase, after
from walstream.protocols.serving import Serving
from walstream.protocols.session_log import SessionLog
from walstream.protocols.welcome import Client, Welcome
from walstream.wire.encryption import Encryption
from walstream.wire.frames import FrameReader, Frontend
from walstream.wire.messages import authentication_ok

__all__ = ["Entering", "Guest"]


@dataclass(frozen=True, slots=True)
class Guest:
    """A client that was let in.

    :ivar permit: what it may have. It has entered; who is its host sees to it that it leaves.
    :ivar encryption: the connection's TLS; None if it is not encrypted.
    :ivar greeting: what it is to be told, behind AuthenticationOk.
    :ivar key: by which it may cancel what it does: it is told that, too.
    :ivar unread: what it has sent already, behind its last word here.
    """

    client: Client
    permit: IPermit
    encryption: Encryption | None
    greeting: bytes
    key: bytes
    unread: bytes


class Entering:
    """Lets one client in, or not.

    It knows no time: its host has one deadline for all of it, and cancels what `begin` gave.

    :ivar phase: see `EntryPhase`.
    :param send: takes complete messages to the client.
    :param regulate: called when `listens` may have changed.
    :param log: is told who comes, and of what goes wrong with encryption.
    """

    def __init__(
        self,
        serving: Serving,
        pid: int,
        key: bytes,
        send: Callable[[bytes], None],
        regulate: Callable[[], None],
        log: SessionLog,
    ) -> None:
        self.phase = EntryPhase.STARTUP
        self._gate = serving.gate
        self._crowd = serving.limits.admission
        self._pid = pid
        self._send = send
        self._regulate = regulate
        self._log = log
        self._transport: Any = None
        self._encrypting = Encrypting(serving.tls, serving.limits.handshakes, regulate)
        self._welcome = Welcome(serving.provider, pid, key, serving.cancel)
        self._unread = bytearray()
        self._arrival: Deferred[None] | None = None
        self._handshake: Deferred[None] | None = None

    @property
    def listens(self) -> bool:
        """Whether anything of the client is wanted now. Nothing is while others think about it."""
        return self.phase is not EntryPhase.ADMITTING and not self._encrypting.is_waiting

    def begin(self, transport: Any) -> Deferred[Guest | None]:
        """Meet who is at the other end of *transport*; fires when it is in.

        With None if it is not, and all is in order: a CancelRequest is all that it came for.

        :raises CommandError: (in the Deferred) if it is turned away: `refusal` has the words.
        :raises ProtocolViolation: (in the Deferred) if it may speak any protocol: to be closed
            without a word.
        """
        self._transport = transport
        self._welcome.may_encrypt = self._encrypting.is_possible(transport)
        return Deferred.fromCoroutine(self._converse())

    def receive(self, data: bytes) -> None:
        """Take what the client sent."""
        self._unread += data
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.callback(None)

    def handshake_completed(self) -> None:
        """The connection is encrypted: what comes now comes from the client.

        If that is somebody else's doing, who has put the session on top of TLS, nobody waits.
        """
        self._welcome.encrypted()
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.callback(None)

    def connection_lost(self, reason: Failure) -> None:
        """The client has gone without having come in."""
        if self.phase is EntryPhase.ENCRYPTING and reason.value is not None:
            self._log.not_encrypted(self._encrypting.failure(self._transport, reason.value))

    def refusal(self, error: CommandError) -> bytes:
        """What a client that is turned away is told, in a form that it reads."""
        return self._welcome.refusal(error)

    # The conversation.

    async def _converse(self) -> Guest | None:
        client = await self._meet()
        if client is None:
            return None
        self._log.introduced(client)
        permit = await self._admit(client)
        welcome = self._welcome
        return Guest(
            client,
            permit,
            self._encrypting.encryption,
            welcome.greeting(),
            welcome.key,
            bytes(self._unread),
        )

    async def _meet(self) -> Client | None:
        """Who it says it is; None: nobody, but a CancelRequest has come."""
        first = await self._more()
        if begins_handshake(first) and self._welcome.may_encrypt:
            await self._encrypt(first)
        else:
            self._welcome.feed(first)
        while not self._welcome.is_over:
            answer = self._welcome.next()
            if answer is None:
                self._welcome.feed(await self._more())
                continue
            self._send(answer)
            if self._welcome.awaits_encryption:
                await self._encrypt()
        self._unread[:0] = self._welcome.take_rest()
        return self._welcome.client

    async def _encrypt(self, first: bytes = b"") -> None:
        """Go on encrypted.

        :param first: the beginning of the handshake, if the client has begun with that.
        """
        self._go_to(EntryPhase.ENCRYPTING)
        completed = self._handshake = Deferred()
        self._encrypting.start(self._transport, first)
        try:
            await completed
        finally:
            self._encrypting.stop()
        try:
            self._encrypting.finish(self._transport)
        except ProtocolViolation as error:
            self._log.not_encrypted(str(error))
            raise
        self._go_to(EntryPhase.STARTUP)

    async def _admit(self, client: Client) -> IPermit:
        """Find out whether it comes in, and tell it so."""
        self._go_to(EntryPhase.ADMITTING)
        permit, last_word = await self._prove(client)
        self._log.authenticated(permit.identity)
        # Before AuthenticationOk, as PostgreSQL; and who proves nothing takes nobody's place.
        if not self._crowd.enter(self._pid):
            raise too_many_clients(self._crowd.limit, self._welcome.server_version)
        self._send(last_word + authentication_ok())
        try:
            await permit.enter()
        except Exception:
            permit.leave()  # no place for it, or it is gone meanwhile
            raise
        return permit

    async def _prove(self, client: Client) -> tuple[IPermit, bytes]:
        """Have it prove who it is, if the gate asks for that; its permit, and what it is told."""
        asking = applicant(client, self._transport, self._encrypting.encryption)
        admission = await self._gate.admit(asking)
        if not IExchange.providedBy(admission):
            return admission, b""
        reader = FrameReader(partial(_longest, admission))
        step = Step(admission.begin())
        while step.permit is None:
            self._send(step.answer)
            step = await admission.take(await self._password(reader, asking.user))
        self._unread[:0] = reader.take_rest()
        return step.permit, step.answer

    async def _password(self, reader: FrameReader, user: str) -> bytes:
        """The body of its next message, which has to be a password message."""
        self._go_to(EntryPhase.AUTHENTICATING)
        try:
            while (message := reader.next()) is None:
                reader.feed(await self._more())
        except ProtocolViolation as error:
            # PostgreSQL gives no other answer to one that is too short or too long to be one.
            raise CommandError(
                "28P01",
                f'password authentication failed for user "{user}"',
                log_detail=str(error),
            ) from error
        self._go_to(after(ENTRY_TRANSITIONS, self.phase, message.kind))
        return message.body

    async def _more(self) -> bytes:
        """What has come, and was not read yet; waits for it if need be."""
        if not self._unread:
            self._arrival = Deferred()
            await self._arrival
        data = bytes(self._unread)
        self._unread.clear()
        return data

    def _go_to(self, phase: EntryPhase) -> None:
        self.phase = phase
        self._regulate()


def _longest(exchange: IExchange, kind: int) -> int:
    """The longest body, in bytes, that a client's message may have which is asked for something.

    :raises CommandError: for any other message, in PostgreSQL's words.
    """
    if kind != Frontend.PASSWORD:
        raise CommandError("08P01", f"expected {exchange.expects}, got message type {kind}")
    return exchange.longest
