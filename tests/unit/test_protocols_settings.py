"""Tests for `walstream.protocols.settings`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.formats.segments import SegmentSize
from walstream.interfaces import SystemIdentity
from walstream.protocols.settings import (
    SenderSettings,
    client_sender_timeout,
    duration,
    major_version,
    parameter_status,
    show,
    version_number,
)
from walstream.testing.wal import SYSTEM_IDENTIFIER

MIB = 1 << 20


def identity(version: str = "18.6", segment_size: int = 16 * MIB) -> SystemIdentity:
    """A cluster of that version."""
    return SystemIdentity(SYSTEM_IDENTIFIER, SegmentSize(segment_size), version)


class ShowTests(SynchronousTestCase):
    """`show`, as pg_receivewal and pg_basebackup ask."""

    def test_what_clients_need(self) -> None:
        """What PostgreSQL's tools ask before they stream has PostgreSQL's answers."""
        settings = SenderSettings()
        for name, value in {
            "data_directory_mode": "0700",
            "wal_segment_size": "16MB",
            "server_version": "18.6",
            "server_version_num": "180006",
            "wal_block_size": "8192",
            "integer_datetimes": "on",
            "in_hot_standby": "on",
            "wal_sender_timeout": "1min",
        }.items():
            self.assertEqual(show(name, identity(), settings), value, name)

    def test_segment_sizes(self) -> None:
        """The segment size is in the unit that PostgreSQL uses."""
        for size, shown in ((MIB, "1MB"), (64 * MIB, "64MB"), (1024 * MIB, "1GB")):
            found = show("wal_segment_size", identity(segment_size=size), SenderSettings())
            self.assertEqual(found, shown)

    def test_name_in_any_case(self) -> None:
        """Names of parameters are the same in any case."""
        self.assertEqual(show("Wal_Segment_SIZE", identity(), SenderSettings()), "16MB")

    def test_unknown(self) -> None:
        """There is no answer about a parameter that we do not have."""
        self.assertIsNone(show("shared_buffers", identity(), SenderSettings()))

    def test_timeout_in_the_largest_unit(self) -> None:
        """The sender's timeout is shown as PostgreSQL shows it, and read back to the same."""
        for seconds, shown in (
            (0, "0"),
            (0.25, "250ms"),
            (1, "1s"),
            (1.5, "1500ms"),
            (60, "1min"),
            (90, "90s"),
            (7200, "2h"),
            (86400, "1d"),
        ):
            settings = SenderSettings(sender_timeout=seconds)
            self.assertEqual(show("wal_sender_timeout", identity(), settings), shown)
            self.assertEqual(duration(shown), seconds)


class ParameterStatusTests(SynchronousTestCase):
    """`parameter_status`."""

    def test_as_a_hot_standby(self) -> None:
        """All that PostgreSQL 14 and later report, sorted as 15 does, is reported."""
        self.assertEqual(
            list(parameter_status(identity("15.1"), {"user": "alice"}).items()),
            [
                ("application_name", ""),
                ("client_encoding", "SQL_ASCII"),
                ("DateStyle", "ISO, MDY"),
                ("default_transaction_read_only", "off"),
                ("in_hot_standby", "on"),
                ("integer_datetimes", "on"),
                ("IntervalStyle", "postgres"),
                ("is_superuser", "off"),
                ("server_encoding", "SQL_ASCII"),
                ("server_version", "15.1"),
                ("session_authorization", "alice"),
                ("standard_conforming_strings", "on"),
                ("TimeZone", "Etc/UTC"),
            ],
        )

    def test_before_14(self) -> None:
        """Two parameters came with version 14."""
        reported = parameter_status(identity("13.22"), {"user": "alice"})
        self.assertNotIn("in_hot_standby", reported)
        self.assertNotIn("default_transaction_read_only", reported)

    def test_what_the_client_chose(self) -> None:
        """The client's own name and encoding are reported back."""
        client = {"user": "a", "application_name": "b", "client_encoding": "UTF8"}
        reported = parameter_status(identity(), client)
        self.assertEqual(reported["application_name"], "b")
        self.assertEqual(reported["client_encoding"], "UTF8")


class ClientSenderTimeoutTests(SynchronousTestCase):
    """`client_sender_timeout`."""

    def test_nothing_asked(self) -> None:
        """A client that asks for no timeout has the sender's."""
        for client in ({}, {"options": ""}, {"options": "-c wal_level=x"}):
            self.assertIsNone(client_sender_timeout(client))

    def test_options(self) -> None:
        """The switches of ``options`` are understood in their forms."""
        for options, seconds in (
            ("-c wal_sender_timeout=3s", 3),
            ("-cwal_sender_timeout=3s", 3),
            ("--wal_sender_timeout=250", 0.25),
            ("-c geqo=off -c wal_sender_timeout=2min -c x=y", 120),
            ("-c wal_sender_timeout=0", 0),
        ):
            self.assertEqual(client_sender_timeout({"options": options}), seconds, options)

    def test_parameter(self) -> None:
        """It may also stand in the startup packet by itself; the options come first."""
        client = {"wal_sender_timeout": "5s"}
        self.assertEqual(client_sender_timeout(client), 5)
        client["options"] = "-c wal_sender_timeout=6s"
        self.assertEqual(client_sender_timeout(client), 6)

    def test_nonsense_changes_nothing(self) -> None:
        """What is not a duration leaves the sender's timeout as it is."""
        for nonsense in ("-1", "soon", "3 parsecs", "٣s", "9" * 400 + "d", "9" * 5000):
            self.assertIsNone(client_sender_timeout({"wal_sender_timeout": nonsense}), nonsense)


class DurationTests(SynchronousTestCase):
    """`duration`."""

    def test_units(self) -> None:
        """Milliseconds without a unit; a blank before it does no harm."""
        for text, seconds in (
            ("250", 0.25),
            ("250ms", 0.25),
            ("30s", 30),
            ("30 s", 30),
            ("1min", 60),
            ("2h", 7200),
            ("1d", 86400),
            ("0", 0),
        ):
            self.assertEqual(duration(text), seconds, text)

    def test_no_duration(self) -> None:
        """Anything else is none."""
        for text in ("", "s", "-5s", "1.5.2s", "5 weeks", "5s ", "x5s"):
            self.assertIsNone(duration(text), text)


class VersionTests(SynchronousTestCase):
    """`version_number` and `major_version`."""

    def test_as_libpq_reads_it(self) -> None:
        """The forms that servers use give the numbers that PQserverVersion gives."""
        for text, number, major in (
            ("18.6", 180006, 18),
            ("18", 180000, 18),
            ("18beta1", 180000, 18),
            ("19devel", 190000, 19),
            ("15.18 (Debian 15.18-1.pgdg13+1)", 150018, 15),
            ("10.23", 100023, 10),
            ("9.6.24", 90624, 9),
            ("9.6", 90600, 9),
            ("9.3beta1", 90300, 9),
            ("", 0, 0),
            ("unknown", 0, 0),
        ):
            self.assertEqual(version_number(text), number, text)
            self.assertEqual(major_version(text), major, text)
