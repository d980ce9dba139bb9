"""Tests for walstream.services.endpoint."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IProtocol,
    IResolutionReceiver,
)
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.unit.log_capture import capture_log
from tests.unit.upstream_server import Network, upstream
from walstream.errors import Disconnected
from walstream.protocols.client import ReplicationClient
from walstream.protocols.login import Login
from walstream.services.endpoint import UpstreamAddress, UpstreamEndpoint
from walstream.testing.disk import ManualLane
from walstream.upstream import TargetSessionAttrs, Upstream, UpstreamHost
from walstream.wire.messages import authentication_md5, authentication_ok, ready_for_query


class ClientFactory(Factory):
    """Builds clients; remembers for whom."""

    noisy = False

    def __init__(self) -> None:
        self.addresses: list[UpstreamAddress] = []
        self.clients: list[ReplicationClient] = []

    def buildProtocol(self, addr: IAddress | None) -> ReplicationClient:
        address: object = addr
        assert isinstance(address, UpstreamAddress)
        self.addresses.append(address)
        self.clients.append(ReplicationClient(address.login))
        return self.clients[-1]


@implementer(IHostResolution)
class NoResolution:
    """The attempt to look up a name that there is not."""

    name = "no-such-host"

    def cancel(self) -> None:
        pass


@implementer(IHostnameResolver)
class NoNames:
    """A resolver that knows no name."""

    def resolveHostName(  # noqa: N802
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: object = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> IHostResolution:
        resolution = NoResolution()
        resolutionReceiver.resolutionBegan(resolution)
        resolutionReceiver.resolutionComplete()
        return resolution


class EndpointCase(SynchronousTestCase):
    """Connects to hosts in memory."""

    def setUp(self) -> None:
        self.network = Network()
        self.factory = ClientFactory()

    def connect(self, wanted: Upstream, **options: Any) -> Deferred[IProtocol]:
        """Begin to connect."""
        options = {"in_thread": maybeDeferred, **options}
        endpoint = UpstreamEndpoint(self.network.reactor, wanted, **options)
        return endpoint.connect(self.factory)

    def failure(self, connecting: Deferred[IProtocol]) -> str:
        """What is said of an upstream that cannot be connected to."""
        return str(self.failureResultOf(connecting, Disconnected).value)


class HostsTests(EndpointCase):
    """Which host is tried, and what makes us go on to the next."""

    def test_first_host(self) -> None:
        """The first host that lets us in is connected to, and the result is its client."""
        connecting = self.connect(upstream("10.0.0.1", "10.0.0.2"))
        server = self.network.accept()
        self.assertNoResult(connecting)
        server.let_in()
        self.assertIs(self.successResultOf(connecting), self.factory.clients[0])
        self.assertEqual(self.network.asked, ["10.0.0.1"])
        self.assertEqual(server.transport.peer_saw, "open")

    def test_next_host(self) -> None:
        """Hosts where nobody listens are passed over, in order."""
        connecting = self.connect(upstream("10.0.0.1", "::1", "10.0.0.3"))
        self.network.refuse()
        self.network.refuse()
        self.network.accept().let_in()
        self.successResultOf(connecting)
        self.assertEqual(self.network.asked, ["10.0.0.1", "::1", "10.0.0.3"])

    def test_no_host(self) -> None:
        """When no host will do, what each of them said is told in one sentence."""
        connecting = self.connect(upstream("10.0.0.1", "10.0.0.2"))
        self.network.refuse(ConnectError(string="no route"))
        self.network.refuse(ConnectError(string="timed out"))
        said = self.failure(connecting)
        self.assertIn("10.0.0.1:5432: ", said)
        self.assertIn("no route; 10.0.0.2:5432: ", said)
        self.assertIn("timed out", said)

    def test_refused_login(self) -> None:
        """A server that does not let us in is the end: the next one would say the same."""
        connecting = self.connect(upstream("10.0.0.1", "10.0.0.2"))
        self.network.accept().turn_away("28000", "no pg_hba.conf entry")
        said = self.failure(connecting)
        self.assertIn("10.0.0.1:5432: FATAL: no pg_hba.conf entry (SQLSTATE 28000)", said)
        self.assertEqual(self.network.asked, ["10.0.0.1"])

    def test_server_that_starts_up(self) -> None:
        """A server that cannot take connections now is passed over (57P03)."""
        connecting = self.connect(upstream("10.0.0.1", "10.0.0.2"))
        self.network.accept().turn_away("57P03", "the database system is starting up")
        self.network.accept().let_in()
        self.successResultOf(connecting)
        self.assertEqual(self.network.asked, ["10.0.0.1", "10.0.0.2"])

    def test_connection_lost_during_login(self) -> None:
        """A host that closes before it lets us in is passed over."""
        connecting = self.connect(upstream("10.0.0.1", "10.0.0.2"))
        self.network.accept().lose()
        self.network.accept().let_in()
        self.successResultOf(connecting)

    def test_not_a_postgresql_server(self) -> None:
        """A host that speaks another protocol is passed over, and cut off."""
        connecting = self.connect(upstream("10.0.0.1", "10.0.0.2"))
        server = self.network.accept()
        server.transport.deliver(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        server.transport.turn()
        self.assertEqual(server.transport.peer_saw, "reset")
        self.network.accept().let_in()
        self.successResultOf(connecting)

    def test_unknown_name(self) -> None:
        """A name that cannot be looked up is passed over like a host that is down."""
        self.network.reactor.installNameResolver(NoNames())
        connecting = self.connect(upstream("no-such-host", "10.0.0.2"))
        self.network.accept().let_in()
        self.successResultOf(connecting)
        self.assertEqual(self.network.asked, ["10.0.0.2"])

    def test_name_that_cannot_be_one(self) -> None:
        """A name that no resolver could take is an error of that host's."""
        connecting = self.connect(upstream("a" * 300))
        self.assertIn("aaa:5432: ", self.failure(connecting))

    def test_shuffled(self) -> None:
        """With load_balance_hosts=random the order is up to chance; else it is not."""
        hosts = ("10.0.0.1", "10.0.0.2", "10.0.0.3")
        for shuffled, order in ((True, tuple(reversed(hosts))), (False, hosts)):
            self.setUp()
            connecting = self.connect(
                upstream(*hosts, shuffled=shuffled), shuffle=list[UpstreamHost].reverse
            )
            for _ in hosts:
                self.network.refuse()
            self.failure(connecting)
            self.assertEqual(self.network.asked, list(order))

    def test_login(self) -> None:
        """The factory learns the host, and the login that belongs to it."""
        login = Login("me", "sesame", "north")
        self.connect(Upstream((UpstreamHost("10.0.0.1"),), login))
        self.network.accept()
        address = UpstreamAddress(UpstreamHost("10.0.0.1"), login)
        self.assertEqual(self.factory.addresses, [address])

    def test_a_weak_login(self) -> None:
        """That a server takes a password badly is said, once for each endpoint."""
        log = capture_log(self)
        account = Login("me", "sesame")
        endpoint = UpstreamEndpoint(
            self.network.reactor,
            Upstream((UpstreamHost("10.0.0.1"),), account),
            in_thread=maybeDeferred,
        )
        for _ in range(2):
            connecting = endpoint.connect(self.factory)
            server = self.network.accept()
            server.peer.expect_startup({"user": "me"})
            server.peer.send(authentication_md5(b"salt"))
            server.peer.expect(lambda message: message.kind == ord("p"))
            server.peer.send(authentication_ok(), ready_for_query())
            self.successResultOf(connecting)
        (said,) = (text for text in log if "md5" in text)
        self.assertIn("10.0.0.1:5432: the server asked for the password by md5", said)

    def test_repr(self) -> None:
        """What is shown of an endpoint is its hosts, and no password."""
        endpoint = UpstreamEndpoint(
            MemoryReactorClock(),
            Upstream((UpstreamHost("db1"), UpstreamHost("/run")), Login("me", "sesame")),
        )
        self.assertEqual(repr(endpoint), "<UpstreamEndpoint db1:5432, /run/.s.PGSQL.5432>")


