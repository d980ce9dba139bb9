"""Tests for `walstream.wire.messages`; the byte literals are what servers and clients send."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError, ProtocolViolation
from walstream.wire import messages
from walstream.wire.messages import Column, ColumnType


class BackendTests(SynchronousTestCase):
    """What a server sends."""

    def test_copy_responses(self) -> None:
        """All three say text format and no columns."""
        self.assertEqual(messages.copy_both_response(), bytes.fromhex("57 00000007 00 0000"))
        self.assertEqual(messages.copy_out_response(), bytes.fromhex("48 00000007 00 0000"))
        self.assertEqual(messages.copy_in_response(), bytes.fromhex("47 00000007 00 0000"))

    def test_authentication(self) -> None:
        """Each request has its code and what belongs to it."""
        self.assertEqual(messages.authentication_ok(), bytes.fromhex("52 00000008 00000000"))
        self.assertEqual(messages.authentication_cleartext(), bytes.fromhex("52 00000008 00000003"))
        self.assertEqual(
            messages.authentication_md5(b"\x01\x02\x03\x04"),
            bytes.fromhex("52 0000000C 00000005 01020304"),
        )
        self.assertEqual(
            messages.authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]),
            b"R\x00\x00\x00\x2a\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00SCRAM-SHA-256\x00\x00",
        )
        self.assertEqual(
            messages.authentication_sasl_continue(b"r=x"), b"R\x00\x00\x00\x0b\x00\x00\x00\x0br=x"
        )
        self.assertEqual(
            messages.authentication_sasl_final(b"v=x"), b"R\x00\x00\x00\x0b\x00\x00\x00\x0cv=x"
        )

    def test_parameter_status(self) -> None:
        """A name and a value, each ended by a zero byte."""
        self.assertEqual(
            messages.parameter_status("integer_datetimes", "on"),
            b"S\x00\x00\x00\x19integer_datetimes\x00on\x00",
        )

    def test_backend_key_data(self) -> None:
        """A process number and a key, of four bytes in protocol 3.0."""
        self.assertEqual(
            messages.backend_key_data(6821, b"\xde\xad\xbe\xef"),
            bytes.fromhex("4B 0000000C 00001AA5 DEADBEEF"),
        )

    def test_ready_for_query(self) -> None:
        """Idle, as there are no transactions."""
        self.assertEqual(messages.ready_for_query(), b"Z\x00\x00\x00\x05I")

    def test_row_description_of_identify_system(self) -> None:
        """Every column has no table, its type's OID and size, no modifier, text format."""
        self.assertEqual(
            messages.row_description(
                [Column("systemid", ColumnType.TEXT), Column("timeline", ColumnType.INT8)]
            ),
            b"T\x00\x00\x00\x3c\x00\x02"
            b"systemid\x00"
            + bytes.fromhex("00000000 0000 00000019 FFFF FFFFFFFF 0000")
            + b"timeline\x00"
            + bytes.fromhex("00000000 0000 00000014 0008 FFFFFFFF 0000"),
        )

    def test_row_description_of_other_types(self) -> None:
        """int4, oid and bytea have the OIDs and sizes of pg_type, and a modifier can be given."""
        self.assertEqual(
            messages.row_description(
                [
                    Column("a", ColumnType.INT4, 0),
                    Column("b", ColumnType.OID),
                    Column("c", ColumnType.BYTEA),
                ]
            )[7:],
            b"a\x00"
            + bytes.fromhex("00000000 0000 00000017 0004 00000000 0000")
            + b"b\x00"
            + bytes.fromhex("00000000 0000 0000001A 0004 FFFFFFFF 0000")
            + b"c\x00"
            + bytes.fromhex("00000000 0000 00000011 FFFF FFFFFFFF 0000"),
        )

    def test_data_row(self) -> None:
        """NULL has length -1 and an empty value length 0."""
        self.assertEqual(
            messages.data_row([b"0/16C38E0", None, b""]),
            b"D\x00\x00\x00\x1b\x00\x03\x00\x00\x00\x090/16C38E0\xff\xff\xff\xff\x00\x00\x00\x00",
        )

    def test_command_complete(self) -> None:
        """A tag, ended by a zero byte."""
        self.assertEqual(messages.command_complete("COPY 0"), b"C\x00\x00\x00\x0bCOPY 0\x00")

    def test_error_response(self) -> None:
        """Severity twice, SQLSTATE, message, detail, hint, in this order."""
        self.assertEqual(
            messages.error_response("ERROR", "42601", "syntax error", "the detail", "the hint"),
            b"E\x00\x00\x00\x3eSERROR\x00VERROR\x00C42601\x00Msyntax error\x00"
            b"Dthe detail\x00Hthe hint\x00\x00",
        )

    def test_error_response_leaves_out_what_is_not_given(self) -> None:
        """There is no field for a detail or a hint that is not there."""
        self.assertEqual(
            messages.error_response("FATAL", "57P01", "bye")[5:],
            b"SFATAL\x00VFATAL\x00C57P01\x00Mbye\x00\x00",
        )

    def test_error_response_takes_any_text(self) -> None:
        """Zero characters and lone surrogates in a quoted text do no harm."""
        self.assertEqual(
            messages.error_response("ERROR", "42602", "a\0b\udcff")[5:],
            b"SERROR\x00VERROR\x00C42602\x00Ma b?\x00\x00",
        )

    def test_notice_response(self) -> None:
        """As an error, under its own type."""
        self.assertEqual(
            messages.notice_response("WARNING", "01000", "careful")[:1]
            + messages.notice_response("WARNING", "01000", "careful")[5:],
            b"NSWARNING\x00VWARNING\x00C01000\x00Mcareful\x00\x00",
        )


