"""Tests for walstream.services.retention: when a service removes WAL, and what it says."""

from __future__ import annotations

import os

from twisted.internet.task import Clock

from tests.unit.archives import SIZE, DirectoryCase
from tests.unit.log_capture import capture_log
from walstream.archive.retention import RetentionPolicy
from walstream.errors import ArchiveLost
from walstream.services.retention import INTERVAL, Retention
from walstream.testing.disk import ManualLane

POLICY = RetentionPolicy(keep_size=2 * SIZE)


class RetentionTests(DirectoryCase):
    """An archive of five segments, of which two are kept."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(3, 8):
            self.put_segment(number)
        self.clock = Clock()
        self.lane = ManualLane()
        self.log = capture_log(self)
        self.lost = False
        self.retention = Retention(
            self.paths, POLICY, self.lane, self.clock, lambda: 0.0, assure=self.assure
        )
        self.successResultOf(self.retention.open())

    def test_now_and_then(self) -> None:
        """Not at once: clients that have lost us must be back before."""
        self.clock.advance(INTERVAL - 1)
        self.assertEqual(len(self.names()), 5)
        self.clock.advance(1)
        self.assertEqual(self.names(), [self.name(6), self.name(7)])
        self.put_segment(8)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.names(), [self.name(7), self.name(8)])
        self.assertIn("removed 3 old segment files", self.log[0])

    def assure(self) -> None:
        """Whether this is the archive that is being filled."""
        if self.lost:
            raise ArchiveLost("the archive is gone")

    def test_another_archive_in_its_place(self) -> None:
        """What is not ours is not removed."""
        self.lost = True
        self.clock.pump([INTERVAL] * 2)
        self.assertEqual(len(self.names()), 5)
        self.assertEqual(sum("is gone" in text for text in self.log), 1)
        self.lost = False
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.names()), 2)

    def test_never_two_at_once(self) -> None:
        """A slow one is waited for."""
        self.lane.is_held = True
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(self.lane.waiting, 1)

    def test_what_keeps_it_from_it(self) -> None:
        """Is said once, and it is tried again."""
        path = self.path / self.name(5)
        os.rename(path, self.path / ".elsewhere")
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(sum("has a gap" in text for text in self.log), 1)
        os.rename(self.path / ".elsewhere", path)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.names(), [self.name(6), self.name(7)])

    def test_the_end(self) -> None:
        """Fires when nothing is being removed any more, and nothing is then."""
        self.lane.is_held = True
        self.clock.advance(INTERVAL)
        closed = self.retention.close()
        self.assertNoResult(closed)
        self.lane.release()
        self.successResultOf(closed)
        self.put_segment(8)
        self.clock.advance(INTERVAL)
        self.assertEqual(len(self.names()), 3)