class SessionAttrsTests(EndpointCase):
    """Hosts that let us in but are not of the kind that was asked for."""

    def test_unsuitable_server(self) -> None:
        """A server of the wrong kind is left in order, and the next one tried."""
        wanted = upstream("10.0.0.1", "10.0.0.2", wanted=TargetSessionAttrs.PRIMARY)
        connecting = self.connect(wanted)
        standby = self.network.accept()
        standby.let_in(in_hot_standby="on")
        standby.peer.expect(b"X\x00\x00\x00\x04")
        standby.peer.expect_closed()
        self.network.accept().let_in()
        self.assertIs(self.successResultOf(connecting), self.factory.clients[1])

    def test_no_suitable_server(self) -> None:
        """If none is of that kind, it is said of each."""
        connecting = self.connect(upstream("10.0.0.1", wanted=TargetSessionAttrs.STANDBY))
        self.network.accept().let_in()
        self.assertEqual(
            self.failure(connecting), "10.0.0.1:5432: server is not in hot standby mode"
        )

    def test_prefers_a_standby(self) -> None:
        """Who prefers a standby takes one, wherever in the list it is."""
        wanted = upstream("10.0.0.1", "10.0.0.2", wanted=TargetSessionAttrs.PREFER_STANDBY)
        connecting = self.connect(wanted)
        self.network.accept().let_in()
        self.network.accept().let_in(in_hot_standby="on")
        self.assertIs(self.successResultOf(connecting), self.factory.clients[1])

    def test_prefers_a_standby_where_there_is_none(self) -> None:
        """Who prefers a standby takes the first server of a second round otherwise."""
        wanted = upstream("10.0.0.1", "10.0.0.2", wanted=TargetSessionAttrs.PREFER_STANDBY)
        connecting = self.connect(wanted)
        for _ in range(3):
            self.network.accept().let_in()
        self.assertIs(self.successResultOf(connecting), self.factory.clients[2])
        self.assertEqual(self.network.asked, ["10.0.0.1", "10.0.0.2", "10.0.0.1"])


