"""Tests for walstream.archive.recent: received WAL that is not durable yet."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from walstream.archive.recent import RecentWAL


class RecentTests(SynchronousTestCase):
    """A run of pieces."""

    def setUp(self) -> None:
        self.recent = RecentWAL(most=100)

    def take(self, start: int, data: bytes) -> None:
        """A piece is received, into a buffer that is used again."""
        buffer = bytearray(data)
        self.recent.append(start, memoryview(buffer))
        buffer[:] = bytes(len(buffer))

    def all(self, position: int) -> bytes:
        """What can be read from there on, to the end."""
        found = b""
        while view := self.recent.view(position + len(found)):
            found += view
        return found

    def test_pieces(self) -> None:
        """They are read as they came, from anywhere."""
        self.assertEqual((self.recent.end, self.all(5), self.recent.reach(5)), (0, b"", 5))
        self.take(10, b"abc")
        self.take(13, b"de")
        self.assertEqual(
            [self.all(at) for at in (9, 10, 12, 13, 14, 15)],
            [
                b"",
                b"abcde",
                b"cde",
                b"de",
                b"e",
                b"",
            ],
        )
        self.assertEqual(self.recent.end, 15)

    def test_what_comes_again(self) -> None:
        """Of it only what is new is kept; what leaves a hole is not. (L16)"""
        self.take(10, b"abc")
        self.take(8, b"..ab")
        self.take(8, b"..abcde")
        self.take(16, b"x")
        self.assertEqual((self.all(10), self.recent.end), (b"abcde", 15))

    def test_durable(self) -> None:
        """What is durable goes; views of it stay."""
        for start, data in ((10, b"abc"), (13, b"def"), (16, b"ghi")):
            self.take(start, data)
        view = self.recent.view(10)
        self.recent.forget_before(14)
        self.assertEqual((bytes(view), self.all(10), self.all(13)), (b"abc", b"", b"defghi"))
        self.recent.forget_before(19)
        self.assertEqual((self.recent.end, self.all(16)), (0, b""))
        self.take(30, b"xyz")
        self.assertEqual(self.all(30), b"xyz")

    def test_reach(self) -> None:
        """Followers can be given what continues what is durable, without a hole."""
        self.take(10, b"abc")
        reach = self.recent.reach
        self.assertEqual([reach(at) for at in (9, 10, 12, 13, 20)], [9, 13, 13, 13, 20])

    def test_bound(self) -> None:
        """What does not fit is left out, with all that follows, until the rest is durable."""
        self.take(0, bytes(60))
        self.take(60, bytes(50))
        self.take(110, bytes(1))
        self.assertEqual((self.recent.end, self.recent.reach(0)), (60, 60))
        self.recent.forget_before(60)
        self.take(111, b"x")
        self.assertEqual((self.recent.reach(60), self.recent.reach(111)), (60, 112))
