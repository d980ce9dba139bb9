"""Tests for walstream.upstream.private_file."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.upstream.private_file import credentials_directory, read_secret


class ReadSecretTests(SynchronousTestCase):
    """The first line of a file that nobody else may read."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("sesame\n")
        self.path.chmod(0o600)

    def refusal(self) -> str:
        error = str(self.assertRaises(FormatError, read_secret, self.path))
        self.assertNotIn("sesame", error)
        return error

    def test_first_line(self) -> None:
        """With whatever is in it but its end."""
        for content, secret in (
            (b"sesame", "sesame"),
            (b" a b \r\nmore", " a b "),
            ("Sésame\n".encode(), "Sésame"),
            (b"\xff\n", "\udcff"),
        ):
            self.path.write_bytes(content)
            self.assertEqual(read_secret(self.path), secret)

    def test_permissions(self) -> None:
        """Whoever else has any access makes it no secret."""
        for mode in (0o400, 0o600, 0o700):
            self.path.chmod(mode)
            self.assertEqual(read_secret(self.path), "sesame")
        for mode in (0o640, 0o604, 0o620, 0o601):
            self.path.chmod(mode)
            self.assertIn("permissions should be u=rw (0600) or less", self.refusal())

    def test_credentials(self) -> None:
        """Those of a directory of systemd's don't count; only of what is right there."""
        self.path.chmod(0o440)
        self.assertEqual(read_secret(self.path, self.path.parent), "sesame")
        self.assertRaises(FormatError, read_secret, self.path, self.path.parent.parent)
        self.assertEqual(credentials_directory("/run/c"), Path("/run/c"))
        self.assertIsNone(credentials_directory(""))
        self.assertIsNone(credentials_directory(None))

    def test_no_file(self) -> None:
        """Nothing there, nothing in it, no plain file, or no end of it."""
        self.path.write_text("\nsesame")
        self.assertIn("nothing in the first line", self.refusal())
        self.path.write_bytes(bytes((1 << 20) + 1))
        self.assertIn("longer than", self.refusal())
        self.path.unlink()
        self.assertIn("cannot be read: No such file", self.refusal())
        os.mkfifo(self.path, 0o600)
        self.assertIn("not a plain file", self.refusal())
        self.path.unlink()
        self.path.mkdir(0o700)
        self.assertIn("not a plain file", self.refusal())
