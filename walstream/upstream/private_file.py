"""Files with secrets in them: read only if nobody else may."""

from __future__ import annotations

from pathlib import Path

from walstream.errors import FormatError
from walstream.system.private_file import open_private

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
    is_credential = path.parent == credentials
    with open(open_private(path, repr(str(path)), has_other_guard=is_credential), "rb") as file:
        content = file.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise FormatError(f"{str(path)!r} is longer than {_LONGEST} bytes")
    return content


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