class FrontendTests(SynchronousTestCase):
    """What a client sends."""

    def test_query(self) -> None:
        """A command, ended by a zero byte."""
        self.assertEqual(messages.query("IDENTIFY_SYSTEM"), b"Q\x00\x00\x00\x14IDENTIFY_SYSTEM\x00")

    def test_query_refuses_a_zero_character(self) -> None:
        """A command cannot be cut short by what is put into it."""
        self.assertRaises(FormatError, messages.query, "SHOW a\0b")

    def test_password_message(self) -> None:
        """The password, ended by a zero byte."""
        self.assertEqual(messages.password_message(b"secret"), b"p\x00\x00\x00\x0bsecret\x00")

    def test_sasl_messages(self) -> None:
        """The first names the mechanism and counts its data; the next are nothing but data."""
        self.assertEqual(
            messages.sasl_initial_response("SCRAM-SHA-256", b"n,,n=,r=abc"),
            b"p\x00\x00\x00\x21SCRAM-SHA-256\x00\x00\x00\x00\x0bn,,n=,r=abc",
        )
        self.assertEqual(messages.sasl_response(b"c=biws"), b"p\x00\x00\x00\x0ac=biws")

    def test_endings(self) -> None:
        """CopyDone, CopyFail and Terminate."""
        self.assertEqual(messages.copy_done(), b"c\x00\x00\x00\x04")
        self.assertEqual(messages.copy_fail("no"), b"f\x00\x00\x00\x07no\x00")
        self.assertEqual(messages.terminate(), b"X\x00\x00\x00\x04")

    def test_copy_data(self) -> None:
        """A payload as it is."""
        self.assertEqual(messages.copy_data(b"abc"), b"d\x00\x00\x00\x07abc")


