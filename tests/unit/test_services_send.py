"""Tests for walstream.services.send."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.listening import Port, ServerEndpoint
from tests.unit.log_capture import capture_log
from walstream.services.send import SenderService


class Followers(Factory):
    """A factory that is drained when the test says so."""

    noisy = False

    def __init__(self, events: list[str]) -> None:
        self.events = events
        self.drained: Deferred[None] = Deferred()

    def drain(self, grace: float) -> Deferred[None]:
        self.events.append(f"drain {grace:g}")
        return self.drained


class SenderServiceTests(SynchronousTestCase):
    """Listening, and stopping in order."""

    def setUp(self) -> None:
        self.events: list[str] = []
        self.log = capture_log(self)
        self.port = Port(self.events)
        self.followers = Followers(self.events)

    def start(self, listening: Deferred[Any] | None = None) -> SenderService:
        """A service that was started."""
        endpoint = ServerEndpoint(self.events, listening or succeed(self.port))
        self.service = SenderService([endpoint], self.followers, grace=4.0)
        self.service.startService()
        return self.service

    def test_listens(self) -> None:
        """A service that was started listens, and says where."""
        service = self.start()
        self.assertEqual(self.successResultOf(service.listening()), (self.port,))
        self.assertIn("listening on IPv4Address", self.log[0])
        self.assertIn("5433", self.log[0])

    def test_busy_port(self) -> None:
        """A port that is taken is told to who asks and to the log, and there is nothing to stop."""
        error = CannotListenError("127.0.0.1", 5433, OSError("Address already in use"))
        service = self.start(fail(error))
        self.failureResultOf(service.listening(), CannotListenError)
        self.failureResultOf(service.listening(), CannotListenError)
        self.assertIn("cannot listen on tcp:5433: ", self.log[0])
        self.assertIn("5433", self.log[0])
        self.followers.drained.callback(None)
        self.successResultOf(service.stopService())
        self.assertNotIn("close 5433", self.events)

    def test_stops_in_order(self) -> None:
        """First nobody is let in any more, then those who are in are seen off."""
        service = self.start()
        self.port.closed = Deferred()
        stopped = service.stopService()
        self.assertEqual(self.events, ["open tcp:5433", "close 5433"])
        self.port.closed.callback(None)
        self.assertEqual(self.events, ["open tcp:5433", "close 5433", "drain 4"])
        self.assertNoResult(stopped)
        self.followers.drained.callback(None)
        self.successResultOf(stopped)

    def test_stop_accepting(self) -> None:
        """Letting nobody in any more leaves those alone who are in."""
        service = self.start()
        self.successResultOf(service.stop_accepting())
        self.assertEqual(self.events, ["open tcp:5433", "close 5433"])
        self.assertTrue(service.running)

    def test_stopped_before_it_listens(self) -> None:
        """A service that is told to stop while it begins to listen stops when it does."""
        listening: Deferred[IListeningPort] = Deferred()
        service = self.start(listening)
        stopped = service.stopService()
        self.assertEqual(self.events, ["open tcp:5433"])
        listening.callback(self.port)
        self.assertEqual(self.events, ["open tcp:5433", "close 5433", "drain 4"])
        self.followers.drained.callback(None)
        self.successResultOf(stopped)

    def test_never_started(self) -> None:
        """A service that was not started has no port to close."""
        self.followers.drained.callback(None)
        endpoint = ServerEndpoint(self.events, succeed(self.port))
        service = SenderService([endpoint], self.followers)
        self.successResultOf(service.stopService())
        self.assertEqual(self.events, ["drain 10"])
