"""Tests for `walstream.wire.lexer`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import CommandError
from walstream.wire.lexer import KEYWORDS, Kind, Token, tokens


def lex(text: bytes) -> list[Token]:
    """The tokens without the last, which is the end."""
    *found, end = tokens(text)
    assert end == (Kind.END, "")
    return found


class TokenTests(SynchronousTestCase):
    """`tokens`."""

    def test_blanks_separate(self) -> None:
        """Space, tab, newline, CR, FF and VT do, and a text may be nothing else."""
        self.assertEqual(
            lex(b" \t1\n2\r3\f4\v5"), [(Kind.NUMBER, number) for number in (1, 2, 3, 4, 5)]
        )
        self.assertEqual(lex(b""), [])
        self.assertEqual(lex(b" \v"), [])

    def test_keywords_are_upper_case(self) -> None:
        """Every keyword is one only in just its letters, and not as a part of a longer word."""
        for keyword in KEYWORDS:
            self.assertEqual(lex(keyword.encode()), [(Kind.KEYWORD, keyword)])
            for other in (keyword.lower(), keyword.title(), keyword + "S", keyword + "1"):
                self.assertEqual(lex(other.encode()), [(Kind.IDENTIFIER, other.lower())])

    def test_identifiers_are_folded(self) -> None:
        """ASCII letters become lower case; digits and $ may follow the first character."""
        self.assertEqual(lex(b"Ab_1$ _X"), [(Kind.IDENTIFIER, "ab_1$"), (Kind.IDENTIFIER, "_x")])

    def test_identifiers_may_have_high_bytes(self) -> None:
        """Bytes above 127 are letters in any encoding, and are not folded."""
        self.assertEqual(
            lex("Ä".encode() + b" \xc4"), [(Kind.IDENTIFIER, "Ä"), (Kind.IDENTIFIER, "\udcc4")]
        )

    def test_quoted_identifiers_are_taken_as_they_are(self) -> None:
        """Nothing is folded, two quotes are one, and an empty name is a name."""
        self.assertEqual(
            lex(b'"Bad-Name" "a""b" "" "WAIT"'),
            [(Kind.IDENTIFIER, name) for name in ("Bad-Name", 'a"b', "", "WAIT")],
        )

    def test_identifiers_have_63_bytes(self) -> None:
        """The rest is cut off, of quoted ones too."""
        self.assertEqual(lex(b"a" * 64), [(Kind.IDENTIFIER, "a" * 63)])
        self.assertEqual(lex(b'"' + b"B" * 70 + b'"'), [(Kind.IDENTIFIER, "B" * 63)])

    def test_strings(self) -> None:
        """Two quotes are one, nothing is folded or cut, and a string may be empty."""
        self.assertEqual(
            lex(b"'it''s' '' '\"' '" + b"X" * 100 + b"'"),
            [(Kind.STRING, text) for text in ("it's", "", '"', "X" * 100)],
        )

    def test_quotes_that_do_not_end(self) -> None:
        """PostgreSQL's error for an open string or name, whatever is in it."""
        for text in (b"'", b"'abc", b"'''", b'"abc', b'"""', b"'it''s ''"):
            error = self.assertRaises(CommandError, lex, text)
            self.assertEqual(
                (error.sqlstate, error.message), ("42601", "unterminated quoted string")
            )

    def test_positions(self) -> None:
        """Hexadecimal digits of either case on both sides of a slash, however many zeros."""
        self.assertEqual(
            lex(b"16/b374D848 0/0 FFFFFFFF/FFFFFFFF 0000000001/00000000ab abc/1"),
            [
                (Kind.POSITION, position)
                for position in (0x16B374D848, 0, 2**64 - 1, 0x1000000AB, 0xABC00000001)
            ],
        )

    def test_positions_are_no_longer_than_64_bits(self) -> None:
        """Each half has 32 bits."""
        for text in (b"100000000/0", b"0/100000000"):
            error = self.assertRaises(CommandError, lex, text)
            self.assertEqual(
                (error.sqlstate, error.message), ("42601", "invalid streaming start location")
            )

    def test_longest_token_wins(self) -> None:
        """What follows a number, a word or a position at once begins a token of its own."""
        self.assertEqual(lex(b"1G"), [(Kind.NUMBER, 1), (Kind.IDENTIFIER, "g")])
        self.assertEqual(lex(b"0/1X"), [(Kind.POSITION, 1), (Kind.IDENTIFIER, "x")])
        self.assertEqual(lex(b"FAST/0")[0], (Kind.IDENTIFIER, "fast"))
        self.assertEqual(lex(b"1/ 0")[0], (Kind.NUMBER, 1))

    def test_numbers_have_32_bits(self) -> None:
        """Up to 4294967295 with any number of zeros before it, and no further."""
        self.assertEqual(
            lex(b"4294967295 000000000000007"), [(Kind.NUMBER, 2**32 - 1), (Kind.NUMBER, 7)]
        )
        for text in (b"4294967296", b"9" * 5000):
            error = self.assertRaises(CommandError, lex, text)
            self.assertEqual((error.sqlstate, error.message), ("42601", "syntax error"))

    def test_symbols_stand_for_themselves(self) -> None:
        """Any other character is a token, and there are no comments."""
        self.assertEqual(lex(b"/*;*/"), [(Kind.SYMBOL, symbol) for symbol in "/*;*/"])
        self.assertEqual(lex(b"\x01"), [(Kind.SYMBOL, "\x01")])

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=40))
    def test_any_bytes_are_tokens_or_an_error(self, text: bytes) -> None:
        """Nothing but PostgreSQL's error comes out of garbage."""
        try:
            lex(text)
        except CommandError as error:
            self.assertEqual(error.sqlstate, "42601")

    def test_long_texts_take_linear_time(self) -> None:
        """No text of a mebibyte is read more than a few times over; else this would not end."""
        size = 1 << 20
        self.assertEqual(lex(b" " * size), [])
        self.assertEqual(lex(b"F" * size), [(Kind.IDENTIFIER, "f" * 63)])
        for text in (b"1" * size + b"G", b"'" + b"''" * size, b'"' + b"x" * size):
            self.assertRaises(CommandError, lex, text)
