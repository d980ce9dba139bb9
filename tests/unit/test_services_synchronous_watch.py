"""Tests for walstream.services.synchronous_watch."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import START
from tests.unit.log_capture import capture_log
from tests.unit.test_services_receive import ReceiveCase
from tests.unit.upstream_server import Network, upstream
from walstream.errors import Disconnected, NotSynchronous
from walstream.formats.synchronous_standby_names import NO_STANDBYS, SynchronousStandbyNames
from walstream.protocols.receiver import ReceiverSettings
from walstream.protocols.receiver_settings import Dialect, OnSynchronous
from walstream.protocols.synchronous import StandbyDemands
from walstream.services import synchronous_watch
from walstream.services.endpoint import UpstreamEndpoint
from walstream.services.synchronous_watch import StandbyInquiry, SynchronousWatch
from walstream.upstream import TargetSessionAttrs, UpstreamHost
from walstream.wire.messages import error_response, ready_for_query

HOST = UpstreamHost("10.0.0.7")
NAMED = StandbyDemands(SynchronousStandbyNames.parse("walstream"), "on")
NOT_NAMED = StandbyDemands(NO_STANDBYS, "on")


class ManualInquiry:
    """Asks the test.

    :ivar hosts: who was asked. :ivar asked: what is not answered yet.
    """

    def __init__(self) -> None:
        self.hosts: list[UpstreamHost] = []
        self.asked: list[Deferred[StandbyDemands | None]] = []

    def ask(self, host: UpstreamHost) -> Deferred[StandbyDemands | None]:
        self.hosts.append(host)
        answer: Deferred[StandbyDemands | None] = Deferred(self._cancelled)
        self.asked.append(answer)
        return answer

    def _cancelled(self, answer: Deferred[StandbyDemands | None]) -> None:
        self.asked.remove(answer)

    def answer(self, demands: StandbyDemands | None) -> None:
        self.asked.pop().callback(demands)

    def fail(self, reason: str) -> None:
        self.asked.pop().errback(Disconnected(reason))


class WatchTests(SynchronousTestCase):
    """When it asks, and what it makes of the answers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.inquiry = ManualInquiry()
        self.told: list[StandbyDemands] = []
        self.log = capture_log(self)
        self.watch = self.make(5.0)

    def make(self, interval: float) -> SynchronousWatch:
        return SynchronousWatch(self.inquiry, self.clock, interval, lambda: 0.5)

    def test_asks_again_and_again(self) -> None:
        """The server that streams, in each interval after the last answer."""
        self.watch.start(HOST, self.told.append)
        self.clock.advance(4.9)
        self.assertEqual(self.inquiry.hosts, [])
        self.clock.advance(0.1)
        self.clock.advance(100)
        self.assertEqual(self.inquiry.hosts, [HOST])
        self.inquiry.answer(NAMED)
        self.clock.advance(5)
        self.inquiry.answer(NOT_NAMED)
        self.assertEqual(self.told, [NAMED, NOT_NAMED])
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers_at_once(self) -> None:
        """An answer that is there already is an answer."""
        self.watch.start(HOST, self.told.append)
        self.inquiry.ask = lambda host: _now(NAMED)  # type: ignore[method-assign]
        self.clock.pump([5, 5])
        self.assertEqual(self.told, [NAMED] * 2)
        self.watch.stop()

    def test_not_all_at_once(self) -> None:
        """The interval is a quarter shorter to a quarter longer."""
        for chance, seconds in ((0.0, 7.5), (0.999, 12.4)):
            watch = SynchronousWatch(self.inquiry, self.clock, 10.0, partial(float, chance))
            watch.start(HOST, self.told.append)
            (call,) = self.clock.getDelayedCalls()
            self.assertAlmostEqual(call.getTime() - self.clock.seconds(), seconds, 0)
            watch.stop()

    def test_never(self) -> None:
        """With interval 0 nobody is asked."""
        watch = self.make(0.0)
        watch.start(HOST, self.told.append)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        watch.stop()

    def test_cannot_ask(self) -> None:
        """Failures are said once, until it has worked again; it tries on."""
        self.watch.start(HOST, self.told.append)
        for _ in range(3):
            self.clock.advance(5)
            self.inquiry.fail("max_wal_senders")
        self.assertEqual(len(self.log), 1)
        self.assertIn("max_wal_senders. Should they come to do so", self.log[0])
        self.clock.advance(5)
        self.inquiry.answer(None)
        self.clock.advance(5)
        self.inquiry.fail("max_wal_senders")
        self.assertEqual(len(self.log), 2)
        self.assertEqual(self.told, [])
        self.watch.stop()

    def test_stop(self) -> None:
        """Stopped, it gives up what it asks, and tells nothing more, and logs nothing."""
        self.watch.start(HOST, self.told.append)
        self.clock.advance(5)
        (asked,) = self.inquiry.asked
        self.watch.stop()
        self.assertEqual(self.inquiry.asked, [])
        self.assertIsNone(self.successResultOf(asked))
        self.assertEqual((self.told, self.log, self.clock.getDelayedCalls()), ([], [], []))

    def test_stopped_by_what_it_tells(self) -> None:
        """What it tells may end the connection, and so the watch."""
        self.watch.start(HOST, lambda _: self.watch.stop())
        self.clock.advance(5)
        self.inquiry.answer(NAMED)
        self.assertEqual(self.clock.getDelayedCalls(), [])


