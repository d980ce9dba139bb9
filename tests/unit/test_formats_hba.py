"""Tests for walstream.formats.hba and what it is built on: who may come in, by which line."""

from __future__ import annotations

import ipaddress
import os.path
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.formats.auth_file import AuthLine, Token, read_auth_file
from walstream.formats.hba import (
    AuthMethod,
    ClientCertificate,
    HBARule,
    IncomingConnection,
    first_match,
    read_hba,
)
from walstream.formats.ident_map import may_be, read_ident

PATH = "/conf/pg_hba.conf"
NEAR = (ipaddress.ip_interface("192.0.2.7/24"), ipaddress.ip_interface("2001:db8::7/64"))


class MemoryFiles:
    """Files in memory."""

    def __init__(self, **files: str) -> None:
        self.files = {f"/conf/{name.replace('__', '/')}": text for name, text in files.items()}

    def read(self, path: str) -> str:
        if path not in self.files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.files[path]

    def names(self, path: str) -> Sequence[str]:
        names = [os.path.basename(name) for name in self.files if os.path.dirname(name) == path]
        if not names:
            raise FileNotFoundError(2, "No such file or directory", path)
        return names


def lines(text: str, **others: str) -> list[AuthLine]:
    files = MemoryFiles(**others)
    files.files[PATH] = text
    return list(read_auth_file(PATH, files))


def fields(text: str, **others: str) -> list[list[list[str]]]:
    """The words of each line; a quoted one is in quotes."""
    return [
        [[str(token) for token in field] for field in line.fields] for line in lines(text, **others)
    ]


class AuthFileTests(SynchronousTestCase):
    """Lines, fields, tokens."""

    def test_fields(self) -> None:
        """Blanks separate fields, commas the words of one; a comma may have blanks behind it."""
        self.assertEqual(
            fields("host\tall , b,c  d\n\n  # nothing\nlocal x# and a comment\n"),
            [[["host"], ["all"], ["b", "c"], ["d"]], [["local"], ["x"]]],
        )
        self.assertEqual(fields("a b,  c d"), [[["a"], ["b", "c"], ["d"]]])

    def test_quotes(self) -> None:
        """Within quotes everything is a word's; two quotes are one; a quoted word is no keyword."""
        self.assertEqual(
            fields('"a b" "c,d" "e""f" "#g" h"i j"k ""'),
            [[['"a b"'], ['"c,d"'], ['"e"f"'], ['"#g"'], ["hi jk"], ['""']]],
        )
        (line,) = lines('"all" all')
        (quoted,), (plain,) = line.fields
        self.assertEqual((quoted.is_keyword("all"), plain.is_keyword("all")), (False, True))
        self.assertEqual(plain, Token("all"))

    def test_continued_lines(self) -> None:
        """A backslash at its end continues a line; its number is that of the first."""
        found = lines("# one\nhost all \\\n  all trust\nlocal\\\n")
        self.assertEqual([line.number for line in found], [2, 4])
        self.assertEqual(len(found[0].fields), 4)
        self.assertEqual(found[0].place, f'line 2 of configuration file "{PATH}"')

    def test_carriage_returns(self) -> None:
        """Files from elsewhere."""
        self.assertEqual(fields("a b\r\nc \\\r\nd\r\n"), [[["a"], ["b"]], [["c"], ["d"]]])
        self.assertEqual(fields("a\rb # c\rd\ne\\\r\r\nf"), [[["a"], ["b"]], [["ef"]]])

    def test_files_of_words(self) -> None:
        """@file stands for its words, in the directory of the file that names it."""
        self.assertEqual(
            fields("a b,@more,c", more="x, y\n# z\nz @sub", sub="s"),
            [[["a"], ["b", "x", "y", "z", "s", "c"]]],
        )
        self.assertEqual(fields('a "@more" @'), [[["a"], ['"@more"'], ["@"]]])

    def test_files_of_lines(self) -> None:
        """include, include_if_exists, include_dir; a directory's files in order, .conf only."""
        found = lines(
            "a\ninclude one\ninclude_if_exists none\ninclude_if_exists one\ninclude_dir d\nz",
            one="b",
            **{"d__2.conf": "d", "d__1.conf": "c", "d__x": "no", "d__.h.conf": "no"},
        )
        words = [line.fields[0][0].text for line in found]
        self.assertEqual(words, ["a", "b", "b", "c", "d", "z"])
        self.assertEqual((found[1].file, found[1].number), ("/conf/one", 1))

    def test_two_words_include(self) -> None:
        """A line of more is one of the file's own; of a list, the first counts; also in a list."""
        self.assertEqual(fields("include a b"), [[["include"], ["a"], ["b"]]])
        self.assertEqual(fields("include one,two", one="b"), [[["b"]]])
        self.assertEqual(fields("include @none", none=""), [[["include"], []]])
        self.assertEqual(
            fields("a @list", list="x\ninclude more\nz", more="y"), [[["a"], ["x", "y", "z"]]]
        )

    def test_what_cannot_be_read(self) -> None:
        """It is said which file, and who wants it."""
        for text, message in (
            ("include none", 'could not open file "/conf/none": No such file or directory'),
            ("a @none", 'could not open file "/conf/none": No such file or directory'),
            ("include_dir none", 'could not open directory "/conf/none"'),
            ("include pg_hba.conf", "maximum nesting depth exceeded"),
            ("a @pg_hba.conf", "maximum nesting depth exceeded"),
            ("a @b\0", 'there is a zero character in file "/conf/pg_hba.conf"'),
        ):
            error = self.assertRaises(FormatError, lines, text)
            self.assertIn(message, str(error))


