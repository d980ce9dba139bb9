"""Tests for walstream.services.host_login: what is tried, in which order, and when no more."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.test_protocols_opening import ENCRYPTION, SSL_REQUEST, FakeTLS, SwitchingTransport
from walstream.errors import (
    Disconnected,
    FormatError,
    HandshakeFailed,
    ServerError,
    ServerNotTrusted,
    WalstreamError,
)
from walstream.protocols.client import ReplicationClient
from walstream.protocols.login import Login
from walstream.services.host_login import HostLogin
from walstream.testing.disk import ManualLane
from walstream.tls.options import CertificateMode, ClientOptions, SSLMode
from walstream.upstream import UpstreamHost
from walstream.wire.messages import authentication_ok, error_response, ready_for_query
from walstream.wire.startup import startup_message

STARTUP = startup_message(Login("me").startup_parameters())


class Connection:
    """One connection; the test is the server."""

    def __init__(self, protocol: Any) -> None:
        self.transport = SwitchingTransport()
        self.transport.protocol = protocol
        self.protocol = protocol
        protocol.makeConnection(self.transport)

    def says(self, data: bytes) -> None:
        """Say something, to whoever has the connection by now."""
        protocol = self.transport.protocol
        getattr(protocol, "wrappedProtocol", protocol).dataReceived(data)

    def agrees(self) -> None:
        """TLS is agreed on."""
        self.says(b"S")
        self.protocol.handshakeCompleted()

    def disagrees(self) -> None:
        """It is not."""
        self.says(b"S")
        self.protocol.connectionLost(Failure(ValueError("certificate verify failed")))

    def lets_in(self) -> None:
        self.says(authentication_ok() + ready_for_query())

    def turns_away(self, sqlstate: str = "28000") -> None:
        self.says(error_response("FATAL", sqlstate, "no entry"))


class Clients(Factory):
    """Makes clients."""

    noisy = False

    def buildProtocol(self, addr: IAddress | None) -> ReplicationClient:
        return ReplicationClient(Login("me"))


class HostLoginCase(SynchronousTestCase):
    """Logs in at a host where the test is every server."""

    def setUp(self) -> None:
        self.connections: list[Connection] = []
        self.tls = FakeTLS()
        self.faulty: FormatError | None = None
        self.lane = ManualLane()

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """As an endpoint does."""
        protocol = factory.buildProtocol(cast(IAddress, None))
        self.connections.append(Connection(protocol))
        return succeed(cast(IProtocol, protocol))

    def context(self, options: ClientOptions, host: str) -> FakeTLS:
        if self.faulty is not None:
            raise self.faulty
        return self.tls

    def log_in(
        self, mode: SSLMode | None, host: str = "db1", **options: Any
    ) -> Deferred[ReplicationClient]:
        """Begin to log in."""
        tls = None if mode is None else ClientOptions(mode, **options)
        self.login = HostLogin(
            cast(Any, self),
            UpstreamHost(host),
            tls,
            Clients(),
            cast(IAddress, None),
            lambda _: None,
            in_thread=self.lane.run,
            context=self.context,
        )
        return Deferred.fromCoroutine(self.login.log_in())

    def assert_in(self, login: Deferred[ReplicationClient], *, encrypted: bool) -> None:
        client = self.successResultOf(login)
        self.assertEqual(client.encryption, ENCRYPTION if encrypted else None)

    def assert_not_in(self, login: Deferred[ReplicationClient], kind: type[WalstreamError]) -> str:
        return str(self.failureResultOf(login, kind).value)

    def sent(self) -> list[bytes]:
        """What was sent on each connection."""
        return [each.transport.value() for each in self.connections]


class HostLoginTests(HostLoginCase):
    """As libpq."""

    def test_certificates_that_cannot_be_read_yet(self) -> None:
        """They are read in a thread; given up meanwhile, there is no connection."""
        for is_given_up in (False, True):
            self.setUp()
            self.lane.is_held = True
            login = self.log_in(SSLMode.REQUIRE)
            self.assertEqual((self.connections, self.lane.waiting), ([], 1))
            if is_given_up:
                login.cancel()
                self.failureResultOf(login, CancelledError)
            self.lane.work()
            self.assertEqual(len(self.connections), int(not is_given_up))

    def test_without(self) -> None:
        """Nobody is asked for TLS."""
        login = self.log_in(None)
        self.connections[0].lets_in()
        self.assert_in(login, encrypted=False)
        self.assertEqual(self.sent(), [STARTUP])

    def test_with(self) -> None:
        """Nothing is said before the connection is encrypted."""
        for mode in (SSLMode.PREFER, SSLMode.REQUIRE, SSLMode.VERIFY_CA, SSLMode.VERIFY_FULL):
            self.setUp()
            login = self.log_in(mode)
            self.assertEqual(self.sent(), [SSL_REQUEST])
            self.connections[0].agrees()
            self.assertEqual(self.sent(), [SSL_REQUEST + STARTUP])
            self.connections[0].lets_in()
            self.assert_in(login, encrypted=True)

    def test_the_server_has_none(self) -> None:
        """Who prefers it goes on as it is, on the same connection; others don't."""
        login = self.log_in(SSLMode.PREFER)
        self.connections[0].says(b"N")
        self.connections[0].lets_in()
        self.assert_in(login, encrypted=False)
        self.assertEqual(self.sent(), [SSL_REQUEST + STARTUP])
        self.setUp()
        login = self.log_in(SSLMode.REQUIRE)
        self.connections[0].says(b"N")
        said = self.assert_not_in(login, ServerNotTrusted)
        self.assertEqual(said, "server does not support SSL, but SSL was required")
        self.assertTrue(self.connections[0].transport.disconnecting)
        self.assertEqual(self.sent(), [SSL_REQUEST])

    def test_no_third_way(self) -> None:
        """Who was turned away in the clear, since there is no TLS, is turned away."""
        login = self.log_in(SSLMode.PREFER)
        self.connections[0].says(b"N")
        self.connections[0].turns_away()
        self.assert_not_in(login, ServerError)
        self.assertEqual(len(self.connections), 1)

    def test_no_agreement(self) -> None:
        """Who prefers it tries without, on another connection, and says so; others don't."""
        login = self.log_in(SSLMode.PREFER)
        self.connections[0].disagrees()
        self.connections[1].lets_in()
        self.assert_in(login, encrypted=False)
        self.assertEqual(self.sent(), [SSL_REQUEST, STARTUP])
        self.assertEqual(
            self.login.said,
            ["with TLS: SSL error: certificate verify failed; going on without encryption"],
        )
        for mode in (SSLMode.REQUIRE, SSLMode.VERIFY_CA, SSLMode.VERIFY_FULL):
            self.setUp()
            login = self.log_in(mode)
            self.connections[0].disagrees()
            self.assert_not_in(login, HandshakeFailed)
            self.assertEqual(len(self.connections), 1)

    def test_turned_away(self) -> None:
        """Whoever allows both tries the other way."""
        login = self.log_in(SSLMode.PREFER)
        self.connections[0].agrees()
        self.connections[0].turns_away()
        self.connections[1].lets_in()
        self.assert_in(login, encrypted=False)
        login = self.log_in(SSLMode.ALLOW)
        self.connections[2].turns_away()
        self.connections[3].agrees()
        self.connections[3].lets_in()
        self.assert_in(login, encrypted=True)
        self.assertEqual(
            self.sent(), [SSL_REQUEST + STARTUP, STARTUP, STARTUP, SSL_REQUEST + STARTUP]
        )

    def test_turned_away_when_let_in(self) -> None:
        """What is said after AuthenticationOk would be said in the other way, too."""
        login = self.log_in(SSLMode.PREFER)
        self.connections[0].agrees()
        self.connections[0].says(authentication_ok())
        self.connections[0].turns_away()
        self.assert_not_in(login, ServerError)
        self.assertEqual(len(self.connections), 1)

    def test_not_now(self) -> None:
        """A server that starts up does so in every way."""
        login = self.log_in(SSLMode.PREFER)
        self.connections[0].agrees()
        self.connections[0].turns_away("57P03")
        self.assert_not_in(login, ServerError)
        self.assertEqual(len(self.connections), 1)

    def test_somebody_in_between(self) -> None:
        """Nobody goes on in the clear with who has said too much, or an error."""
        for answer in (b"SR", b"E", b"X"):
            self.setUp()
            login = self.log_in(SSLMode.PREFER)
            self.connections[0].says(answer)
            self.assert_not_in(login, WalstreamError)
            self.assertEqual(self.sent(), [SSL_REQUEST])

    def test_lost(self) -> None:
        """A connection that ends is no reason to do without encryption."""
        login = self.log_in(SSLMode.PREFER)
        self.connections[0].protocol.connectionLost(Failure(ConnectionDone()))
        self.assert_not_in(login, Disconnected)
        self.assertEqual(len(self.connections), 1)

    def test_files_that_are_wrong(self) -> None:
        """As libpq: there is no TLS then."""
        self.faulty = FormatError("certificate present, but not private key file")
        login = self.log_in(SSLMode.PREFER)
        self.connections[0].lets_in()
        self.assert_in(login, encrypted=False)
        self.assertIn("certificate present", self.login.said[0])
        self.assert_not_in(self.log_in(SSLMode.REQUIRE), FormatError)

    def test_unix_socket(self) -> None:
        """On a UNIX socket there is no TLS, whatever is wanted."""
        login = self.log_in(SSLMode.VERIFY_FULL, "/run/postgresql")
        self.connections[0].lets_in()
        self.assert_in(login, encrypted=False)
        self.assertEqual(self.sent(), [STARTUP])

    def test_a_certificate_that_must_be_asked_for(self) -> None:
        """Where there is no TLS, nobody asks."""
        for mode, answer in ((SSLMode.DISABLE, b""), (SSLMode.PREFER, b"N")):
            self.setUp()
            login = self.log_in(mode, certificate_mode=CertificateMode.REQUIRE)
            if answer:
                self.connections[0].says(answer)
            said = self.assert_not_in(login, ServerNotTrusted)
            self.assertEqual(said, "server did not request an SSL certificate")
            self.assertNotIn(STARTUP, b"".join(self.sent()))

    def test_given_up(self) -> None:
        """The connection is closed at once, however far it was."""
        login = self.log_in(SSLMode.REQUIRE)
        login.cancel()
        self.failureResultOf(login, CancelledError)
        login = self.log_in(SSLMode.REQUIRE)
        self.connections[1].agrees()
        login.cancel()
        self.failureResultOf(login, CancelledError)
        self.assertTrue(all(each.transport.disconnected for each in self.connections))
