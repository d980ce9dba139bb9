"""A client's way from its startup packet to AuthenticationOk: what it is asked, and by whom."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from walstream.gates import Applicant, IExchange, IGate, IPermit
from walstream.protocols.admission import Admission, too_many_clients
from walstream.wire.messages import authentication_ok

__all__ = ["Entrance", "OpenGate"]


@implementer(IPermit)
class _Everything:
    """The permit of who may have everything."""

    identity: str | None = None

    def enter(self) -> Deferred[None]:
        return succeed(None)

    def leave(self) -> None:
        pass

    def check_stream(self, timeline: int, start: int) -> None:
        pass


@implementer(IGate)
class OpenGate:
    """Lets everybody in, and asks nobody. For a network, or a machine, that is trusted."""

    def admit(self, applicant: Applicant) -> Deferred[IPermit | IExchange]:
        """See `IGate.admit`."""
        permit: IPermit = _Everything()
        return succeed(permit)


class Entrance:
    """Lets one client in.

    :ivar permit: what the client may have; None before it has proved who it is.
    :param crowd: asked whether there is room for another client, once it is known who comes: who
        cannot prove anything takes nobody's place.
    :param send: takes complete messages to the client.
    :param proved: called when the client has proved who it is, before it is told.
    """

    def __init__(
        self,
        gate: IGate,
        crowd: Admission,
        pid: int,
        send: Callable[[bytes], None],
        proved: Callable[[IPermit], None],
    ) -> None:
        self.permit: IPermit | None = None
        self._gate = gate
        self._crowd = crowd
        self._pid = pid
        self._send = send
        self._proved = proved
        self._exchange: IExchange | None = None
        self._version = ""

    @property
    def longest(self) -> int:
        """The most bytes that the body of the client's next message may have."""
        return self._exchange.longest if self._exchange is not None else 0

    @property
    def expects(self) -> str:
        """What the client's next message is called."""
        return self._exchange.expects if self._exchange is not None else "password response"

    async def ask(self, applicant: Applicant, version: str) -> bool:
        """Ask who it is; whether it is in. If not, a message of its is awaited.

        :param version: the server's, as which we speak.
        :raises CommandError: if it does not come in.
        """
        self._version = version
        admission = await self._gate.admit(applicant)
        if IExchange.providedBy(admission):
            self._exchange = admission
            self._send(admission.begin())
            return False
        await self._let_in(admission, b"")
        return True

    async def prove(self, body: bytes) -> bool:
        """Take what it says for it; whether it is in. If not, another message is awaited.

        :raises CommandError: if it does not come in.
        """
        assert self._exchange is not None, "it was asked"
        step = await self._exchange.take(body)
        if step.permit is None:
            self._send(step.answer)
            return False
        await self._let_in(step.permit, step.answer)
        return True

    def leave(self) -> None:
        """It is gone, or is going."""
        if self.permit is not None:
            self.permit.leave()

    async def _let_in(self, permit: IPermit, answer: bytes) -> None:
        self._proved(permit)
        # Before AuthenticationOk, as PostgreSQL.
        if not self._crowd.enter(self._pid):
            raise too_many_clients(self._crowd.limit, self._version)
        self._send(answer + authentication_ok())
        self.permit = permit
        await permit.enter()
