"""Tests for `walstream.wire.fields`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError, ProtocolViolation
from walstream.wire.fields import FieldReader, cstring, text


class FieldReaderTests(SynchronousTestCase):
    """`FieldReader`."""

    def test_takes_one_field_after_the_other(self) -> None:
        """Each kind of field is read where the last one ended."""
        reader = FieldReader(b"\x07\xff\xfe\x80\x00\x00\x00name\x00ab!")
        self.assertEqual(reader.byte(), 7)
        self.assertEqual(reader.int16(), -2)
        self.assertEqual(reader.int32(), -(2**31))
        self.assertEqual(reader.cstring(), b"name")
        self.assertEqual(reader.take(2), b"ab")
        self.assertEqual(reader.rest(), b"!")
        reader.end()

    def test_too_short_a_body_is_a_violation(self) -> None:
        """Every field says so when the body does not hold it, in PostgreSQL's words."""
        for read, words in (
            (FieldReader(b"").byte, "no data left in message"),
            (FieldReader(b"\x00").int16, "insufficient data left in message"),
            (FieldReader(b"\x00\x00\x00").int32, "insufficient data left in message"),
            (FieldReader(b"open").cstring, "invalid string in message"),
        ):
            self.assertEqual(str(self.assertRaises(ProtocolViolation, read)), words)

    def test_negative_size_is_a_violation(self) -> None:
        """A counted field cannot have a count below zero."""
        self.assertRaises(ProtocolViolation, FieldReader(b"abc").take, -2)

    def test_too_long_a_body_is_a_violation(self) -> None:
        """Bytes behind the last field are refused."""
        error = self.assertRaises(ProtocolViolation, FieldReader(b"x").end)
        self.assertEqual(str(error), "invalid message format")


class TextTests(SynchronousTestCase):
    """`cstring` and `text`."""

    def test_cstring_ends_with_a_zero_byte(self) -> None:
        """A text is sent in UTF-8, and bytes that came as surrogates go out as they came."""
        self.assertEqual(cstring("é\udcff"), b"\xc3\xa9\xff\x00")

    def test_cstring_refuses_a_zero_character(self) -> None:
        """A zero character would end the text early and begin another field."""
        self.assertRaises(FormatError, cstring, "a\0b")

    def test_text_is_always_readable(self) -> None:
        """Bytes in another encoding do not fail."""
        self.assertEqual(text(b"gr\xfc\xdf"), "gr\ufffd\ufffd")
