"""Tests for walstream.protocols.feedback: hot standby feedback of all clients, as one."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import NOW, TIME
from tests.unit.test_protocols_policy import standby
from walstream.protocols.feedback import (
    NO_FEEDBACK,
    FeedbackReporter,
    Horizon,
    MergedFeedback,
    merged,
)
from walstream.protocols.standbys import Standby, Standbys
from walstream.wire.copydata import HotStandbyFeedback, parse_standby_message

EPOCH = 1 << 32
NOTHING = HotStandbyFeedback(TIME, 0, 0, 0, 0)


def feedback(xmin: int, catalog_xmin: int = 0) -> HotStandbyFeedback:
    """A message about full transaction numbers."""
    return HotStandbyFeedback(
        TIME, xmin % EPOCH, xmin // EPOCH, catalog_xmin % EPOCH, catalog_xmin // EPOCH
    )


class HorizonTests(SynchronousTestCase):
    """Values."""

    def test_there_and_back(self) -> None:
        """All 64 bits of both numbers."""
        for xmin, catalog_xmin in ((0, 0), (755, 0), (3, EPOCH + 9), (EPOCH * EPOCH - 1, 700)):
            horizon = Horizon.of(feedback(xmin, catalog_xmin))
            self.assertEqual(horizon, Horizon(xmin, catalog_xmin))
            message = horizon.message(NOW)
            self.assertEqual(message[:5], b"d\x00\x00\x00\x1d")
            self.assertEqual(parse_standby_message(message[5:]), feedback(xmin, catalog_xmin))

    def test_none(self) -> None:
        """0 is no transaction, nor are those that no query can see; whatever the epoch."""
        for xid in range(3):
            self.assertFalse(Horizon.of(HotStandbyFeedback(TIME, xid, 7, xid, 7)))

    def test_oldest(self) -> None:
        """Of each number by itself, over a change of the epoch; none is not the oldest."""
        self.assertEqual(
            merged([Horizon(EPOCH + 5, 0), Horizon(EPOCH - 5, 900), Horizon(0, 800), Horizon()]),
            Horizon(EPOCH - 5, 800),
        )
        self.assertEqual(merged([]), Horizon())

    def test_implausible(self) -> None:
        """What cannot be of the same time as the others is left out: a server would ignore all."""
        for bad in (5, 90 * EPOCH):
            several = [Horizon(9 * EPOCH), Horizon(9 * EPOCH + 70), Horizon(bad)]
            self.assertEqual(merged(several), Horizon(9 * EPOCH))
        self.assertEqual(merged([Horizon(5), Horizon(9 * EPOCH)]), Horizon(9 * EPOCH))
        half = EPOCH // 2
        self.assertEqual(merged([Horizon(5), Horizon(4 + half)]), Horizon(5))


class MergedCase(SynchronousTestCase):
    """Clients, and what is told upstream of them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.standbys = Standbys()
        self.sent: list[HotStandbyFeedback] = []
        self.source = MergedFeedback(self.standbys, self.clock, 60.0)
        self.reporter = FeedbackReporter(self.source, self.clock, 10.0, lambda: NOW)

    def start(self) -> None:
        """The upstream's stream begins."""
        self.reporter.start(self.send)
        self.addCleanup(self.check_nothing_is_left)

    def check_nothing_is_left(self) -> None:
        """Without a stream there are no timers, whatever happens."""
        self.reporter.stop()
        self.says(self.comes(99), 30)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def send(self, message: bytes) -> None:
        found = parse_standby_message(message[5:])
        assert isinstance(found, HotStandbyFeedback)
        self.sent.append(found)

    def comes(self, pid: int) -> Standby:
        """A client that has not sent feedback yet."""
        each = standby(pid, "s")
        self.standbys.changed(each)
        return each

    def says(self, each: Standby, xmin: int, catalog_xmin: int = 0) -> None:
        """A client sends feedback."""
        each.feedback = feedback(xmin, catalog_xmin)
        self.standbys.changed(each)

    def told(self) -> list[HotStandbyFeedback]:
        """What has been sent a moment later, and not before."""
        self.clock.advance(0.3)
        sent, self.sent = self.sent, []
        return sent

    def pass_time(self, seconds: int, *alive: Standby) -> None:
        """Seconds in each of which these report their positions."""
        for _ in range(seconds):
            self.clock.advance(1)
            for each in alive:
                self.standbys.changed(each)


