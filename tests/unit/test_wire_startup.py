"""Tests for `walstream.wire.startup`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import CommandError, FormatError
from walstream.wire import startup
from walstream.wire.frames import StartupReader
from walstream.wire.startup import ReplicationMode

BODY = b"user\x00postgres\x00database\x00replication\x00replication\x00true\x00\x00"

_texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=8)


class CodeTests(SynchronousTestCase):
    """The numbers by which packets are told apart."""

    def test_codes(self) -> None:
        """They are those of the documentation."""
        self.assertEqual(startup.PROTOCOL_3_0, 196608)
        self.assertEqual(startup.CANCEL_REQUEST_CODE, 80877102)
        self.assertEqual(startup.SSL_REQUEST_CODE, 80877103)
        self.assertEqual(startup.GSSENC_REQUEST_CODE, 80877104)


class StartupMessageTests(SynchronousTestCase):
    """`startup_message`."""

    def test_layout(self) -> None:
        """Length, version, pairs of strings in their order, a zero byte."""
        self.assertEqual(
            startup.startup_message({"user": "rep", "replication": "on"}),
            b"\x00\x00\x00\x21\x00\x03\x00\x00user\x00rep\x00replication\x00on\x00\x00",
        )

    def test_zero_character_is_refused(self) -> None:
        """No value can smuggle a further parameter in."""
        self.assertRaises(
            FormatError, startup.startup_message, {"user": "a\0replication\0off", "x": "y"}
        )

    @settings(max_examples=50, deadline=None)
    @given(st.dictionaries(_texts, _texts, max_size=5))
    def test_any_parameters_round_trip(self, parameters: dict[str, str]) -> None:
        """What is built is read as it was."""
        parameters["user"] = "postgres"
        reader = StartupReader()
        reader.feed(startup.startup_message(parameters))
        packet = reader.next()
        assert packet is not None
        self.assertEqual(packet.code, startup.PROTOCOL_3_0)
        self.assertEqual(startup.parse_startup(packet.body), parameters)


class ParseStartupTests(SynchronousTestCase):
    """`parse_startup`."""

    def test_parameters(self) -> None:
        """Names and values as a standby sends them."""
        self.assertEqual(
            startup.parse_startup(BODY),
            {"user": "postgres", "database": "replication", "replication": "true"},
        )

    def test_last_value_counts(self) -> None:
        """A name that comes twice has its second value."""
        self.assertEqual(startup.parse_startup(b"user\0a\0user\0b\0\0"), {"user": "b"})

    def test_empty_value_is_a_value(self) -> None:
        """Two zero bytes behind a name are not the end."""
        self.assertEqual(
            startup.parse_startup(b"user\0a\0options\0\0\0"), {"user": "a", "options": ""}
        )

    def test_other_encodings_survive(self) -> None:
        """Bytes that are not UTF-8 can be had back."""
        self.assertEqual(startup.parse_startup(b"user\0gr\xfc\xdf\0\0")["user"], "gr\udcfc\udcdf")

    def test_layout_that_does_not_end_with_a_terminator(self) -> None:
        """A body cut anywhere, or one with a byte too many, has PostgreSQL's error."""
        for body in [BODY[:index] for index in range(len(BODY))] + [BODY + b"\0", BODY + b"x"]:
            error = self.assertRaises(CommandError, startup.parse_startup, body)
            self.assertEqual(error.sqlstate, "08P01")
            self.assertEqual(
                str(error), "invalid startup packet layout: expected terminator as last byte"
            )

    def test_missing_user(self) -> None:
        """Nobody, and an empty name, have PostgreSQL's error."""
        for body in (b"replication\0true\0\0", b"\0", b"user\0\0\0"):
            error = self.assertRaises(CommandError, startup.parse_startup, body)
            self.assertEqual(error.sqlstate, "28000")
            self.assertEqual(str(error), "no PostgreSQL user name specified in startup packet")


class ReplicationModeTests(SynchronousTestCase):
    """`replication_mode`."""

    def test_physical(self) -> None:
        """Every word for true, in any case, and every beginning of one."""
        for value in ("true", "t", "tr", "TRUE", "yes", "y", "Ye", "on", "ON", "1"):
            self.assertIs(startup.replication_mode(value), ReplicationMode.PHYSICAL, value)

    def test_none(self) -> None:
        """Every word for false, in any case, and every unambiguous beginning of one."""
        for value in ("false", "f", "FAL", "no", "n", "off", "of", "OFF", "0"):
            self.assertIs(startup.replication_mode(value), ReplicationMode.NONE, value)

    def test_database(self) -> None:
        """The word in just these letters."""
        self.assertIs(startup.replication_mode("database"), ReplicationMode.DATABASE)

    def test_anything_else_is_refused(self) -> None:
        """Ambiguous and other values have PostgreSQL's error and hint."""
        for value in ("o", "", "2", "Database", "off ", "truee", "01", "ONN"):
            error = self.assertRaises(CommandError, startup.replication_mode, value)
            self.assertEqual(error.sqlstate, "22023")
            self.assertEqual(error.message, f'invalid value for parameter "replication": "{value}"')
            self.assertEqual(error.hint, 'Valid values are: "false", 0, "true", 1, "database".')


class VersionTests(SynchronousTestCase):
    """The choice of the protocol's version."""

    def test_version_goes_down_to_the_newest(self) -> None:
        """A newer minor version is negotiated, an older or the same one is taken."""
        self.assertEqual(startup.check_protocol_version(0x00030000), 0x00030000)
        self.assertEqual(startup.check_protocol_version(0x0003270F), 0x00030000)
        self.assertEqual(startup.check_protocol_version(0x00030001, 0x00030002), 0x00030001)

    def test_other_major_version_is_refused(self) -> None:
        """PostgreSQL's error names both."""
        for code, words in (
            (0x00040000, "unsupported frontend protocol 4.0: server supports 3.0 to 3.0"),
            (0x00020000, "unsupported frontend protocol 2.0: server supports 3.0 to 3.0"),
        ):
            error = self.assertRaises(CommandError, startup.check_protocol_version, code)
            self.assertEqual((error.sqlstate, str(error)), ("0A000", words))

    def test_legacy_error_has_no_length(self) -> None:
        """Clients of protocol 2 read a type byte and a string."""
        self.assertEqual(startup.legacy_error("no"), b"EFATAL:  no\n\x00")

    def test_unknown_extensions(self) -> None:
        """Names under the prefix of protocol extensions, and no others."""
        self.assertEqual(
            startup.unknown_extensions({"user": "a", "_pq_.foo": "1", "_pq": ""}), ["_pq_.foo"]
        )

    def test_negotiate_protocol_version(self) -> None:
        """The version, the number of extensions, their names."""
        self.assertEqual(
            startup.negotiate_protocol_version(startup.PROTOCOL_3_0, ["_pq_.foo"]),
            b"v\x00\x00\x00\x15\x00\x03\x00\x00\x00\x00\x00\x01_pq_.foo\x00",
        )
        self.assertEqual(
            startup.negotiate_protocol_version(startup.PROTOCOL_3_0, []),
            bytes.fromhex("76 0000000C 00030000 00000000"),
        )