def _now(demands: StandbyDemands) -> Deferred[StandbyDemands | None]:
    answer: Deferred[StandbyDemands | None] = Deferred()
    answer.callback(demands)
    return answer


class InquiryTests(SynchronousTestCase):
    """Asking over a connection of its own."""

    def setUp(self) -> None:
        self.network = Network()
        self.clock = self.network.reactor
        endpoint = partial(UpstreamEndpoint, in_thread=maybeDeferred)
        self.patch(synchronous_watch, "UpstreamEndpoint", endpoint)
        hosts = upstream("10.0.0.1", "10.0.0.2", wanted=TargetSessionAttrs.STANDBY)
        self.asked = StandbyInquiry(self.clock, hosts).ask(HOST)

    def test_asks(self) -> None:
        """That very host, whatever kind of server it has become, by another name, and briefly."""
        self.assertEqual(self.network.asked, ["10.0.0.7"])
        server = self.network.accept()
        server.let_in()
        server.tell_demands("walstream", "remote_apply")
        self.assertEqual(
            self.successResultOf(self.asked),
            StandbyDemands(SynchronousStandbyNames.parse("walstream"), "remote_apply"),
        )
        server.transport.take()
        self.assertEqual(server.transport.peer_saw, "end")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_is_not_let_in(self) -> None:
        """As when all of max_wal_senders are in use."""
        self.network.accept().turn_away("53300", "exceeds max_wal_senders")
        self.assertIn(
            "exceeds max_wal_senders", str(self.failureResultOf(self.asked, Disconnected))
        )

    def test_answers_with_an_error(self) -> None:
        """A server that knows no such setting does not tell."""
        server = self.network.accept()
        server.let_in()
        server.peer.expect(lambda frame: True)
        server.peer.send(error_response("ERROR", "42704", "no such thing") + ready_for_query())
        self.assertIsNone(self.successResultOf(self.asked))

    def test_takes_too_long(self) -> None:
        """It is given up after ten seconds, whatever it waits for."""
        server = self.network.accept()
        server.let_in()
        self.clock.advance(10)
        server.transport.turn()
        self.failureResultOf(self.asked)
        self.assertEqual(server.transport.peer_saw, "reset")

    def test_cancelled(self) -> None:
        """Who does not want to know any more cancels it."""
        self.asked.cancel()
        self.failureResultOf(self.asked)
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ServiceTests(ReceiveCase):
    """A receiving service with a watch."""

    def begin(self, **settings: object) -> None:
        """Begin to receive, with a test that answers the inquiries."""
        self.inquiry = ManualInquiry()
        self.sink.auto_flush = False
        options = ReceiverSettings(synchronous_check=4.0, **settings)  # type: ignore[arg-type]
        self.start(options, inquiry=self.inquiry)
        self.addCleanup(self.complete_flushes)

    def complete_flushes(self) -> None:
        self.sink.auto_flush = True
        while self.sink.needs_flush:
            self.sink.complete_flush()

    def test_named_while_it_streams(self) -> None:
        """The server that streams is asked, and from then on WAL is flushed as it comes."""
        self.begin()
        server = self.stream()
        self.pass_time(6)
        self.assertEqual(self.inquiry.hosts, [UpstreamHost("10.0.0.1")])
        self.inquiry.answer(NAMED)
        server.send_wal(START, 100)
        self.assertTrue(self.sink.needs_flush)

    def test_said_once(self) -> None:
        """What was learned outlives the connection: after a reconnect it is no news."""
        self.begin()
        self.server = self.stream()
        self.pass_time(6)
        self.inquiry.answer(NAMED)
        self.network_is_lost_and_back()
        self.assertEqual(len([text for text in self.log if "waits for this receiver" in text]), 1)

    def network_is_lost_and_back(self) -> None:
        """The connection is lost, and on the next one the server says that it waits for us."""
        self.complete_flushes()
        self.server.lose()
        self.pass_time(0.1)
        server = self.network.accept()
        server.let_in()
        server.identify(START)
        server.answer("SHOW wal_sender_timeout", wal_sender_timeout="1min")
        server.tell_demands("walstream")

    def test_refuses(self) -> None:
        """With --on-synchronous=refuse that is the end of the service."""
        self.begin(on_synchronous=OnSynchronous.REFUSE)
        server = self.stream()
        self.pass_time(6)
        self.inquiry.answer(NAMED)
        server.transport.turn()
        self.failureResultOf(self.finished, NotSynchronous)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_asked(self) -> None:
        """Nobody is asked before a stream, after one, or if it does not matter."""
        self.begin()
        self.network.accept()
        self.pass_time(20)
        self.assertEqual(self.inquiry.hosts, [])
        self.successResultOf(self.service.stopService())
        self.begin(synchronous=True)
        self.stream()
        self.pass_time(20)
        self.assertEqual(self.inquiry.hosts, [])

    def test_not_in_the_other_dialect(self) -> None:
        """The dialect of 2009 has neither the question nor the answer."""
        self.begin(dialect=Dialect.DESIGN_2009)
        self.assertIsNone(self.service._watch)


del ReceiveCase