class TimeoutTests(EndpointCase):
    """How long a host may take."""

    def test_host_that_does_not_answer(self) -> None:
        """A connection that is not made in time is given up, and the next host tried."""
        connecting = self.connect(upstream("10.0.0.1", "10.0.0.2", connect_timeout=3.0))
        self.network.reactor.advance(2.9)
        self.assertEqual(self.network.asked, ["10.0.0.1"])
        self.network.reactor.advance(0.2)
        self.assertTrue(self.network.reactor.connectors[0].stoppedConnecting)
        self.network.accept().let_in()
        self.successResultOf(connecting)
        self.assertEqual(self.network.asked, ["10.0.0.1", "10.0.0.2"])
        self.assertEqual(self.network.reactor.getDelayedCalls(), [])

    def test_login_that_takes_too_long(self) -> None:
        """The time limit is for the login as well: the connection is cut."""
        connecting = self.connect(upstream("10.0.0.1", connect_timeout=3.0))
        self.network.reactor.advance(2)
        server = self.network.accept()
        self.network.reactor.advance(1.5)
        server.transport.turn()
        self.assertEqual(server.transport.peer_saw, "reset")
        self.assertEqual(
            self.failure(connecting),
            "10.0.0.1:5432: timeout expired: not logged in within 3 s",
        )

    def test_no_limit(self) -> None:
        """Without a limit it may take for ever."""
        connecting = self.connect(upstream("10.0.0.1", connect_timeout=None))
        self.network.reactor.advance(100_000)
        self.network.accept().let_in()
        self.successResultOf(connecting)

    def test_limit_is_over_with_the_login(self) -> None:
        """A client that was let in is not cut off by the limit."""
        connecting = self.connect(upstream("10.0.0.1", connect_timeout=3.0))
        server = self.network.accept()
        server.let_in()
        self.network.reactor.advance(10)
        server.transport.turn()
        self.assertEqual(server.transport.peer_saw, "open")
        self.successResultOf(connecting)

    def test_files_that_cannot_be_read_yet(self) -> None:
        """A password's file is read in a thread: that takes of the time for this host, no more."""
        for is_late in (False, True):
            self.setUp()
            lane = ManualLane(is_held=True)
            wanted = upstream("10.0.0.1", connect_timeout=3.0)
            connecting = self.connect(wanted, in_thread=lane.run)
            self.assertEqual((self.network.asked, lane.waiting), ([], 1))
            if is_late:
                self.network.reactor.advance(3.0)
                self.assertIn("timeout expired", self.failure(connecting))
                lane.work()
                self.assertEqual(self.network.asked, [])
            else:
                lane.work()
                self.network.accept().let_in()
                self.successResultOf(connecting)

    def test_cancelled_while_connecting(self) -> None:
        """Who no longer wants a connection stops it, and no other host is tried."""
        connecting = self.connect(upstream("10.0.0.1", "10.0.0.2"))
        connecting.cancel()
        self.failureResultOf(connecting, ConnectingCancelledError)
        self.assertTrue(self.network.reactor.connectors[0].stoppedConnecting)
        self.assertEqual(self.network.asked, ["10.0.0.1"])
        self.assertEqual(self.network.reactor.getDelayedCalls(), [])

    def test_cancelled_during_login(self) -> None:
        """Who no longer wants a connection cuts one that is being logged in on."""
        connecting = self.connect(upstream("10.0.0.1", "10.0.0.2"))
        server = self.network.accept()
        connecting.cancel()
        server.transport.turn()
        self.failureResultOf(connecting)
        self.assertEqual(server.transport.peer_saw, "reset")
        self.assertEqual(self.network.asked, ["10.0.0.1"])


