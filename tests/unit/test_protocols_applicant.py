"""Tests for walstream.protocols.applicant: what a connection tells of a client."""

from __future__ import annotations

import os
import socket
import sys

from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from walstream.gates import Applicant
from walstream.protocols.applicant import applicant
from walstream.protocols.welcome import Client
from walstream.wire.encryption import Encryption, Subject

CLIENT = Client({"user": "a", "application_name": "b"})


class FakeTransport:
    """A connection from somewhere, over a socket if it has one."""

    def __init__(self, peer: object, handle: object = None) -> None:
        self.getPeer = lambda: peer
        self.getHandle = lambda: handle


class ApplicantTests(SynchronousTestCase):
    """What is made of it."""

    def test_over_tcp(self) -> None:
        """The address, and no account."""
        peer = IPv6Address("TCP", "fe80::1%eth0", 4711)
        self.assertEqual(
            applicant(CLIENT, FakeTransport(peer), None), Applicant("a", "b", "fe80::1%eth0")
        )

    def test_over_tls(self) -> None:
        """What is known of the encryption."""
        peer = IPv6Address("TCP", "::1", 4711)
        subject = Subject("c", "CN=c")
        encryption = Encryption("TLSv1.3", "X", 256, b"hash", subject)
        self.assertEqual(
            applicant(CLIENT, FakeTransport(peer), encryption),
            Applicant("a", "b", "::1", None, True, subject, b"hash"),
        )

    def test_over_a_unix_socket(self) -> None:
        """The account at the other end, if the system tells it."""
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        made = applicant(CLIENT, FakeTransport(UNIXAddress(None), ours), None)
        account = os.getuid() if sys.platform == "linux" else None
        self.assertEqual(made, Applicant("a", "b", None, account))

    def test_a_system_that_does_not_tell(self) -> None:
        """Then nothing is known of the account, and no rule that goes by it lets anybody in."""
        ours, theirs = socket.socketpair()
        theirs.close()
        ours.close()  # of which no system tells anything
        self.assertIsNone(applicant(CLIENT, FakeTransport(UNIXAddress(None), ours), None).account)

    def test_what_is_no_socket(self) -> None:
        """Nothing is known of it."""
        made = applicant(CLIENT, FakeTransport(object(), object()), None)
        self.assertEqual(made, Applicant("a", "b"))
        other = socket.socket(socket.AF_INET)
        self.addCleanup(other.close)
        made = applicant(CLIENT, FakeTransport(object(), other), None)
        self.assertIsNone(made.account)
