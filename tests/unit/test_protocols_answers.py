"""Tests for `walstream.protocols.answers`: results byte by byte, for the versions that differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import IDENTITY, PID, READY_FOR_QUERY, SIZE, MemorySlots
from walstream.errors import CommandError
from walstream.formats.lsn import LSN
from walstream.interfaces import BackupHistoryFile, Slot, WALPosition
from walstream.protocols.answers import Answers
from walstream.protocols.settings import SenderSettings
from walstream.testing.memory import MemoryProvider
from walstream.wire.dialect2009 import parse_2009
from walstream.wire.grammar import parse_command

VERSIONS = ("9.6.24", "13.22", "14.19", "15.14", "16.10", "18.6")

TEXT = (25, -1)
INT8 = (20, 8)
INT4 = (23, 4)
BYTEA = (17, -1)


def described(*columns: tuple[str, tuple[int, int]]) -> bytes:
    """A RowDescription, from the documentation of its format."""
    body = len(columns).to_bytes(2, "big")
    for name, (oid, size) in columns:
        body += name.encode() + b"\0" + bytes(6) + oid.to_bytes(4, "big")
        body += size.to_bytes(2, "big", signed=True) + b"\xff\xff\xff\xff" + bytes(2)
    return b"T" + (len(body) + 4).to_bytes(4, "big") + body


def row(*values: bytes | None) -> bytes:
    """A DataRow."""
    body = len(values).to_bytes(2, "big")
    for value in values:
        body += b"\xff\xff\xff\xff" if value is None else len(value).to_bytes(4, "big") + value
    return b"D" + (len(body) + 4).to_bytes(4, "big") + body


def complete(tag: str) -> bytes:
    """CommandComplete, and ReadyForQuery behind it."""
    body = tag.encode() + b"\0"
    return b"C" + (len(body) + 4).to_bytes(4, "big") + body + READY_FOR_QUERY


class AnswersCase(SynchronousTestCase):
    """A server on timeline 3 that has WAL up to 0/D002288."""

    def setUp(self) -> None:
        self.provider = MemoryProvider(IDENTITY, WALPosition(1, LSN.parse("0/D000000")))
        for length in (0x1F88, 0x100):
            self.provider.append(bytes(length))
            self.provider.end_timeline()
        self.provider.append(bytes(0x200))
        self.slots = MemorySlots()
        self.settings = SenderSettings()
        self.sent = b""

    def run_command(self, command: str) -> Deferred[None]:
        self.sent = b""
        answers = Answers(self.provider, self.slots, self.settings, PID, self.send)
        parsed = parse_2009(command.encode()) or parse_command(command.encode())
        return Deferred.fromCoroutine(answers.answer(parsed))

    def send(self, data: bytes) -> None:
        self.sent += data

    def answer(self, command: str, version: str = "18.6") -> bytes:
        """What a server of that version answers."""
        self.provider.identity = replace(IDENTITY, server_version=version)
        self.successResultOf(self.run_command(command))
        return self.sent

    def refusal(self, command: str) -> CommandError:
        """The error that a command is refused with; what was sent before it is in `sent`."""
        error = self.failureResultOf(self.run_command(command), CommandError).value
        assert isinstance(error, CommandError)
        return error


class IdentifySystemTests(AnswersCase):
    """IDENTIFY_SYSTEM."""

    def test_versions(self) -> None:
        """The timeline is an int4 up to 15, an int8 from 16 on; there is no database."""
        for version in VERSIONS:
            timeline = INT8 if version in ("16.10", "18.6") else INT4
            expected = described(
                ("systemid", TEXT), ("timeline", timeline), ("xlogpos", TEXT), ("dbname", TEXT)
            )
            expected += row(b"7423190665107412305", b"3", b"0/D002288", None)
            expected += complete("IDENTIFY_SYSTEM")
            self.assertEqual(self.answer("IDENTIFY_SYSTEM", version), expected, version)

    def test_largest_numbers(self) -> None:
        """All 64 bits of a system identifier count, and all 32 of a timeline."""
        identity = replace(IDENTITY, system_identifier=2**64 - 1)
        self.provider = MemoryProvider(identity, WALPosition(2**32 - 1, LSN.parse("FFFFFFFF/0")))
        self.successResultOf(self.run_command("IDENTIFY_SYSTEM"))
        self.assertIn(row(b"18446744073709551615", b"4294967295", b"FFFFFFFF/0", None), self.sent)

    def test_nothing_to_serve_yet(self) -> None:
        """A provider that does not know whose WAL it has cannot answer."""
        self.provider.identity = None
        error = self.refusal("IDENTIFY_SYSTEM")
        self.assertEqual(error.sqlstate, "57P03")
        self.assertEqual(self.sent, b"")


class ShowTests(AnswersCase):
    """SHOW."""

    def test_versions(self) -> None:
        """A column of text with the parameter's name, in all versions alike."""
        for version in VERSIONS:
            expected = described(("wal_segment_size", TEXT)) + row(b"1MB") + complete("SHOW")
            self.assertEqual(self.answer("SHOW wal_segment_size", version), expected, version)
            expected = described(("server_version", TEXT)) + row(version.encode())
            self.assertEqual(
                self.answer("SHOW server_version", version), expected + complete("SHOW")
            )

    def test_settings(self) -> None:
        """The sender's own settings are shown."""
        self.settings = SenderSettings(sender_timeout=5)
        self.assertIn(row(b"5s"), self.answer("SHOW wal_sender_timeout"))

    def test_all(self) -> None:
        """Each with its name, its value and no description, as PostgreSQL's three columns."""
        answer = self.answer("SHOW ALL")
        columns = described(("name", TEXT), ("setting", TEXT), ("description", TEXT))
        self.assertTrue(answer.startswith(columns))
        self.assertIn(row(b"wal_segment_size", b"1MB", None), answer)
        self.assertIn(row(b"wal_level", b"replica", None), answer)
        self.assertTrue(answer.endswith(complete("SHOW")))

    def test_unknown(self) -> None:
        """A parameter that there is not is an error, in PostgreSQL's words."""
        error = self.refusal("SHOW nosuch.thing")
        self.assertEqual(error.sqlstate, "42704")
        self.assertEqual(str(error), 'unrecognized configuration parameter "nosuch.thing"')
        self.assertEqual(self.sent, b"")


