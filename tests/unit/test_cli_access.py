"""Tests for walstream.cli's role and hba-check."""

from __future__ import annotations

import stat
import sys
import warnings
from getpass import GetPassWarning
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walstream.access.role_store import RoleStore
from walstream.cli import hba_check, main, role
from walstream.formats.role_file import parse_limits
from walstream.wire.scram_verifier import ScramVerifier


class AccessToolCase(SynchronousTestCase):
    """A directory, and what the tools print."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.roles = self.directory / "roles"
        self.out, self.err = StringIO(), StringIO()
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def run_tool(self, *words: str, said: str = "") -> int | str | None:
        """Run it with standard input; how it exits."""
        self.out.truncate(self.out.seek(0))
        self.err.truncate(self.err.seek(0))
        self.patch(sys, "stdin", StringIO(said))
        try:
            return main(words)
        except SystemExit as stop:
            return stop.code


class RoleTests(AccessToolCase):
    """walstream role"""

    def role(self, *words: str, said: str = "") -> int | str | None:
        return self.run_tool("role", *words, "--roles", str(self.roles), said=said)

    def test_prompts(self) -> None:
        """Twice, and not shown; what is different is refused."""
        answers = ["geheim", "geheim", "geheim", "gehiem", "geheim", ""]
        asked: list[tuple[str, object]] = []

        def ask(prompt: str, stream: object) -> str:
            asked.append((prompt, stream))
            return answers.pop(0)

        self.patch(role, "getpass", ask)
        self.assertEqual(self.role("add", "a"), 0)
        self.assertEqual(self.out.getvalue(), 'role "a" added\n')
        self.assertEqual(
            asked, [("Password for role a: ", self.err), ("Enter it again: ", self.err)]
        )
        verifier = RoleStore(str(self.roles)).read().verifiers["a"]
        self.assertEqual(verifier, ScramVerifier.of("geheim", salt=verifier.salt))
        self.assertEqual(self.role("add", "b"), role.FAILURE)
        self.assertIn("passwords didn't match", self.err.getvalue())
        self.assertEqual(self.role("verify", "a"), 0)
        self.assertEqual(self.role("verify", "a"), role.FAILURE)
        self.assertIn("an empty password is none", self.err.getvalue())

    def test_nobody_to_ask(self) -> None:
        """Without a terminal nothing is read that would show on a screen; an answer may be none."""

        def no_terminal(prompt: str, stream: object) -> str:
            warnings.warn("Can not control echo on the terminal.", GetPassWarning, stacklevel=1)
            return "geheim"

        def end_of_file(prompt: str, stream: object) -> str:
            raise EOFError

        for ask, words in (
            (no_terminal, "there is no terminal to ask for a password at: use --password-stdin"),
            (end_of_file, "no password was given"),
        ):
            self.patch(role, "getpass", ask)
            self.assertEqual(self.role("add", "a"), role.FAILURE)
            self.assertIn(words, self.err.getvalue())
            self.assertEqual(dict(RoleStore(str(self.roles)).read().roles), {})

    def test_password_from_standard_input(self) -> None:
        """Its first line, blanks and all."""
        self.role("add", "a", "--password-stdin", said=" geheim \nmore\n")
        self.assertEqual(self.role("verify", "a", "--password-stdin", said=" geheim "), 0)
        self.assertEqual(self.role("verify", "a", "--password-stdin", said="geheim"), role.WRONG)
        self.assertNotIn("geheim", self.roles.read_text())

    def test_verifier(self) -> None:
        """As a server has it; anything else is refused, and not repeated."""
        verifier = str(ScramVerifier.of("geheim"))
        self.assertEqual(self.role("add", "a", "--verifier-stdin", said=f"{verifier}\n"), 0)
        self.assertEqual(self.roles.read_text(), f"a {verifier}\n")
        for wrong in ("md5abc", "", "geheim"):
            status = self.role("add", "a", "--verifier-stdin", said=wrong)
            self.assertEqual(status, role.FAILURE)
            self.assertIn("not a SCRAM-SHA-256 verifier", self.err.getvalue())
            self.assertNotIn("geheim", self.err.getvalue())

    def test_no_word_of_the_command_line_is_a_password(self) -> None:
        """There is no place for one."""
        self.assertEqual(self.role("add", "a", "geheim"), role.FAILURE)
        self.assertEqual(self.role("add", "a", "--password", "geheim"), role.FAILURE)
        self.assertFalse(self.roles.exists())

    def test_limits(self) -> None:
        """And iterations."""
        words = ("--connections=2", "--timelines=3-", "--from=0/5000000", "--iterations=5000")
        self.role("add", "a", "--password-stdin", *words, said="x")
        roles = RoleStore(str(self.roles)).read()
        limits = parse_limits(["connections=2", "timelines=3-", "from=0/5000000"])
        self.assertEqual(roles.roles["a"].limits, limits)
        self.assertEqual(roles.verifiers["a"].iterations, 5000)
        for word, said in (
            ("--timelines=x", '"x" is no number'),
            ("--from=x", "x"),
            ("--connections=x", "invalid int value"),
            ("--iterations=1", "4096"),
        ):
            status = self.role("add", "b", "--password-stdin", word, said="x")
            self.assertEqual(status, role.FAILURE, word)
            self.assertIn(said, self.err.getvalue())

    def test_list_and_drop(self) -> None:
        """Nothing secret is shown."""
        self.assertEqual(self.role("list"), 0)
        self.assertEqual(self.out.getvalue(), "")
        self.role("add", "b", "--password-stdin", "--connections=2", said="x")
        self.role("add", "a", "--no-password")
        self.role("list")
        self.assertEqual(
            self.out.getvalue().splitlines(),
            ["role  password         limits", "a     none", "b     4096 iterations  connections=2"],
        )
        self.assertEqual(self.role("add", "b", "--no-password"), 0)
        self.assertEqual(self.out.getvalue(), 'role "b" replaced\n')
        self.assertEqual(self.role("verify", "b", "--password-stdin", said="x"), role.WRONG)
        self.assertEqual(self.role("drop", "b"), 0)
        for action in ("drop", "verify"):
            self.assertEqual(self.role(action, "b", "--password-stdin", said="x"), role.WRONG)
            self.assertIn(f'there is no role "b" in {self.roles}', self.err.getvalue())

    def test_of_an_archive(self) -> None:
        """In its own directory, which is made if it has none yet and there is something to keep."""
        own = self.directory / ".walstream"
        self.assertEqual(self.run_tool("role", "list", "-D", str(self.directory)), 0)
        self.assertFalse(own.exists())
        words = ("role", "add", "a", "--no-password", "-D", str(self.directory))
        self.assertEqual(self.run_tool(*words), 0)
        self.assertEqual(stat.S_IMODE(own.stat().st_mode), 0o700)
        self.assertEqual(stat.S_IMODE((own / "roles").stat().st_mode), 0o600)
        status = self.run_tool("role", "list", "-D", str(self.directory / "nowhere"))
        self.assertEqual(status, role.FAILURE)

    def test_wrong_command_lines(self) -> None:
        """Say what is missing."""
        for words, said in (
            (("add",), "needs a NAME"),
            (("list", "a"), "takes no NAME"),
            (("rename", "a"), "invalid choice"),
            (("add", "a", "--no-password", "--password-stdin"), "exclude each other"),
            (("add", "a\nb", "--no-password"), "cannot be the name of a role"),
        ):
            self.assertEqual(self.role(*words), role.FAILURE, words)
            self.assertIn(said, self.err.getvalue())
        self.assertEqual(self.run_tool("role", "list"), role.FAILURE)
        self.assertIn("--archive DIR or --roles FILE", self.err.getvalue())


class HBACheckTests(AccessToolCase):
    """walstream hba-check"""

    def check(self, *words: str, rules: str, ident: str = "") -> list[str]:
        """What it prints; its status stays."""
        (self.directory / "hba").write_text(rules)
        (self.directory / "ident").write_text(ident)
        files = ("--hba", str(self.directory / "hba"), "--ident", str(self.directory / "ident"))
        self.status = self.run_tool("hba-check", *words, *files)
        text = self.out.getvalue().replace(str(self.directory), "D")
        return text.splitlines()

    def test_rules(self) -> None:
        """The first that means the connection, and what it asks for."""
        rules = (
            "hostssl replication cert 192.0.2.0/24 cert map=m clientname=DN\n"
            "hostssl replication both 192.0.2.0/24 md5 clientcert=verify-full\n"
            "hostssl replication signed 192.0.2.0/24 trust clientcert=verify-ca\n"
            "host replication standby1 192.0.2.0/24 scram-sha-256\n"
            "host replication trusted samehost trust\n"
            "local replication all peer\n"
            "host replication all all reject\n"
        )
        for words, number, meaning in (
            (("standby1", "192.0.2.7"), 4, ['the password of role "standby1" (SCRAM-SHA-256)']),
            (("standby1", "192.0.2.7", "--tls"), 4, ["password"]),
            (("cert", "192.0.2.7", "--tls"), 1, ['distinguished name is one that map "m" lets']),
            (
                ("both", "192.0.2.7", "--tls"),
                2,
                ["password", 'a certificate whose common name is "both"'],
            ),
            (("signed", "192.0.2.7", "--tls"), 3, ["nothing", "a certificate of an authority"]),
            (("trusted", "127.0.0.1"), 5, ["it has to prove nothing, and comes in"]),
            (("trusted", "::ffff:127.0.0.1"), 5, ["it has to prove nothing, and comes in"]),
            (("standby1", "local"), 6, ['its account on this machine has to be "standby1"']),
        ):
            first, *rest = self.check(*words, rules=rules)
            self.assertTrue(first.startswith(f"D/hba:{number}: "), first)
            self.assertEqual(len(rest), len(meaning))
            for line, part in zip(rest, meaning, strict=True):
                self.assertIn(part, line)
            self.assertEqual(self.status, 0)
        found = self.check("cert", "192.0.2.7", rules=rules)
        self.assertTrue(found[0].startswith("D/hba:7: "))
        self.assertEqual((found[1:], self.status), (["it is refused"], hba_check.REFUSED))

    def test_no_line(self) -> None:
        """And a hint, if there is none about replication at all."""
        found = self.check("a", "local", rules="local all all trust\n")
        self.assertEqual(found, ["no line is about it: there is no entry, it is refused"])
        self.assertEqual(self.status, hba_check.REFUSED)
        self.assertIn("which all does not include", self.err.getvalue())

    def test_open_to_strangers(self) -> None:
        """What a process that others can reach would not take is told."""
        self.check("a", "127.0.0.1", rules="host replication all samehost trust\n")
        self.assertEqual(self.err.getvalue(), "")
        found = self.check("a", "192.0.2.7", rules="host replication all all trust\n")
        self.assertEqual((found[-1][-8:], self.status), ("comes in", 0))
        self.assertIn("these rules are not taken", self.err.getvalue())
        self.assertIn("line 1 of configuration file", self.err.getvalue())

    def test_roles(self) -> None:
        """Whether there is one that has a password."""
        rules = "host replication all all scram-sha-256\n"
        roles = ("--roles", str(self.roles))
        self.run_tool("role", "add", "a", "--password-stdin", *roles, "--connections=2", said="x")
        self.run_tool("role", "add", "b", "--no-password", *roles)
        for user, said, status in (
            ("a", 'role "a" has a password; limits: connections=2', 0),
            ("b", 'role "b" has no password in D/roles: it is refused', hba_check.REFUSED),
            ("c", 'role "c" does not exist in D/roles: it is refused', hba_check.REFUSED),
        ):
            found = self.check(user, "192.0.2.7", *roles, rules=rules)
            self.assertEqual((found[-1], self.status), (said, status))

    def test_names(self) -> None:
        """The name that the address has is shown, where it matters."""
        self.patch(hba_check, "host_names", lambda address: ("db1.example.org",))
        found = self.check("a", "192.0.2.7", rules="host replication all .example.org trust\n")
        self.assertEqual(found[0], "name of 192.0.2.7: db1.example.org")
        self.assertEqual(self.status, 0)
        self.patch(hba_check, "host_names", lambda address: ())
        found = self.check("a", "192.0.2.7", rules="host replication all .example.org trust\n")
        self.assertEqual(found[0], "name of 192.0.2.7: none")

    def test_what_is_wrong(self) -> None:
        """The file's line, or the command line's word."""
        self.check("a", "local", rules="local replication all nonsense\n")
        self.assertEqual(self.status, hba_check.FAILURE)
        self.assertIn("line 1 of configuration file", self.err.getvalue())
        for words in (("a", "db1"), ("a", "local", "--tls"), ("a",)):
            self.check(*words, rules="local replication all trust\n")
            self.assertEqual(self.status, hba_check.FAILURE)
