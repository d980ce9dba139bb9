"""A server for the tests of the receiving services: the test plays it, on a network in memory.

The reactor only records whom it is told to connect to. `Network` answers for those hosts, and
`Server` is one connection that was accepted, with the answers of a primary.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from tests.unit.conversation import SIZE, wal, wal_message
from walstream.formats.lsn import LSN
from walstream.protocols.login import Login
from walstream.testing.peers import ScriptedPeer
from walstream.testing.transport import FlowTransport
from walstream.testing.wal import SYSTEM_IDENTIFIER
from walstream.upstream import Upstream, UpstreamHost
from walstream.wire.messages import (
    Column,
    ColumnType,
    authentication_ok,
    command_complete,
    copy_both_response,
    data_row,
    error_response,
    parameter_status,
    query,
    ready_for_query,
    row_description,
)

__all__ = ["PARAMETERS", "Network", "Server", "upstream"]

#: What a primary says of itself.
PARAMETERS = {
    "server_version": "18.6",
    "in_hot_standby": "off",
    "default_transaction_read_only": "off",
}


def upstream(*addresses: str, **details: Any) -> Upstream:
    """An upstream on the hosts with these addresses."""
    hosts = tuple(UpstreamHost(address) for address in addresses)
    return Upstream(hosts, Login("me"), **details)


class Network:
    """What is there for a reactor to connect to.

    :ivar reactor: the reactor, and its clock.
    """

    def __init__(self) -> None:
        self.reactor = MemoryReactorClock()

    @property
    def asked(self) -> list[str]:
        """The addresses that were connected to, in order."""
        return [client[0] for client in self.reactor.tcpClients]

    def accept(self, *, direct: bool = False) -> Server:
        """Accept the last connection that was asked for."""
        factory: Any = self.reactor.tcpClients[-1][2]
        protocol = factory.buildProtocol(None)
        transport = FlowTransport(clock=self.reactor)
        transport.connect(protocol, direct=direct)
        return Server(transport)

    def refuse(self, error: ConnectError | None = None) -> None:
        """Nobody listens there, or whatever *error* says."""
        factory: Any = self.reactor.tcpClients[-1][2]
        reason = Failure(error or ConnectionRefusedError("nobody there"))
        factory.clientConnectionFailed(self.reactor.connectors[-1], reason)


class Server:
    """One connection to a primary.

    :ivar peer: the primary, for what it does not say by itself.
    """

    def __init__(self, transport: FlowTransport) -> None:
        self.transport = transport
        self.peer = ScriptedPeer(transport, plays="server")

    def let_in(self, **parameters: str) -> None:
        """Let the client in, without a password."""
        self.peer.expect_startup({"replication": "on"})
        told = {**PARAMETERS, **parameters}.items()
        messages = [parameter_status(name, value) for name, value in told]
        self.peer.send(authentication_ok(), *messages, ready_for_query())

    def turn_away(self, sqlstate: str, message: str) -> None:
        """Do not let the client in, and close."""
        self.peer.expect_startup({"replication": "on"})
        self.peer.send(error_response("FATAL", sqlstate, message))
        self.lose()

    def answer(self, question: str, **columns: str) -> None:
        """Answer a question by a row."""
        self.peer.expect(query(question))
        self.peer.send(
            row_description([Column(name, ColumnType.TEXT) for name in columns]),
            data_row([value.encode() for value in columns.values()]),
            command_complete("SELECT"),
            ready_for_query(),
        )

    def identify(self, end: int, *, system: int = SYSTEM_IDENTIFIER) -> None:
        """Tell what a receiver asks first, of a cluster whose WAL ends at *end*."""
        self.answer(
            "IDENTIFY_SYSTEM",
            systemid=str(system),
            timeline="1",
            xlogpos=str(LSN(end)),
            dbname="",
        )
        self.answer("SHOW wal_segment_size", wal_segment_size="1MB")

    def stream(self, start: int, end: int) -> None:
        """Let the client in and begin a stream at *start*, of a cluster whose WAL ends at *end*."""
        self.let_in()
        self.begin_stream(start, end)

    def begin_stream(self, start: int, end: int) -> None:
        """The same for a client that was let in already."""
        self.identify(end)
        self.answer("SHOW wal_sender_timeout", wal_sender_timeout="1min")
        self.tell_demands()
        self.peer.expect(query(f"START_REPLICATION {LSN(start)} TIMELINE 1"))
        self.peer.send(copy_both_response())

    def tell_demands(self, names: str = "", commit: str = "on") -> None:
        """Tell what the server demands of its standbys."""
        self.answer("SHOW synchronous_standby_names", synchronous_standby_names=names)
        self.answer("SHOW synchronous_commit", synchronous_commit=commit)

    def send_wal(self, start: int, length: int) -> None:
        """Send WAL."""
        self.peer.send(wal_message(start, wal(start, length), start + length))

    def lose(self, *, reset: bool = False) -> None:
        """Lose the connection."""
        self.transport.peer_closed(ConnectionLost if reset else ConnectionDone)
        self.transport.turn()


assert SIZE == 1 << 20, "identify says so"
