"""Tests for walstream.protocols.downstream, and for a receiver that has standbys behind it."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import (
    COPY_DONE,
    NOW,
    SIZE,
    START,
    keepalive,
    status,
    wal,
)
from tests.unit.test_protocols_feedback import feedback
from tests.unit.test_protocols_policy import standby
from tests.unit.test_protocols_receiver import (
    ReceiverCase,
    WatchedReceiver,
    history,
    next_timeline,
    result,
)
from walstream.formats.lsn import LSN
from walstream.protocols.downstream import NOBODY, Downstream, DownstreamSettings
from walstream.protocols.feedback import NO_FEEDBACK, Horizon, MergedFeedback
from walstream.protocols.login import Login
from walstream.protocols.policy import ReportRules, parse_rule
from walstream.protocols.receiver import ReceiverSettings
from walstream.protocols.standby_policy import StandbyPolicy
from walstream.protocols.standbys import Standby, Standbys
from walstream.testing.peers import ScriptedPeer
from walstream.testing.transport import FlowTransport
from walstream.wire.messages import query

RULES = ReportRules(flush=parse_rule("s1"), apply=parse_rule("s1"))


class SettingsTests(SynchronousTestCase):
    """What settings come to."""

    def made(self, **settings: Any) -> Downstream:
        return DownstreamSettings(**settings).made_for(Standbys(), Clock(), 30.0)

    def test_by_default(self) -> None:
        """No policy, so that nothing is slower; and feedback."""
        made = self.made()
        self.assertIsNone(made.policy)
        self.assertIsInstance(made.feedback, MergedFeedback)
        self.assertEqual((made.applied, NOBODY.applied), ("", ""))

    def test_rules(self) -> None:
        """Rules are a policy; another policy comes before them."""
        made = self.made(rules=RULES, feedback=False)
        self.assertIsInstance(made.policy, StandbyPolicy)
        self.assertEqual(made.applied, "FIRST 1 (s1)")
        self.assertIs(made.feedback, NO_FEEDBACK)
        self.assertIs(self.made(rules=RULES, policy=made.policy).policy, made.policy)

    def test_silence(self) -> None:
        """Who may be silent for ever to the sender is not believed for ever."""
        for timeout, expected in ((30.0, 30.0), (0.0, 60.0)):
            made = DownstreamSettings().made_for(Standbys(), Clock(), timeout)
            assert isinstance(made.feedback, MergedFeedback)
            self.assertEqual(made.feedback._silence, expected)

    def test_nothing_to_report(self) -> None:
        """Without a source nothing is said of feedback at all: an archive has no queries."""
        self.assertIsNone(NOBODY.reporter(Clock(), 10.0, lambda: NOW))


class HubTests(ReceiverCase):
    """What a server hears of a receiver with standbys."""

    def connect(self, **settings: Any) -> Any:
        """Connect with what the standbys have, and need."""
        self.standbys = Standbys()
        downstream = DownstreamSettings(RULES).made_for(self.standbys, self.clock, 60.0)
        self.receiver = WatchedReceiver(
            self.sink,
            Login("alice"),
            ReceiverSettings(synchronous=True, **settings),
            self.clock,
            None,
            downstream,
        )
        self.transport = FlowTransport(self.kind, self.clock)
        self.transport.connect(self.receiver, direct=self.direct)
        self.server = ScriptedPeer(self.transport, plays="server")
        self.server.expect_startup({"user": "alice", "replication": "on"})
        self.addCleanup(self.check_nothing_is_left, self.receiver, self.transport)
        return self.receiver

    def comes(self, flush: int, apply: int, timeline: int = 1) -> Standby:
        """The standby that is waited for has caught up, and has this."""
        each = standby(1, "s1", flush, apply=apply, timeline=timeline)
        self.standbys.changed(each)
        return each

    def begin(self) -> None:
        """The stream begins, and both are said."""
        self.begin_stream()
        self.server.expect(Horizon().message(NOW))

    def receive_all(self) -> None:
        """A hundred bytes come, all there are, and are durable here alone."""
        end = START + 100
        self.stream(START, wal(START, 100))
        self.server.expect(status(end), status(end, reply_requested=True))
        self.server.send(keepalive(end, reply_requested=False))
        self.server.expect(status(end))

    def test_a_commit(self) -> None:
        """What comes is reported as flushed, and as applied, when the standby says so."""
        self.begin()
        self.receive_all()
        each = self.comes(START + 100, START + 60)
        self.server.expect(status(START + 100, START + 100, START + 60))
        each.apply = START + 100
        self.standbys.changed(each)
        self.server.expect(status(START + 100, START + 100, START + 100))

    def test_feedback(self) -> None:
        """It goes out between the reports, and is taken back."""
        self.begin()
        each = self.comes(0, 0)
        each.feedback = feedback(755)
        self.standbys.changed(each)
        self.clock.advance(1)
        self.server.expect(Horizon(755).message(NOW + 1))
        self.standbys.left(each)
        self.clock.advance(1)
        self.server.expect(Horizon().message(NOW + 2))

    def test_the_server_shuts_down(self) -> None:
        """It asks and asks: then what is here is enough."""
        self.begin()
        self.receive_all()
        end = START + 100
        self.server.send(keepalive(end, reply_requested=True, time=0))
        for _ in range(2):
            self.server.expect(status(end, reply_requested=True))
            self.server.send(keepalive(end, reply_requested=False))
            self.server.send(keepalive(end, reply_requested=True))
        self.server.expect(status(end, end, end))

    def test_another_timeline(self) -> None:
        """Who has not followed a promotion is not waited with: its word is of another history."""
        self.begin()
        self.receive_all()
        each = self.comes(START + 100, START + 100)
        self.server.expect(status(START + 100, START + 100, START + 100))
        self.server.send(COPY_DONE)
        self.server.expect(status(START + 100, START + 100, START + 100), COPY_DONE)
        self.server.send(next_timeline(2, START + 100))
        self.server.expect(query("TIMELINE_HISTORY 2"))
        self.server.send(result(b"00000002.history", history(1, START + 100)))
        self.tell_demands()
        self.server.expect(query(f"START_REPLICATION {LSN(SIZE.floor(START + 100))} TIMELINE 2"))
        self.server.send(b"W\0\0\0\7\0\0\0")
        # What was reported before counts for the timeline before.
        self.server.expect(status(START, reply_requested=True), Horizon().message(NOW))
        each.timeline = 2
        self.standbys.changed(each)
        self.server.expect(status(START, START, START))
