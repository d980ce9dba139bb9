"""Tests for `walstream.protocols.rate`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from walstream.protocols.rate import Pace, SharedRate, TokenBucket

PAGE = 8192
MB = 1 << 20


class TokenBucketTests(SynchronousTestCase):
    """`TokenBucket`."""

    def test_burst(self) -> None:
        """After a rest a tenth of a second's worth may go out at once, at least 64 KiB."""
        for rate, burst in ((10 * MB, MB), (100_000, 64 << 10)):
            bucket = TokenBucket(rate, 0.0)
            self.assertEqual(bucket.level(0.0), burst)
            self.assertEqual(bucket.level(3600.0), burst)

    def test_refills(self) -> None:
        """What was taken comes back at the rate, what was taken too much as well."""
        bucket = TokenBucket(1000, 5.0, burst=500)
        bucket.take(700)
        self.assertEqual(bucket.level(5.0), -200)
        self.assertAlmostEqual(bucket.level(5.1), -100)
        self.assertAlmostEqual(bucket.level(5.5), 300)

    def test_clock_set_back(self) -> None:
        """A clock that is set back takes nothing away, and it goes on from there."""
        bucket = TokenBucket(1000, 5000.0, burst=500)
        bucket.take(500)
        self.assertEqual(bucket.level(10.0), 0)
        self.assertAlmostEqual(bucket.level(10.2), 200)

    def test_wait(self) -> None:
        """Who wants little waits for that; who wants much, for what comes in a twentieth second."""
        bucket = TokenBucket(10 * MB, 0.0)
        bucket.take(MB)
        self.assertAlmostEqual(bucket.wait(1 << 40), 0.05)
        self.assertAlmostEqual(bucket.wait(1024), 1024 / (10 * MB))
        slow = TokenBucket(32 << 10, 0.0)
        slow.take(64 << 10)
        self.assertAlmostEqual(slow.wait(1 << 40), 0.25)  # a page


class Client:
    """Sends as much as it may, whenever it may.

    :ivar sent: how much in all.
    """

    def __init__(self, pace: Pace, clock: Clock, at_once: int = MB) -> None:
        self.pace = pace
        self.sent = 0
        self.is_paused = False
        self.most = 0
        self._clock = clock
        self._at_once = at_once
        pace.wake = self.run

    def run(self) -> None:
        while not self.is_paused and (allowance := self.pace.allowance(1 << 40)):
            self.send(min(allowance, self._at_once))

    def send(self, amount: int) -> None:
        self.pace.take(amount)
        self.sent += amount
        self.most = max(self.most, amount)


