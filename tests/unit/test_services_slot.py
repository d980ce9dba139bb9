"""Tests for walstream.services.slot."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.log_capture import capture_log
from tests.unit.upstream_server import Network, Server, upstream
from walstream.errors import Disconnected, ServerError
from walstream.services.endpoint import UpstreamEndpoint
from walstream.services.slot import SlotAction, SlotService
from walstream.wire.messages import command_complete, error_response, query, ready_for_query

CREATE = 'CREATE_REPLICATION_SLOT "s" PHYSICAL RESERVE_WAL'
READ = 'READ_REPLICATION_SLOT "s"'


class SlotCase(SynchronousTestCase):
    """One command of a slot's, on a network in memory."""

    def setUp(self) -> None:
        self.network = Network()
        self.log = capture_log(self)

    def start(self, action: SlotAction, **options: Any) -> Server:
        """Start it; the server that lets it in."""
        endpoint = UpstreamEndpoint(
            self.network.reactor, upstream("10.0.0.1"), in_thread=maybeDeferred
        )
        self.service = SlotService(endpoint, "s", action, self.network.reactor, **options)
        self.service.startService()
        self.finished = self.service.finished()
        self.finished.addErrback(lambda failure: failure)
        self.addCleanup(self.check_nothing_is_left)
        return self.network.accept()

    def check_nothing_is_left(self) -> None:
        """It is over, and the connection too."""
        self.finished.addErrback(lambda _: None)
        self.assertTrue(self.finished.called)
        self.assertEqual(self.network.reactor.getDelayedCalls(), [])

    def over(self, server: Server) -> None:
        """The client has left."""
        while server.transport.take():
            pass
        server.lose()


class SlotTests(SlotCase):
    """What is done, and said."""

    def test_created(self) -> None:
        """With WAL reserved; from where on is shown. (L5)"""
        server = self.start(SlotAction.CREATE)
        server.let_in()
        server.answer(CREATE, slot_name="s", consistent_point="0/0")
        server.answer(READ, slot_type="physical", restart_lsn="0/3000028", restart_tli="1")
        self.assertIsNone(self.successResultOf(self.finished))
        self.assertIn('replication slot "s" is created', self.log)
        self.assertIn("it holds WAL back from 0/3000028 on", self.log)
        self.over(server)

    def test_created_on_an_old_server(self) -> None:
        """Which cannot say from where on."""
        server = self.start(SlotAction.CREATE)
        server.let_in(server_version="14.23")
        server.answer(CREATE, slot_name="s", consistent_point="0/0")
        self.assertIsNone(self.successResultOf(self.finished))
        self.over(server)

    def test_exists(self) -> None:
        """Is an error, unless that is good enough."""
        exists = error_response("ERROR", "42710", 'replication slot "s" already exists')
        for may_exist in (False, True):
            server = self.start(SlotAction.CREATE, may_exist=may_exist)
            server.let_in()
            server.peer.expect(query(CREATE))
            server.peer.send(exists, ready_for_query())
            if may_exist:
                server.answer(READ, slot_type="physical", restart_lsn="", restart_tli="")
                self.successResultOf(self.finished)
                self.assertIn("holds no WAL back before it is used", str(self.log))
            else:
                self.failureResultOf(self.finished, ServerError)
                self.assertIn('could not create replication slot "s"', str(self.log))
            self.over(server)

    def test_dropped(self) -> None:
        """And that is all."""
        server = self.start(SlotAction.DROP)
        server.let_in()
        server.peer.expect(query('DROP_REPLICATION_SLOT "s"'))
        server.peer.send(command_complete("DROP_REPLICATION_SLOT"), ready_for_query())
        self.successResultOf(self.finished)
        self.assertIn('replication slot "s" is dropped', self.log)
        self.over(server)

    def test_not_there(self) -> None:
        """In the server's words, whatever else may be good enough."""
        server = self.start(SlotAction.DROP, may_exist=True)
        server.let_in()
        server.peer.expect(query('DROP_REPLICATION_SLOT "s"'))
        missing = error_response("ERROR", "42704", 'replication slot "s" does not exist')
        server.peer.send(missing, ready_for_query())
        self.failureResultOf(self.finished, ServerError)
        self.assertIn("does not exist", str(self.log))
        self.over(server)

    def test_no_answer(self) -> None:
        """A server that never answers is given up."""
        server = self.start(SlotAction.DROP)
        server.let_in()
        self.network.reactor.advance(59)
        self.assertNoResult(self.finished)
        self.network.reactor.pump([30, 30, 30])
        self.failureResultOf(self.finished, Disconnected)
        server.transport.turn()

    def test_nobody_there(self) -> None:
        """It is not tried again."""
        endpoint = UpstreamEndpoint(
            self.network.reactor, upstream("10.0.0.1"), in_thread=maybeDeferred
        )
        self.service = SlotService(endpoint, "s", SlotAction.CREATE, self.network.reactor)
        self.service.startService()
        self.network.refuse()
        self.failureResultOf(self.service.finished(), Disconnected)
        self.assertEqual(len(self.network.asked), 1)

    def test_stopped(self) -> None:
        """Before it was done: that is no failure."""
        self.start(SlotAction.CREATE)
        self.successResultOf(self.service.stopService())
        self.network.reactor.advance(0)
        self.assertIsNone(self.successResultOf(self.finished))
