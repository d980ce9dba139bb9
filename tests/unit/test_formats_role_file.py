"""Tests for walstream.formats.role_file: roles, their verifiers and limits."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.lsn import LSN
from walstream.formats.role_file import (
    Limits,
    Role,
    parse_roles,
    role_line,
    with_role,
    without_role,
)

PATH = "/conf/roles"
TEXT = r"""# who may come in
standby1   SCRAM-SHA-256$x   # the first
"the copy" SCRAM-SHA-256$y connections=2 timelines=3- from=0/3000000

monitor \
    -
"""


class RoleFileTests(SynchronousTestCase):
    """Reading and changing."""

    def test_parse(self) -> None:
        """Names, verifiers, limits."""
        self.assertEqual(
            parse_roles(TEXT, PATH),
            {
                "standby1": Role("standby1", "SCRAM-SHA-256$x"),
                "the copy": Role(
                    "the copy", "SCRAM-SHA-256$y", Limits(2, (3, None), LSN(0x3000000))
                ),
                "monitor": Role("monitor"),
            },
        )
        self.assertEqual(parse_roles("", PATH), {})

    def test_verifiers_do_not_show(self) -> None:
        """Not where a role is printed."""
        self.assertNotIn("SCRAM", repr(parse_roles(TEXT, PATH)))

    def test_lines(self) -> None:
        """A role that is written is read as it was."""
        for role in (
            Role("a"),
            Role("a-b_c", "v"),
            Role('q"uo te', "v", Limits(1)),
            Role("#", "v", Limits(None, (2, 2), LSN(5))),
            Role("ä", "v", Limits(None, (2, 4))),
            Role("all", None, Limits(0, (1, None), LSN(2**63))),
        ):
            self.assertEqual(parse_roles(role_line(role), PATH), {role.name: role})

    def test_names(self) -> None:
        """What a server takes for a name, and what would forge lines."""
        for name in ("", "a\nb", "a\0", "x" * 64, "ä" * 32):
            self.assertRaises(FormatError, role_line, Role(name))

    def test_timelines(self) -> None:
        """The first and the last are meant, too."""
        allowed = Limits(timelines=(2, 3)).allow_timeline
        self.assertEqual(
            [allowed(timeline) for timeline in (1, 2, 3, 4)], [False, True, True, False]
        )
        self.assertTrue(Limits().allow_timeline(2**31))

    def test_with_role(self) -> None:
        """It takes the place of the one of its name, or is the last; all else stays."""
        added = with_role(TEXT, Role("new", "z"), PATH)
        self.assertEqual(added, TEXT + "new z\n")
        changed = with_role(TEXT, Role("monitor", "z"), PATH)
        self.assertEqual(changed, TEXT.replace("monitor \\\n    -\n", "monitor z\n"))
        changed = with_role(TEXT, Role("the copy", "z"), PATH)
        self.assertEqual(list(parse_roles(changed, PATH)), ["standby1", "the copy", "monitor"])
        self.assertEqual(with_role("", Role("a"), PATH), "a -\n")
        self.assertEqual(with_role("b -", Role("a"), PATH), "b -\na -\n")

    def test_without_role(self) -> None:
        """All else stays."""
        self.assertEqual(
            without_role(TEXT, "monitor", PATH), TEXT.replace("monitor \\\n    -\n", "")
        )
        self.assertRaises(FormatError, without_role, TEXT, "nobody", PATH)

    def test_a_role_called_include(self) -> None:
        """It is one if it has limits; what is wrong with it tells nothing of its verifier."""
        roles = parse_roles("include secret connections=2", PATH)
        self.assertEqual(roles["include"].limits.connections, 2)

    def test_what_is_wrong(self) -> None:
        """With the place, and without what may be secret."""
        for line, words in (
            ("a", "a role is a name"),
            ("a,b secret", "a role is a name"),
            ("standby1 secret", 'role "standby1" is there twice'),
            ("a secret speed=9", 'there is no limit "speed"'),
            ("a secret connections=x", '"x" is no number'),
            ("a secret timelines=1-x", '"x" is no number'),
            ("a secret from=0-5", "0-5"),
            ("include secret", "does not include others"),
            ("include secret a,b", "a role is a name"),
            ("a @secret", "does not include others"),
        ):
            error = self.assertRaises(FormatError, parse_roles, TEXT + line, PATH)
            self.assertIn(words, str(error))
            if "include" not in words:
                self.assertIn(f'line 7 of configuration file "{PATH}"', str(error))
                self.assertNotIn("secret", str(error))
