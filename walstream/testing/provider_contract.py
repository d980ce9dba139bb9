"""What every `IWALProvider` must do: see `walstream.testing.contracts`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from walstream.errors import EndOfTimeline, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import IWALCursor, IWALProvider, WALPosition
from walstream.testing.wal import wal_bytes

__all__ = ["ProviderUnderTest", "provider_contract"]

T = TypeVar("T")


class ProviderUnderTest(Protocol):
    """A provider, and what the contract needs to make things happen in it."""

    @property
    def provider(self) -> IWALProvider:
        """The provider: it has an identity, and holds no WAL yet.

        Segments of 1 MiB keep the tests quick: three are filled.
        """

    @property
    def start(self) -> WALPosition:
        """Where the first byte appended goes.

        A segment's start on timeline 1, and not in the first segment of all.
        """

    def append(self, data: bytes) -> None:
        """More WAL, which continues the current timeline where it ends; it is to be served."""

    def switch_timeline(self) -> None:
        """The current timeline ends where its WAL ends, and timeline 2 begins there.

        The provider learns of its history file, and of the part of the switch point's segment
        that lies before that point.
        """

    def settle(self) -> None:
        """Let everything happen that is outstanding, in threads and on clocks."""

    def cleanup(self) -> None:
        """The test is over."""


def provider_contract(make: Callable[[], ProviderUnderTest]) -> type[SynchronousTestCase]:
    """Give the test case that the providers which *make* makes have to pass."""
    # A failure is reported under the name of what was made, and of its module. Trial's workers
    # (-j) look for it by that name.
    attributes = {"make": staticmethod(make), "__module__": getattr(make, "__module__", __name__)}
    name = getattr(make, "__name__", "Provider").removesuffix("UnderTest")
    return type(f"{name}Contract", (_ProviderContract,), attributes)


class _ProviderContract(SynchronousTestCase):
    make: Callable[[], ProviderUnderTest]

    def setUp(self) -> None:
        self.under_test = self.make()
        self.addCleanup(self.under_test.cleanup)
        self.provider = self.under_test.provider
        identity = self.provider.identity
        assert identity is not None, "the contract wants a provider that has an identity"
        self.identity = identity
        self.start = self.under_test.start.lsn
        self.timeline = self.under_test.start.timeline
        self.wal = b""

    # What the tests are made of.

    @property
    def end(self) -> LSN:
        """Where the WAL that was appended ends."""
        return LSN(self.start + len(self.wal))

    def append(self, size: int) -> None:
        """Append so many bytes."""
        wal = wal_bytes(
            self.end,
            size,
            segment_size=self.identity.segment_size,
            system_identifier=self.identity.system_identifier,
            timeline=self.timeline,
        )
        self.wal += wal
        self.under_test.append(wal)
        self.under_test.settle()

    def settled(self, result: Deferred[T]) -> T:
        """What a Deferred fires with when everything outstanding has happened."""
        self.under_test.settle()
        return self.successResultOf(result)

    def open(self, position: int | None = None, timeline: int | None = None) -> IWALCursor:
        """A cursor that is closed when the test is over."""
        timeline = self.timeline if timeline is None else timeline
        start = LSN(self.start if position is None else position)
        cursor = self.settled(self.provider.open(timeline, start))
        self.addCleanup(cursor.close)
        return cursor

    def read(self, cursor: IWALCursor, limit: int) -> memoryview:
        """The next WAL, waiting for it; checked against what a cursor says of itself."""
        before = cursor.position
        view = cursor.read(limit)
        if not view:
            self.assertEqual(cursor.position, before, "an empty read moved the cursor")
            self.settled(cursor.ready())
            view = cursor.read(limit)
            self.assertTrue(view, "ready() fired and there was nothing to read")
        self.assertLessEqual(len(view), limit)
        self.assertEqual(cursor.position, before + len(view))
        self.assertLessEqual(cursor.position, cursor.available)
        offset = before - self.start
        self.assertTrue(view == self.wal[offset : offset + len(view)], f"wrong at {LSN(before)}")
        return view

    def read_up_to(self, cursor: IWALCursor, end: int, limit: int = 1 << 17) -> list[memoryview]:
        """All WAL up to *end*."""
        views = []
        while cursor.position < end:
            views.append(self.read(cursor, min(limit, end - cursor.position)))
        return views

    # Reading.

    def test_provides_the_interfaces(self) -> None:
        """Provider and cursor have the methods and attributes."""
        self.append(8192)
        verifyObject(IWALProvider, self.provider)
        verifyObject(IWALCursor, self.open())

    def test_end_is_where_the_wal_ends(self) -> None:
        """All that was appended may be served, and not a byte more."""
        for size in (1, 8191, 100_000):
            self.append(size)
            self.assertEqual(self.provider.end(), WALPosition(self.timeline, self.end))
            self.assertEqual(self.open().available, self.end)

    def test_reads_are_contiguous(self) -> None:
        """Pieces of any size give the WAL byte by byte, over segment boundaries too."""
        self.append(self.identity.segment_size * 5 // 2)
        for limit in (99_991, 1 << 17, len(self.wal) * 2):
            cursor = self.open()
            self.assertEqual(cursor.position, self.start)
            while cursor.position < self.end:
                self.read(cursor, limit)
            self.assertEqual(cursor.position, self.end)

    def test_starts_in_the_middle(self) -> None:
        """A cursor may start at any byte, in any segment."""
        self.append(self.identity.segment_size * 3 // 2)
        for offset in (1, 8191, len(self.wal) - 1):
            self.read(self.open(self.start + offset), 1000)

    def test_nothing_more_at_the_end(self) -> None:
        """A read at the end is empty, and leaves the cursor where it is."""
        self.append(10_000)
        cursor = self.open()
        self.read_up_to(cursor, self.end)
        self.assertEqual(len(cursor.read(1)), 0)
        self.assertEqual(cursor.position, self.end)

    def test_views_outlive_what_comes_after(self) -> None:
        """What was read stays as it is while more is read and appended."""
        self.append(self.identity.segment_size + 5)
        cursor = self.open()
        views = self.read_up_to(cursor, self.end)
        self.append(self.identity.segment_size)
        self.read_up_to(cursor, self.end)
        given = b"".join(views)
        self.assertTrue(given == self.wal[: len(given)], "a view has changed")

    def test_cursors_do_not_disturb_each_other(self) -> None:
        """Each has its own place."""
        self.append(100_000)
        one, two = self.open(), self.open(self.start + 50_000)
        self.read(one, 1000)
        self.read(two, 2000)
        self.read(one, 1000)
        two.close()
        self.read(one, 1000)

    # Waiting.

    def test_is_ready_when_there_is_wal(self) -> None:
        """Nothing needs to be appended for what is there."""
        self.append(10_000)
        cursor = self.open()
        self.settled(cursor.ready())
        self.assertGreater(len(cursor.read(10)), 0)

    def test_waits_for_wal(self) -> None:
        """At the end ready() fires with the next byte, and again with the one after."""
        self.append(10_000)
        cursor = self.open()
        self.read_up_to(cursor, self.end)
        for size in (1, self.identity.segment_size):
            ready = cursor.ready()
            self.under_test.settle()
            self.assertNoResult(ready)
            self.append(size)
            self.settled(ready)
            self.read_up_to(cursor, self.end)

    def test_waits_where_nothing_is_held_yet(self) -> None:
        """A cursor may be opened where the WAL ends, also between two segments."""
        self.append(self.identity.segment_size)
        cursor = self.open(self.end)
        ready = cursor.ready()
        self.under_test.settle()
        self.assertNoResult(ready)
        self.append(100)
        self.settled(ready)
        self.read_up_to(cursor, self.end)

    def test_waits_ahead_of_the_end(self) -> None:
        """A cursor may be opened a little beyond it, and waits until there is WAL for it."""
        self.append(1000)
        cursor = self.open(self.end + 100)
        self.assertEqual(len(cursor.read(1)), 0)
        ready = cursor.ready()
        self.append(100)
        self.assertNoResult(ready)
        self.append(self.identity.segment_size)
        self.settled(ready)
        self.read_up_to(cursor, self.end)

    def test_waiting_can_be_cancelled(self) -> None:
        """A cancelled ready() fails with CancelledError; the cursor goes on."""
        self.append(1000)
        cursor = self.open(self.end)
        ready = cursor.ready()
        ready.cancel()
        self.failureResultOf(ready, CancelledError)
        again = cursor.ready()
        self.append(1000)
        self.settled(again)
        self.read_up_to(cursor, self.end)

    def test_close_cancels_waiting(self) -> None:
        """Nobody waits for a cursor that is closed."""
        self.append(1000)
        cursor = self.open(self.end)
        ready = cursor.ready()
        cursor.close()
        self.failureResultOf(ready, CancelledError)
        self.append(1000)

    def test_names_the_segment_that_is_not_held(self) -> None:
        """Opening before all that is held is WALUnavailable."""
        self.append(1000)
        size = self.identity.segment_size
        missing = size.number(self.start) - 1
        opening = self.provider.open(self.timeline, size.start(missing))
        self.under_test.settle()
        error = self.failureResultOf(opening, WALUnavailable).value
        assert isinstance(error, WALUnavailable)
        self.assertEqual(error.segment, size.name(self.timeline, missing))

    # Timelines.

    def test_a_waiting_cursor_learns_of_the_end(self) -> None:
        """The timeline's end is told to whoever waits for its next byte, and again if asked."""
        self.append(100_000)
        cursor = self.open(self.end)
        ready = cursor.ready()
        self.switch()
        for outcome in (ready, cursor.ready()):
            self.assert_over(outcome)
        self.assertEqual(len(cursor.read(100)), 0)

    def test_a_historic_timeline_is_read_to_its_end(self) -> None:
        """It gives everything before its switch point, and nothing of what follows."""
        self.append(self.identity.segment_size + 50_000)
        late = self.open()
        self.read(late, 100)
        self.switch()
        switch_point = self.end
        self.append(50_000)
        for cursor in (late, self.open(timeline=1), self.open(switch_point, timeline=1)):
            self.assertEqual(cursor.available, switch_point)
            while cursor.position < switch_point:
                self.read(cursor, 1 << 17)
            self.assertEqual(len(cursor.read(100)), 0)
            self.assert_over(cursor.ready(), switch_point)

    def test_the_new_timeline_is_served(self) -> None:
        """It is the current one, and holds the segment of the switch point from its start."""
        self.append(self.identity.segment_size + 50_000)
        self.switch()
        self.append(self.identity.segment_size)
        self.assertEqual(self.provider.end(), WALPosition(2, self.end))
        cursor = self.open(self.start + self.identity.segment_size)
        self.read_up_to(cursor, self.end)

    def test_histories_are_given(self) -> None:
        """Of the new timeline as a value and as a file; timeline 1 has a history and no file."""
        self.append(20_000)
        self.switch()
        history = self.settled(self.provider.history(2))
        self.assertEqual(history.switch_point(1), self.end)
        content = self.settled(self.provider.history_file(2))
        self.assertEqual(TimelineHistory.parse(2, content), history)
        self.assertEqual(self.settled(self.provider.history(1)), TimelineHistory(1, ()))

    def test_names_the_history_file_that_is_not_held(self) -> None:
        """A history that is missing is WALUnavailable."""
        self.append(1000)
        for asking in (self.provider.history(9), self.provider.history_file(9)):
            self.under_test.settle()
            error = self.failureResultOf(asking, WALUnavailable).value
            assert isinstance(error, WALUnavailable)
            self.assertEqual(error.segment, "00000009.history")

    def test_no_backup_history(self) -> None:
        """None, if no base backup is known to have started there."""
        self.append(1000)
        self.assertIs(self.settled(self.provider.backup_history(LSN(self.start + 40))), None)

    def switch(self) -> None:
        """Go over to timeline 2."""
        self.under_test.switch_timeline()
        self.under_test.settle()
        self.timeline = 2

    def assert_over(self, outcome: Deferred[None], switch_point: int | None = None) -> None:
        """Timeline 1 has ended, and 2 follows."""
        self.under_test.settle()
        error = self.failureResultOf(outcome, EndOfTimeline).value
        assert isinstance(error, EndOfTimeline)
        self.assertEqual(error.next_timeline, 2)
        self.assertEqual(error.switch_point, self.end if switch_point is None else switch_point)
