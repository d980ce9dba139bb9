"""Tests for `walstream.protocols.start`: where a stream starts, and what must not enter."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.archives import history
from tests.unit.log_capture import capture_log
from tests.unit.test_protocols_questions import AskedServer
from walstream.errors import (
    FormatError,
    ServerError,
    TimelineMismatch,
    UpstreamBehind,
    UpstreamRefused,
    WalstreamError,
    WrongSystem,
)
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.formats.timelines import TimelineHistory, TimelineSwitch
from walstream.interfaces import SystemIdentity, WALPosition
from walstream.protocols.questions import Questions
from walstream.protocols.start import (
    StreamStart,
    check_descent,
    follow_timeline,
    start_2009,
    start_modern,
)
from walstream.testing.memory import MemorySink
from walstream.testing.wal import WALBuilder

T = TypeVar("T")

SIZE = SegmentSize(1 << 20)
IDENTITY = SystemIdentity(77, SIZE, "18.6")
HISTORY_2 = b"1\t0/500088\tno recovery target specified\n"
HISTORY_3 = HISTORY_2 + b"\n2\t0/600000\tno recovery target specified\n"


def at(timeline: int, lsn: str) -> WALPosition:
    return WALPosition(timeline, LSN.parse(lsn))


class StartCase(SynchronousTestCase):
    """A server on some timeline, and a sink that holds something or nothing."""

    def setUp(self) -> None:
        self.sink = MemorySink()

    def server(self, timeline: int, end: str, version: str = "18.6") -> AskedServer:
        self.version = version
        self.asked = AskedServer(
            {
                "IDENTIFY_SYSTEM": [b"77", str(timeline).encode(), end.encode(), None],
                "SHOW wal_segment_size": [b"1MB"],
                "SHOW wal_sender_timeout": [b"30s"],
                "TIMELINE_HISTORY 2": [b"00000002.history", HISTORY_2],
                "TIMELINE_HISTORY 3": [b"00000003.history", HISTORY_3],
            }
        )
        return self.asked

    def questions(self) -> Questions:
        return Questions(self.asked.query, {"server_version": self.version})

    def hold(self, timeline: int, start: str, end: str) -> None:
        """The sink holds WAL of *timeline* from *start* to *end*."""
        self.sink = MemorySink(IDENTITY)
        first = LSN.parse(start)
        self.successResultOf(self.sink.begin(timeline, first))
        self.sink.write(first, memoryview(bytes(LSN.parse(end) - first)))
        self.successResultOf(self.sink.finish())

    def start(self, slot: str | None = None, start: str | None = None) -> StreamStart:
        return self.result(self.starting(slot, start))

    def starting(
        self, slot: str | None = None, start: str | None = None
    ) -> Coroutine[Deferred[Any], Any, StreamStart]:
        position = None if start is None else LSN.parse(start)
        return start_modern(self.questions(), self.sink, slot=slot, start=position)

    def result(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def error(self, work: Coroutine[Deferred[Any], Any, object]) -> WalstreamError:
        error = self.failureResultOf(Deferred.fromCoroutine(work), WalstreamError).value
        assert isinstance(error, WalstreamError)
        return error


class EmptySinkTests(StartCase):
    """A sink that holds nothing."""

    def test_servers_position(self) -> None:
        """Without anything else it starts with the segment of the server's flush position."""
        self.server(1, "0/512345")
        self.assertEqual(self.start(), StreamStart(at(1, "0/500000"), SIZE, 30.0))
        self.assertEqual(self.sink.identity, IDENTITY)
        self.assertEqual(
            self.asked.asked,
            ["IDENTIFY_SYSTEM", "SHOW wal_segment_size", "SHOW wal_sender_timeout"],
        )

    def test_named_position(self) -> None:
        """A position that was named comes before the server's; it is rounded down."""
        self.server(1, "0/512345")
        self.assertEqual(self.start(start="0/312345").position, at(1, "0/300000"))

    def test_named_position_ahead_of_the_server(self) -> None:
        """A position that the server has not reached is refused, with both named."""
        self.server(1, "0/512345")
        error = self.error(self.starting(start="0/512346"))
        self.assertIsInstance(error, UpstreamBehind)
        self.assertEqual(
            str(error), "--startpos 0/512346 is ahead of the server's flush position 0/512345"
        )
        self.assertEqual(self.start(start="0/512345").position, at(1, "0/500000"))

    def test_named_position_on_an_older_timeline(self) -> None:
        """The timeline is the one that the position is on in the server's history."""
        for start, expected in (
            ("0/312345", at(1, "0/300000")),
            ("0/500087", at(1, "0/500000")),
            ("0/500088", at(2, "0/500000")),
            ("0/5FFFFF", at(2, "0/500000")),
            ("0/600000", at(3, "0/600000")),
        ):
            self.sink = MemorySink()
            self.server(3, "0/712345")
            self.assertEqual(self.start(start=start).position, expected)

    def test_slot(self) -> None:
        """A slot that holds WAL back comes before the server's position. (L5)"""
        self.server(1, "0/712345")
        self.asked.answers['READ_REPLICATION_SLOT "s"'] = [b"physical", b"0/400028", b"1"]
        self.assertEqual(self.start(slot="s").position, at(1, "0/400000"))

    def test_slot_on_an_older_timeline(self) -> None:
        """A slot says on which timeline it stands."""
        self.server(2, "0/712345")
        self.asked.answers['READ_REPLICATION_SLOT "s"'] = [b"physical", b"0/400028", b"1"]
        self.assertEqual(self.start(slot="s").position, at(1, "0/400000"))

    def test_slot_without_reservation(self) -> None:
        """A slot that holds nothing back yet says nothing."""
        self.server(1, "0/712345")
        self.asked.answers['READ_REPLICATION_SLOT "s"'] = [b"physical", None, None]
        self.log = capture_log(self)
        self.assertEqual(self.start(slot="s").position, at(1, "0/700000"))
        self.assertIn("--create-slot", str(self.log))

    def test_named_position_comes_before_the_slots(self) -> None:
        """Whoever names a position means it; but the slot must exist."""
        self.server(1, "0/712345")
        self.asked.answers['READ_REPLICATION_SLOT "s"'] = [b"physical", b"0/400028", b"1"]
        self.assertEqual(self.start(slot="s", start="0/300000").position, at(1, "0/300000"))

    def test_missing_slot(self) -> None:
        """A slot that does not exist is an error."""
        self.server(1, "0/712345")
        self.asked.answers['READ_REPLICATION_SLOT "s"'] = [None, None, None]
        self.assertIsInstance(self.error(self.starting(slot="s")), ServerError)

    def test_slot_before_15(self) -> None:
        """Older servers cannot say where a slot stands, and are not asked; the log says so."""
        log = capture_log(self)
        self.server(1, "0/712345", "14.19")
        self.assertEqual(self.start(slot="s").position, at(1, "0/700000"))
        self.assertIn("PostgreSQL before 15", str(log))

    def test_history_files_are_fetched(self) -> None:
        """The histories of all timelines that the server descends from are stored. (L7)"""
        self.server(3, "0/712345")
        self.assertEqual(self.start().position, at(3, "0/700000"))
        self.assertEqual(self.sink.history_files, {2: HISTORY_2, 3: HISTORY_3})

    def test_ancestors_file_is_missing(self) -> None:
        """A server need not have its ancestors' files: its own begins with copies of them."""
        texts = capture_log(self)
        self.server(3, "0/712345")
        self.asked.answers["TIMELINE_HISTORY 2"] = ServerError("ERROR", "58P01", "no such file")
        self.start()
        self.assertEqual(self.sink.history_files, {2: HISTORY_2, 3: HISTORY_3})
        self.assertTrue(any("00000002.history" in text for text in texts))

    def test_timelines_in_between(self) -> None:
        """Standbys ask for the files of all numbers, also of timelines that are no ancestors."""
        self.server(4, "0/712345")
        history_4 = history(4, (1, LSN.parse("0/300000"))).format()
        self.asked.answers["TIMELINE_HISTORY 4"] = [b"00000004.history", history_4]
        self.asked.answers["TIMELINE_HISTORY 3"] = ServerError("ERROR", "58P01", "no such file")
        texts = capture_log(self)
        self.start()
        self.assertEqual(self.sink.history_files, {2: HISTORY_2, 4: history_4})
        self.assertTrue(any("the server has no 00000003.history" in text for text in texts))
        self.asked.asked.clear()
        self.start()
        self.assertNotIn("TIMELINE_HISTORY 2", self.asked.asked)

    def test_few_are_asked_for(self) -> None:
        """A number is cheap to say."""
        self.server(4_000_000_000, "0/712345")
        newest = history(4_000_000_000, (1, LSN.parse("0/300000"))).format()
        self.asked.answers["TIMELINE_HISTORY 4000000000"] = [b"EE6B2800.history", newest]
        missing = ServerError("ERROR", "58P01", "no such file")
        for timeline in range(2, 200):
            self.asked.answers[f"TIMELINE_HISTORY {timeline}"] = missing
        self.start()
        self.assertLess(len(self.asked.asked), 110)

    def test_own_file_is_missing(self) -> None:
        """Without its own history a server cannot be followed."""
        self.server(2, "0/712345")
        missing = ServerError("ERROR", "58P01", "no such file")
        self.asked.answers["TIMELINE_HISTORY 2"] = missing
        self.assertIs(self.error(self.starting()), missing)

    def test_broken_history(self) -> None:
        """A history file that cannot be read is refused, and not stored."""
        self.server(2, "0/712345")
        self.asked.answers["TIMELINE_HISTORY 2"] = [b"00000002.history", b"junk"]
        self.assertIsInstance(self.error(self.starting()), FormatError)
        self.assertEqual(self.sink.history_files, {})


