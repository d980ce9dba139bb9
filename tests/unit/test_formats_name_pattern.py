"""Tests for walstream.formats.name_pattern: PostgreSQL's expressions, by Python's engine."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.name_pattern import name_pattern


class NamePatternTests(SynchronousTestCase):
    """What an expression finds, and what is none."""

    def test_found(self) -> None:
        """As by PostgreSQL, where Python by itself would not find it."""
        for expression, name in (
            ("^[[:alpha:]_]+[[:digit:]]$", "standby_1"),
            ("^[^[:upper:]]$", "a"),
            ("^[]a[]+$", "[]a"),
            (r"^[\]\d-]+$", "1-]"),
            ("^[[:punct:]]+$", "[]\\!~^`"),
            ("^[a&&b]+$", "&ab"),
            ("^a{$", "a{"),
            ("^a{2}$", "aa"),
            ("^a.b$", "a\nb"),
            ("a$|b$", "xb"),
            (r"^(a|b)\$$", "b$"),
            (r"\Aa\Z", "a"),
            ("(?i)^ADMIN$", "admin"),
            ("^(?:a(?=b)|(?<!x)c)", "ab"),
            ("", "anybody"),
        ):
            self.assertIsNotNone(name_pattern(expression).search(name), (expression, name))

    def test_not_found(self) -> None:
        """As by PostgreSQL, where Python by itself would find it."""
        for expression, name in (
            ("^admin$", "admin\n"),
            ("[[:alpha:]]", ":]"),
            (r"^\w$", "é"),
            (r"^\d$", "٣"),
            ("(?i)^k$", "\u212a"),  # KELVIN SIGN, of which the lower case is k
            ("^[$]$", "a"),
        ):
            self.assertIsNone(name_pattern(expression).search(name), (expression, name))

    def test_none(self) -> None:
        """What PostgreSQL takes for no expression, or may take for another, is refused."""
        for expression, why in (
            ("[", "brackets [] not balanced"),
            ("[[:alpha:]", "brackets [] not balanced"),
            ("[]", "brackets [] not balanced"),
            ("[a[.]+[[:upper:]]", "brackets [] not balanced"),
            ("[^]", "brackets [] not balanced"),
            ("a{99999999999}", "the repetition number is too large"),
            ("(" * 3000 + ")" * 3000, "maximum recursion depth exceeded"),
            ("[+--]", "-- in brackets is not offered by walstream"),
            ("a\\", "bad escape (end of pattern)"),
            ("[[:letters:]]", "[:letters:] is not offered by walstream"),
            ("[[.a.]]", "[.a.] is not offered by walstream"),
            ("[[=a=]]", "[=a=] is not offered by walstream"),
            (r"(a)\1", r"\1 is not offered by walstream"),
            ("[a[.]", "brackets [] not balanced"),
            (r"a\b", r"\b is not offered by walstream"),
            (r"[\A]", r"\A is not offered by walstream"),
            ("a(?i)", "(?i is not offered by walstream"),
            ("(?P<x>a)", "(?P is not offered by walstream"),
            ("***=a", "nothing to repeat"),
        ):
            error = self.assertRaises(FormatError, name_pattern, expression)
            self.assertIn(f'invalid regular expression "{expression}": {why}', str(error))
