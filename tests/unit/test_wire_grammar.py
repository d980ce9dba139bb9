"""Tests for `walstream.wire.grammar` and `walstream.wire.commands`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import CommandError
from walstream.formats.lsn import LSN
from walstream.wire.grammar import (
    AlterReplicationSlot,
    BaseBackup,
    Command,
    CreateReplicationSlot,
    DropReplicationSlot,
    FetchTimelineHistory,
    IdentifySystem,
    ReadReplicationSlot,
    Show,
    StartLogicalReplication,
    StartReplication,
    UploadManifest,
    parse_command,
)

_names = st.text(st.characters(exclude_characters="\0", codec="ascii"), max_size=20)
_slots = st.none() | _names
_timelines = st.integers(1, 2**32 - 1)
_positions = st.integers(0, 2**64 - 1).map(LSN)


class CommandTests(SynchronousTestCase):
    """`parse_command`."""

    def assertCommands(self, cases: dict[bytes, Command]) -> None:  # noqa: N802
        """Each text is that command."""
        for text, command in cases.items():
            self.assertEqual(parse_command(text), command, text)

    def assertRefused(self, sqlstate: str, message: str, *texts: bytes) -> None:  # noqa: N802
        """Each text has that error."""
        for text in texts:
            error = self.assertRaises(CommandError, parse_command, text)
            self.assertEqual((error.sqlstate, error.message), (sqlstate, message), text)

    def test_identify_system(self) -> None:
        """Alone, with blanks, and with one semicolon."""
        for text in (b"IDENTIFY_SYSTEM", b" \n IDENTIFY_SYSTEM\t", b"IDENTIFY_SYSTEM ;"):
            self.assertEqual(parse_command(text), IdentifySystem())

    def test_show(self) -> None:
        """A name, folded unless it is quoted, with dots or without."""
        self.assertCommands(
            {
                b"SHOW wal_segment_size": Show("wal_segment_size"),
                b"SHOW data_directory_mode;": Show("data_directory_mode"),
                b'SHOW Foo . "Bar".baz': Show("foo.Bar.baz"),
            }
        )

    def test_timeline_history(self) -> None:
        """A timeline."""
        self.assertCommands({b"TIMELINE_HISTORY 2": FetchTimelineHistory(2)})

    def test_timeline_zero(self) -> None:
        """There is none; PostgreSQL has an error of its own for it."""
        self.assertRefused(
            "42601",
            "invalid timeline 0",
            b"TIMELINE_HISTORY 0",
            b"START_REPLICATION 0/0 TIMELINE 0",
        )

    def test_start_replication(self) -> None:
        """All forms of physical replication, those of real clients among them."""
        slot = "pg_basebackup_6821"
        self.assertCommands(
            {
                b"START_REPLICATION 0/1000000": StartReplication(LSN(0x1000000)),
                b"START_REPLICATION 0/1000000 TIMELINE 1": StartReplication(LSN(0x1000000), 1),
                b"START_REPLICATION PHYSICAL 16/b374d848 TIMELINE 4294967295": StartReplication(
                    LSN(0x16B374D848), 2**32 - 1
                ),
                b'START_REPLICATION SLOT "rw1" 0/2000000 TIMELINE 1': StartReplication(
                    LSN(0x2000000), 1, "rw1"
                ),
                b"START_REPLICATION SLOT rw1 PHYSICAL 0/0": StartReplication(LSN(0), None, "rw1"),
                b'START_REPLICATION SLOT "pg_basebackup_6821" 0/5000000 TIMELINE 1': (
                    StartReplication(LSN(0x5000000), 1, slot)
                ),
            }
        )

    def test_start_logical_replication(self) -> None:
        """A slot, a position, and the plugin's options, which are strings or nothing."""
        self.assertCommands(
            {
                b"START_REPLICATION SLOT s LOGICAL 0/0": StartLogicalReplication("s", LSN(0)),
                b"START_REPLICATION SLOT s LOGICAL 1/0 (proto_version '1', \"Binary\")": (
                    StartLogicalReplication(
                        "s", LSN(1 << 32), {"proto_version": "1", "Binary": None}
                    )
                ),
            }
        )

    def test_create_physical_slot(self) -> None:
        """The forms that pg_basebackup, standbys and pg_receivewal of all versions send."""
        basebackup = "pg_basebackup_6821"
        self.assertCommands(
            {
                b'CREATE_REPLICATION_SLOT "pg_basebackup_6821" TEMPORARY PHYSICAL ( RESERVE_WAL)': (
                    CreateReplicationSlot(basebackup, temporary=True, reserve_wal=True)
                ),
                b'CREATE_REPLICATION_SLOT "pg_basebackup_6821" TEMPORARY PHYSICAL RESERVE_WAL': (
                    CreateReplicationSlot(basebackup, temporary=True, reserve_wal=True)
                ),
                b'CREATE_REPLICATION_SLOT "bbs" PHYSICAL (RESERVE_WAL)': CreateReplicationSlot(
                    "bbs", reserve_wal=True
                ),
                b'CREATE_REPLICATION_SLOT "s" PHYSICAL': CreateReplicationSlot("s"),
            }
        )

    def test_reserve_wal_is_a_boolean(self) -> None:
        """Its name may be written in lower case, and its value in all of PostgreSQL's ways."""
        for value, wanted in (
            *((value, True) for value in (b"", b"1", b"true", b"On", b"'TRUE'")),
            *((value, False) for value in (b"0", b"false", b"'off'")),
        ):
            command = parse_command(b"CREATE_REPLICATION_SLOT s PHYSICAL (reserve_wal %s)" % value)
            self.assertEqual(command, CreateReplicationSlot("s", reserve_wal=wanted), value)
        self.assertRefused(
            "42601",
            "reserve_wal requires a Boolean value",
            b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL 2)",
            b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL 'yes')",
        )

    def test_options_that_a_physical_slot_cannot_have(self) -> None:
        """Twice the same, or one of a logical slot's, and one that is unknown."""
        self.assertRefused(
            "42601",
            "conflicting or redundant options",
            b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL, RESERVE_WAL)",
            b"CREATE_REPLICATION_SLOT s PHYSICAL RESERVE_WAL RESERVE_WAL",
            b"CREATE_REPLICATION_SLOT s PHYSICAL EXPORT_SNAPSHOT",
            b"CREATE_REPLICATION_SLOT s PHYSICAL (TWO_PHASE)",
            b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL, failover)",
        )
        self.assertRefused(
            "XX000", "unrecognized option: foo", b"CREATE_REPLICATION_SLOT s PHYSICAL (foo)"
        )

    def test_create_logical_slot(self) -> None:
        """Options in parentheses and as the keywords of before 15 mean the same."""
        self.assertCommands(
            {
                b"CREATE_REPLICATION_SLOT s LOGICAL pgoutput": CreateReplicationSlot(
                    "s", plugin="pgoutput"
                ),
                b"CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL p NOEXPORT_SNAPSHOT TWO_PHASE": (
                    CreateReplicationSlot(
                        "s",
                        temporary=True,
                        plugin="p",
                        options={"snapshot": "nothing", "two_phase": None},
                    )
                ),
                b"CREATE_REPLICATION_SLOT s LOGICAL p (SNAPSHOT 'use', TWO_PHASE 1)": (
                    CreateReplicationSlot(
                        "s", plugin="p", options={"snapshot": "use", "two_phase": 1}
                    )
                ),
            }
        )
        self.assertFalse(CreateReplicationSlot("s", plugin="p").physical)
        self.assertTrue(CreateReplicationSlot("s").physical)

    def test_other_slot_commands(self) -> None:
        """READ, with the name unquoted as pg_receivewal sends it; ALTER; DROP."""
        self.assertCommands(
            {
                b"READ_REPLICATION_SLOT rw1": ReadReplicationSlot("rw1"),
                b'READ_REPLICATION_SLOT "Rw1"': ReadReplicationSlot("Rw1"),
                b"ALTER_REPLICATION_SLOT s (FAILOVER false)": AlterReplicationSlot(
                    "s", {"failover": "false"}
                ),
                b"DROP_REPLICATION_SLOT s": DropReplicationSlot("s"),
                b'DROP_REPLICATION_SLOT "s" WAIT;': DropReplicationSlot("s", wait=True),
            }
        )

    def test_base_backup(self) -> None:
        """What pg_basebackup 15 to 18 sends, with its double blanks."""
        self.assertCommands(
            {
                b"BASE_BACKUP": BaseBackup(),
                b"BASE_BACKUP ( LABEL 'lab',  PROGRESS,  CHECKPOINT 'fast',  WAIT 0,  "
                b"MANIFEST 'yes',  TARGET 'client')": BaseBackup(
                    {
                        "label": "lab",
                        "progress": None,
                        "checkpoint": "fast",
                        "wait": 0,
                        "manifest": "yes",
                        "target": "client",
                    }
                ),
            }
        )

    def test_base_backup_refuses_duplicates(self) -> None:
        """PostgreSQL names the option."""
        self.assertRefused("42601", 'duplicate option "wal"', b"BASE_BACKUP (WAL, wal 1)")

    def test_upload_manifest(self) -> None:
        """Nothing but its name."""
        self.assertCommands({b"UPLOAD_MANIFEST": UploadManifest()})

    def test_versions(self) -> None:
        """What a version does not know, it says as it does."""
        sql = ("0A000", "cannot execute SQL commands in WAL sender for physical replication")
        physical = b"CREATE_REPLICATION_SLOT s PHYSICAL (FAILOVER)"
        for text, major, answer in (
            (b"ALTER_REPLICATION_SLOT s (FAILOVER)", 16, sql),
            (b"UPLOAD_MANIFEST", 16, sql),
            (
                b"ALTER_REPLICATION_SLOT s (TWO_PHASE)",
                17,
                ("XX000", "unrecognized option: two_phase"),
            ),
            (b"ALTER_REPLICATION_SLOT s (nosuch)", 18, ("XX000", "unrecognized option: nosuch")),
            (
                b"ALTER_REPLICATION_SLOT s (TWO_PHASE 7)",
                18,
                ("42601", "two_phase requires a Boolean value"),
            ),
            (physical, 16, ("XX000", "unrecognized option: failover")),
            (physical, 17, ("42601", "conflicting or redundant options")),
        ):
            error = self.assertRaises(CommandError, parse_command, text, major)
            self.assertEqual((error.sqlstate, error.message), answer, (text, major))
        for text, major in ((b"ALTER_REPLICATION_SLOT s (FAILOVER)", 17), (b"UPLOAD_MANIFEST", 17)):
            parse_command(text, major)

    def test_text_that_begins_like_no_command_is_sql(self) -> None:
        """In a physical walsender SQL has this error, and so has everything else, even nothing."""
        self.assertRefused(
            "0A000",
            "cannot execute SQL commands in WAL sender for physical replication",
            b"",
            b" ",
            b";",
            b"SELECT 1",
            b"identify_system",
            b"Identify_System",
            b'"IDENTIFY_SYSTEM"',
            b"/* x */ IDENTIFY_SYSTEM",
            b"-- x",
            b"IDENTIFY_SYSTEMS",
            b"PHYSICAL",
            b"TIMELINE 1",
            b"(",
            b"0/0",
            b"42",
            b"\xff\xfe",
            b"START REPLICATION 0/0",
        )

    def test_bad_grammar_behind_a_command_is_a_syntax_error(self) -> None:
        """Once the first word is a command, PostgreSQL says no more than this."""
        self.assertRefused(
            "42601",
            "syntax error",
            b"IDENTIFY_SYSTEM; SHOW x",
            b"IDENTIFY_SYSTEM;;",
            b"IDENTIFY_SYSTEM x",
            b"SHOW",
            b"SHOW 'x'",
            b"SHOW a.",
            b"SHOW WAIT",
            b"TIMELINE_HISTORY",
            b"TIMELINE_HISTORY two",
            b"TIMELINE_HISTORY -1",
            b"TIMELINE_HISTORY 4294967296",
            b"START_REPLICATION",
            b"START_REPLICATION 0",
            b"START_REPLICATION 0/G",
            b"START_REPLICATION TIMELINE 1",
            b"START_REPLICATION 0/0 TIMELINE",
            b"START_REPLICATION SLOT 0/0",
            b"START_REPLICATION LOGICAL 0/0",
            b"START_REPLICATION SLOT s LOGICAL 0/0 ()",
            b"START_REPLICATION SLOT s LOGICAL 0/0 (a 1)",
            b"START_REPLICATION 0/0 SLOT s",
            b"CREATE_REPLICATION_SLOT",
            b"CREATE_REPLICATION_SLOT s",
            b"CREATE_REPLICATION_SLOT 's' PHYSICAL",
            b"CREATE_REPLICATION_SLOT s PHYSICAL TEMPORARY",
            b"CREATE_REPLICATION_SLOT s PHYSICAL ()",
            b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL",
            b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL,)",
            b"CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL WAIT)",
            b"CREATE_REPLICATION_SLOT s LOGICAL",
            b"READ_REPLICATION_SLOT",
            b"ALTER_REPLICATION_SLOT s",
            b"ALTER_REPLICATION_SLOT s ()",
            b"DROP_REPLICATION_SLOT s NOW",
            b"BASE_BACKUP (",
            b"BASE_BACKUP ()",
            b"BASE_BACKUP LABEL 'pg_basebackup base backup' PROGRESS  FAST NOWAIT    ",
            b"UPLOAD_MANIFEST x",
        )

    def test_open_quote_has_an_error_of_its_own(self) -> None:
        """Wherever it stands."""
        self.assertRefused(
            "42601", "unterminated quoted string", b"'x", b'SHOW "x', b"BASE_BACKUP (LABEL 'x)"
        )

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.sampled_from(
        [b"START_REPLICATION", b"SLOT", b"s", b"0/0", b"TIMELINE", b"1", b"(", b")", b",", b"'x'",
         b"CREATE_REPLICATION_SLOT", b"PHYSICAL", b"LOGICAL", b"RESERVE_WAL", b";", b"BASE_BACKUP"]
    ), max_size=8))  # fmt: skip
    def test_any_tokens_are_a_command_or_an_error(self, words: list[bytes]) -> None:
        """No order of tokens brings anything else out."""
        try:
            parse_command(b" ".join(words))
        except CommandError as error:
            self.assertIn(error.sqlstate, ("0A000", "42601", "XX000"))