class HeldTests(StartCase):
    """A sink that holds something."""

    def test_resumes(self) -> None:
        """It goes on with the segment where the sink ends, whatever else was named."""
        self.hold(1, "0/300000", "0/412345")
        self.server(1, "0/712345")
        self.asked.answers['READ_REPLICATION_SLOT "s"'] = [b"physical", b"0/100028", b"1"]
        self.assertEqual(self.start().position, at(1, "0/400000"))
        self.assertEqual(self.start(slot="s", start="0/200000").position, at(1, "0/400000"))

    def test_missing_slot(self) -> None:
        """A slot that does not exist is an error, before anything is streamed."""
        self.hold(1, "0/300000", "0/412345")
        self.server(1, "0/712345")
        self.asked.answers['READ_REPLICATION_SLOT "s"'] = [None, None, None]
        self.assertIsInstance(self.error(self.starting(slot="s")), ServerError)

    def test_server_at_the_same_place(self) -> None:
        """A server that has not one byte more is followed."""
        self.hold(1, "0/300000", "0/412345")
        self.server(1, "0/412345")
        self.assertEqual(self.start().position, at(1, "0/400000"))

    def test_server_is_behind(self) -> None:
        """A server that has less, even in the same segment, is refused; both ends are named.

        Of the loss catalogue: L10.
        """
        self.hold(1, "0/300000", "0/412345")
        self.server(1, "0/412344")
        error = self.error(self.starting())
        self.assertIsInstance(error, UpstreamBehind)
        self.assertIn("0/412344", str(error))
        self.assertIn("0/412345", str(error))

    def test_another_system(self) -> None:
        """Another system, or another segment size, is refused before anything else is asked."""
        self.hold(1, "0/300000", "0/412345")
        for query, row in (
            ("IDENTIFY_SYSTEM", [b"78", b"2", b"0/712345", None]),
            ("SHOW wal_segment_size", [b"16MB"]),
        ):
            self.server(2, "0/712345")
            self.asked.answers[query] = row
            self.assertIsInstance(self.error(self.starting()), WrongSystem)
            self.assertEqual(self.asked.asked, ["IDENTIFY_SYSTEM", "SHOW wal_segment_size"])
        self.assertEqual(self.sink.history_files, {})

    def test_server_was_promoted(self) -> None:
        """An older timeline is resumed up to its end, if the sink is not past that."""
        for end in ("0/412345", "0/500088"):
            self.hold(1, "0/300000", end)
            self.server(2, "0/712345")
            self.assertEqual(self.start().position, WALPosition(1, SIZE.floor(LSN.parse(end))))
            self.assertEqual(self.sink.history_files, {2: HISTORY_2})

    def test_forked(self) -> None:
        """A sink that is past the end of its timeline is on another branch: nothing is stored."""
        self.hold(1, "0/300000", "0/500089")
        self.server(2, "0/712345")
        error = self.error(self.starting())
        self.assertIsInstance(error, TimelineMismatch)
        self.assertIn("0/500088", str(error))
        self.assertIn("0/500089", str(error))
        self.assertEqual(self.sink.history_files, {})

    def test_timeline_that_the_server_has_not(self) -> None:
        """A sink on a timeline that the server does not descend from is refused."""
        self.hold(4, "0/300000", "0/412345")
        for timeline in (1, 3):
            self.server(timeline, "0/712345")
            error = self.error(self.starting())
            self.assertIsInstance(error, TimelineMismatch)
            self.assertIn("starting timeline 4 is not present in the server", str(error))
        self.assertEqual(self.sink.history_files, {})

    def test_same_number_other_history(self) -> None:
        """Two servers that were promoted to the same number are told apart by their histories."""
        self.hold(2, "0/500000", "0/612345")
        self.successResultOf(self.sink.store_history(2, b"1\t0/500000\tpromoted elsewhere\n"))
        self.server(2, "0/712345")
        error = self.error(self.starting())
        self.assertIsInstance(error, TimelineMismatch)
        self.assertIn("00000002.history", str(error))
        self.assertIn("1 up to 0/500088", str(error))
        self.assertIn("1 up to 0/500000", str(error))

    def test_history_that_is_held(self) -> None:
        """Histories that are held already are not fetched again, but for the server's own."""
        self.hold(2, "0/500000", "0/512345")
        self.successResultOf(self.sink.store_history(2, HISTORY_2))
        self.server(3, "0/712345")
        self.assertEqual(self.start().position, at(2, "0/500000"))
        self.assertNotIn("TIMELINE_HISTORY 2", self.asked.asked)
        self.assertIn(3, self.sink.history_files)


