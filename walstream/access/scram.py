"""SCRAM-SHA-256 as an exchange of messages with one client: `IExchange`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from zope.interface import implementer

from walstream.errors import CommandError, ProtocolViolation
from walstream.gates import IExchange, IPermit, Step
from walstream.wire import messages
from walstream.wire.fields import FieldReader, text
from walstream.wire.scram_server import LONGEST_SCRAM_MESSAGE, ScramServerExchange

__all__ = ["ScramExchange"]

_LENGTH_SIZE: Final = 4  # of a message's length, which PostgreSQL's limit includes


@implementer(IExchange)
class ScramExchange:
    """Asks one client for its password.

    :param server: the computations.
    :param settle: called with the verdict: a refusal, or None. What it answers with is the permit;
        it may take its time.
    """

    longest = LONGEST_SCRAM_MESSAGE - _LENGTH_SIZE
    expects = "SASL response"

    def __init__(
        self,
        server: ScramServerExchange,
        settle: Callable[[CommandError | None], Deferred[IPermit]],
    ) -> None:
        self._server = server
        self._settle = settle
        self._mechanism: str | None = None
        self._has_begun = False

    def begin(self) -> bytes:
        """See `IExchange.begin`."""
        return messages.authentication_sasl(self._server.mechanisms)

    def take(self, body: bytes) -> Deferred[Step]:
        """See `IExchange.take`."""
        return Deferred.fromCoroutine(self._take(body))

    async def _take(self, body: bytes) -> Step:
        try:
            if not self._has_begun:
                return self._first(body)
            answer = self._server.finish(body)
        except CommandError as error:
            await self._settle(error)
            raise
        permit = await self._settle(None)
        return Step(messages.authentication_sasl_final(answer), permit)

    def _first(self, body: bytes) -> Step:
        data: bytes | None = body
        if self._mechanism is None:
            try:
                self._mechanism, data = self._initial_response(FieldReader(body))
            except ProtocolViolation as error:
                raise CommandError(error.sqlstate, str(error)) from error
        if data is None:
            # It has nothing to say before we have: there is nothing to be said.
            return Step(messages.authentication_sasl_continue(b""))
        answer = self._server.begin(self._mechanism, data)
        self._has_begun = True
        return Step(messages.authentication_sasl_continue(answer))

    def _initial_response(self, fields: FieldReader) -> tuple[str, bytes | None]:
        """The mechanism that the client has chosen, and how it begins; None if it does not.

        :raises ProtocolViolation: if that is not right, in the order in which PostgreSQL looks.
        """
        mechanism = text(fields.cstring())
        if mechanism not in self._server.mechanisms:
            raise ProtocolViolation("client selected an invalid SASL authentication mechanism")
        length = fields.int32()
        data = None if length == -1 else fields.take(length)
        fields.end()
        return mechanism, data
