"""Making and removing a replication slot of the upstream: one command, and it is over."""

from __future__ import annotations

from enum import Enum
from typing import cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.errors import Disconnected, ServerError
from walstream.protocols.questions import Questions
from walstream.protocols.receiver_settings import Dialect
from walstream.protocols.stream_client import StreamClient
from walstream.services.endpoint import UpstreamAddress
from walstream.services.outcome import Outcome
from walstream.wire import grammar

__all__ = ["SlotAction", "SlotService"]

_DUPLICATE_OBJECT = "42710"

# Seconds that each answer may take.
_PATIENCE = 60.0


class SlotAction(Enum):
    """What to do; the values are for messages."""

    CREATE = "create"
    DROP = "drop"


class SlotService(Service):
    """Connects, makes or removes a physical replication slot, and leaves. May be started once.

    A slot is made with WAL reserved from that moment on. pg_receivewal's is not: what is written
    before it is first used can be lost.

    :param endpoint: an `UpstreamEndpoint`, or another whose addresses are `UpstreamAddress`es.
    :param may_exist: with `SlotAction.CREATE`, a slot of that name is good enough.
    """

    _log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        name: str,
        action: SlotAction,
        clock: IReactorTime,
        *,
        may_exist: bool = False,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._name = name
        self._action = action
        self._may_exist = may_exist
        self._work: Deferred[None] | None = None
        self._outcome: Outcome[None] = Outcome()

    def finished(self) -> Deferred[None]:
        """Fires when it is done, or was stopped.

        :raises WalstreamError: (in the Deferred) what went wrong.
        """
        return self._outcome.wait()

    def startService(self) -> None:
        """Do it."""
        super().startService()  # type: ignore[no-untyped-call]
        self._work = Deferred.fromCoroutine(self._act())
        self._work.addBoth(self._ended)

    def stopService(self) -> Deferred[None]:
        """Give up what is not done yet."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._work is not None:
            self._work.cancel()
        return self._outcome.wait().addErrback(lambda _: None)  # logged when it was set

    async def _act(self) -> None:
        factory = _ClientFactory(self._clock)
        client = cast(StreamClient, await self._endpoint.connect(factory))
        try:
            if self._action is SlotAction.DROP:
                await client.ask(grammar.DropReplicationSlot(self._name).text())
                self._log.info('replication slot "{name}" is dropped', name=self._name)
            else:
                await self._create(client)
        finally:
            client.close(Disconnected("all is done"))

    async def _create(self, client: StreamClient) -> None:
        command = grammar.CreateReplicationSlot(self._name, reserve_wal=True)
        try:
            await client.ask(command.text())
        except ServerError as error:
            if error.sqlstate != _DUPLICATE_OBJECT or not self._may_exist:
                raise
            self._log.info('replication slot "{name}" exists already', name=self._name)
        else:
            self._log.info('replication slot "{name}" is created', name=self._name)
        questions = Questions(client.ask, client.parameters)
        if questions.server_major < 15:
            return  # it can't tell
        position = await questions.slot_position(self._name)
        if position is None:
            self._log.warn(
                'replication slot "{name}" holds no WAL back before it is used: drop it and make '
                "it anew",
                name=self._name,
            )
        else:
            self._log.info("it holds WAL back from {lsn} on", lsn=str(position.lsn))

    def _ended(self, result: Failure | None) -> None:
        if isinstance(result, Failure):
            if result.check(CancelledError, ConnectingCancelledError):
                result = None
            else:
                self._log.error(
                    'could not {action} replication slot "{name}": {reason}',
                    action=self._action.value,
                    name=self._name,
                    reason=result.getErrorMessage(),
                )
        self._outcome.set(result)


class _ClientFactory(Factory):
    noisy = False

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> StreamClient:
        address: object = addr
        if not isinstance(address, UpstreamAddress):
            raise TypeError(f"a client needs to know its login: {addr!r} is no UpstreamAddress")
        return StreamClient(address.login, Dialect.MODERN, self._clock, _PATIENCE)
