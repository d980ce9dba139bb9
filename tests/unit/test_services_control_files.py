"""Tests for walstream.services.control_files: control sockets as files.

They are real ones: connecting to a UNIX socket that listens takes no time, whoever accepts.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from threading import Thread

from twisted.trial.unittest import SynchronousTestCase

from walstream.archive.process_names import new_name
from walstream.services.control_files import (
    SocketFile,
    ask,
    remove_stale,
    socket_names,
)


class Process:
    """Answers at a socket file, in a thread, as often as it is asked to."""

    def __init__(self, file: SocketFile, *answers: bytes) -> None:
        self._listener = file.listener
        self._listener.setblocking(True)
        self._thread = Thread(target=self._run, args=(answers,), daemon=True)
        self._thread.start()

    def _run(self, answers: tuple[bytes, ...]) -> None:
        for answer in answers:
            connection, _ = self._listener.accept()
            with connection:
                connection.sendall(answer)

    def join(self) -> None:
        """Wait until all is said."""
        self._thread.join(5)
        assert not self._thread.is_alive()


class SocketFileTests(SynchronousTestCase):
    """Sockets in a directory."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = str(self.directory / new_name())

    def make(self, path: str | None = None) -> SocketFile:
        """A socket, closed with the test."""
        file = SocketFile.make(path or self.path)
        self.addCleanup(file.listener.close)
        return file

    def test_ask(self) -> None:
        """What a process says comes whole, however long it is."""
        process = Process(self.make(), b"x" * 1_000_000, b"")
        self.assertEqual(ask(self.path, 5), b"x" * 1_000_000)
        self.assertEqual(ask(self.path, 5), b"")
        process.join()

    def test_it_is_its_owner_s(self) -> None:
        """Nobody else can connect."""
        self.make()
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)

    def test_a_path_of_any_length(self) -> None:
        """Longer than a socket's address."""
        deep = self.directory / ("d" * 100) / ("e" * 100)
        deep.mkdir(parents=True)
        path = str(deep / new_name())
        process = Process(self.make(path), b"here")
        self.assertEqual(ask(path, 5), b"here")
        process.join()

    def test_stale(self) -> None:
        """What a dead process left is no answer, and is replaced."""
        self.make().listener.close()
        self.assertIsNone(ask(self.path, 5))
        self.assertTrue(self.make().is_there())

    def test_what_is_no_socket(self) -> None:
        """Another file is left alone; so is a socket that somebody listens on."""
        Path(self.path).write_text("precious")
        failure = self.assertRaises(OSError, SocketFile.make, self.path)
        self.assertEqual(failure.errno, errno.EADDRINUSE)
        self.assertEqual(Path(self.path).read_text(), "precious")
        other = self.make(self.path + "2")
        self.assertRaises(OSError, SocketFile.make, other.path)
        self.assertTrue(other.is_there())

    def test_no_directory(self) -> None:
        """There is nothing to be made, or asked."""
        path = str(self.directory / "none" / "socket")
        self.assertRaises(FileNotFoundError, SocketFile.make, path)
        self.assertIsNone(ask(path, 5))
        self.assertEqual(socket_names(str(self.directory / "none")), [])

    def test_who_does_not_answer(self) -> None:
        """A process that is stopped: its kernel connects, and nothing comes."""
        self.make()
        failure = self.assertRaises(OSError, ask, self.path, 0.05)
        self.assertEqual((failure.errno, failure.filename), (errno.ETIMEDOUT, self.path))

    def test_who_breaks_off(self) -> None:
        """An error has the path."""
        file = self.make()
        file.listener.setblocking(True)

        def reset() -> None:
            connection, _ = file.listener.accept()
            connection.sendall(b"part of")
            # What it has not read makes the kernel reset the connection.
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()

        thread = Thread(target=reset)
        thread.start()
        self.assertEqual(ask(self.path, 5), b"part of")
        thread.join(5)

    def test_remove(self) -> None:
        """It removes itself, and nothing that came in its place."""
        file = self.make()
        self.assertTrue(file.is_there())
        os.rename(file.path, file.path + "-away")
        self.assertFalse(file.is_there())
        Path(file.path).write_text("another")
        self.assertFalse(file.is_there())
        file.remove()
        self.assertTrue(Path(file.path).exists())
        os.rename(file.path + "-away", file.path)
        file.remove()
        file.remove()
        self.assertFalse(Path(file.path).exists())

    def test_stale_ones_are_removed(self) -> None:
        """Those of dead processes, and no other file."""
        alive = self.make()
        dead = self.make(str(self.directory / new_name()))
        dead.listener.close()
        (self.directory / "notes").write_text("")
        (self.directory / new_name()).write_text("")
        remove_stale(str(self.directory))
        self.assertTrue(alive.is_there())
        self.assertFalse(dead.is_there())
        self.assertEqual(len(list(self.directory.iterdir())), 3)

    def test_names(self) -> None:
        """Those that a process gives, in order."""
        names = ["12-0123456789abcdef", "7-0123456789abcdef"]
        for name in (*names, "12", "lock", "12-0123456789ABCDEF"):
            (self.directory / name).write_text("")
        self.assertEqual(socket_names(str(self.directory)), names)
