"""Tests for `walstream.protocols.unix_peer`, on real socket pairs."""

from __future__ import annotations

import os
import pwd
import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import ServerNotTrusted
from walstream.protocols import unix_peer
from walstream.protocols.client import ReplicationClient
from walstream.protocols.login import Login
from walstream.protocols.unix_peer import check_peer, peer_account
from walstream.testing.transport import FlowTransport
from walstream.wire.login_demands import LoginDemands


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
            check_peer(transport, "postgres")
        check_peer(FlowTransport(), "postgres")

    def test_as_required(self) -> None:
        """The right one may be talked to; and anybody where nobody is named."""
        check_peer(self.transport, self.name)
        check_peer(self.transport, None)

    def test_somebody_else(self) -> None:
        """libpq's words."""
        error = self.assertRaises(ServerNotTrusted, check_peer, self.transport, "nobody-else")
        self.assertEqual(
            str(error),
            f'requirepeer specifies "nobody-else", but actual peer user name is "{self.name}"',
        )

    def test_a_system_that_does_not_tell(self) -> None:
        """Then nobody is trusted."""
        self.patch(unix_peer, "socket", _NoCredentials)
        error = self.assertRaises(ServerNotTrusted, check_peer, self.transport, self.name)
        self.assertIn("could not get peer credentials: this system", str(error))

    def test_nothing_is_said_before(self) -> None:
        """A client sends no startup packet to somebody else's server."""
        for name, is_told in ((self.name, True), ("nobody-else", False)):
            client = ReplicationClient(Login("alice", demands=LoginDemands(peer=name)))
            transport = FlowTransport()
            handle = self.transport.getHandle()
            transport.getHandle = lambda handle=handle: handle  # type: ignore[method-assign,misc]
            transport.connect(client)
            self.assertIs(bool(transport.take()), is_told)
            self.assertIs(transport.aborted, not is_told)


class _NoCredentials:
    """The socket module of such a system."""

    AF_UNIX = socket.AF_UNIX
    socket = socket.socket
