"""libpq's password file: which password belongs to a host, port, database and user.

(PostgreSQL documentation, "The Password File"; ``passwordFromFile`` in libpq.) The libraries for
it neither take the escapes in a password nor the rule for UNIX sockets as libpq does, and know
no other file than one.
"""

from __future__ import annotations

from pathlib import Path

from twisted.logger import Logger

from walstream.errors import FormatError
from walstream.upstream.hosts import DEFAULT_SOCKET_DIRECTORIES, UpstreamHost
from walstream.upstream.private_file import read_private

__all__ = ["find_password"]

_log = Logger()


def find_password(
    path: Path, host: UpstreamHost, database: str, user: str, credentials: Path | None = None
) -> str | None:
    """The password of the first line of *path* that fits; None if none does.

    A file that others may read is ignored with a warning, and one that isn't there silently:
    both as libpq does.

    :param credentials: a directory whose files are private whatever their permissions.
    """
    name = host.name or host.address or ""
    if name in DEFAULT_SOCKET_DIRECTORIES:
        name = "localhost"
    for line in _lines(path, credentials):
        rest: str | None = None if line.startswith("#") else line
        for wanted in (name, str(host.port), database, user):
            rest = None if rest is None else _behind(rest, wanted)
        if rest is not None:
            return _password(rest)
    return None


def _lines(path: Path, credentials: Path | None) -> list[str]:
    try:
        text = read_private(path, credentials).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, FormatError) as error:
        _log.warn("password file is ignored: {error}", error=str(error))
        return []
    return [line.rstrip("\r") for line in text.split("\n")]


def _behind(line: str, wanted: str) -> str | None:
    """What follows the field that *line* begins with; None if that is not *wanted*, nor a star.

    A colon of *wanted* need not be escaped there, as an IPv6 address has them
    (``pwdfMatchesString``).
    """
    if line.startswith("*:"):
        return line[2:]
    at = 0
    for character in wanted:
        if line.startswith("\\", at):
            at += 1
        if not line.startswith(character, at):
            return None
        at += 1
    return line[at + 1 :] if line.startswith(":", at) else None


def _password(field: str) -> str:
    """The field that *field* begins with, without the backslashes that protect what follows them.

    A last one is itself.
    """
    text, characters = "", iter(field)
    for character in characters:
        if character == ":":
            break
        text += next(characters, "\\") if character == "\\" else character
    return text
