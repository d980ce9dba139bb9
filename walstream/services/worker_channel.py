"""The channel between the main process and a worker: AMP over a pair of UNIX sockets.

Both ends are of one version: the main process starts its workers with the code that it runs. What
is said in one direction arrives in the order in which it was said, answers too.
"""

from __future__ import annotations

import socket
from typing import Any, ClassVar, TypeAlias

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from walstream.errors import ArchiveError, FormatError
from walstream.services.worker_values import Name, Position, Refused, SlotValue

__all__ = [
    "CHANNEL_DESCRIPTOR",
    "AcquireSlot",
    "Adopt",
    "AdvanceSlot",
    "Beat",
    "Begin",
    "Cancel",
    "Channel",
    "CreateSlot",
    "Drain",
    "DropSlot",
    "EndSession",
    "EnterRole",
    "Leave",
    "LeaveRole",
    "ReadSlot",
    "ReleaseSlot",
    "Reload",
    "SentSoFar",
    "SessionEnded",
    "SettlePassword",
    "StandbyLeft",
    "StandbysChanged",
    "Terminate",
    "connect",
]

#: The number under which a worker finds its end.
CHANNEL_DESCRIPTOR = 3

_Values: TypeAlias = list[tuple[bytes, amp.Argument]]


class _Told(amp.Command):
    """Something that is said, and not answered."""

    requiresAnswer = False  # noqa: N815


_log = Logger()


# In both directions.


class Cancel(_Told):
    """A client asks to cancel what session *pid* does, and gives this *key* for it.

    Its worker knows whether that is the right one, and is told by the main process.
    """

    arguments: ClassVar[_Values] = [(b"pid", amp.Integer()), (b"key", amp.String())]


# From the main process to a worker.


class Begin(amp.Command):
    """Open the archive; answered when clients may come.

    *settings* are pickled `SenderSettings`: a worker may trust who started it; so are the
    `ServerFiles` of *tls*, without which there is none, and the `Access`, without which everybody
    comes in. *clients* is its share of them, without which it may have any number.
    """

    arguments: ClassVar[_Values] = [
        (b"settings", amp.String()),
        (b"clients", amp.Integer(optional=True)),
        (b"tls", amp.String(optional=True)),
        (b"access", amp.String(optional=True)),
    ]
    errors: ClassVar[dict[type[Exception], bytes]] = {
        ArchiveError: b"ARCHIVE",
        FormatError: b"FORMAT",
    }


class Adopt(amp.Command):
    """Serve this client, as session *pid*. It is the worker's once this is answered."""

    arguments: ClassVar[_Values] = [
        (b"descriptor", amp.Descriptor()),
        (b"family", amp.Integer()),
        (b"pid", amp.Integer()),
    ]


class Terminate(_Told):
    """The slot of this session is taken from it: end it."""

    arguments: ClassVar[_Values] = [(b"pid", amp.Integer())]


class Beat(amp.Command):
    """Are you alive? *rate* is the worker's share of the common rate, if there is one."""

    arguments: ClassVar[_Values] = [(b"rate", amp.Float(optional=True))]


class Drain(amp.Command):
    """See all clients off, with everything up to *end*, in *grace* seconds; answered when done."""

    arguments: ClassVar[_Values] = [(b"grace", amp.Float()), (b"end", Position())]


class Reload(_Told):
    """Read files again that may have changed: those about who comes in.

    With *tls*, those of TLS instead, which are known to be good.
    """

    arguments: ClassVar[_Values] = [(b"tls", amp.Boolean())]


class Leave(_Told):
    """Close the archive, and end."""


# From a worker to the main process.


class _SlotCommand(amp.Command):
    errors: ClassVar[dict[type[Exception], bytes]] = {Refused: b"REFUSED"}


class CreateSlot(_SlotCommand):
    """`ISlotStore.create`."""

    arguments: ClassVar[_Values] = [
        (b"name", Name()),
        (b"pid", amp.Integer()),
        (b"temporary", amp.Boolean()),
        (b"restart", Position(optional=True)),
    ]
    response: ClassVar[_Values] = [(b"slot", SlotValue())]


class ReadSlot(_SlotCommand):
    """`ISlotStore.read`."""

    arguments: ClassVar[_Values] = [(b"name", Name())]
    response: ClassVar[_Values] = [(b"slot", SlotValue(optional=True))]


class AcquireSlot(_SlotCommand):
    """`ISlotStore.acquire`."""

    arguments: ClassVar[_Values] = [(b"name", Name()), (b"pid", amp.Integer())]
    response: ClassVar[_Values] = [(b"slot", SlotValue())]


