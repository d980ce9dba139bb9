"""Tests for walstream.system.private_file."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walstream.errors import FormatError
from walstream.system.private_file import open_private


def next_descriptor() -> int:
    """The lowest that is free."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


class OpenPrivateTests(SynchronousTestCase):
    """A file that nobody else may read."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.path.write_text("sesame")
        self.path.chmod(0o600)

    def read(self, *, has_other_guard: bool = False) -> bytes:
        descriptor = open_private(self.path, "the file", has_other_guard=has_other_guard)
        with open(descriptor, "rb") as file:
            self.assertFalse(os.get_inheritable(descriptor))
            return file.read()

    def refusal(self) -> str:
        """Why it is not opened; nothing stays open."""
        before = next_descriptor()
        error = self.assertRaises(FormatError, self.read)
        self.assertEqual(next_descriptor(), before)
        return str(error)

    def test_permissions(self) -> None:
        """Nobody else may have any access, unless that is guarded against by other means."""
        for mode in (0o400, 0o600, 0o700):
            self.path.chmod(mode)
            self.assertEqual(self.read(), b"sesame")
        for bit in range(6):
            self.path.chmod(0o600 | 1 << bit)
            self.assertEqual(
                self.refusal(),
                "the file has group or world access; permissions should be u=rw (0600) or less",
            )
            self.assertEqual(self.read(has_other_guard=True), b"sesame")

    def test_no_plain_file(self) -> None:
        """A directory, or a pipe to which nobody writes: that is not waited for."""
        self.path.unlink()
        self.assertRaises(FileNotFoundError, self.read)
        os.mkfifo(self.path, 0o600)
        self.assertEqual(self.refusal(), "the file is not a plain file")
        self.path.unlink()
        self.path.mkdir(0o700)
        self.assertEqual(self.refusal(), "the file is not a plain file")