class UnfinishedRecordTests(StartCase):
    """The server of the timeline before crashed inside a record, of which the sink has more."""

    def hold_records(self, whole: int, more: int) -> WALPosition:
        """The sink holds so many records from 0/300000 on, and *more* bytes of another."""
        builder = WALBuilder(77, SIZE, start=LSN.parse("0/300000"))
        for _ in range(whole):
            builder.noop(1000)
        end = builder.end
        builder.noop(20000)
        self.sink = MemorySink(IDENTITY)
        self.successResultOf(self.sink.begin(1, builder.start))
        self.sink.write(builder.start, memoryview(builder.bytes(builder.start, end + more)))
        self.successResultOf(self.sink.finish())
        return WALPosition(1, end)

    def promoted(self, left: WALPosition) -> None:
        """The server left timeline 1 there."""
        self.server(2, "0/712345")
        content = history(2, (1, left.lsn)).format()
        self.asked.answers["TIMELINE_HISTORY 2"] = [b"00000002.history", content]

    def test_is_given_up(self) -> None:
        """No whole record ends beyond the switch point: the new timeline is followed."""
        for more in (1, 30, 8192, 19000):
            left = self.hold_records(20, more)
            self.promoted(left)
            self.assertEqual(self.start().position, WALPosition(1, SIZE.floor(left.lsn)))
            self.assertEqual(self.sink.durable_position(), left)
            self.assertIn(2, self.sink.history_files)

    def test_whole_record_beyond(self) -> None:
        """One record more, and the two have forked: both ends and the record are named."""
        end = self.hold_records(20, 100)
        left = self.hold_records(21, 100)
        held = self.sink.durable_position()
        assert held is not None
        self.promoted(end)
        error = self.error(self.starting())
        self.assertIsInstance(error, TimelineMismatch)
        for named in (end.lsn, held.lsn, left.lsn):
            self.assertIn(str(named), str(error))
        self.assertEqual(self.sink.durable_position(), held)
        self.assertEqual(self.sink.history_files, {})

    def test_no_wal_beyond(self) -> None:
        """What cannot be told to be the beginning of a record is not given up either."""
        self.hold(1, "0/300000", "0/500089")
        self.server(2, "0/712345")
        self.assertIn("what the archive holds", str(self.error(self.starting())))