class TimelineHistoryTests(AnswersCase):
    """TIMELINE_HISTORY."""

    def test_versions(self) -> None:
        """The contents are called bytea up to 13, text from 14 on, and are the same bytes."""
        content = b"1\t0/D001F88\tno recovery target specified\n"
        for version in VERSIONS:
            kind = BYTEA if version in ("9.6.24", "13.22") else TEXT
            expected = described(("filename", TEXT), ("content", kind))
            expected += row(b"00000002.history", content) + complete("TIMELINE_HISTORY")
            self.assertEqual(self.answer("TIMELINE_HISTORY 2", version), expected, version)

    def test_raw_bytes(self) -> None:
        """Whatever the file holds travels as it is."""
        content = b"1\t0/1000\tbefore caf\xe9 \\x00 \x00\xff\n"
        self.provider.add_history(2, content)
        self.assertIn(row(b"00000002.history", content), self.answer("TIMELINE_HISTORY 2"))

    def test_missing(self) -> None:
        """That a file is missing, and timeline 1 has none, is said behind the description."""
        for timeline in (1, 4, 2**32 - 1):
            error = self.refusal(f"TIMELINE_HISTORY {timeline}")
            self.assertEqual(error.sqlstate, "58P01")
            self.assertEqual(
                str(error),
                f'could not open file "pg_wal/{timeline:08X}.history": No such file or directory',
            )
            self.assertEqual(self.sent, described(("filename", TEXT), ("content", TEXT)))


