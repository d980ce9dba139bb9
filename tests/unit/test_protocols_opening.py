"""Tests for walstream.protocols.opening, as far as TLS itself is not needed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Protocol
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import Disconnected, HandshakeFailed, ServerNotTrusted, WalstreamError
from walstream.protocols.opening import Opening
from walstream.wire.encryption import Encryption

SSL_REQUEST = bytes.fromhex("00000008 04D2162F")
ENCRYPTION = Encryption("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)


class SwitchingTransport(StringTransport):
    """Can be told to start TLS, which it notes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.started: list[object] = []
        self.protocol: Any = Protocol()

    def startTLS(self, creator: object) -> None:  # noqa: N802
        self.started.append(creator)

    def getHandle(self) -> str:
        return "the connection"


class FakeTLS:
    """What came of the handshake is what the test says."""

    is_verified = False

    def __init__(self) -> None:
        self.outcome: Encryption | ServerNotTrusted = ENCRYPTION

    def finish(self, connection: Any) -> Encryption:
        assert connection == "the connection"
        if isinstance(self.outcome, ServerNotTrusted):
            raise self.outcome
        return self.outcome

    def failure(self, connection: Any, error: BaseException) -> str:
        return f"SSL error: {error}"


class OpeningTests(SynchronousTestCase):
    """What a server may answer."""

    def setUp(self) -> None:
        self.open()

    def open(self, *, direct: bool = False) -> None:
        self.tls = FakeTLS()
        self.prepared: list[Any] = []
        self.opening = Opening(self.tls, direct, self.prepared.append)
        self.transport = SwitchingTransport()
        self.opening.makeConnection(self.transport)  # type: ignore[no-untyped-call]

    def failure(self, kind: type[WalstreamError]) -> str:
        return str(self.failureResultOf(self.opening.done, kind).value)

    def test_tls(self) -> None:
        """S, and the handshake: whoever goes on is put on top of it."""
        self.assertEqual(self.transport.value(), SSL_REQUEST)
        self.assertEqual(self.prepared, [self.transport])
        self.opening.dataReceived(b"S")
        self.assertEqual(self.transport.started, [self.tls])
        self.assertNoResult(self.opening.done)
        self.opening.handshakeCompleted()
        self.assertIs(self.successResultOf(self.opening.done), ENCRYPTION)
        following = Protocol()
        self.opening.hand_over(following)
        self.assertIs(self.transport.protocol.wrappedProtocol, following)
        self.assertIs(following.transport, self.transport)

    def test_direct(self) -> None:
        """Nothing is sent in the clear."""
        self.open(direct=True)
        self.assertEqual(self.transport.value(), b"")
        self.assertEqual(self.transport.started, [self.tls])

    def test_no_tls(self) -> None:
        """N: the connection is as it was."""
        self.opening.dataReceived(b"N")
        self.assertIsNone(self.successResultOf(self.opening.done))
        following = Protocol()
        self.opening.hand_over(following)
        self.assertIs(self.transport.protocol, following)

    def test_what_was_sent_in_the_clear(self) -> None:
        """Bytes behind the answer are not the server's, as far as one can tell."""
        for answer in (b"SR\x00\x00\x00\x08\x00\x00\x00\x00", b"S\x16", b"NR"):
            self.open()
            self.opening.dataReceived(answer)
            self.assertEqual(
                self.failure(ServerNotTrusted), "received unencrypted data after SSL response"
            )
            self.assertEqual(self.transport.started, [])
            self.assertTrue(self.transport.disconnected)

    def test_an_error(self) -> None:
        """What it says is not repeated: nobody knows who says it."""
        self.opening.dataReceived(b"ESFATAL\0Mcome to evil.test\0\0")
        self.assertEqual(
            self.failure(Disconnected), "server sent an error response during SSL exchange"
        )

    def test_anything_else(self) -> None:
        """It is no PostgreSQL."""
        self.opening.dataReceived(b"\xff\xfe")
        self.assertEqual(
            self.failure(Disconnected), "received invalid response to SSL negotiation: \\xff"
        )

    def test_handshake_fails(self) -> None:
        """The reason is OpenSSL's."""
        self.opening.dataReceived(b"S")
        self.opening.connectionLost(Failure(ValueError("certificate verify failed")))
        self.assertEqual(self.failure(HandshakeFailed), "SSL error: certificate verify failed")

    def test_handshake_will_not_do(self) -> None:
        """An agreement may be worth nothing."""
        self.tls.outcome = ServerNotTrusted("another host")
        self.opening.dataReceived(b"S")
        self.opening.handshakeCompleted()
        self.assertEqual(self.failure(HandshakeFailed), "another host")
        self.assertTrue(self.transport.disconnected)
        self.opening.connectionLost(Failure(ConnectionDone()))

    def test_closed_before_an_answer(self) -> None:
        """That says nothing of TLS."""
        self.opening.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.failure(Disconnected), "the server closed the connection")

    def test_given_up(self) -> None:
        """The connection is closed at once."""
        self.opening.done.cancel()
        self.failureResultOf(self.opening.done, CancelledError)
        self.assertTrue(self.transport.disconnected)
        self.opening.dataReceived(b"S")
        self.assertEqual(self.transport.started, [])
