"""Tests for `walstream.protocols.questions`, with a server that is a table of answers."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError, ProtocolViolation, ServerError, WalstreamError
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.interfaces import BackupHistoryFile, WALPosition
from walstream.protocols.questions import Answer, IdentifiedSystem, Questions

T = TypeVar("T")

Row = Sequence[bytes | None]
Reply = Row | Sequence[Row] | Exception


class AskedServer:
    """Answers queries out of a table, and keeps what it was asked.

    :ivar answers: by query: a row, a list of rows, or an error.
    """

    def __init__(self, answers: Mapping[str, Reply]) -> None:
        self.answers: dict[str, Reply] = dict(answers)
        self.asked: list[str] = []

    def query(self, text: str) -> Deferred[Answer]:
        self.asked.append(text)
        answer = self.answers[text]
        if isinstance(answer, Exception):
            return fail(answer)
        rows: Any = answer if not answer or isinstance(answer[0], list) else [answer]
        return succeed(Answer([f"column{index}" for index in range(9)], rows))


class QuestionsTests(SynchronousTestCase):
    """`Questions`."""

    def ask(self, answers: Mapping[str, Reply], version: str | None = "18.6") -> Questions:
        self.server = AskedServer(answers)
        parameters = {} if version is None else {"server_version": version}
        return Questions(self.server.query, parameters)

    def result(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def error(self, work: Coroutine[Deferred[Any], Any, object]) -> WalstreamError:
        error = self.failureResultOf(Deferred.fromCoroutine(work), WalstreamError).value
        assert isinstance(error, WalstreamError)
        return error

    # What the server said of itself.

    def test_version(self) -> None:
        """The version is the one that the server reported, or 0."""
        for version, text, major in (
            ("18.6", "18.6", 18),
            ("18beta1", "18beta1", 18),
            ("9.6.24", "9.6.24", 9),
            (None, "0", 0),
        ):
            questions = self.ask({}, version)
            self.assertEqual((questions.server_version, questions.server_major), (text, major))

    # Today's protocol.

    def test_identify_system(self) -> None:
        """Three columns are needed; others may follow, as the database does since 9.4."""
        for more in ([], [None], [None, b"what may come"]):
            row: Row = [b"7423190665107412305", b"2", b"16/B374D848", *more]
            questions = self.ask({"IDENTIFY_SYSTEM": row})
            self.assertEqual(
                self.result(questions.identify_system()),
                IdentifiedSystem(7423190665107412305, WALPosition(2, LSN.parse("16/B374D848"))),
            )

    def test_identify_system_broken(self) -> None:
        """Other answers are violations that say what was expected."""
        for rows, text in (
            ([], "expected one row of at least 3 columns, got 0 rows"),
            ([[b"1", b"2"]], "expected one row of at least 3 columns"),
            (2 * [[b"1", b"2", b"0/0"]], "got 2 rows"),
            ([[b"x", b"2", b"0/0"]], "system identifier is not a number: 'x'"),
            ([[None, b"2", b"0/0"]], "system identifier is not a number: ''"),
            ([[b"1", b"-2", b"0/0"]], "timeline is not a number: '-2'"),
            ([[b"1", "٢".encode(), b"0/0"]], "timeline is not a number"),
            ([[b"1", b"9" * 5000, b"0/0"]], "timeline is not a number"),
            ([[b"1", b"2", b"0-0"]], "not an LSN"),
            ([[b"1", b"2", None]], "not an LSN"),
        ):
            table: dict[str, Reply] = {"IDENTIFY_SYSTEM": rows}
            self.assertIn(text, str(self.error(self.ask(table).identify_system())))

    def test_segment_size(self) -> None:
        """``wal_segment_size`` in the units that servers use."""
        for setting, size in ((b"16MB", 16 << 20), (b"1MB", 1 << 20), (b"1GB", 1 << 30)):
            questions = self.ask({"SHOW wal_segment_size": [setting]})
            self.assertEqual(self.result(questions.segment_size()), SegmentSize(size))
        questions = self.ask({"SHOW wal_segment_size": [b"3MB"]})
        self.assertIsInstance(self.error(questions.segment_size()), FormatError)

    def test_sender_timeout(self) -> None:
        """``wal_sender_timeout`` in seconds; what is no duration is an error."""
        for setting, seconds in ((b"1min", 60), (b"0", 0), (b"2500ms", 2.5), (b"90s", 90)):
            questions = self.ask({"SHOW wal_sender_timeout": [setting]})
            self.assertEqual(self.result(questions.sender_timeout()), seconds)
        questions = self.ask({"SHOW wal_sender_timeout": [b"soon"]})
        self.assertIn("wal_sender_timeout", str(self.error(questions.sender_timeout())))

    def test_timeline_history(self) -> None:
        """The second column, byte by byte; an empty file may come as NULL."""
        for content, found in (
            (b"1\t0/1\tcaf\xe9\n", b"1\t0/1\tcaf\xe9\n"),
            (b"", b""),
            (None, b""),
        ):
            questions = self.ask({"TIMELINE_HISTORY 2": [b"00000002.history", content]})
            self.assertEqual(self.result(questions.timeline_history(2)), found)

    def test_slot_position(self) -> None:
        """Where a slot stands, and None if it holds nothing back yet."""
        command = 'READ_REPLICATION_SLOT "a"'
        questions = self.ask({command: [b"physical", b"0/2000000", b"1"]})
        self.assertEqual(
            self.result(questions.slot_position("a")), WALPosition(1, LSN.parse("0/2000000"))
        )
        questions = self.ask({command: [b"physical", None, None]})
        self.assertIsNone(self.result(questions.slot_position("a")))

    def test_missing_slot(self) -> None:
        """A row of NULLs says that there is no such slot."""
        questions = self.ask({'READ_REPLICATION_SLOT "a""b"': [None, None, None]})
        error = self.error(questions.slot_position('a"b'))
        assert isinstance(error, ServerError)
        self.assertEqual(error.sqlstate, "42704")
        self.assertEqual(error.message, 'replication slot "a"b" does not exist')
        assert error.hint is not None

    def test_errors_of_the_server(self) -> None:
        """An error of the server's is the question's."""
        refused = ServerError("ERROR", "42501", "must be superuser or replication role")
        questions = self.ask({"IDENTIFY_SYSTEM": refused})
        self.assertIs(self.error(questions.identify_system()), refused)

    # The design of December 2009.

    def test_2009(self) -> None:
        """System identifier and timeline are one column each."""
        questions = self.ask({"GET_SYSTEM_IDENTIFIER": [b"77"], "GET_TIMELINE": [b"3"]})
        self.assertEqual(self.result(questions.get_system_identifier()), 77)
        self.assertEqual(self.result(questions.get_timeline()), 3)
        questions = self.ask({"GET_TIMELINE": [b""]})
        self.assertIsInstance(self.error(questions.get_timeline()), ProtocolViolation)

    def test_backup_history_file(self) -> None:
        """Name and contents of a backup history file."""
        questions = self.ask({"GET_BACKUP_HISTORY_FILE 0/2000028": [b"name", b"\xff"]})
        self.assertEqual(
            self.result(questions.get_backup_history_file(LSN.parse("0/2000028"))),
            BackupHistoryFile("name", b"\xff"),
        )

    def test_no_backup_history_file(self) -> None:
        """That there is none is no error; others are."""
        command = "GET_BACKUP_HISTORY_FILE 0/2000028"
        missing = ServerError("ERROR", "58P01", "there is none")
        questions = self.ask({command: missing})
        self.assertIsNone(self.result(questions.get_backup_history_file(LSN.parse("0/2000028"))))
        broken = ServerError("ERROR", "42601", "syntax error")
        questions = self.ask({command: broken})
        self.assertIs(self.error(questions.get_backup_history_file(LSN.parse("0/2000028"))), broken)


class AnswerTests(SynchronousTestCase):
    """`Answer`."""

    def test_texts(self) -> None:
        """NULL is the empty string, and what is not UTF-8 is shown somehow."""
        answer = Answer(["a", "b", "c"], [[b"1", None, b"\xff"]])
        self.assertEqual(answer.texts(3), ["1", "", "\ufffd"])

    def test_answers_are_not_shared(self) -> None:
        """Each answer has lists of its own."""
        Answer().rows.append([b"1"])
        self.assertEqual(Answer().rows, [])
