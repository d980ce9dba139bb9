"""Tests for `walstream.services.descriptors`."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.log_capture import capture_log
from walstream.protocols.settings import SenderSettings
from walstream.services.descriptors import with_room_for_clients


class DescriptorsTests(SynchronousTestCase):
    """`with_room_for_clients`, with limits of the test's."""

    def setUp(self) -> None:
        self.limits = (1024, 4096)
        self.patch(resource, "getrlimit", lambda _: self.limits)
        self.patch(resource, "setrlimit", self.set_limits)
        self.texts = capture_log(self)

    def set_limits(self, _: int, limits: tuple[int, int]) -> None:
        self.assertEqual(limits[1], self.limits[1])
        self.limits = limits

    def room(self, clients: int) -> int:
        return with_room_for_clients(SenderSettings(max_clients=clients)).max_clients

    def test_enough(self) -> None:
        """Where there are enough, nothing is changed."""
        self.assertEqual(self.room(500), 500)
        self.assertEqual(self.limits, (1024, 4096))

    def test_raised(self) -> None:
        """The soft limit is raised as far as needed: clients, strangers, and our own."""
        self.assertEqual(self.room(1000), 1000)
        self.assertEqual(self.limits, (1200, 4096))
        self.assertEqual(self.texts, [])

    def test_too_few(self) -> None:
        """More than the hard limit allows is not promised, and that is said."""
        self.assertEqual(self.room(5000), 3896)
        self.assertEqual(self.limits, (4096, 4096))
        self.assertIn("for 3896 clients only, not for 5000", self.texts[0])

    def test_hardly_any(self) -> None:
        """Somebody is let in all the same: Twisted copes when there are none left."""
        self.limits = (60, 60)
        self.assertEqual(self.room(1000), 1)
        self.assertIn("for 1 clients only", self.texts[0])

    def test_any_number(self) -> None:
        """Any number is what there are descriptors for."""
        self.assertEqual(self.room(0), 3896)
        self.assertEqual(self.texts, [])

    def test_no_limits(self) -> None:
        """Where there is no limit, there is none for clients either."""
        self.limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        self.assertEqual(self.room(5000), 5000)
        self.assertEqual(self.room(0), 1 << 20)