class FollowTimelineTests(StartCase):
    """`follow_timeline` between streams, when a server names what comes next."""

    def test_history_that_was_made(self) -> None:
        """What the server does not have any more, and was made of its own, will do."""
        self.hold(1, "0/300000", "0/500088")
        self.successResultOf(self.sink.store_history(2, HISTORY_2))
        self.server(3, "0/712345")
        self.asked.answers["TIMELINE_HISTORY 2"] = ServerError("ERROR", "58P01", "no such file")
        self.result(follow_timeline(self.questions(), self.sink, at(2, "0/500088")))

    def test_stores_the_new_history(self) -> None:
        """The next timeline's history is there before its WAL."""
        self.hold(1, "0/300000", "0/500088")
        self.server(2, "0/712345")
        self.result(follow_timeline(self.questions(), self.sink, at(2, "0/500088")))
        self.assertEqual(self.sink.history_files, {2: HISTORY_2})

    def test_first_timeline(self) -> None:
        """Timeline 1 has no history, and nothing is asked."""
        self.server(1, "0/712345")
        self.result(follow_timeline(self.questions(), self.sink, at(1, "0/712345")))
        self.assertEqual(self.asked.asked, [])


class CheckDescentTests(SynchronousTestCase):
    """`check_descent`."""

    history = TimelineHistory(
        3,
        (
            TimelineSwitch(1, LSN.parse("0/500088"), ""),
            TimelineSwitch(2, LSN.parse("0/600000"), ""),
        ),
    )

    def test_continues(self) -> None:
        """WAL up to a switch point, or anywhere below the server's end, is continued."""
        for held in (at(1, "0/0"), at(1, "0/500088"), at(2, "0/600000"), at(3, "0/700000")):
            check_descent(held, at(3, "0/700000"), self.history)

    def test_does_not_continue(self) -> None:
        """One byte more, or another timeline, and it is not. (L10)"""
        for held, error in (
            (at(1, "0/500089"), TimelineMismatch),
            (at(2, "0/600001"), TimelineMismatch),
            (at(3, "0/700001"), UpstreamBehind),
            (at(4, "0/0"), TimelineMismatch),
        ):
            with self.assertRaises(UpstreamRefused) as caught:
                check_descent(held, at(3, "0/700000"), self.history)
            self.assertIsInstance(caught.exception, error)


