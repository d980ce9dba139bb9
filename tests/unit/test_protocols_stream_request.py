"""Tests for `walstream.protocols.stream_request`: when a stream may begin, and when not."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import CommandError, EndOfTimeline, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.interfaces import SystemIdentity, WALPosition
from walstream.protocols.stream_request import StreamRequest, decide
from walstream.testing.memory import MemoryProvider
from walstream.testing.wal import SYSTEM_IDENTIFIER

SIZE = SegmentSize(1 << 20)
IDENTITY = SystemIdentity(SYSTEM_IDENTIFIER, SIZE, "18.6")


class DecideTests(SynchronousTestCase):
    """`decide`, with a provider on timeline 5 that came from 2 by way of 1 and 3."""

    def setUp(self) -> None:
        self.provider = MemoryProvider(IDENTITY, WALPosition(1, LSN.parse("0/D000000")))
        for timeline, length in ((3, 0x1F88), (5, 0x100)):
            self.provider.append(bytes(length))
            self.provider.end_timeline(timeline)
        self.provider.append(bytes(0x200))
        self.assertEqual(self.provider.end(), WALPosition(5, LSN.parse("0/D002288")))

    def decide(self, timeline: int | None, start: str) -> StreamRequest | EndOfTimeline:
        decided = Deferred.fromCoroutine(decide(self.provider, timeline, LSN.parse(start)))
        return self.successResultOf(decided)

    def refusal(self, timeline: int | None, start: str) -> CommandError:
        decided = Deferred.fromCoroutine(decide(self.provider, timeline, LSN.parse(start)))
        error = self.failureResultOf(decided, CommandError).value
        assert isinstance(error, CommandError)
        return error

    def test_current_timeline(self) -> None:
        """On the current timeline, named or not, WAL can be had up to its end and no further."""
        for timeline in (None, 5):
            for start in ("0/0", "0/D000000", "0/D002287", "0/D002288"):
                self.assertEqual(
                    self.decide(timeline, start), StreamRequest(5, LSN.parse(start)), start
                )

    def test_ahead_of_the_end(self) -> None:
        """Who wants WAL that is not there yet is told so once the stream has begun."""
        for timeline in (None, 5):
            request = self.decide(timeline, "0/D002289")
            assert isinstance(request, StreamRequest)
            assert request.refusal is not None
            self.assertEqual(request.refusal.sqlstate, "XX000")
            self.assertEqual(
                str(request.refusal),
                "requested starting point 0/D002289 is ahead of the WAL flush position "
                "of this server 0/D002288",
            )

    def test_a_little_ahead_of_the_end(self) -> None:
        """Up to a segment ahead a client may wait, if it may at all; further it is refused."""
        for timeline, start, waits in (
            (None, "0/D002289", True),
            (5, "0/D102288", True),
            (5, "0/D102289", False),
            (5, "FF/0", False),
        ):
            asking = decide(self.provider, timeline, LSN.parse(start), may_wait=True)
            request = self.successResultOf(Deferred.fromCoroutine(asking))
            assert isinstance(request, StreamRequest)
            self.assertEqual((request.is_ahead, request.refusal is None), (waits, waits), start)
        request = self.decide(5, "0/D102288")
        assert isinstance(request, StreamRequest)
        self.assertFalse(request.is_ahead)

    def test_timeline_not_in_history(self) -> None:
        """Of timelines that are not ours, nothing can be had; newer ones are not ours."""
        for timeline in (2, 4, 6, 2**32 - 1):
            error = self.refusal(timeline, "0/D000000")
            self.assertEqual(error.sqlstate, "XX000")
            self.assertEqual(
                str(error), f"requested timeline {timeline} is not in this server's history"
            )
            self.assertIsNone(error.detail)

    def test_historic_timeline_after_its_end(self) -> None:
        """Behind its switch point a timeline is somebody else's."""
        error = self.refusal(1, "0/D001F89")
        self.assertEqual(error.sqlstate, "XX000")
        self.assertEqual(
            str(error),
            "requested starting point 0/D001F89 on timeline 1 is not in this server's history",
        )
        self.assertEqual(error.detail, "This server's history forked from timeline 1 at 0/D001F88.")

    def test_historic_timeline_at_its_end(self) -> None:
        """Exactly at the switch point there is no stream, but word of what comes next."""
        for timeline, start, following in ((1, "0/D001F88", 3), (3, "0/D002088", 5)):
            end = self.decide(timeline, start)
            assert isinstance(end, EndOfTimeline)
            self.assertEqual((end.next_timeline, end.switch_point), (following, LSN.parse(start)))

    def test_historic_timeline_before_its_end(self) -> None:
        """Up to the switch point, WAL can be had of a historic timeline."""
        for timeline, start in ((1, "0/0"), (1, "0/D001F87"), (3, "0/D002087")):
            self.assertEqual(
                self.decide(timeline, start), StreamRequest(timeline, LSN.parse(start))
            )

    def test_first_timeline(self) -> None:
        """Timeline 1 has no history file, and none is asked for."""
        self.provider = MemoryProvider(IDENTITY, WALPosition(1, LSN.parse("0/D000000")))
        self.assertIsInstance(self.decide(1, "0/D000000"), StreamRequest)
        self.assertIn("timeline 2 is not in", str(self.refusal(2, "0/D000000")))

    def test_history_file_is_missing(self) -> None:
        """Without our own history, a historic timeline cannot be judged; the current one can."""
        self.provider = MemoryProvider(IDENTITY, WALPosition(7, LSN.parse("0/D000000")))
        self.assertIsInstance(self.decide(7, "0/D000000"), StreamRequest)
        decided = Deferred.fromCoroutine(decide(self.provider, 1, LSN.parse("0/D000000")))
        error = self.failureResultOf(decided, WALUnavailable).value
        self.assertIn("00000007.history", str(error))
