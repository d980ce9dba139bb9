"""Tests for `walstream.wire.copydata`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import ProtocolViolation
from walstream.wire.copydata import (
    WAL_DATA_HEADER_SIZE,
    HotStandbyFeedback,
    Keepalive,
    StandbyStatus,
    UnknownStandbyMessage,
    parse_keepalive,
    parse_standby_message,
    pg_time,
    unix_time,
    wal_data_header,
)

STATUS = b"r" + bytes.fromhex(
    "0000000010001F50 0000000010000000 0000001600000001 00000000000003E8 01"
)
FEEDBACK = b"h" + bytes.fromhex("00000000000003E8 000002F4 00000001 00000007 00000002")
KEEPALIVE = b"k" + bytes.fromhex("000000000D002000 00000000000003E8 01")

_uint64 = st.integers(0, 2**64 - 1)
_int64 = st.integers(-(2**63), 2**63 - 1)
_uint32 = st.integers(0, 2**32 - 1)


class ServerPayloadTests(SynchronousTestCase):
    """What a sender puts into CopyData."""

    def test_wal_data_header(self) -> None:
        """A type, two positions and a time, 25 bytes in all."""
        self.assertEqual(
            wal_data_header(0x1000000, 0x16C38E0, -1),
            b"w" + bytes.fromhex("0000000001000000 00000000016C38E0 FFFFFFFFFFFFFFFF"),
        )
        self.assertEqual(WAL_DATA_HEADER_SIZE, 25)

    def test_keepalive(self) -> None:
        """A type, a position, a time and a flag."""
        self.assertEqual(Keepalive(0xD002000, 1000, True).pack(), KEEPALIVE)
        self.assertEqual(parse_keepalive(KEEPALIVE), Keepalive(0xD002000, 1000, True))

    def test_keepalive_of_another_length_is_a_violation(self) -> None:
        """A standby refuses any keepalive that does not have 18 bytes, in these words."""
        for payload in (KEEPALIVE[:-1], KEEPALIVE + b"\0", b"", b"x" + KEEPALIVE[1:]):
            error = self.assertRaises(ProtocolViolation, parse_keepalive, payload)
            self.assertEqual(str(error), "invalid keepalive message received from primary")


class StandbyPayloadTests(SynchronousTestCase):
    """What a receiver puts into CopyData."""

    def test_status(self) -> None:
        """Three positions, a time and a flag, 34 bytes in all."""
        status = StandbyStatus(0x10001F50, 0x10000000, 0x1600000001, 1000, True)
        self.assertEqual(status.pack(), STATUS)
        self.assertEqual(len(STATUS), 34)
        self.assertEqual(parse_standby_message(STATUS), status)

    def test_feedback(self) -> None:
        """A time and two transactions with their epochs, 25 bytes in all."""
        feedback = HotStandbyFeedback(1000, 756, 1, 7, 2)
        self.assertEqual(feedback.pack(), FEEDBACK)
        self.assertEqual(len(FEEDBACK), 25)
        self.assertEqual(parse_standby_message(FEEDBACK), feedback)

    def test_bytes_behind_the_last_field_are_ignored(self) -> None:
        """A newer client may send more."""
        for payload in (STATUS, FEEDBACK):
            self.assertEqual(
                parse_standby_message(payload + b"more"), parse_standby_message(payload)
            )

    def test_payload_cut_anywhere_is_a_violation(self) -> None:
        """Too short a message is refused, in the words that PostgreSQL has for its length."""
        for payload in (STATUS, FEEDBACK):
            for index in range(1, len(payload)):
                error = self.assertRaises(ProtocolViolation, parse_standby_message, payload[:index])
                self.assertNotIsInstance(error, UnknownStandbyMessage)
                expected = (
                    "no data left in message"
                    if payload is STATUS and index == 33
                    else "insufficient data left in message"
                )
                self.assertEqual(str(error), expected)

    def test_empty_payload_is_a_violation(self) -> None:
        """CopyData with nothing in it has not even a type."""
        error = self.assertRaises(ProtocolViolation, parse_standby_message, b"")
        self.assertEqual(str(error), "no data left in message")
        self.assertNotIsInstance(error, UnknownStandbyMessage)

    def test_unknown_type_is_a_violation_of_its_own_kind(self) -> None:
        """The sender closes without an answer, so it can be told from a message cut short."""
        error = self.assertRaises(UnknownStandbyMessage, parse_standby_message, b"\x9fx")
        self.assertEqual(str(error), "unexpected message type '\\x9f'")

    @settings(max_examples=50, deadline=None)
    @given(_uint64, _uint64, _uint64, _int64, st.booleans())
    def test_any_status_round_trips(
        self, write: int, flush: int, apply: int, time: int, reply: bool
    ) -> None:
        """Every position and time that fits its field is read as it was packed."""
        status = StandbyStatus(write, flush, apply, time, reply)
        self.assertEqual(parse_standby_message(status.pack()), status)

    @settings(max_examples=50, deadline=None)
    @given(_int64, _uint32, _uint32, _uint32, _uint32)
    def test_any_feedback_round_trips(
        self, time: int, xmin: int, epoch: int, catalog_xmin: int, catalog_epoch: int
    ) -> None:
        """Every transaction number that fits its field is read as it was packed."""
        feedback = HotStandbyFeedback(time, xmin, epoch, catalog_xmin, catalog_epoch)
        self.assertEqual(parse_standby_message(feedback.pack()), feedback)


class TimeTests(SynchronousTestCase):
    """`pg_time` and `unix_time`."""

    def test_epoch_is_the_year_2000(self) -> None:
        """2000-01-01 00:00 UTC is 0, and 1970 lies before it."""
        self.assertEqual(pg_time(946_684_800), 0)
        self.assertEqual(pg_time(0), -946_684_800_000_000)

    def test_unit_is_the_microsecond(self) -> None:
        """Fractions of a second are kept to the microsecond, both ways."""
        self.assertEqual(pg_time(946_684_801.25), 1_250_000)
        self.assertEqual(unix_time(1_250_000), 946_684_801.25)

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 2_000_000_000_000_000))
    def test_times_of_this_century_round_trip(self, time: int) -> None:
        """Up to the year 2063 no microsecond is lost in a float."""
        self.assertEqual(pg_time(unix_time(time)), time)