class DesignOf2009Tests(StartCase):
    """`start_2009`."""

    def server_2009(self, timeline: int = 1, *backups: str) -> None:
        self.version = "18.6"
        self.asked = AskedServer(
            {
                "GET_SYSTEM_IDENTIFIER": [b"77"],
                "GET_TIMELINE": [str(timeline).encode()],
            }
        )
        for backup in backups:
            self.asked.answers[f"GET_BACKUP_HISTORY_FILE {backup}"] = [
                b"000000010000000000000003.00000028.backup",
                b"START WAL LOCATION",
            ]

    def starting_2009(self, start: str | None) -> Coroutine[Deferred[Any], Any, StreamStart]:
        position = None if start is None else LSN.parse(start)
        return start_2009(self.questions(), self.sink, size=SIZE, start=position)

    def no_backup(self, start: str) -> None:
        self.asked.answers[f"GET_BACKUP_HISTORY_FILE {start}"] = ServerError(
            "ERROR", "58P01", "there is none"
        )

    def test_named_position(self) -> None:
        """The position must be named; the segment size is what the receiver assumes."""
        self.server_2009(1, "0/300028")
        self.assertEqual(
            self.result(self.starting_2009("0/300028")), StreamStart(at(1, "0/300000"), SIZE, 0.0)
        )
        self.assertEqual(
            self.asked.asked,
            ["GET_SYSTEM_IDENTIFIER", "GET_TIMELINE", "GET_BACKUP_HISTORY_FILE 0/300028"],
        )
        self.assertEqual(self.sink.identity, IDENTITY)
        self.assertEqual(
            self.sink.backup_histories,
            {"000000010000000000000003.00000028.backup": b"START WAL LOCATION"},
        )

    def test_no_backup_history(self) -> None:
        """A server without a backup history file is followed all the same."""
        self.server_2009()
        self.no_backup("0/300028")
        self.result(self.starting_2009("0/300028"))
        self.assertEqual(self.sink.backup_histories, {})

    def test_no_position(self) -> None:
        """With nothing held and no position named it cannot start, and says what to do."""
        self.server_2009()
        self.assertIn("--startpos", str(self.error(self.starting_2009(None))))

    def test_resumes(self) -> None:
        """What is held is gone on with, in the segment size that is held."""
        self.hold(1, "0/300000", "0/412345")
        self.server_2009()
        self.no_backup("0/400000")
        starting = start_2009(self.questions(), self.sink, size=SegmentSize(1 << 24), start=None)
        self.assertEqual(self.result(starting), StreamStart(at(1, "0/400000"), SIZE, 0.0))

    def test_another_timeline(self) -> None:
        """There is no way from one timeline to another; the way out is named."""
        self.hold(1, "0/300000", "0/412345")
        self.server_2009(2)
        error = self.error(self.starting_2009(None))
        self.assertIsInstance(error, TimelineMismatch)
        self.assertIn("--dialect modern", str(error))

    def test_another_system(self) -> None:
        """Another system is refused."""
        self.hold(1, "0/300000", "0/412345")
        self.server_2009()
        self.asked.answers["GET_SYSTEM_IDENTIFIER"] = [b"78"]
        self.assertIsInstance(self.error(self.starting_2009(None)), WrongSystem)