class TextTests(SynchronousTestCase):
    """The commands that a receiver sends."""

    def test_texts_are_those_of_pg_receivewal(self) -> None:
        """Word by word, up to the quotes."""
        for command, text in (
            (IdentifySystem(), "IDENTIFY_SYSTEM"),
            (Show("wal_segment_size"), "SHOW wal_segment_size"),
            (FetchTimelineHistory(2), "TIMELINE_HISTORY 2"),
            (
                StartReplication(LSN(0x1000000), timeline=1),
                "START_REPLICATION 0/1000000 TIMELINE 1",
            ),
            (
                StartReplication(LSN(0x2000000), 1, "rw1"),
                'START_REPLICATION SLOT "rw1" 0/2000000 TIMELINE 1',
            ),
            (StartReplication(LSN(0)), "START_REPLICATION 0/0"),
            (ReadReplicationSlot("rw1"), 'READ_REPLICATION_SLOT "rw1"'),
            (CreateReplicationSlot("s"), 'CREATE_REPLICATION_SLOT "s" PHYSICAL'),
            (
                CreateReplicationSlot("t", temporary=True, reserve_wal=True),
                'CREATE_REPLICATION_SLOT "t" TEMPORARY PHYSICAL RESERVE_WAL',
            ),
            (DropReplicationSlot("s"), 'DROP_REPLICATION_SLOT "s"'),
            (DropReplicationSlot("s", wait=True), 'DROP_REPLICATION_SLOT "s" WAIT'),
        ):
            self.assertEqual(command.text(), text)

    def test_names_cannot_break_out_of_their_quotes(self) -> None:
        """A quote in a name is doubled."""
        self.assertEqual(
            StartReplication(LSN(0), slot='s" 0/0 --').text(),
            'START_REPLICATION SLOT "s"" 0/0 --" 0/0',
        )
        self.assertEqual(Show("a.B c").text(), 'SHOW a."B c"')

    @settings(max_examples=50, deadline=None)
    @given(_positions, st.none() | _timelines, _slots)
    def test_start_replication_round_trips(
        self, start: LSN, timeline: int | None, slot: str | None
    ) -> None:
        """Whatever is sent is read as it was."""
        command = StartReplication(start, timeline, slot)
        self.assertEqual(parse_command(command.text().encode()), command)

    @settings(max_examples=50, deadline=None)
    @given(_names, st.booleans(), st.booleans())
    def test_slot_commands_round_trip(self, name: str, first: bool, second: bool) -> None:
        """Whatever is sent is read as it was."""
        for command in (
            CreateReplicationSlot(name, first, second),
            DropReplicationSlot(name, first),
            ReadReplicationSlot(name),
        ):
            self.assertEqual(parse_command(command.text().encode()), command)