class SlotTests(AnswersCase):
    """The commands about slots."""

    def test_create(self) -> None:
        """A physical slot has a name and no consistent point, with reserved WAL or without."""
        for name, reserve, options in (("a", False, ""), ("b", True, " RESERVE_WAL")):
            expected = described(
                ("slot_name", TEXT),
                ("consistent_point", TEXT),
                ("snapshot_name", TEXT),
                ("output_plugin", TEXT),
            )
            expected += row(name.encode(), b"0/0", None, None)
            expected += complete("CREATE_REPLICATION_SLOT")
            command = f'CREATE_REPLICATION_SLOT "{name}" PHYSICAL{options}'
            self.assertEqual(self.answer(command), expected)
            slot = self.successResultOf(self.slots.read(name))
            assert slot is not None
            reserved = WALPosition(3, LSN.parse("0/D000000")) if reserve else None
            self.assertEqual((slot.restart, slot.temporary), (reserved, False))

    def test_create_temporary(self) -> None:
        """A temporary slot belongs to the session that made it."""
        self.answer("CREATE_REPLICATION_SLOT a TEMPORARY PHYSICAL (RESERVE_WAL)")
        restart = WALPosition(3, LSN.parse("0/D000000"))
        self.assertEqual(self.slots.calls, [("create", "a", PID, True, restart)])

    def test_create_existing(self) -> None:
        """The store's error is the answer, and nothing is sent before it."""
        self.answer("CREATE_REPLICATION_SLOT a PHYSICAL")
        error = self.refusal("CREATE_REPLICATION_SLOT a PHYSICAL")
        self.assertEqual(error.sqlstate, "42710")
        self.assertEqual(self.sent, b"")

    def test_create_logical(self) -> None:
        """Logical slots are for servers."""
        error = self.refusal("CREATE_REPLICATION_SLOT a LOGICAL pgoutput")
        self.assertEqual(error.sqlstate, "55000")
        self.assertEqual(self.slots.calls, [])

    def test_read(self) -> None:
        """A slot's kind and position, its kind alone if it holds nothing, else nothing at all."""
        columns = described(("slot_type", TEXT), ("restart_lsn", TEXT), ("restart_tli", INT8))
        end = complete("READ_REPLICATION_SLOT")
        self.answer("CREATE_REPLICATION_SLOT a PHYSICAL")
        self.answer("CREATE_REPLICATION_SLOT b PHYSICAL RESERVE_WAL")
        for name, values in (
            ("a", (b"physical", None, None)),
            # As PostgreSQL: the timeline that the position is on, which is not that of the end.
            ("b", (b"physical", b"0/D000000", b"1")),
            ("nosuch", (None, None, None)),
        ):
            self.assertEqual(
                self.answer(f"READ_REPLICATION_SLOT {name}"), columns + row(*values) + end, name
            )

    def test_drop(self) -> None:
        """A slot is dropped, with or without waiting for its user, and there is no result."""
        for wait in (False, True):
            self.answer("CREATE_REPLICATION_SLOT a PHYSICAL")
            command = "DROP_REPLICATION_SLOT a" + " WAIT" * wait
            self.assertEqual(self.answer(command), complete("DROP_REPLICATION_SLOT"))
            self.assertEqual(self.slots.calls[-1], ("drop", "a", wait))

    def test_drop_missing(self) -> None:
        """The store's error is the answer."""
        self.assertEqual(self.refusal("DROP_REPLICATION_SLOT a").sqlstate, "42704")
        self.assertEqual(self.sent, b"")

    def test_answer_waits_for_the_store(self) -> None:
        """A slot is there before it is said to be."""
        self.slots.held_back = Deferred()
        answered = self.run_command("CREATE_REPLICATION_SLOT a PHYSICAL")
        self.assertNoResult(answered)
        self.assertEqual(self.sent, b"")
        self.slots.held_back.callback(None)
        self.successResultOf(answered)
        self.assertTrue(self.sent)

    def test_alter(self) -> None:
        """Physical slots cannot be altered, and others there are not."""
        self.answer("CREATE_REPLICATION_SLOT a PHYSICAL")
        error = self.refusal("ALTER_REPLICATION_SLOT a (FAILOVER)")
        self.assertEqual(error.sqlstate, "0A000")
        self.assertEqual(
            str(error), "cannot use ALTER_REPLICATION_SLOT with a physical replication slot"
        )
        self.assertEqual(self.refusal("ALTER_REPLICATION_SLOT b (FAILOVER)").sqlstate, "42704")


class LostSlotTests(AnswersCase):
    """A slot that is lost, as each version answers to it."""

    def setUp(self) -> None:
        super().setUp()
        self.answer("CREATE_REPLICATION_SLOT a PHYSICAL")

    def use(self, version: str) -> Deferred[str]:
        """Acquire the slot at a server of that version."""
        self.provider.identity = replace(IDENTITY, server_version=version)
        answers = Answers(self.provider, self.slots, self.settings, PID, self.send)
        return Deferred.fromCoroutine(answers.use_slot("a"))

    def assert_lost(self, error: BaseException, reason: str) -> None:
        """It is PostgreSQL 18's."""
        assert isinstance(error, CommandError)
        self.assertEqual(
            (error.sqlstate, error.message, error.detail),
            (
                "55000",
                'can no longer access replication slot "a"',
                f'This replication slot has been invalidated due to "{reason}".',
            ),
        )

    def test_use(self) -> None:
        """From 18 on it cannot be used; before, whether it can is a question of the WAL."""
        self.slots.lose("a", "wal_removed")
        for version in ("15.9", "17.6"):
            self.assertEqual(self.successResultOf(self.use(version)), "a")
        error = self.failureResultOf(self.use("18.0"), CommandError).value
        self.assert_lost(error, "wal_removed")

    def test_use_after_an_idle_time(self) -> None:
        """Which older servers do not know; they have no other words for it."""
        self.slots.lose("a", "idle_timeout")
        for version in ("15.9", "18.0"):
            error = self.failureResultOf(self.use(version), CommandError).value
            self.assert_lost(error, "idle_timeout")

    def test_alter(self) -> None:
        """18 says first that it is lost."""
        self.slots.lose("a", "wal_removed")
        self.assert_lost(self.refusal("ALTER_REPLICATION_SLOT a (FAILOVER)"), "wal_removed")