def rules(text: str, **others: str) -> list[HBARule]:
    files = MemoryFiles(**others)
    files.files[PATH] = text
    return read_hba(PATH, files)


def connection(
    address: str | None = "127.0.0.1", user: str = "u", *names: str, tls: bool = False
) -> IncomingConnection:
    ip = None if address is None else ipaddress.ip_address(address)
    return IncomingConnection(user, ip, tls, names)


class MatchTests(SynchronousTestCase):
    """Which line means a connection."""

    def line(self, text: str, of: IncomingConnection) -> int | None:
        """The number of the line that decides."""
        rule = first_match(rules(text), of, NEAR)
        return None if rule is None else rule.line.number

    def test_the_first_decides(self) -> None:
        """As in PostgreSQL; without one there is no entry."""
        text = "host replication a all reject\nhost replication all all trust"
        self.assertEqual(self.line(text, connection(user="a")), 1)
        self.assertEqual(self.line(text, connection(user="b")), 2)
        self.assertIsNone(self.line(text, connection(None)))

    def test_databases(self) -> None:
        """Only the keyword replication means physical replication; all does not, nor its name."""
        for database in ("all", '"replication"', "postgres", "sameuser", "/^rep"):
            self.assertIsNone(self.line(f"host {database} all all trust", connection()))
        self.assertEqual(self.line("host all,replication all all trust", connection()), 1)

    def test_kinds(self) -> None:
        """Local, with TLS, without."""
        text = "\n".join(
            f"{kind} replication all {'' if kind == 'local' else 'all '}trust"
            for kind in ("local", "hostgssenc", "hostssl", "hostnossl")
        )
        self.assertEqual(self.line(text, connection(None)), 1)
        self.assertEqual(self.line(text, connection(tls=True)), 3)
        self.assertEqual(self.line(text, connection()), 4)
        for kind in ("host", "hostnogssenc"):
            for tls in (False, True):
                text = f"{kind} replication all all trust"
                self.assertEqual(self.line(text, connection(tls=tls)), 1)
                self.assertIsNone(self.line(text, connection(None)))

    def test_users(self) -> None:
        """Names, lists, expressions, all; a quoted all is a name."""
        for users, meant, other in (
            ("a,b", "b", "c"),
            ('"all"', "all", "u"),
            ("all", "anybody", None),
            ("/^w.*s$", "walrus", "wally"),
            ("/^[[:alpha:]]+s$", "walrus", "walrus\n"),
            ('"/^x y"', "x y z", "x"),
        ):
            text = f"host replication {users} all trust"
            self.assertEqual(self.line(text, connection(user=meant)), 1, users)
            if other is not None:
                self.assertIsNone(self.line(text, connection(user=other)), users)

    def test_addresses(self) -> None:
        """Ranges, masks, names, our own; IPv4 and IPv6 are not the same."""
        for address, meant, other in (
            ("192.0.2.0/24", "192.0.2.9", "192.0.3.9"),
            ("192.0.2.1/24", "192.0.2.9", "2001:db8::9"),
            ("192.0.2.0 255.255.255.0", "192.0.2.9", "192.0.3.9"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::9"),
            ("::/0", "2001:db8::9", "203.0.113.9"),
            ("2001:db8::/32", "2001:db8::9", "2001:db9::9"),
            ("2001:db8:: ffff:ffff::", "2001:db8::9", "2001:db9::9"),
            ("samehost", "192.0.2.7", "192.0.2.8"),
            ("samenet", "192.0.2.8", "192.0.3.8"),
            ("all", "2001:db8::9", None),
        ):
            text = f"host replication all {address} trust"
            self.assertEqual(self.line(text, connection(meant)), 1, address)
            if other is not None:
                self.assertIsNone(self.line(text, connection(other)), address)

    def test_host_names(self) -> None:
        """A name, or behind a dot the end of one, of those that lead back to the address."""
        for name, meant in (("db2.example", "DB2.example"), (".example", "db2.example")):
            text = f"host replication all {name} trust"
            self.assertEqual(self.line(text, connection("192.0.2.9", "u", meant)), 1)
            self.assertIsNone(self.line(text, connection("192.0.2.9", "u", "example")))
            self.assertIsNone(self.line(text, connection("192.0.2.9")))
        self.assertEqual(self.line('host replication all "all" trust', connection()), None)


class RuleTests(SynchronousTestCase):
    """What a line says, and what is wrong with it."""

    def test_methods(self) -> None:
        """md5 asks for SCRAM where the verifier is one, and all of ours are."""
        for word, method in (
            ("trust", AuthMethod.TRUST),
            ("reject", AuthMethod.REJECT),
            ("scram-sha-256", AuthMethod.SCRAM),
            ("md5", AuthMethod.SCRAM),
            ("cert", AuthMethod.CERT),
        ):
            (rule,) = rules(f"hostssl replication all all {word}")
            self.assertIs(rule.method, method)
        (rule,) = rules("local replication all peer map=m")
        self.assertEqual((rule.method, rule.ident_map), (AuthMethod.PEER, "m"))
        (rule,) = rules("local replication all peer map=")
        self.assertIsNone(rule.ident_map)

    def test_certificates(self) -> None:
        """Of other methods they may be asked for as well."""
        for options, certificate, is_whole in (
            ("scram-sha-256", ClientCertificate.ANY, False),
            ("trust clientcert=verify-ca", ClientCertificate.VERIFY_CA, False),
            ("md5 clientcert=verify-full clientname=DN", ClientCertificate.VERIFY_FULL, True),
            ("cert", ClientCertificate.VERIFY_FULL, False),
            ("cert clientname=CN map=m", ClientCertificate.VERIFY_FULL, False),
        ):
            (rule,) = rules(f"hostssl replication all all {options}")
            self.assertEqual(
                (rule.client_certificate, rule.uses_distinguished_name), (certificate, is_whole)
            )

    def test_other_databases(self) -> None:
        """Their lines may have all that a server has, and we don't."""
        (rule,) = rules(
            """
            host     all            +admins  all  ldap ldapserver=a ldapprefix="cn="
            hostssl  "replication"  all      all  oauth issuer=a scope=b
            host     sameuser       all      all  gss include_realm=0 map=nobodys
            host     a,replication  u        all  trust
            """
        )
        self.assertEqual(rule.line.number, 5)

    def test_what_is_wrong(self) -> None:
        """In PostgreSQL's words where it has some, with the line."""
        for text, message in (
            ("hosts a b c d", 'invalid connection type "hosts"'),
            ("host,local a b c d", "multiple values specified for connection type"),
            ("host", "end-of-line before database specification"),
            ("host replication", "end-of-line before role specification"),
            ("host replication all", "end-of-line before IP address specification"),
            ("host replication all ::1,::2 trust", "multiple values specified for host address"),
            ("host replication all 10.1 reject", 'invalid IP address "10.1": it takes four'),
            ("host replication all 0x0a000001 reject", 'invalid IP address "0x0a000001"'),
            ("host replication all 127.0.0.1", "end-of-line before netmask specification"),
            ("host replication all 127.0.0.1 trust", 'invalid IP mask "trust"'),
            ("host replication all 127.0.0.1 ::1 trust", "IP address and mask do not match"),
            ("host replication all 127.0.0.1 255.0.255.0 trust", "its ones are not at"),
            ("host replication all 127.0.0.1/33 trust", 'invalid CIDR mask in address "127.0.0'),
            ("host replication all name/8 trust", "specifying both host name and CIDR mask"),
            ("host replication all all", "end-of-line before authentication method"),
            ("host replication all all a,b", "multiple values specified for authentication type"),
            ("host replication all all magic", 'invalid authentication method "magic"'),
            ("host replication all all ldap", '"ldap" is not offered by walstream; there are cert'),
            ("host replication all all peer", "peer authentication is only supported on local"),
            ("host replication all all cert", "cert authentication is only supported on hostssl"),
            ("host replication +a all trust", "+a means the members of a role"),
            ("host replication /( all trust", 'invalid regular expression "("'),
            ("host replication all all trust x", "option not in name=value format: x"),
            ("host replication all all trust x=1", 'unrecognized authentication option name: "x"'),
            ("host replication all all trust map=m", 'option "map" is only valid for'),
            ("host replication all all md5 clientcert=verify-ca", "clientcert can only be"),
            ("hostssl replication all all md5 clientcert=1", 'invalid value for clientcert: "1"'),
            ("hostssl replication all all cert clientcert=verify-ca", 'only accepts "verify-full"'),
            ("hostssl replication all all cert clientname=X", 'value for clientname: "X"'),
        ):
            error = self.assertRaises(FormatError, rules, f"# first\n{text}")
            self.assertIn(message, str(error))
            self.assertIn(f'line 2 of configuration file "{PATH}": {text}', str(error))


class IdentTests(SynchronousTestCase):
    """Names and users."""

    def ask(self, text: str, map_name: str | None, system_user: str, user: str) -> bool:
        files = MemoryFiles(**{"pg_ident.conf": text})
        return may_be(read_ident("/conf/pg_ident.conf", files), map_name, system_user, user)

    def test_without_a_map(self) -> None:
        """The names are the same."""
        self.assertTrue(self.ask("", None, "a", "a"))
        self.assertFalse(self.ask("", None, "a", "A"))

    def test_maps(self) -> None:
        """Any line of that map may allow it."""
        text = r"""
        m  a       u
        m  b       u
        m  /^(.*)@example$  \1
        m  /^x     /^y
        m  admin   all
        m  /^q(.)$ "/^q\\1$"
        m  r       /^r\\1$
        m  /^al(.*)$  al\1
        m  /^(?:(y)|none)$  u\1
        o  c       u
        """
        for system_user, user in (
            ("a", "u"),
            ("b", "u"),
            ("w@example", "w"),
            ("x1", "y1"),
            ("admin", "anybody"),
            ("q1", r"q\1"),  # an expression is taken as it is, quoted or not
            ("r", r"r\1"),
            ("all", "all"),
        ):
            self.assertTrue(self.ask(text, "m", system_user, user), (system_user, user))
        for system_user, user in (
            ("a", "a"),
            ("c", "u"),
            ("w@example", "v"),
            ("x", "x"),
            ("q1", "q1"),
            ("all", "anybody"),
            ("none", "u"),  # what the parentheses have not found is no empty name
            ("w@example\n", "w"),
        ):
            self.assertFalse(self.ask(text, "m", system_user, user), (system_user, user))
        self.assertFalse(self.ask(text, "none", "a", "u"))

    def test_what_is_wrong(self) -> None:
        """With the line."""
        for text, message in (
            ("m a", "missing entry at end of line: line 1"),
            ("m a,b c", "there has to be one ident username: line 1"),
            (r"m /^a \1", "has no subexpressions as requested by backreference"),
            ("m /( a", 'invalid regular expression "("'),
            ("m a +b", "+b means the members of a role"),
        ):
            error = self.assertRaises(FormatError, self.ask, text, "m", "a", "b")
            self.assertIn(message, str(error))