class ParserTests(SynchronousTestCase):
    """What each side reads of the other."""

    def test_error_as_servers_send_it(self) -> None:
        """The untranslated severity counts, and fields that mean nothing to us are skipped."""
        error = messages.parse_error(
            b"SFEHLER\0VERROR\0C58P01\0Mrequested WAL segment has already been removed\0"
            b"Dd\0Hh\0Fwalsender.c\0L3042\0RWalSndLoop\0?x\0\0"
        )
        self.assertEqual(error.severity, "ERROR")
        self.assertEqual(error.sqlstate, "58P01")
        self.assertEqual(error.message, "requested WAL segment has already been removed")
        self.assertEqual((error.detail, error.hint), ("d", "h"))

    def test_error_of_an_old_server(self) -> None:
        """Before 9.6 there was one severity."""
        self.assertEqual(messages.parse_error(b"SFATAL\0C28000\0Mno\0\0").severity, "FATAL")

    def test_error_without_fields_is_still_an_error(self) -> None:
        """What a server leaves out is filled in."""
        error = messages.parse_error(b"\0")
        self.assertEqual((error.severity, error.sqlstate), ("ERROR", "XX000"))

    def test_error_without_its_end_is_a_violation(self) -> None:
        """An error whose fields are cut anywhere is refused."""
        whole = b"SERROR\0C42601\0Msyntax error\0\0"
        for index in range(len(whole)):
            self.assertRaises(ProtocolViolation, messages.parse_error, whole[:index])

    def test_result_of_end_of_timeline(self) -> None:
        """The names and the values of the row that ends a historic timeline."""
        self.assertEqual(
            messages.parse_row_description(
                b"\x00\x02next_tli\x00"
                + bytes.fromhex("00000000 0000 00000014 0008 FFFFFFFF 0000")
                + b"next_tli_startpos\x00"
                + bytes.fromhex("00000000 0000 00000019 FFFF FFFFFFFF 0000")
            ),
            ["next_tli", "next_tli_startpos"],
        )
        self.assertEqual(
            messages.parse_data_row(b"\x00\x02\x00\x00\x00\x012\x00\x00\x00\x090/D001F88"),
            [b"2", b"0/D001F88"],
        )

    def test_cut_result_is_a_violation(self) -> None:
        """A row or its description cut anywhere is refused, as is one with a byte too many."""
        columns = [Column("a", ColumnType.TEXT), Column("b", ColumnType.INT4)]
        for whole, parse in (
            (messages.row_description(columns)[5:], messages.parse_row_description),
            (messages.data_row([b"xy", None])[5:], messages.parse_data_row),
        ):
            for index in range(len(whole)):
                self.assertRaises(ProtocolViolation, parse, whole[:index])
            self.assertRaises(ProtocolViolation, parse, whole + b"\x00")

    def test_value_of_impossible_length_is_a_violation(self) -> None:
        """Below -1, which is NULL, there is no length."""
        self.assertRaises(ProtocolViolation, messages.parse_data_row, b"\0\1\xff\xff\xff\xfe")

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.none() | st.binary(max_size=20), max_size=6))
    def test_rows_round_trip(self, values: list[bytes | None]) -> None:
        """Any row that is built is read as it was."""
        self.assertEqual(messages.parse_data_row(messages.data_row(values)[5:]), values)

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=20))
    def test_errors_round_trip(self, words: str) -> None:
        """Any error that is built is read as it was, if people can read it."""
        error = messages.parse_error(
            messages.error_response("FATAL", "XX000", words, detail=words, hint=words)[5:]
        )
        self.assertEqual((error.message, error.detail, error.hint), (words, words, words))

    def test_parameter_status(self) -> None:
        """A name and a value."""
        self.assertEqual(
            messages.parse_parameter_status(b"server_version\x0018.3\x00"),
            ("server_version", "18.3"),
        )

    def test_authentication(self) -> None:
        """A code, and the rest."""
        self.assertEqual(messages.parse_authentication(b"\0\0\0\x05salt"), (5, b"salt"))
        self.assertRaises(ProtocolViolation, messages.parse_authentication, b"\0\0\0")

    def test_backend_key_data(self) -> None:
        """A process number and a key of any length."""
        self.assertEqual(
            messages.parse_backend_key_data(b"\0\0\x1a\xa5" + bytes(32)), (6821, bytes(32))
        )

    def test_command_complete(self) -> None:
        """The tag without its end."""
        self.assertEqual(messages.parse_command_complete(b"START_STREAMING\0"), "START_STREAMING")

    def test_query(self) -> None:
        """The text as bytes, which may be in any encoding."""
        self.assertEqual(messages.parse_query(b"SHOW \xff\0"), b"SHOW \xff")

    def test_query_that_is_not_one_string_is_a_violation(self) -> None:
        """Without an end, or with something behind it, PostgreSQL refuses it in these words."""
        for body, words in (
            (b"SHOW x", "invalid string in message"),
            (b"SHOW x\0y", "invalid message format"),
        ):
            error = self.assertRaises(ProtocolViolation, messages.parse_query, body)
            self.assertEqual(str(error), words)
