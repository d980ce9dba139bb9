"""Tests for walstream.formats.synchronous_standby_names."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.synchronous_standby_names import (
    NO_STANDBYS,
    StandbyMethod,
    SynchronousStandbyNames,
)

FIRST, ANY = StandbyMethod.FIRST, StandbyMethod.ANY

#: What servers accept, and what it means; `tests.integration.test_synchronous` asks one.
GOOD = {
    "": (FIRST, 0, ()),
    "*": (FIRST, 1, ("*",)),
    "a": (FIRST, 1, ("a",)),
    "a,b": (FIRST, 1, ("a", "b")),
    " a\t,\n b ": (FIRST, 1, ("a", "b")),
    "1": (FIRST, 1, ("1",)),
    "1, 2": (FIRST, 1, ("1", "2")),
    "2(a,b)": (FIRST, 2, ("a", "b")),
    "2 (*)": (FIRST, 2, ("*",)),
    "FIRST 2 (a, b, c)": (FIRST, 2, ("a", "b", "c")),
    "first 01 (a)": (FIRST, 1, ("a",)),
    "ANY 1 (a, *)": (ANY, 1, ("a", "*")),
    "aNy 3 (1, 2)": (ANY, 3, ("1", "2")),
    "any1": (FIRST, 1, ("any1",)),
    "firstly, anybody": (FIRST, 1, ("firstly", "anybody")),
    '"any"': (FIRST, 1, ("any",)),
    '"FIRST", a': (FIRST, 1, ("FIRST", "a")),
    '"*"': (FIRST, 1, ("*",)),
    '"a b", "c""d"': (FIRST, 1, ("a b", 'c"d')),
    '""': (FIRST, 1, ("",)),
    'ANY 1 ("1", "a,b", "(")': (ANY, 1, ("1", "a,b", "(")),
    "_a$1": (FIRST, 1, ("_a$1",)),
    "größe": (FIRST, 1, ("größe",)),
    "2147483647 (a)": (FIRST, 2147483647, ("a",)),
}

#: What servers refuse.
BAD = (
    " ",
    ",",
    "a,",
    ",a",
    "a b",
    "a,,b",
    "any",
    "first",
    "a, any",
    "0 (a)",
    "FIRST 0 (a)",
    "-1 (a)",
    "1 ()",
    "1 (a",
    "(a)",
    "a (b)",
    "1 (a) b",
    "1 (a), b",
    "ANY (a)",
    "ANY a",
    "ANY 1 a",
    "FIRST a (b)",
    "FIRST ANY 1 (a)",
    "1 1 (a)",
    "a-b",
    "a.b",
    '"a',
    '"a""',
    "$a",
    "a;b",
    "'a'",
    "1a (b)",
    "**",
)

names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12
) | st.sampled_from(["any", "FIRST", "*", "1", "a b", '"'])
settings = st.builds(
    SynchronousStandbyNames,
    st.sampled_from(StandbyMethod),
    st.integers(1, 2**31 - 1),
    st.lists(names, min_size=1, max_size=5).map(tuple),
)


class ParseTests(SynchronousTestCase):
    """The text."""

    def test_good(self) -> None:
        """Each form means what it means to PostgreSQL."""
        for text, value in GOOD.items():
            self.assertEqual(SynchronousStandbyNames.parse(text), SynchronousStandbyNames(*value))

    def test_bad(self) -> None:
        """What PostgreSQL refuses is an error that shows the text."""
        for text in BAD:
            error = self.assertRaises(FormatError, SynchronousStandbyNames.parse, text)
            if "number" not in str(error):
                self.assertIn(repr(text), str(error))

    def test_text_form(self) -> None:
        """The text has quotes only where they are needed."""
        for text, expected in {
            "": "",
            "a, B": "FIRST 1 (a, B)",
            "any 2 (*, 7)": "ANY 2 (*, 7)",
            '2 ("any", "a b", "c""d", größe)': 'FIRST 2 ("any", "a b", "c""d", "größe")',
        }.items():
            value = SynchronousStandbyNames.parse(text)
            self.assertEqual(str(value), expected)
            self.assertEqual(SynchronousStandbyNames.parse(expected), value)

    @given(settings)
    def test_round_trip(self, value: SynchronousStandbyNames) -> None:
        """Whatever the names: the text form is read as the same value."""
        self.assertEqual(SynchronousStandbyNames.parse(str(value)), value)

    @given(st.text(st.sampled_from('aA1 ,()*"$-\tanyfirst'), max_size=20))
    def test_any_text(self, text: str) -> None:
        """Any text is a value or a FormatError, and a value has names unless it is empty."""
        try:
            value = SynchronousStandbyNames.parse(text)
        except FormatError:
            return
        self.assertEqual(bool(value), bool(text))
        self.assertEqual(SynchronousStandbyNames.parse(str(value)), value)

    def test_no_number_without_names(self) -> None:
        """There is no value that waits for nobody, or for none of some."""
        for number, listed in ((0, ("a",)), (1, ()), (-1, ("a",)), (-1, ())):
            with self.assertRaises(ValueError):
                SynchronousStandbyNames(FIRST, number, listed)


class MatchTests(SynchronousTestCase):
    """Whom it means."""

    def test_position_and_priority(self) -> None:
        """The first name that fits counts; by quorum all are alike."""
        for text, name, position, priority in (
            ("a, b", "b", 2, 2),
            ("a, b", "c", None, 0),
            ("a, *", "b", 2, 2),
            ("*, b", "b", 1, 1),
            ('"*"', "b", 1, 1),
            ("ANY 1 (a, b)", "b", 2, 1),
            ("ANY 1 (a, *)", "z", 2, 1),
            ("2 (a, b, B)", "b", 2, 2),
            ("", "a", None, 0),
            ('""', "", 1, 1),
        ):
            value = SynchronousStandbyNames.parse(text)
            self.assertEqual(value.position(name), position, (text, name))
            self.assertEqual(value.priority(name), priority, (text, name))

    def test_case(self) -> None:
        """The case of ASCII letters does not count, in quotes neither; that of others does."""
        value = SynchronousStandbyNames.parse('WalStream, "Größe", ärger')
        self.assertEqual(value.position("walsTREAM"), 1)
        self.assertEqual(value.position("gRöße"), 2)
        self.assertIsNone(value.position("GRÖSSE"))
        self.assertIsNone(value.position("Ärger"))

    @given(settings, st.text(st.sampled_from(string.ascii_letters + "1_"), max_size=6))
    def test_any_name(self, value: SynchronousStandbyNames, name: str) -> None:
        """A priority is 0 exactly for those that no name means, and at most the position."""
        position = value.position(name)
        self.assertEqual(position is None, value.priority(name) == 0)
        self.assertLessEqual(value.priority(name), position or 0)
        self.assertEqual(value.position(name.swapcase()), value.position(name))

    @given(settings)
    def test_its_own_names(self, value: SynchronousStandbyNames) -> None:
        """Every name in the list means a standby of that name."""
        for place, name in enumerate(value.names, 1):
            self.assertLessEqual(value.position(name) or 99, place)

    def test_truth(self) -> None:
        """Without names no commit waits for anyone."""
        self.assertFalse(NO_STANDBYS)
        self.assertTrue(SynchronousStandbyNames.parse("*"))
