"""A network in memory, for the tests of whatever connects to an upstream: the test is the servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from walstream.testing.peers import ScriptedPeer
from walstream.testing.transport import FlowTransport
from walstream.wire import messages

# A primary of PostgreSQL 14 or later, as its ParameterStatus messages show it.
PRIMARY: Mapping[str, str] = {
    "server_version": "18.6",
    "integer_datetimes": "on",
    "in_hot_standby": "off",
    "default_transaction_read_only": "off",
}
STANDBY = {**PRIMARY, "in_hot_standby": "on"}


class Network(MemoryReactorClock):
    """A reactor whose connections the test refuses, or accepts and then serves."""

    @property
    def wanted(self) -> list[str]:
        """The places that connections are being made to, the oldest first."""
        return [str(each[0]) if len(each) == 4 else f"{each[0]}:{each[1]}" for each in self._all]

    @property
    def _all(self) -> list[tuple[Any, ...]]:
        return [*self.tcpClients, *self.unixClients]

    def refuse(self) -> None:
        """Refuse the oldest connection that is being made."""
        factory = self._take()
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))

    def accept(self) -> ScriptedPeer:
        """Accept the oldest connection that is being made; the peer is the server."""
        factory = self._take()
        transport = FlowTransport(clock=self)
        transport.connect(factory.buildProtocol(transport.getPeer()))
        return ScriptedPeer(transport, plays="server")

    def welcome(self, parameters: Mapping[str, str] = PRIMARY) -> ScriptedPeer:
        """Accept it, and let the client in without a password."""
        server = self.accept()
        server.expect_startup({"replication": "on"})
        server.send(
            messages.authentication_ok(),
            *(messages.parameter_status(name, value) for name, value in parameters.items()),
            messages.ready_for_query(),
        )
        return server

    def _take(self) -> Any:
        clients = self.tcpClients or self.unixClients
        entry = clients.pop(0)
        return entry[2] if clients is self.tcpClients else entry[1]
