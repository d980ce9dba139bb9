"""What `walstream.formats.lsn` promises."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.lsn import INVALID, LSN


class LSNTests(SynchronousTestCase):
    """`LSN` is a number with PostgreSQL's text form."""

    def test_text_is_two_unpadded_upper_case_halves(self) -> None:
        """The text has no leading zeros on either side of the slash."""
        self.assertEqual(str(LSN(0x16B374D848)), "16/B374D848")
        self.assertEqual(str(LSN(0x100000028)), "1/28")
        self.assertEqual(str(INVALID), "0/0")
        self.assertEqual(str(LSN(2**64 - 1)), "FFFFFFFF/FFFFFFFF")

    def test_formatting_gives_the_text(self) -> None:
        """An f-string shows the text, and repr the text with the class."""
        self.assertEqual(f"{LSN(0x1000000)}", "0/1000000")
        self.assertEqual(repr(LSN(0x1000000)), "LSN('0/1000000')")

    def test_parse_takes_either_case_and_leading_zeros(self) -> None:
        """PostgreSQL 19 pads the lower half; clients may send lower case."""
        for text in ("16/b374d848", "16/B374D848", "00000016/B374D848"):
            self.assertEqual(LSN.parse(text), 0x16B374D848)
        self.assertEqual(LSN.parse("0/00000028"), 0x28)

    def test_parse_refuses_everything_else(self) -> None:
        """Signs, blanks, foreign digits and more than eight digits are no part of an LSN."""
        for text in (
            *("", "/", "0", "0/", "/0", "0/0/0", "0/0 ", " 0/0", "0/0\n", "-1/0", "0x1/0"),
            *("0/123456789", "123456789/0", "0/G", "\u0661/0", "0/1_0"),
        ):
            with self.assertRaisesRegex(FormatError, "is not an LSN"):
                LSN.parse(text)

    def test_arithmetic_gives_plain_integers(self) -> None:
        """Sums are not positions by themselves, and cost no more than integers do."""
        self.assertIs(type(LSN(8) + 8), int)
        self.assertEqual(LSN(8) + 8, 16)
        self.assertLess(LSN(8), LSN(9))
        self.assertEqual(hash(LSN(8)), hash(8))

    @settings(deadline=None, database=None)
    @given(st.integers(0, 2**64 - 1))
    def test_text_and_back(self, value: int) -> None:
        """Every position survives the way through its text."""
        parsed = LSN.parse(str(LSN(value)))
        self.assertEqual(parsed, value)
        self.assertIs(type(parsed), LSN)
