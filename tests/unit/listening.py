"""Endpoints and ports that do what a test wants."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer

__all__ = ["Port", "ServerEndpoint"]


@implementer(IListeningPort)
class Port:
    """A port; it is closed when the test says so.

    :param events: takes down what is done.
    """

    def __init__(self, events: list[str], number: int = 5433) -> None:
        self.events = events
        self.number = number
        self.closed: Deferred[None] | None = None

    def startListening(self) -> None:
        pass

    def stopListening(self) -> Deferred[None] | None:
        self.events.append(f"close {self.number}")
        return self.closed

    def getHost(self) -> IAddress:
        return IPv4Address("TCP", "127.0.0.1", self.number)


@implementer(IStreamServerEndpoint)
class ServerEndpoint:
    """Where to listen: gives what the test wants."""

    def __init__(
        self, events: list[str], listening: Deferred[IListeningPort], name: str = "tcp:5433"
    ) -> None:
        self.events = events
        self.listening = listening
        self.name = name
        self.factory: IProtocolFactory | None = None

    def __str__(self) -> str:
        return self.name

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # noqa: N803
        self.events.append(f"open {self.name}")
        self.factory = protocolFactory
        return self.listening
