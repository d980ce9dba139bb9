"""Files with secrets in them: read only if nobody else may."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from walstream.errors import FormatError

__all__ = ["credentials_directory", "read_private", "read_secret"]

# A password file has a line for each server, a file with a secret just the one.
_LONGEST = 1 << 20


def credentials_directory(text: str | None) -> Path | None:
    """What ``$CREDENTIALS_DIRECTORY`` names: where systemd puts the secrets of a service."""
    return Path(text) if text else None


def read_private(path: Path, credentials: Path | None = None) -> bytes:
    """What is in a file that is its owner's alone.

    :param credentials: see `credentials_directory`. What is there is guarded by systemd, with
        means that a file's permission bits don't show (systemd.exec(5), "Credentials").
    :raises FormatError: if others have access to it, or it is no plain file, or far too long.
    :raises OSError: if it can't be read.
    """
    with open(_open(path, credentials), "rb") as file:
        content = file.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise FormatError(f"{str(path)!r} is longer than {_LONGEST} bytes")
    return content


def _open(path: Path, credentials: Path | None) -> int:
    # Opened first: what is looked at is what is read. A FIFO must not make us wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FormatError(f"{str(path)!r} is not a plain file")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) and path.parent != credentials:
            raise FormatError(
                f"{str(path)!r} has group or world access; "
                "permissions should be u=rw (0600) or less"
            )
    except FormatError:
        os.close(descriptor)
        raise
    return descriptor


def read_secret(path: Path, credentials: Path | None = None) -> str:
    """The first line of a file that is its owner's alone.

    :raises FormatError: as `read_private`; and if there is nothing in it, or it cannot be read.
    """
    try:
        content = read_private(path, credentials)
    except OSError as error:
        raise FormatError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    secret = content.split(b"\n")[0].rstrip(b"\r").decode("utf-8", "surrogateescape")
    if not secret:
        raise FormatError(f"there is nothing in the first line of {str(path)!r}")
    return secret
