"""Tests for walstream.protocols.standby_policy: reports that wait for standbys."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.unit.log_capture import capture_log
from tests.unit.test_protocols_policy import TIMELINE, standby
from walstream.interfaces import NO_LIMIT, NO_LIMITS, IReportPolicy, ReportLimits
from walstream.protocols.policy import ReportRules, parse_rule
from walstream.protocols.standby_policy import RuleState, StandbyPolicy
from walstream.protocols.standbys import Standby, Standbys, StandbyState


class PolicyCase(SynchronousTestCase):
    """A policy, whose standbys are the test's."""

    def setUp(self) -> None:
        self.log = capture_log(self)
        self.clock = Clock()
        self.standbys = Standbys()
        self.moves = 0

    def make(self, timeout: float = 0.0, **rules: str) -> StandbyPolicy:
        """A policy with these rules."""
        parsed = ReportRules(**{position: parse_rule(rule) for position, rule in rules.items()})
        self.policy = StandbyPolicy(parsed, self.standbys, self.clock, timeout)
        self.addCleanup(self.check_nothing_is_left)
        return self.policy

    def check_nothing_is_left(self) -> None:
        """Without a stream there are no timers."""
        self.policy.end()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def begin(self, timeline: int = TIMELINE) -> None:
        """A stream begins."""
        self.policy.begin(timeline, self.moved)

    def moved(self) -> None:
        self.moves += 1

    def comes(self, pid: int, name: str, flush: int, apply: int | None = None) -> Standby:
        """A standby comes, and has caught up."""
        each = standby(pid, name, flush, apply=apply)
        self.standbys.changed(each)
        return each


class LimitTests(PolicyCase):
    """How far may be reported."""

    def test_interface(self) -> None:
        """It is a policy."""
        verifyObject(IReportPolicy, self.make(flush="a"))

    def test_each_position(self) -> None:
        """What has no rule is not held back."""
        self.make(flush="a", apply="ANY 1 (a, b)")
        self.comes(1, "a", 20, 10)
        self.comes(2, "b", 30, 15)
        self.begin()
        self.assertEqual(self.policy.limits, ReportLimits(NO_LIMIT, 20, 15))
        self.assertEqual(self.policy.applied, "ANY 1 (a, b)")

    def test_tells_of_each_move(self) -> None:
        """At once, and only then: not of what others say, nor of what changes nothing."""
        self.make(flush="ANY 1 (a, b)")
        self.begin()
        a, other = self.comes(1, "a", 20), self.comes(2, "c", 90)
        self.assertEqual((self.moves, self.policy.limits.flush), (1, 20))
        b = self.comes(3, "b", 15)
        other.flush = 95
        self.standbys.changed(other)
        a.write = 40
        self.standbys.changed(a)
        self.assertEqual(self.moves, 1)
        b.flush = 30
        self.standbys.changed(b)
        self.assertEqual((self.moves, self.policy.limits.flush), (2, 30))
        self.standbys.left(b)
        self.assertEqual((self.moves, self.policy.limits.flush), (3, 20))

    def test_tells_nobody_between_streams(self) -> None:
        """What happens meanwhile is known when the next one begins."""
        self.make(flush="a")
        self.begin()
        self.policy.end()
        self.comes(1, "a", 20)
        self.assertEqual(self.moves, 0)
        self.begin()
        self.assertEqual(self.policy.limits.flush, 20)

    def test_without_rules(self) -> None:
        """Nothing is held back."""
        self.make()
        self.begin()
        self.assertEqual((self.policy.limits, self.policy.applied), (NO_LIMITS, ""))
        self.assertEqual(self.policy.sync_state(self.comes(1, "a", 20)), (0, "async"))


