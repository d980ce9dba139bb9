"""Tests for `walstream.protocols.unix_peer`, on real socket pairs."""

from __future__ import annotations

import os
import pwd
import socket
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import Disconnected, ServerNotTrusted, WalstreamError
from walstream.protocols import unix_peer
from walstream.protocols.client import ReplicationClient
from walstream.protocols.login import Login
from walstream.protocols.unix_peer import peer_account, peer_check
from walstream.testing.disk import ManualLane
from walstream.testing.transport import FlowTransport
from walstream.wire.login_demands import LoginDemands, RequiredAuth
from walstream.wire.messages import authentication_cleartext, notice_response


class Held:
    """A transport, as far as it has a socket."""

    def __init__(self, handle: socket.socket) -> None:
        self._handle = handle

    def getHandle(self) -> socket.socket:
        return self._handle


class UnixPeerTests(SynchronousTestCase):
    """``requirepeer``."""

    def setUp(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        self.transport: Any = Held(ours)
        self.name = pwd.getpwuid(os.geteuid()).pw_name

    def test_account(self) -> None:
        """The kernel tells who made the socket at the other end."""
        self.assertEqual(peer_account(self.transport), os.geteuid())

    def test_no_unix_socket(self) -> None:
        """Where it can't be told nobody is asked, as with libpq."""
        with socket.socket(socket.AF_INET) as inet:
            transport: Any = Held(inet)
            self.assertIsNone(peer_account(transport))
            self.assertIsNone(peer_check(transport, "postgres"))
        self.assertIsNone(peer_check(FlowTransport(), "postgres"))

    def check(self, required: str) -> None:
        """Have it looked at who runs the other end."""
        check = peer_check(self.transport, required)
        assert check is not None
        check()

    def test_as_required(self) -> None:
        """The right one may be talked to; and anybody where nobody is named."""
        self.check(self.name)
        self.assertIsNone(peer_check(self.transport, None))

    def test_somebody_else(self) -> None:
        """libpq's words."""
        error = self.assertRaises(ServerNotTrusted, self.check, "nobody-else")
        self.assertEqual(
            str(error),
            f'requirepeer specifies "nobody-else", but actual peer user name is "{self.name}"',
        )

    def test_no_account(self) -> None:
        """Nobody is not whom we want, whatever that one is called."""
        self.patch(unix_peer, "account_name", lambda number: None)
        error = self.assertRaises(ServerNotTrusted, self.check, self.name)
        self.assertEqual(str(error), f"local user with ID {os.geteuid()} does not exist")

    def test_a_system_that_does_not_tell(self) -> None:
        """Then nobody is trusted."""
        self.patch(unix_peer, "socket", _NoCredentials)
        error = self.assertRaises(ServerNotTrusted, peer_check, self.transport, self.name)
        self.assertIn("could not get peer credentials: this system", str(error))


class ClientTests(SynchronousTestCase):
    """A client that wants to know who runs its server; a thread finds out when the test lets it."""

    def setUp(self) -> None:
        self.name = pwd.getpwuid(os.geteuid()).pw_name
        self.lane = ManualLane(is_held=True)

    def connect(self, required: str) -> None:
        """Connect to a server that has to be run by that user."""
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        demands = LoginDemands(RequiredAuth.parse("password"), peer=required)
        self.client = ReplicationClient(Login("alice", "sesame", demands=demands))
        self.client.in_thread = self.lane.run  # type: ignore[method-assign]
        self.transport = FlowTransport()
        self.transport.getHandle = lambda: ours  # type: ignore[method-assign]
        self.transport.connect(self.client)

    def assert_nothing_more(self, reason: str) -> None:
        """The thread is done; nothing has been said, and whoever waits knows why."""
        self.lane.work()
        self.assertEqual(self.transport.take(), b"")
        error = self.failureResultOf(self.client.logged_in(), WalstreamError).value
        self.assertIn(reason, str(error))

    def test_nothing_is_said_before(self) -> None:
        """No startup packet is sent before it is known, nor to somebody else's server."""
        for name in (self.name, "nobody-else"):
            self.connect(name)
            self.assertEqual((self.transport.take(), self.transport.aborted), (b"", False))
            self.assertEqual(self.lane.waiting, 1)
            if name == self.name:
                self.lane.work()
                self.assertIn(b"user\0alice\0", self.transport.take())
            else:
                self.assert_nothing_more("requirepeer specifies")
                self.assertTrue(self.transport.aborted)

    def test_the_server_asks_first(self) -> None:
        """It is answered in its turn, if it is the right one."""
        for name in (self.name, "nobody-else"):
            self.connect(name)
            # What was read already, and what is read no more.
            self.client.dataReceived(authentication_cleartext())
            more = notice_response("NOTICE", "00000", "wait")
            self.transport.deliver(more)
            self.assertEqual(self.transport.unreceived, len(more))
            self.assertEqual(self.transport.take(), b"")
            if name == self.name:
                self.lane.work()
                said = self.transport.take()
                self.assertLess(said.index(b"alice"), said.index(b"sesame"))
            else:
                self.assert_nothing_more("requirepeer specifies")

    def test_lost_meanwhile(self) -> None:
        """What the thread has found out is of no use any more."""
        self.connect(self.name)
        waiter = self.client.logged_in()
        self.client.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(waiter, Disconnected)
        self.assert_nothing_more("Connection to the other side was lost")

    def test_closed_meanwhile(self) -> None:
        """A transport that does not read may not notice: it is seen as soon as it does."""
        self.connect(self.name)
        waiter = self.client.logged_in()
        self.transport.peer_closed()
        self.assertNoResult(waiter)
        self.lane.work()
        self.transport.turn()
        self.failureResultOf(waiter, Disconnected)

    def test_given_up_meanwhile(self) -> None:
        """Whoever gives up does not wait for the thread."""
        for end in (ReplicationClient.abort, ReplicationClient.close):
            self.connect(self.name)
            waiter = self.client.logged_in()
            waiter.cancel()
            self.failureResultOf(waiter, CancelledError)
            end(self.client, Disconnected("it took too long"))
            self.assertTrue(self.transport.aborted)
            self.assert_nothing_more("it took too long")

    def test_no_thread(self) -> None:
        """Not to know is not to trust."""
        self.connect(self.name)

        def fail(number: int) -> str:
            raise RuntimeError("for the test")

        self.patch(unix_peer, "account_name", fail)
        self.assert_nothing_more("for the test")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class _NoCredentials:
    """The socket module of such a system."""

    AF_UNIX = socket.AF_UNIX
    socket = socket.socket
