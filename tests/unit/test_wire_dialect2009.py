"""Tests for `walstream.wire.dialect2009`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import CommandError, ProtocolViolation
from walstream.formats.lsn import LSN
from walstream.wire.dialect2009 import (
    WAL_PAYLOAD_HEADER_SIZE,
    GetBackupHistoryFile,
    GetSystemIdentifier,
    GetTimeline,
    StartReplication2009,
    parse_2009,
    parse_wal_payload_header,
    wal_payload_header,
)


class ParseTests(SynchronousTestCase):
    """`parse_2009`."""

    def test_commands_as_the_message_has_them(self) -> None:
        """All four, to the letter; and what a client writes is the same text."""
        for text, command in (
            (b"GET_SYSTEM_IDENTIFIER", GetSystemIdentifier()),
            (b"GET_TIMELINE", GetTimeline()),
            (b"GET_BACKUP_HISTORY_FILE 0/2000020", GetBackupHistoryFile(LSN(0x2000020))),
            (b"START REPLICATION: 16/B374D848", StartReplication2009(LSN(0x16B374D848))),
        ):
            self.assertEqual(parse_2009(text), command)
            self.assertEqual(command.text().encode(), text)

    def test_blanks_and_case_of_positions_are_free(self) -> None:
        """Blanks around a command and its position, one semicolon, and both cases of digits."""
        for text in (
            b"START REPLICATION:16/b374d848",
            b" START REPLICATION: \t 16/b374D848 ",
            b"START REPLICATION: 16/B374D848;",
            b"\nSTART REPLICATION: 16/B374D848 ; ",
        ):
            self.assertEqual(parse_2009(text), StartReplication2009(LSN(0x16B374D848)), text)
        self.assertEqual(parse_2009(b" GET_TIMELINE ;"), GetTimeline())

    def test_other_texts_are_not_of_this_dialect(self) -> None:
        """Today's commands, SQL, another case of letters and longer words are left to others."""
        for text in (
            b"",
            b"IDENTIFY_SYSTEM",
            b"START_REPLICATION 0/0",
            b"START REPLICATION 0/0",
            b"START  REPLICATION: 0/0",
            b"start replication: 0/0",
            b"get_timeline",
            b"GET_TIMELINES",
            b"GET_TIMELINE1",
            b"GET_TIMELINE_HISTORY",
            b"SELECT GET_TIMELINE",
            b"\xff",
        ):
            self.assertIsNone(parse_2009(text), text)

    def test_bad_arguments_are_syntax_errors(self) -> None:
        """A command that begins well must go on so."""
        for text in (
            b"GET_TIMELINE 1",
            b"GET_SYSTEM_IDENTIFIER;;",
            b"GET_SYSTEM_IDENTIFIER(0)",
            b"GET_BACKUP_HISTORY_FILE",
            b"GET_BACKUP_HISTORY_FILE 0",
            b"GET_BACKUP_HISTORY_FILE 0/1 0/2",
            b"START REPLICATION:",
            b"START REPLICATION: 0/123456789",
            b"START REPLICATION: X/X",
            b"START REPLICATION: 0/0\xa0",
        ):
            error = self.assertRaises(CommandError, parse_2009, text)
            self.assertEqual(error.sqlstate, "42601", text)

    def test_error_names_the_form_of_a_position(self) -> None:
        """The text says what is expected, and does not repeat what may be very long."""
        error = self.assertRaises(CommandError, parse_2009, b"START REPLICATION: " + b"x" * 1000)
        self.assertEqual(
            str(error), "syntax error: expected a WAL position X/X, such as 16/B374D848"
        )

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 2**64 - 1).map(LSN))
    def test_positions_round_trip(self, start: LSN) -> None:
        """Every position is read as it was written."""
        for command in (GetBackupHistoryFile(start), StartReplication2009(start)):
            self.assertEqual(parse_2009(command.text().encode()), command)


class PayloadTests(SynchronousTestCase):
    """The header of a CopyData payload."""

    def test_header_is_a_position_in_network_order(self) -> None:
        """Eight bytes, the highest first."""
        self.assertEqual(wal_payload_header(0x16B374D848), bytes.fromhex("00000016 B374D848"))
        self.assertEqual(WAL_PAYLOAD_HEADER_SIZE, 8)

    def test_header_is_read_whatever_follows(self) -> None:
        """WAL follows, or nothing."""
        header = bytes.fromhex("00000016 B374D848")
        self.assertEqual(parse_wal_payload_header(header), 0x16B374D848)
        self.assertEqual(str(parse_wal_payload_header(memoryview(header + b"WAL"))), "16/B374D848")

    def test_cut_header_is_a_violation(self) -> None:
        """Less than eight bytes are no position."""
        for index in range(8):
            self.assertRaises(ProtocolViolation, parse_wal_payload_header, bytes(index))