class WantTests(PolicyCase):
    """There are too few standbys."""

    def test_it_is_said(self) -> None:
        """Who is missing, once; and when there are enough again."""
        self.make(flush="FIRST 2 (a, b)")
        self.begin()
        self.comes(1, "b", 20)
        self.policy.end()
        self.begin()
        (text,) = self.log
        self.assertIn("the flush position is not reported any further", text)
        self.assertIn("FIRST 2 (a, b) is not met. Not there: a, b.", text)
        self.assertIn("waits until they are", text)
        a = self.comes(2, "a", 10)
        self.assertIn("reported by FIRST 2 (a, b) again", self.log[1])
        self.standbys.left(a)
        self.assertIn("Not there: a.", self.log[2])
        self.assertEqual(self.policy.limits.flush, 0)

    def test_all_there(self) -> None:
        """Nothing is said if there are enough."""
        self.make(flush="a")
        self.comes(1, "a", 20)
        self.begin()
        self.assertEqual(self.log, [])

    def test_after_a_while(self) -> None:
        """With a timeout the rule is lifted after it, loudly, until there are enough again."""
        self.make(5.0, flush="a", apply="*")
        self.comes(1, "b", 20)
        self.begin()
        self.assertIn("waits at most 5 s", self.log[0])
        self.clock.advance(4.9)
        self.assertEqual((self.moves, self.policy.limits), (0, ReportLimits(NO_LIMIT, 0, 20)))
        self.clock.advance(0.1)
        self.assertEqual((self.moves, self.policy.limits), (1, ReportLimits(apply=20)))
        self.assertIn(
            "is reported as it is here: FIRST 1 (a) has not been met for 5 s", self.log[1]
        )
        self.comes(2, "a", 10)
        self.assertEqual(self.policy.limits.flush, 10)
        self.assertIn("again", self.log[2])
        self.assertEqual(len(self.log), 3)

    def test_in_time(self) -> None:
        """A standby that comes back in time ends the waiting, and the next one begins anew."""
        self.make(5.0, flush="a")
        self.begin()
        for pid in (1, 2):
            self.clock.advance(4)
            self.standbys.left(self.comes(pid, "a", 20))
            self.assertEqual(self.policy.limits.flush, 0)
            self.clock.advance(4.9)
            self.assertEqual(self.policy.limits.flush, 0)
            self.comes(pid, "a", 30)
            self.clock.advance(1)
            self.assertEqual(self.policy.limits.flush, 30)
            self.standbys.left(self.comes(pid, "a", 30))
        self.clock.advance(5)
        self.assertEqual(self.policy.limits.flush, NO_LIMIT)

    def test_it_stays_lifted(self) -> None:
        """A stream that begins when the rule is lifted waits for nobody."""
        self.make(5.0, flush="a")
        self.begin()
        self.clock.advance(5)
        self.policy.end()
        self.begin()
        self.assertEqual(self.policy.limits, NO_LIMITS)

    def test_while_nobody_waits(self) -> None:
        """The time counts in streams only."""
        self.make(5.0, flush="a")
        self.begin()
        self.policy.end()
        self.clock.advance(100)
        self.begin()
        self.assertEqual(self.policy.limits.flush, 0)


class StateTests(PolicyCase):
    """What others see of it."""

    def test_state(self) -> None:
        """Each rule, and how it is doing."""
        self.make(5.0, flush="FIRST 1 (a, b)", apply="ANY 2 (a, b)")
        self.comes(1, "b", 20)
        self.begin()
        self.clock.advance(5)
        self.assertEqual(
            self.policy.state(),
            [
                RuleState("flush", "FIRST 1 (a, b)", True, False, 20, ("a",)),
                RuleState("apply", "ANY 2 (a, b)", False, True, 0, ("a",)),
            ],
        )

    def test_before_the_first_stream(self) -> None:
        """There is a state even if nothing was received yet."""
        self.make(flush="a")
        (state,) = self.policy.state()
        self.assertEqual((state.is_met, state.missing), (False, ("a",)))

    def test_sync_state(self) -> None:
        """As PostgreSQL's view has it; by the flush position's rule, if there is one."""
        self.make(write="x", flush="FIRST 1 (a, b)", apply="ANY 1 (*)")
        self.begin()
        several = [self.comes(pid, name, 9) for pid, name in enumerate(("b", "a", "c"), 1)]
        late = standby(4, "a", 9, state=StandbyState.CATCHUP)
        self.standbys.changed(late)
        self.assertEqual(
            [self.policy.sync_state(each) for each in (*several, late)],
            [(2, "potential"), (1, "sync"), (0, "async"), (1, "potential")],
        )
