"""Tests for walstream.upstream.passfile."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.log_capture import capture_log
from walstream.upstream.hosts import DEFAULT_SOCKET_DIRECTORIES, UpstreamHost
from walstream.upstream.passfile import find_password

HOST = UpstreamHost("db1", None, 5433)


class FindPasswordTests(SynchronousTestCase):
    """Which line of a password file counts, and which file."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def find(
        self,
        content: str | bytes,
        host: UpstreamHost = HOST,
        database: str = "replication",
        user: str = "me",
    ) -> str | None:
        """The password that a file with this content has for somebody."""
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.path.chmod(0o600)
        return find_password(self.path, host, database, user)

    def test_first_line_that_fits(self) -> None:
        """All four fields have to fit, and the first line whose fields do counts."""
        lines = [
            "db2:5433:replication:me:other host",
            "db1:5432:replication:me:other port",
            "db1:5433:shop:me:other database",
            "db1:5433:replication:you:other user",
            "db1:5433:replication:me:this one",
            "db1:5433:replication:me:too late",
        ]
        self.assertEqual(self.find("\n".join(lines)), "this one")
        self.assertIsNone(self.find("\n".join(lines[:4])))

    def test_wildcard(self) -> None:
        """A star fits everything; an escaped star, or one among others, is only itself."""
        self.assertEqual(self.find("*:*:*:*:open"), "open")
        self.assertIsNone(self.find("\\*:*:*:*:open"))
        self.assertIsNone(self.find("db*:*:*:*:open"))
        self.assertEqual(self.find("*:*:*:\\*:open", user="*"), "open")

    def test_escapes(self) -> None:
        """A backslash protects the colon or backslash behind it, in each field."""
        self.assertEqual(self.find(r"\:\:1:*:*:*:x", UpstreamHost("::1", None, 5433)), "x")
        self.assertEqual(self.find(r"*:*:a\:b:c\\d:p\:a\\s\s", HOST, "a:b", "c\\d"), "p:a\\ss")
        # A colon that has to be there needs none, as with libpq.
        self.assertEqual(self.find("::1:*:*:*:x", UpstreamHost("", "::1", 5433)), "x")
        self.assertIsNone(self.find("::1:*:*:*:x", UpstreamHost("::2", None, 5433)))
        self.assertEqual(self.find("*:*:*:*:end\\"), "end\\")

    def test_password_ends_at_a_colon(self) -> None:
        """What follows a colon that is not escaped no longer belongs to the password."""
        self.assertEqual(self.find("*:*:*:*:pass:word"), "pass")

    def test_lines_without_a_password(self) -> None:
        """Comments, empty lines and lines with too few fields do not count."""
        self.assertEqual(self.find("#*:*:*:*:a\n\n*:*:*:*\nnonsense\n*:*:*:*:b\n"), "b")

    def test_line_ends(self) -> None:
        """Lines may end as on Windows; blanks belong to the password."""
        self.assertEqual(self.find("*:*:*:*: a \r\n"), " a ")

    def test_bytes_that_are_no_text(self) -> None:
        """A file that is not UTF-8 is read, and lines that have nothing to do with it work."""
        self.assertEqual(self.find(b"\xff:*:*:*:a\n*:*:*:*:b\n"), "b")

    def test_sockets(self) -> None:
        """The default socket directories go by "localhost", others by their path."""
        for directory in DEFAULT_SOCKET_DIRECTORIES:
            host = UpstreamHost(directory, None, 5433)
            self.assertEqual(self.find("localhost:*:*:*:x", host), "x")
        other = UpstreamHost("/run/other", None, 5433)
        self.assertIsNone(self.find("localhost:*:*:*:x", other))
        self.assertEqual(self.find("/run/other:*:*:*:x", other), "x")

    def test_address(self) -> None:
        """A host goes by its name if it has one, else by its address."""
        lines = "10.0.0.1:*:*:*:by address\ndb1:*:*:*:by name\n"
        self.assertEqual(self.find(lines, UpstreamHost("db1", "10.0.0.1")), "by name")
        self.assertEqual(self.find(lines, UpstreamHost("", "10.0.0.1")), "by address")

    def test_file_that_others_may_read(self) -> None:
        """A file that is not its owner's alone is ignored with a warning that names the remedy."""
        for mode in (0o640, 0o604, 0o620):
            self.assertEqual(self.find("*:*:*:*:x"), "x")
            log = capture_log(self)
            self.path.chmod(mode)
            self.assertIsNone(find_password(self.path, HOST, "replication", "me"))
            (said,) = log
            self.assertIn(repr(str(self.path)), said)
            self.assertIn("0600", said)
            self.assertNotIn(":x", said)

    def test_no_file(self) -> None:
        """A file that is not there is no news."""
        log = capture_log(self)
        for path in (self.path, self.path / "below", Path("/dev/null/x")):
            self.assertIsNone(find_password(path, HOST, "replication", "me"))
        self.assertEqual(log, [])

    def test_not_a_plain_file(self) -> None:
        """What is no plain file is ignored with a warning."""
        self.path.mkdir()
        log = capture_log(self)
        self.assertIsNone(find_password(self.path, HOST, "replication", "me"))
        self.assertIn("not a plain file", log[0])