class TransportTests(EndpointCase):
    """How a host is connected to."""

    def test_address_instead_of_name(self) -> None:
        """A host with an address is connected to there, without looking its name up."""
        self.network.reactor.installNameResolver(NoNames())
        self.connect(Upstream((UpstreamHost("db1", "10.0.0.7", 5433),), Login("me")))
        (client,) = self.network.reactor.tcpClients
        self.assertEqual(client[:2], ("10.0.0.7", 5433))

    def test_name(self) -> None:
        """A name is looked up."""
        self.connect(upstream("db1"))
        self.assertEqual(self.network.asked, ["127.0.0.1"])

    def test_socket(self) -> None:
        """A directory has a UNIX socket; "@" stands for the abstract namespace."""
        for name, path in (
            ("/run/pg", "/run/pg/.s.PGSQL.5432"),
            ("@pg", "\0pg/.s.PGSQL.5432"),
        ):
            self.connect(upstream(name))
            self.assertEqual(self.network.reactor.unixClients[-1][0], path)

    def test_keepalives(self) -> None:
        """TCP keepalives are on, unless they were switched off."""
        for options, enabled in (({}, True), ({"keepalives": 1}, True), ({"keepalives": 0}, False)):
            self.connect(upstream("10.0.0.1", tcp_options=options))
            server = self.network.accept()
            self.assertEqual(server.transport.getTcpKeepAlive(), enabled)

    def test_socket_options(self) -> None:
        """libpq's TCP options are the socket's; 0 leaves the system's value."""
        given = {"keepalives_idle": 30, "keepalives_count": 0, "tcp_user_timeout": 2000}
        self.connect(upstream("10.0.0.1", tcp_options=given))
        handle: Any = self.network.accept().transport.getHandle()
        for option, value in (
            (socket.TCP_KEEPIDLE, 30),
            (socket.TCP_USER_TIMEOUT, 2000),
            (socket.TCP_KEEPCNT, 0),
        ):
            self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, option), value)