class PaceTests(SynchronousTestCase):
    """`Pace`, one client's or several clients'."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000.0)

    def shared(self, rate: float) -> SharedRate:
        return SharedRate(rate, self.clock)

    def client(self, rate: float = 0, shared: SharedRate | None = None) -> Client:
        client = Client(Pace(rate, shared, self.clock), self.clock)
        self.addCleanup(client.pace.stop)
        return client

    def run_for(self, seconds: float) -> None:
        self.clock.pump([0.005] * round(seconds / 0.005))

    def assert_rate(self, sent: int, seconds: float, rate: float) -> None:
        """Within a hundredth, but for the burst at the beginning."""
        burst = max(0.1 * rate, 64 << 10)
        self.assertLessEqual(sent, seconds * rate + burst + PAGE)
        self.assertGreaterEqual(sent, 0.99 * seconds * rate)

    def test_rate(self) -> None:
        """Over any time, the rate and one burst go out; with at most one timer."""
        for rate in (32 << 10, 1_000_000, 300 * MB):
            client = self.client(rate)
            client.run()
            for second in range(1, 6):
                self.run_for(1.0)
                self.assert_rate(client.sent, second, rate)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            client.pace.stop()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_little_is_not_delayed(self) -> None:
        """Who sends less than the rate, in small pieces, never waits."""
        pace = self.client(1_000_000).pace
        for _ in range(1000):
            self.assertGreaterEqual(pace.allowance(8000), 8000)
            pace.take(8000)
            self.clock.advance(0.01)

    def test_asked_again_while_it_waits(self) -> None:
        """A transport that is resumed meanwhile makes no second timer."""
        client = self.client(100_000)
        client.run()
        for _ in range(5):
            client.run()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_total_rate(self) -> None:
        """All together get the rate, and each its share of it, however many they are."""
        for count, rate in ((1, MB), (2, 500_000), (50, 10 * MB), (300, 5 * MB)):
            shared = self.shared(rate)
            clients = [self.client(0, shared) for _ in range(count)]
            for client in clients:
                client.run()
            # A burst goes to who comes first: that is not looked at.
            self.run_for(1.0)
            before = [client.sent for client in clients]
            self.run_for(10.0)
            sent = [client.sent - was for client, was in zip(clients, before, strict=True)]
            self.assert_rate(sum(sent), 10.0, rate)
            self.assertGreaterEqual(min(sent), 0.9 * 10.0 * rate / count - 2 * PAGE)
            self.assertLessEqual(max(sent), 1.1 * 10.0 * rate / count + 2 * PAGE)
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            for client in clients:
                client.pace.stop()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_that_does_not_read(self) -> None:
        """What a stopped client does not take, the others have."""
        shared = self.shared(MB)
        stopped, reader = self.client(0, shared), self.client(0, shared)
        stopped.run()
        stopped.is_paused = True
        reader.run()
        self.run_for(5.0)
        self.assert_rate(reader.sent, 5.0, MB)
        stopped.is_paused = False
        stopped.run()
        before = stopped.sent
        self.run_for(5.0)
        self.assertGreater(stopped.sent - before, 2.2 * MB)

    def test_both_limits(self) -> None:
        """A client's own limit and the common one hold both; others get what it leaves."""
        shared = self.shared(3 * MB)
        slow, fast = self.client(500_000, shared), self.client(0, shared)
        slow.run()
        fast.run()
        self.run_for(5.0)
        self.assert_rate(slow.sent, 5.0, 500_000)
        self.assert_rate(slow.sent + fast.sent, 5.0, 3 * MB)

    def test_rate_is_changed(self) -> None:
        """The common rate can be changed while clients wait for it."""
        shared = self.shared(32 << 10)
        client = self.client(0, shared)
        client.run()
        self.run_for(1.0)
        self.assertEqual(shared.rate, 32 << 10)
        shared.rate = MB
        before = client.sent
        self.run_for(3.0)
        self.assert_rate(client.sent - before, 3.0, MB)

    def test_stopped_in_its_turn(self) -> None:
        """A client may end when it is woken; the next one has its turn."""
        shared = self.shared(MB)
        first, second = self.client(0, shared), self.client(0, shared)
        first.run()
        second.run()
        first.pace.wake = first.pace.stop
        before = second.sent
        self.run_for(1.0)
        self.assertGreater(second.sent - before, 0.9 * MB)

    @settings(deadline=None, max_examples=40)
    @given(st.data())
    def test_any_order(self, data: st.DataObject) -> None:
        """Whatever they do in whatever order, nobody gets more, and nobody is forgotten."""
        self.setUp()
        rate = data.draw(st.sampled_from([40_000, 400_000, 4_000_000]))
        shared = self.shared(rate)
        clients = [self.client(0, shared) for _ in range(data.draw(st.integers(1, 6)))]
        began = self.clock.seconds()
        for _ in range(data.draw(st.integers(1, 30))):
            client = data.draw(st.sampled_from(clients))
            client.is_paused = data.draw(st.booleans())
            client.run()
            self.clock.advance(data.draw(st.sampled_from([0.0, 0.001, 0.07, 1.3])))
            passed = self.clock.seconds() - began
            burst = max(0.1 * rate, 64 << 10)
            self.assertLessEqual(sum(c.sent for c in clients), passed * rate + burst + PAGE)
        for client in clients:
            client.is_paused = False
            client.run()
        before = [client.sent for client in clients]
        self.run_for(len(clients) * 3 * PAGE / rate + 1.0)
        for client, was in zip(clients, before, strict=True):
            self.assertGreater(client.sent, was)
        for client in clients:
            client.pace.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
