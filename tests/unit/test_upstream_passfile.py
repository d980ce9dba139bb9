"""The password file, by the rules of libpq's documentation ("The Password File")."""

from __future__ import annotations

from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from walstream.upstream import UpstreamHost
from walstream.upstream.passfile import find_password


class PasswordFileTests(SynchronousTestCase):
    """`find_password`."""

    def setUp(self) -> None:
        """No file yet."""
        self.path = Path(self.mktemp())

    def find(
        self,
        text: str,
        host: UpstreamHost | None = None,
        database: str = "replication",
        user: str = "rep",
    ) -> str | None:
        """The password that a file of *text* has."""
        self.path.write_bytes(text.encode())
        self.path.chmod(0o600)
        return find_password(self.path, host or UpstreamHost("db1"), database, user)

    def test_all_four_fields_must_fit(self) -> None:
        """The first line that does counts."""
        text = (
            "db2:5432:replication:rep:host\n"
            "db1:5433:replication:rep:port\n"
            "db1:5432:other:rep:database\n"
            "db1:5432:replication:other:user\n"
            "db1:5432:replication:rep:right\n"
            "db1:5432:replication:rep:late\n"
        )
        self.assertEqual(self.find(text), "right")

    def test_star_fits_everything(self) -> None:
        """In each of the four fields; as a part of one it is a character like others."""
        self.assertEqual(self.find("*:*:*:*:any"), "any")
        self.assertIsNone(self.find("db*:*:*:*:any"))
        self.assertIsNone(self.find("\\*:*:*:*:any"))

    def test_escapes(self) -> None:
        """A backslash protects colons and backslashes, in a password too; the last is itself."""
        self.assertEqual(self.find("*:*:*:r\\:e\\\\p:a\\:b\\\\c\\", user="r:e\\p"), "a:b\\c\\")

    def test_colon_ends_the_password(self) -> None:
        """What comes behind it is ignored."""
        self.assertEqual(self.find("*:*:*:*:one:two"), "one")

    def test_comments_and_short_lines(self) -> None:
        """Neither is an entry."""
        self.assertEqual(self.find("#*:*:*:*:no\n*:*:*:rep\n\n*:*:*:*:yes\n"), "yes")

    def test_line_ends(self) -> None:
        """A carriage return belongs to the line's end; other separators belong to passwords."""
        self.assertEqual(self.find("*:*:*:*:a\u2028b\r\n"), "a\u2028b")

    def test_empty_password(self) -> None:
        """An entry may say that there is none."""
        self.assertEqual(self.find("*:*:*:*:\n"), "")

    def test_local_sockets_are_localhost(self) -> None:
        """In the usual directories; another one is looked up by its path."""
        text = "localhost:*:*:*:local\n/srv/pg:*:*:*:srv\n"
        for directory in ("/tmp", "/var/run/postgresql"):
            self.assertEqual(self.find(text, UpstreamHost(directory)), "local")
        self.assertEqual(self.find(text, UpstreamHost("/srv/pg")), "srv")

    def test_name_counts_before_address(self) -> None:
        """The address is looked up only where there is no name."""
        text = "db1:*:*:*:name\n10.0.0.1:*:*:*:address\n"
        self.assertEqual(self.find(text, UpstreamHost("db1", "10.0.0.1")), "name")
        self.assertEqual(self.find(text, UpstreamHost("", "10.0.0.1")), "address")

    def test_file_that_others_may_read_is_ignored(self) -> None:
        """With a warning that says how it should be."""
        self.find("*:*:*:*:any")
        for mode in (0o640, 0o604, 0o620, 0o601):
            self.path.chmod(mode)
            with capturedLogs() as events:
                self.assertIsNone(find_password(self.path, UpstreamHost("db1"), "x", "y"))
            self.assertIn("u=rw (0600)", events[0]["log_format"])

    def test_what_is_no_plain_file_is_ignored(self) -> None:
        """With a warning, too."""
        self.path.mkdir(0o700)
        with capturedLogs() as events:
            self.assertIsNone(find_password(self.path, UpstreamHost("db1"), "x", "y"))
        self.assertIn("not a plain file", events[0]["log_format"])

    def test_no_file_is_no_password(self) -> None:
        """Without a word."""
        with capturedLogs() as events:
            self.assertIsNone(find_password(self.path, UpstreamHost("db1"), "x", "y"))
        self.assertEqual(events, [])
