"""Tests for `walstream.protocols.gap`, and for the receiver when the server lacks WAL."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import (
    COPY_BOTH,
    COPY_DONE,
    SIZE,
    START,
    STREAMING_COMPLETE,
    error,
    wal,
)
from tests.unit.test_protocols_receiver import (
    SYSTEM,
    ReceiverCase,
    history,
    result,
)
from walstream.errors import ServerError, WALRemoved
from walstream.formats.lsn import LSN
from walstream.interfaces import WALPosition
from walstream.protocols.gap import oldest_segment
from walstream.wire.messages import copy_done, query, ready_for_query

END = LSN(START + 5000)


def removed(segment: int) -> bytes:
    """What a walsender says of a segment that it has not any more."""
    text = f"requested WAL segment {SIZE.name(1, segment)} has already been removed"
    return error("ERROR", "58P01", text) + ready_for_query()


class OldestSegmentTests(SynchronousTestCase):
    """`oldest_segment`."""

    @given(st.integers(1, 1 << 40), st.integers(0, 5000), st.integers(0, 5000))
    def test_is_found_in_few_questions(self, missing: int, more: int, kept: int) -> None:
        """The server has a run of segments up to the newest."""
        newest = missing + more
        oldest = max(newest - kept, missing + 1)
        asked: list[int] = []

        def is_there(number: int) -> Deferred[bool]:
            asked.append(number)
            return succeed(number >= oldest)

        found = Deferred.fromCoroutine(oldest_segment(missing, newest, is_there))
        self.assertEqual(self.successResultOf(found), max(oldest, missing + 1))
        self.assertLessEqual(len(asked), max(more, 1).bit_length())
        self.assertEqual([each for each in asked if not missing < each < newest], [])


class RemovedTests(ReceiverCase):
    """The sink ends inside segment 3, and the server has WAL from some later segment on."""

    def setUp(self) -> None:
        super().setUp()
        self.begin_stream(START)
        self.stream(START, wal(START, END - START))
        self.transport.peer_closed()
        self.failure()

    def refused(self, answer: bytes, **settings: Any) -> None:
        """The server lacks what comes next."""
        slot = settings.get("slot")
        self.connect(**settings)
        self.identify(START + SIZE * 20)
        if slot is not None:
            self.server.expect(query(f'READ_REPLICATION_SLOT "{slot}"'))
            self.server.send(result(b"physical", str(START).encode(), b"1"))
        self.server.expect(query("SHOW wal_sender_timeout"))
        self.server.send(result(b"1min"))
        self.tell_demands()
        suffix = f'SLOT "{slot}" ' if slot else ""
        self.server.expect(query(f"START_REPLICATION {suffix}{START} TIMELINE 1"))
        self.server.send(answer)

    def probe(self, segment: int, there: bool, timeline: int = 1) -> None:
        """The receiver asks for a segment, only to see whether it is there."""
        start = SIZE.start(segment)
        self.server.expect(query(f"START_REPLICATION {start} TIMELINE {timeline}"))
        self.server.send(COPY_BOTH)
        if there:
            self.stream(start, wal(start, 1000))
            self.server.expect(copy_done())
            self.stream(start + 1000, wal(start + 1000, 1000))
            self.server.send(COPY_DONE, STREAMING_COMPLETE)
        else:
            self.server.send(removed(segment))

    def test_error(self) -> None:
        """It names what is missing, where the sink ends, and the ways out."""
        for answer in (removed(3), COPY_BOTH + removed(3)):
            self.refused(answer)
            failure = self.failure()
            self.assertIsInstance(failure, WALRemoved)
            for named in (
                SIZE.name(1, 3),
                f"it ends at {END} on timeline 1",
                "from elsewhere",
                f"--accept-gap={END}",
                "base backup",
                "has already been removed",
            ):
                self.assertIn(named, str(failure))
        self.assertEqual(self.sink.gaps, [])

    def test_another_position(self) -> None:
        """Whoever accepts a gap somewhere else has not accepted this one."""
        for position in (START, LSN(END - 1), LSN(END + 1)):
            self.refused(removed(3), accept_gap=position)
            self.assertIsInstance(self.failure(), WALRemoved)
        self.assertEqual(self.sink.gaps, [])

    def test_accepted(self) -> None:
        """The stream goes on with the oldest WAL that there is; what was probed is not kept."""
        self.refused(removed(3), accept_gap=END)
        self.server.expect(query("IDENTIFY_SYSTEM"))
        position = str(LSN(SIZE.start(8) + 77)).encode()
        self.server.send(result(SYSTEM, b"1", position, None))
        self.probe(5, there=False)
        written = len(self.sink.writes)
        self.probe(6, there=True)
        self.assertEqual(len(self.sink.writes), written)
        self.assertEqual(self.sink.gaps, [(END, WALPosition(1, SIZE.start(6)))])
        self.tell_demands()
        self.server.expect(query(f"START_REPLICATION {SIZE.start(6)} TIMELINE 1"))
        self.server.send(COPY_BOTH)
        self.stream(SIZE.start(6), wal(SIZE.start(6), 1000))
        self.assertEqual(self.sink.written, SIZE.start(6) + 1000)

    def test_nothing_to_probe(self) -> None:
        """The server has but the segment that it writes into, perhaps not even begun."""
        self.refused(removed(3), accept_gap=END)
        self.server.expect(query("IDENTIFY_SYSTEM"))
        self.server.send(result(SYSTEM, b"1", str(SIZE.start(4)).encode(), None))
        self.tell_demands()
        self.server.expect(query(f"START_REPLICATION {SIZE.start(4)} TIMELINE 1"))

    def test_over_a_promotion(self) -> None:
        """Each position is asked for on the timeline that it is on."""
        self.refused(removed(3), accept_gap=END)
        self.server.expect(query("IDENTIFY_SYSTEM"))
        past = history(1, SIZE.start(6) + 8)
        self.successResultOf(self.sink.store_history(2, past))
        self.server.send(result(SYSTEM, b"2", str(SIZE.start(9)).encode(), None))
        self.probe(6, there=False, timeline=1)
        self.probe(7, there=True, timeline=2)
        self.assertEqual(self.sink.gaps, [(END, WALPosition(2, SIZE.start(7)))])

    def test_slot_that_was_invalidated(self) -> None:
        """Whether the WAL is there all the same is seen without the slot."""
        lost = error("ERROR", "55000", 'can no longer access replication slot "s"')
        self.refused(lost + ready_for_query(), slot="s")
        self.probe(3, there=False)
        self.assertIsInstance(self.failure(), WALRemoved)
        self.refused(lost + ready_for_query(), slot="s")
        self.probe(3, there=True)
        failure = self.failure()
        self.assertIsInstance(failure, ServerError)
        self.assertIn("can no longer access", str(failure))

    def test_other_errors(self) -> None:
        """Are what they are."""
        busy = error("ERROR", "55006", 'replication slot "s" is active for PID 7')
        self.refused(busy + ready_for_query(), slot="s", accept_gap=END)
        self.assertIsInstance(self.failure(), ServerError)

    def test_stopped_meanwhile(self) -> None:
        """Nothing is accepted any more."""
        self.refused(removed(3), accept_gap=END)
        self.server.expect(query("IDENTIFY_SYSTEM"))
        self.server.send(result(SYSTEM, b"1", str(SIZE.start(8)).encode(), None))
        self.server.expect(query(f"START_REPLICATION {SIZE.start(5)} TIMELINE 1"))
        self.server.send(COPY_BOTH)
        stopped = self.receiver.stop()
        self.server.expect(copy_done())
        self.server.send(COPY_DONE, STREAMING_COMPLETE)
        self.transport.peer_closed()
        self.successResultOf(stopped)
        self.assertEqual(self.sink.gaps, [])

    def test_silent_server(self) -> None:
        """One that shows nothing of the WAL is given up."""
        self.refused(removed(3), accept_gap=END)
        self.server.expect(query("IDENTIFY_SYSTEM"))
        self.server.send(result(SYSTEM, b"1", str(SIZE.start(8)).encode(), None))
        self.server.expect(query(f"START_REPLICATION {SIZE.start(5)} TIMELINE 1"))
        self.server.send(COPY_BOTH)
        self.clock.pump([10] * 7)
        self.assertIn("silent", str(self.failure()))


class DirectRemovedTests(RemovedTests):
    """The same past the transport."""

    direct = True
