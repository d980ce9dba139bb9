"""How a reader follows an archive that another process writes."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import Clock

from tests.unit.archives import IDENTITY, SIZE, START, ArchiveCase, history
from walstream.archive import ArchiveReader
from walstream.archive.watch import PollingWatch
from walstream.errors import ArchiveError
from walstream.formats.lsn import LSN
from walstream.interfaces import SystemIdentity, WALPosition


class PollingWatchTests(ArchiveCase):
    """`PollingWatch` stands in where the system tells nothing."""

    def test_every_second(self) -> None:
        """From start to stop; anything may have changed."""
        clock, seen = Clock(), list[Any]()
        watch = PollingWatch(clock)
        watch.stop()
        watch.start(seen.append)
        clock.pump([0.5, 0.5, 1.0])
        watch.stop()
        clock.advance(10)
        self.assertEqual(seen, [(), ()])
        self.assertEqual(clock.getDelayedCalls(), [])


class FollowingCase(ArchiveCase):
    """Has a writer and a reader of one directory."""

    def setUp(self) -> None:
        super().setUp()
        self.archive = self.open()
        self.begin(self.archive)
        self.reader = self.open_reader()

    def look(self) -> None:
        """A second passes."""
        self.reactor.advance(1)

    def changed(self, *names: str) -> None:
        """The system tells that files have changed, in no order."""
        self.reader._follower.changed({os.path.join(self.paths.root, name) for name in names})

    def assert_end(self, lsn: int, timeline: int = 1) -> None:
        """The reader serves up to there."""
        self.assertEqual(self.reader.end(), WALPosition(timeline, LSN(lsn)))


class FollowerTests(FollowingCase):
    """What is noticed, and what is made of it."""

    def setUp(self) -> None:
        super().setUp()
        self.write(self.archive, 5000)
        self.flush(self.archive)
        self.look()

    def hold(self) -> None:
        """Surveys wait from now on, so that it shows what needs none."""
        self.reader._equipment.reading.is_held = True  # type: ignore[attr-defined]

    def surveys(self) -> int:
        """How many surveys wait."""
        waiting: int = self.reader._equipment.reading.waiting  # type: ignore[attr-defined]
        return waiting

    def test_end_mark(self) -> None:
        """The mark says how far the .partial is durable, no more; a read of it is enough."""
        self.hold()
        self.write(self.archive, 1000)
        self.changed(".walstream/end")
        self.assert_end(START + 5000)
        self.flush(self.archive)
        self.changed(".walstream/end")
        self.assert_end(START + 6000)
        self.assertEqual(self.surveys(), 0)

    def test_damaged_end_mark(self) -> None:
        """A mark that is being written is read again when that is over."""
        with open(self.paths.end, "r+b") as file:
            file.write(b"00000001 00000000/0FFFFFFF ")
        self.changed(".walstream/end")
        self.assert_end(START + 5000)

    def test_finished_segments(self) -> None:
        """As pg_receivewal finishes them, one after the other, or several at once."""
        self.hold()
        os.unlink(self.paths.end)
        for number in (5, 6, 7):
            self.put_segment(number)
        self.changed(self.name(5))
        self.assert_end(START + SIZE)
        self.changed(self.name(7), self.name(6))
        self.assert_end(START + 3 * SIZE)
        self.assertEqual(self.surveys(), 0)

    def test_unfinished_copies(self) -> None:
        """A file counts when it has its full length."""
        (self.path / self.name(5)).write_bytes(self.wal(START, 100))
        self.changed(self.name(5))
        self.assert_end(START + 5000)

    def test_nothing_new(self) -> None:
        """Old segments, and files that are none, change nothing."""
        self.put_segment(4)
        self.hold()
        self.changed(self.name(4), "x", ".walstream/spare", f"{self.name(5)}.partial")
        self.assert_end(START + 5000)
        self.assertEqual(self.surveys(), 0)

    def test_waiting_cursors_are_woken(self) -> None:
        """And read what has come."""
        cursor = self.successResultOf(self.reader.open(1, LSN(START + 5000)))
        self.addCleanup(cursor.close)
        ready = cursor.ready()
        self.write(self.archive, 10)
        self.flush(self.archive)
        self.assertNoResult(ready)
        self.changed(".walstream/end")
        self.successResultOf(ready)
        self.assertEqual(cursor.read(100), self.wal(START + 5000, 10))

    def test_replaced_partial(self) -> None:
        """The writer's disk has failed, and the segment is in another file now."""
        cursor = self.successResultOf(self.reader.open(1, START))
        self.addCleanup(cursor.close)
        cursor.read(5000)
        path = self.path / f"{self.name(5)}.partial"
        os.rename(path, self.path / ".walstream" / "old")
        self.put_segment(5, partial=True, valid=9000)
        self.begin(self.archive)
        self.write(self.archive, 9000)
        self.flush(self.archive)
        self.changed(f"{self.name(5)}.partial", ".walstream/end")
        self.successResultOf(cursor.ready())
        self.assertEqual(cursor.read(10_000), self.wal(START + 5000, 4000))

    def test_new_timeline(self) -> None:
        """It takes a survey, which brings its history."""
        self.hold()
        at = self.switch(self.archive)
        self.write(self.archive, 6000, 2)
        self.flush(self.archive)
        self.changed("00000002.history", ".walstream/end")
        self.assertEqual(self.surveys(), 1)
        self.reader._equipment.reading.release()  # type: ignore[attr-defined]
        self.assert_end(START + 6000, 2)
        self.assertEqual(self.successResultOf(self.reader.history(2)), history(2, (1, at)))

    def test_surveys_do_not_pile_up(self) -> None:
        """While one is under way, one more is enough."""
        self.hold()
        for _ in range(5):
            self.changed()
        self.assertEqual(self.surveys(), 1)
        self.reader._equipment.reading.work(1)  # type: ignore[attr-defined]
        self.assertEqual(self.surveys(), 1)
        self.reader._equipment.reading.work(1)  # type: ignore[attr-defined]
        self.assertEqual(self.surveys(), 0)

    def test_new_timeline_before_its_switch_point(self) -> None:
        """A finished segment of the new timeline counts; its history file may come later."""
        self.put_segment(5)
        self.put_segment(6, 2)
        self.changed(self.name(5), self.name(6, 2))
        self.assert_end(START + SIZE)
        self.put_history(2, (1, START + SIZE + 100))
        self.changed("00000002.history")
        self.assert_end(START + 2 * SIZE, 2)

    def test_new_timeline_that_is_behind(self) -> None:
        """Until it has come to its switch point, the old one is served."""
        self.put_segment(5, 2)
        self.put_history(2, (1, START + 2 * SIZE))
        self.look()
        self.assert_end(START + 5000)

    def test_unrelated_timeline(self) -> None:
        """What does not descend from what is served is not followed."""
        self.put_segment(7, 3)
        self.put_history(3, (2, START))
        self.look()
        self.assert_end(START + 5000)

    def test_version(self) -> None:
        """A newer minor version is noticed."""
        newer = SystemIdentity(IDENTITY.system_identifier, SIZE, "18.7")
        self.successResultOf(self.archive.adopt(newer))
        self.changed(".walstream/identity.json")
        self.assertEqual(self.reader.identity, newer)

    def test_another_cluster(self) -> None:
        """An archive that was thrown away and filled anew is another one."""
        for path in (*self.path.glob("0*"), *self.path.glob(".walstream/*")):
            path.unlink()
        self.put_segment(5, system_identifier=42)
        self.look()
        self.assert_end(START + 5000)
        assert self.reader.identity is not None
        self.assertEqual(self.reader.identity.system_identifier, IDENTITY.system_identifier)

    def test_unreadable_for_now(self) -> None:
        """It is looked at again the next time; what is known stays."""
        os.rename(self.path, f"{self.path}-away")
        self.look()
        self.changed(".walstream/end")
        os.rename(f"{self.path}-away", self.path)
        self.write(self.archive, 10)
        self.flush(self.archive)
        self.look()
        self.assert_end(START + 5010)


