"""Tests for `walstream.formats.log_text`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.formats.log_text import printable, quoted, shown, word


class PrintableTests(SynchronousTestCase):
    """`printable`, `quoted` and `word`: what a stranger says, as a part of a line."""

    def test_a_line_is_one(self) -> None:
        """What would break it, or can't be seen in it, is escaped; all else stays as it is."""
        for text, seen in (
            ("no entry", "no entry"),
            ("« Sésame »", "« Sésame »"),
            ("a\nb: FATAL", r"a\nb: FATAL"),
            ("\udc80\u202e", r"\udc80\u202e"),
        ):
            self.assertEqual(printable(text), seen)

    def test_a_field_is_one(self) -> None:
        """Whatever it says, it can't be taken for two, or for another."""
        for text, plain, in_quotes in (
            ("alice", "alice", '"alice"'),
            ("a b", '"a b"', '"a b"'),
            ('a" user="b', r'"a\" user=\"b"', r'"a\" user=\"b"'),
            ("\\", r'"\\"', r'"\\"'),
            ("a\n", r'"a\n"', r'"a\n"'),
            ("a\u00a0b", '"a\u00a0b"', '"a\u00a0b"'),
        ):
            self.assertEqual((word(text), quoted(text)), (plain, in_quotes))


class ShownTests(SynchronousTestCase):
    """`shown`: what a stranger says, for people."""

    def test_what_people_can_read(self) -> None:
        """It is left as it is, no-break spaces and all."""
        for words in ("", "no entry", "« Sésame »", "日本語 𝄞", "« x »"):
            self.assertEqual(shown(words.encode()), words)

    def test_what_they_cannot(self) -> None:
        """It can neither begin a line nor command a terminal, nor turn the direction of writing."""
        for words, seen in (
            ("a\nb\rc", r"a\nb\rc"),
            ("\x1b[31m", r"\x1b[31m"),
            ("\u2028\u202e\x85\x00", r"\u2028\u202e\x85\x00"),
        ):
            self.assertEqual(shown(words.encode()), seen)
        self.assertEqual(shown(b"\xff"), "\ufffd")

    def test_much(self) -> None:
        """It ends after two thousand characters."""
        for value in (b"x" * 2001, b"x" * (1 << 20), "𝄞".encode() * 3000):
            words = shown(value)
            self.assertEqual((len(words), words[-2:]), (2002, " …"))
        self.assertEqual(shown(b"x" * 2000), "x" * 2000)