class MergedTests(MergedCase):
    """What is told, and when."""

    def test_begins_with_nothing(self) -> None:
        """A slot of the server's may remember what was before, so that is said; then silence."""
        self.start()
        self.assertEqual(self.told(), [NOTHING])
        self.pass_time(100)
        self.assertEqual(self.told(), [])

    def test_begins_with_what_there_is(self) -> None:
        """What was said before the stream began."""
        self.says(self.comes(1), 755)
        self.start()
        self.assertEqual(self.told(), [feedback(755)])

    def test_changes(self) -> None:
        """The oldest of all; what is no news is not repeated."""
        self.start()
        one, two = self.comes(1), self.comes(2)
        self.says(one, 755, 700)
        self.assertEqual(self.told(), [NOTHING, feedback(755, 700)])
        self.says(two, 800)
        self.says(one, 755, 700)
        self.assertEqual(self.told(), [])
        self.says(one, 900, 710)
        self.assertEqual(self.told(), [feedback(800, 710)])

    def test_many_changes(self) -> None:
        """Those of a moment are one."""
        self.start()
        several = [self.comes(pid) for pid in range(200)]
        for pid, each in enumerate(several):
            self.says(each, 1000 - pid)
        self.assertEqual(self.told(), [NOTHING, feedback(801)])

    def test_repeated(self) -> None:
        """Every ten seconds, while there is any."""
        self.start()
        one = self.comes(1)
        self.says(one, 755)
        self.told()
        self.pass_time(35, one)
        self.assertEqual(self.told(), [feedback(755)] * 3)
        self.says(one, 0)
        self.assertEqual(self.told(), [NOTHING])
        self.pass_time(35, one)
        self.assertEqual(self.told(), [])

    def test_never_repeated(self) -> None:
        """With an interval of 0."""
        self.reporter = FeedbackReporter(self.source, self.clock, 0, lambda: NOW)
        self.start()
        one = self.comes(1)
        self.says(one, 755)
        self.told()
        self.pass_time(35, one)
        self.assertEqual(self.told(), [])

    def test_withdrawn(self) -> None:
        """When a client leaves, or its stream ends, or it needs nothing any more."""
        self.start()
        one, two, three = (self.comes(pid) for pid in range(3))
        for xmin, each in enumerate((one, two, three), 755):
            self.says(each, xmin)
        self.told()
        self.standbys.left(one)
        self.assertEqual(self.told(), [feedback(756)])
        two.no_longer_streams()
        self.standbys.changed(two)
        self.assertEqual(self.told(), [feedback(757)])
        self.says(three, 0)
        self.assertEqual(self.told(), [NOTHING])

    def test_silent(self) -> None:
        """Who says nothing at all for a minute needs nothing, until it is heard again."""
        self.start()
        one, two = self.comes(1), self.comes(2)
        self.says(one, 755)
        self.says(two, 800)
        self.told()
        self.pass_time(59, two)
        self.assertEqual(set(self.told()), {feedback(755)})
        self.pass_time(2, two)
        self.assertEqual(self.told()[-1], feedback(800))
        self.standbys.changed(one)
        self.assertEqual(self.told(), [feedback(755)])
        self.pass_time(100)
        self.assertEqual(self.told()[-1], NOTHING)

    def test_silent_between_streams(self) -> None:
        """Nobody looks then, but the next stream does not begin with it."""
        self.start()
        self.says(self.comes(1), 755)
        self.reporter.stop()
        self.pass_time(61)
        self.sent.clear()
        self.start()
        self.assertEqual(self.told(), [NOTHING])

    def test_off(self) -> None:
        """It is said once that nothing is needed."""
        self.reporter = FeedbackReporter(NO_FEEDBACK, self.clock, 10.0, lambda: NOW)
        self.start()
        self.says(self.comes(1), 755)
        self.pass_time(30)
        self.assertEqual(self.told(), [NOTHING])