class ReaderTests(FollowingCase):
    """An archive that is open for reading."""

    def test_begins_with_nothing(self) -> None:
        """It may be opened before there is anything to read."""
        self.assertEqual(self.reader.identity, IDENTITY)
        self.assert_end(0)
        self.write(self.archive, 10)
        self.flush(self.archive)
        self.look()
        self.assert_end(START + 10)

    def test_writes_nothing(self) -> None:
        """Not even a lock; any number of them can be open."""
        before = sorted(os.listdir(self.path)), self.own_names()
        self.open_reader()
        self.assertEqual((sorted(os.listdir(self.path)), self.own_names()), before)

    def test_next_to_pg_receivewal(self) -> None:
        """There is no end mark: finished segments are served, the .partial is not."""
        self.path = self.path / "other"
        self.path.mkdir()
        self.put_segment(5)
        self.put_segment(6, partial=True, valid=1000)
        reader = self.open_reader()
        self.assertEqual(reader.end(), WALPosition(1, SIZE.start(6)))
        self.assertEqual(os.listdir(self.path), sorted(os.listdir(self.path)))
        self.assertFalse((self.path / ".walstream").exists())
        os.rename(self.path / f"{self.name(6)}.partial", self.path / self.name(6))
        self.look()
        self.assertEqual(reader.end(), WALPosition(1, SIZE.start(7)))

    def test_no_directory(self) -> None:
        """Is told at once."""
        reader = ArchiveReader(self.path / "x", self.reactor, watch=PollingWatch(self.reactor))
        self.assertIn("is not a directory", self.failure(reader.storage.open(), ArchiveError))

    def test_no_archive(self) -> None:
        """So is a directory that cannot be one."""
        self.put_segment(9, system_identifier=42)
        watch = PollingWatch(self.reactor)
        reader = ArchiveReader(self.path, self.reactor, watch=watch, equipment=self.equipment())
        self.failure(reader.storage.open(), ArchiveError)

    def test_wrong_sizes_are_told_once(self) -> None:
        """Not every second."""
        (self.path / self.name(9)).write_bytes(b"")
        for _ in range(3):
            self.look()
        self.assertEqual(self.reader._follower._skipped, {self.name(9)})