class DropSlot(_SlotCommand):
    """`ISlotStore.drop`."""

    arguments: ClassVar[_Values] = [
        (b"name", Name()),
        (b"wait", amp.Boolean()),
        (b"pid", amp.Integer(optional=True)),
    ]


class EnterRole(amp.Command):
    """`Places.enter`."""

    arguments: ClassVar[_Values] = [
        (b"number", amp.Integer()),
        (b"role", Name()),
        (b"limit", amp.Integer(optional=True)),
    ]
    errors: ClassVar[dict[type[Exception], bytes]] = {Refused: b"REFUSED"}


class SettlePassword(amp.Command):
    """`Lateness.settle`."""

    arguments: ClassVar[_Values] = [(b"address", amp.Unicode()), (b"is_wrong", amp.Boolean())]
    response: ClassVar[_Values] = [(b"seconds", amp.Float())]


class LeaveRole(_Told):
    """`Places.leave`."""

    arguments: ClassVar[_Values] = [(b"number", amp.Integer())]


class AdvanceSlot(_Told):
    """`ISlotStore.advance`."""

    arguments: ClassVar[_Values] = [(b"name", Name()), (b"restart", Position())]


class ReleaseSlot(_Told):
    """`ISlotStore.release`."""

    arguments: ClassVar[_Values] = [(b"name", Name()), (b"pid", amp.Integer())]


class EndSession(_Told):
    """`ISlotStore.end_session`."""

    arguments: ClassVar[_Values] = [(b"pid", amp.Integer())]


class StandbysChanged(_Told):
    """What became of clients, in order: lines of `pack_standby`."""

    arguments: ClassVar[_Values] = [(b"standbys", amp.String())]


class SentSoFar(_Told):
    """How far WAL was given to clients' connections: lines of a pid and a position."""

    arguments: ClassVar[_Values] = [(b"positions", amp.String())]


class StandbyLeft(_Told):
    """A client that had been let in is gone."""

    arguments: ClassVar[_Values] = [(b"pid", amp.Integer())]


class SessionEnded(_Told):
    """A client that was handed over is gone, whether it had been let in or not."""

    arguments: ClassVar[_Values] = [(b"pid", amp.Integer())]


class Channel(amp.AMP):
    """One end of the channel. Who listens is in a subclass."""

    _is_lost = False

    def ask(self, command: type[amp.Command], **arguments: Any) -> Deferred[dict[str, Any]]:
        """Say something that is answered.

        :raises ConnectionLost: (in the Deferred) if the other end is gone.
        """
        if not self.is_open:
            return fail(ConnectionLost())
        # AMP takes an error for unhandled when none of the callbacks that its own Deferred has by
        # then wanted it.
        answer: Deferred[dict[str, Any]] = Deferred()
        self.callRemote(command, **arguments).chainDeferred(answer)  # type: ignore[no-untyped-call]
        return answer

    @property
    def is_open(self) -> bool:
        """Whether the other end is there, as far as is known."""
        return self.transport is not None and not self._is_lost

    def tell(self, command: type[_Told], **arguments: Any) -> None:
        """Say something that is not; nobody hears it when the other end is gone."""
        if self.is_open:
            self.callRemote(command, **arguments)  # type: ignore[no-untyped-call]

    def unhandledError(self, failure: Failure) -> None:  # noqa: N802
        """What was told has met with a fault: one client's trouble is not to be all clients'."""
        _log.failure("what another process said could not be heeded", failure)

    def dataReceived(self, data: bytes) -> None:
        """Take what the other end says. What makes no sense ends the channel, and nothing else."""
        try:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
        except Exception:
            _log.failure("what another process says makes no sense: it is listened to no more")
            if self.is_open:
                transport: Any = self.transport
                transport.abortConnection()

    # AMP's own two log each connection, which here has no address.

    def makeConnection(self, transport: Any) -> None:
        """The channel is there."""
        amp.BinaryBoxProtocol.makeConnection(self, transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other end is gone."""
        self._is_lost = True
        amp.BinaryBoxProtocol.connectionLost(self, reason)
        self.transport = None


class _OneProtocol(Factory):
    noisy = False

    def __init__(self, protocol: Channel) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> Channel:
        return self._protocol


def connect(reactor: Any, channel: Channel, descriptor: int) -> None:
    """Make *channel* one end of the socket pair to which *descriptor* belongs; it is duplicated.

    :param reactor: `IReactorSocket`.
    """
    reactor.adoptStreamConnection(descriptor, socket.AF_UNIX, _OneProtocol(channel))
