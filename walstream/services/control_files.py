"""Control sockets as files: how they are made, found, asked and removed.

A socket's address holds 107 bytes, an archive's path may have more. So sockets are reached through
a descriptor of their directory, which ``/proc`` has a short name for. Where there is no ``/proc``
a long path is an error.

Everything here waits for a disk or for another process: it belongs into a lane, or into a tool.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from walstream.archive.filesystem import FileIdentity
from walstream.archive.process_names import process_of

__all__ = ["VERSION", "SocketFile", "ask", "remove_stale", "socket_names"]

#: The version of the form of what a control socket says.
VERSION: Final = 1

_BACKLOG: Final = 16
# An answer of a thousand clients has a megabyte; no process has a hundred thousand.
_LONGEST_ANSWER: Final = 256 << 20


def socket_names(directory: str) -> list[str]:
    """The names of the sockets in a directory, which need not be there; some may be stale."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if process_of(name) is not None)


def remove_stale(directory: str) -> None:
    """Remove the sockets of processes that have ended: nobody takes connections there.

    :raises OSError: if that fails.
    """
    for name in socket_names(directory):
        path = os.path.join(directory, name)
        if _is_stale(path):
            with suppress(FileNotFoundError):
                os.unlink(path)


@dataclass(frozen=True, slots=True)
class SocketFile:
    """A socket that listens, and the file by which others find it.

    :ivar listener: it does not block.
    """

    path: str
    listener: socket.socket
    identity: FileIdentity

    @classmethod
    def make(cls, path: str) -> SocketFile:
        """Make the file, for its owner only. A stale socket at *path* is replaced.

        :raises OSError: if that cannot be; EADDRINUSE if there is any other file.
        """
        if _is_stale(path):
            with suppress(FileNotFoundError):
                os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            with _address(path) as address:
                listener.bind(address)
            os.chmod(path, 0o600)
            # Only now can anybody connect.
            listener.listen(_BACKLOG)
            return cls(path, listener, _identity(os.lstat(path)))
        except OSError:
            listener.close()
            raise

    def is_there(self) -> bool:
        """Whether the path still leads to it.

        :raises OSError: if it cannot be told.
        """
        try:
            return _identity(os.lstat(self.path)) == self.identity
        except (FileNotFoundError, NotADirectoryError):
            return False

    def remove(self) -> None:
        """Remove the file, if it can be found. The listener is closed by whoever uses it."""
        with suppress(OSError):
            if self.is_there():
                os.unlink(self.path)


def ask(path: str, timeout: float) -> bytes | None:
    """All that a socket says; None if it is stale or gone.

    :param timeout: seconds for all of it.
    :raises OSError: if it does not answer in time, or may not be asked.
    """
    deadline = time.monotonic() + timeout
    pieces: list[bytes] = []
    length = 0
    try:
        with _connect(path, timeout) as connection:
            while True:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                piece = connection.recv(1 << 18)
                length += len(piece)
                if length > _LONGEST_ANSWER:
                    raise OSError(errno.EFBIG, "it says too much", path)
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
    except (ConnectionRefusedError, FileNotFoundError):
        return None
    except TimeoutError as error:
        raise OSError(errno.ETIMEDOUT, f"no answer within {timeout:g} s", path) from error
    except OSError as error:
        error.filename = path
        raise


def _is_stale(path: str) -> bool:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        _connect(path, 0.0).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        pass  # gone, another's, or so busy that it is alive
    return False


def _connect(path: str, timeout: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with _address(path) as address:
            connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


@contextmanager
def _address(path: str) -> Iterator[str]:
    """An address that stands for *path* while the context lasts."""
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{fd}"
        yield f"{short}/{name}" if os.path.isdir(short) else path
    finally:
        os.close(fd)


def _identity(status: os.stat_result) -> FileIdentity:
    return status.st_dev, status.st_ino
