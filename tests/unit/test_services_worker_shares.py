"""Tests for walstream.services.worker_shares: what each worker may have."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.services.worker_shares import ClientShare, share_of_clients, shares_of_rate


class SharesTests(SynchronousTestCase):
    """Shares add up."""

    def test_clients(self) -> None:
        """As equal as can be, and never more than there may be in all."""
        for limit in range(1, 20):
            for count in (2, 3, 7):
                shares = [
                    share_of_clients(limit, number + 1, count) or 0 for number in range(count)
                ]
                self.assertEqual(sum(shares), limit)
                self.assertLessEqual(max(shares) - min(shares), 1)

    def test_no_limit(self) -> None:
        """Any number."""
        self.assertIsNone(share_of_clients(0, 1, 2))

    def test_rate(self) -> None:
        """By clients; one that has none can begin."""
        self.assertEqual(shares_of_rate(100, [3, 1]), [75, 25])
        self.assertEqual(shares_of_rate(100, [0, 0]), [50, 50])
        self.assertEqual(shares_of_rate(100, [3, 0]), [75, 25])
        self.assertEqual(shares_of_rate(100, []), [])

    def test_admission(self) -> None:
        """A worker's share is used up before the limit is, which is what clients are told."""
        share = ClientShare(3, 2)
        self.assertEqual(share.limit, 3)
        self.assertEqual([share.enter(pid) for pid in (1, 2, 3)], [True, True, False])
        share.leave(1)
        self.assertTrue(share.enter(4))

    def test_no_share(self) -> None:
        """With more workers than there may be clients some may have none."""
        self.assertFalse(ClientShare(1, 0).enter(1))