class ReservationTests(AnswersCase):
    """WAL that is removed while it is being reserved."""

    def refuse(self, times: int) -> None:
        """The first so many attempts come too late."""
        create = self.slots.create

        def refuse(name: str, pid: int, **options: Any) -> Deferred[Slot]:
            nonlocal times
            if not times:
                return create(name, pid, **options)
            times -= 1
            self.provider.append(bytes(SIZE))
            return fail(CommandError("58P01", "already been removed"))

        self.slots.create = refuse  # type: ignore[method-assign]

    def test_it_is_tried_again(self) -> None:
        """With WAL that is there by then."""
        self.refuse(2)
        self.answer("CREATE_REPLICATION_SLOT a PHYSICAL RESERVE_WAL")
        slot = self.successResultOf(self.slots.read("a"))
        assert slot is not None
        self.assertEqual(slot.restart, WALPosition(3, LSN(LSN.parse("0/D000000") + 2 * SIZE)))

    def test_not_for_ever(self) -> None:
        """The client is told in the end."""
        self.refuse(99)
        error = self.refusal("CREATE_REPLICATION_SLOT a PHYSICAL RESERVE_WAL")
        self.assertEqual(error.sqlstate, "58P01")

    def test_the_hint_of_older_versions(self) -> None:
        """17 has quotation marks around the names of settings, 16 has not."""
        full = CommandError("53400", "all", hint='Free one or increase "max_replication_slots".')
        self.slots.create = lambda *_, **__: fail(full)  # type: ignore[method-assign]
        for version, hint in (
            ("18.0", 'Free one or increase "max_replication_slots".'),
            ("17.1", 'Free one or increase "max_replication_slots".'),
            ("16.9", "Free one or increase max_replication_slots."),
        ):
            self.provider.identity = replace(IDENTITY, server_version=version)
            self.assertEqual(self.refusal("CREATE_REPLICATION_SLOT a PHYSICAL").hint, hint)


class UnavailableTests(AnswersCase):
    """Commands that an archive cannot do."""

    def test_are_refused(self) -> None:
        """They are refused by name, and where to send them is told."""
        for command, name in (
            ("BASE_BACKUP (LABEL 'x')", "BASE_BACKUP"),
            ("UPLOAD_MANIFEST", "UPLOAD_MANIFEST"),
            ("START_REPLICATION SLOT a LOGICAL 0/0", "START_REPLICATION … LOGICAL"),
        ):
            error = self.refusal(command)
            self.assertEqual(error.sqlstate, "0A000")
            self.assertEqual(str(error), f"{name} is not available from a WAL archive")
            self.assertEqual(error.hint, "Send this command to a PostgreSQL server.")
            self.assertEqual(self.sent, b"")


class DesignOf2009Tests(AnswersCase):
    """The commands of December 2009."""

    def test_system_identifier(self) -> None:
        """One column of text."""
        self.assertEqual(
            self.answer("GET_SYSTEM_IDENTIFIER"),
            described(("systemid", TEXT)) + row(b"7423190665107412305") + complete("SELECT"),
        )

    def test_timeline(self) -> None:
        """One column, an int4."""
        self.assertEqual(
            self.answer("GET_TIMELINE"),
            described(("timeline", INT4)) + row(b"3") + complete("SELECT"),
        )

    def test_backup_history_file(self) -> None:
        """Its name and its contents, as they are."""
        file = BackupHistoryFile(
            "00000001000000000000000D.00000028.backup", b"START WAL LOCATION: 0/D000028\xff\n"
        )
        self.provider.add_backup_history(LSN.parse("0/D000028"), file)
        self.assertEqual(
            self.answer("GET_BACKUP_HISTORY_FILE 0/D000028"),
            described(("filename", TEXT), ("content", TEXT))
            + row(file.name.encode(), file.content)
            + complete("SELECT"),
        )

    def test_no_backup_history_file(self) -> None:
        """If there is none, an error says how one comes into an archive."""
        error = self.refusal("GET_BACKUP_HISTORY_FILE 0/D000030")
        self.assertEqual(error.sqlstate, "58P01")
        self.assertIn("0/D000030", str(error))
        self.assertIn("archive_command", error.hint or "")
        self.assertEqual(self.sent, b"")

    def test_nothing_to_serve_yet(self) -> None:
        """Without knowing whose WAL it has, a provider cannot answer in this dialect either."""
        self.provider.identity = None
        self.assertEqual(self.refusal("GET_SYSTEM_IDENTIFIER").sqlstate, "57P03")
