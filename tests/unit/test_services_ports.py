"""Tests for walstream.services.ports: all are opened or none is, and all are closed."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.tcp import Port as RealPort
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.listening import Port, ServerEndpoint
from tests.unit.log_capture import capture_log
from walstream.services.ports import Ports

BUSY = CannotListenError("127.0.0.1", 2, OSError("Address already in use"))


class PortsTests(SynchronousTestCase):
    """`Ports` of three endpoints, called 1, 2 and 3."""

    def setUp(self) -> None:
        self.events: list[str] = []
        self.log = capture_log(self)
        self.ports = [Port(self.events, number) for number in (1, 2, 3)]
        self.opening: list[Deferred[IListeningPort]] = [Deferred() for _ in self.ports]
        self.endpoints = [
            ServerEndpoint(self.events, opening, f"tcp:{number}")
            for number, opening in enumerate(self.opening, 1)
        ]
        self.factory = Factory()
        self.all = Ports(self.endpoints, self.factory)

    def opened(self, *numbers: int) -> None:
        """Those endpoints are listened on."""
        for number in numbers:
            self.opening[number - 1].callback(self.ports[number - 1])

    def open(self) -> Deferred[Sequence[IListeningPort]]:
        """Begin to open them."""
        self.all.open()
        return self.all.opened()

    def done(self) -> list[str]:
        """What was done since the last time."""
        done = self.events[:]
        self.events.clear()
        return done

    def test_opens_one_after_the_other(self) -> None:
        """For the same factory; they are there, and said, when the last one is."""
        opened = self.open()
        for number in (1, 2, 3):
            self.assertEqual(self.done(), [f"open tcp:{number}"])
            self.assertNoResult(opened)
            self.assertEqual(self.log, [])
            self.opened(number)
        self.assertEqual(self.successResultOf(opened), tuple(self.ports))
        self.assertEqual([endpoint.factory for endpoint in self.endpoints], [self.factory] * 3)
        self.assertEqual(len(self.log), 3)
        for line, number in zip(self.log, (1, 2, 3), strict=True):
            self.assertIn("listening on IPv4Address", line)
            self.assertIn(f"port={number}", line)

    def test_one_fails(self) -> None:
        """Those before it are closed before that is told, those behind it are not opened."""
        opened = self.open()
        self.ports[0].closed = Deferred()
        self.opened(1)
        self.opening[1].errback(BUSY)
        self.assertEqual(self.done(), ["open tcp:1", "open tcp:2", "close 1"])
        self.assertNoResult(opened)
        self.ports[0].closed.callback(None)
        self.assertIs(self.failureResultOf(opened, CannotListenError).value, BUSY)
        self.assertEqual(self.log, [f"cannot listen on tcp:2: {BUSY}"])
        self.successResultOf(self.all.close())
        self.assertEqual(self.done(), [])

    def test_one_raises(self) -> None:
        """Which is the same."""
        self.patch(self.endpoints[1], "listen", lambda factory: 1 / 0)
        opened = self.open()
        self.opened(1)
        self.failureResultOf(opened, ZeroDivisionError)
        self.assertEqual(self.done(), ["open tcp:1", "close 1"])
        self.assertEqual(self.log, ["cannot listen on tcp:2: division by zero"])

    def test_closes_all_at_a_time(self) -> None:
        """And has done so when the last one is closed, however often it is told to."""
        self.open()
        self.opened(1, 2, 3)
        self.done()
        slow: Deferred[None] = Deferred()
        self.ports[1].closed = slow
        closed = [self.all.close(), self.all.close()]
        self.assertEqual(self.done(), ["close 1", "close 2", "close 3"])
        for each in closed:
            self.assertNoResult(each)
        slow.callback(None)
        for each in [*closed, self.all.close()]:
            self.successResultOf(each)
        self.assertEqual(self.done(), [])

    def test_told_to_close_while_it_opens(self) -> None:
        """The one that is being opened is waited for; no other is opened any more."""
        opened = self.open()
        self.opened(1)
        closed = self.all.close()
        self.assertEqual(self.done(), ["open tcp:1", "open tcp:2"])
        self.assertNoResult(closed)
        self.opened(2)
        self.assertEqual(self.done(), ["close 1", "close 2"])
        self.assertEqual(self.successResultOf(opened), tuple(self.ports[:2]))
        self.successResultOf(closed)

    def test_told_to_close_while_one_fails(self) -> None:
        """What is open is closed once, and closing has not failed."""
        opened = self.open()
        self.opened(1)
        closed = self.all.close()
        self.ports[0].closed = Deferred()
        self.opening[1].errback(BUSY)
        self.assertNoResult(closed)
        self.ports[0].closed.callback(None)
        self.failureResultOf(opened, CannotListenError)
        self.successResultOf(closed)
        self.assertEqual(self.done(), ["open tcp:1", "open tcp:2", "close 1"])

    def test_one_cannot_be_closed(self) -> None:
        """The others are, and that is no failure, but said."""
        self.open()
        self.opened(1, 2, 3)
        self.ports[1].closed = fail(FileNotFoundError(2, "No such file or directory", "/run/x"))
        self.done()
        self.log.clear()
        self.successResultOf(self.all.close())
        self.assertEqual(self.done(), ["close 1", "close 2", "close 3"])
        self.assertEqual(len(self.log), 1)
        self.assertIn("cannot close a port in order: ", self.log[0])
        self.assertIn("/run/x", self.log[0])

    def test_never_opened(self) -> None:
        """There is nothing to close then, and nothing is opened later."""
        self.successResultOf(self.all.close())
        self.assertEqual(self.successResultOf(self.open()), ())
        self.assertEqual(self.done(), [])

    def test_few_connections_at_a_time(self) -> None:
        """Each port takes few from the moment on that it is open."""
        self.open()
        port = RealPort(0, self.factory, reactor=Clock())
        self.opening[0].callback(port)
        port.numberAccepts = 100
        self.assertEqual(port.numberAccepts, 20)
