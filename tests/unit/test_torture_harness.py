"""The torture run's own parts: what is repeatable is, and nothing confirmed is forgotten."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.torture.plan import KINDS, draw
from tests.torture.record import Record, Run


class PlanTests(SynchronousTestCase):
    """`tests.torture.plan`."""

    def test_the_same_seed_gives_the_same_cycles(self) -> None:
        """Whichever of them is asked for first: a resumed run goes on with what would have come."""
        kinds = tuple(KINDS)
        forwards = [draw(7, cycle, kinds) for cycle in range(30)]
        backwards = [draw(7, cycle, kinds) for cycle in reversed(range(30))]
        self.assertEqual(forwards, backwards[::-1])
        self.assertNotEqual(forwards, [draw(8, cycle, kinds) for cycle in range(30)])

    def test_every_kind_comes_equally_often(self) -> None:
        """In random order."""
        kinds = tuple(KINDS)
        drawn = [draw(7, cycle, kinds).kind for cycle in range(3 * len(kinds))]
        self.assertEqual({drawn.count(kind) for kind in kinds}, {3})
        self.assertNotEqual(drawn[: len(kinds)], drawn[len(kinds) : 2 * len(kinds)])


class RecordTests(SynchronousTestCase):
    """`tests.torture.record`."""

    def record(self, path: Path) -> Record:
        """A record, closed in the end."""
        record = Record(path)
        self.addCleanup(record.close)
        return record

    def test_commits_are_counted_in_runs(self) -> None:
        """A counter that was not confirmed is not in one."""
        record = self.record(Path(self.mktemp()))
        for counter in (1, 2, 4, 5, 6):
            record.confirmed(1, 9, counter)
        record.confirmed(2, 9, 7)
        self.assertEqual(record.runs(1), [Run(1, 9, 1, 2), Run(1, 9, 4, 6), Run(2, 9, 7, 7)])
        self.assertEqual(record.runs(2), [Run(2, 9, 7, 7)])
        self.assertEqual(record.total, 6)

    def test_runs_do_not_change_afterwards(self) -> None:
        """What was confirmed at a moment is kept by whoever asked."""
        record = self.record(Path(self.mktemp()))
        record.confirmed(1, 1, 1)
        before = record.runs(0)
        record.confirmed(1, 1, 2)
        self.assertEqual(before, [Run(1, 1, 1, 1)])

    def test_it_is_continued(self) -> None:
        """From its file, whose last line may be cut off."""
        path = Path(self.mktemp())
        first = Record(path)
        first.confirmed(1, 3, 1)
        first.confirmed(1, 3, 2)
        first.close()
        with path.open("a") as file:
            file.write("1 3")
        second = Record(path)
        second.confirmed(1, 4, 1)
        second.close()
        third = self.record(path)
        self.assertEqual(third.runs(0), [Run(1, 3, 1, 2), Run(1, 4, 1, 1)])
        self.assertEqual(third.next_client, 5)
        self.assertTrue(third.wait_for(3, 0))
        self.assertFalse(third.wait_for(4, 0))
