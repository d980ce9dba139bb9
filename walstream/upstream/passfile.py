"""libpq's password file: which password belongs to a host, port, database and user.

(PostgreSQL documentation, "The Password File"; ``passwordFromFile`` in libpq.) The libraries for
it neither take the escapes in a password nor the rule for UNIX sockets as libpq does, and know
no other file than one.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    wanted = (name, str(host.port), database, user)
    for line in _lines(path, credentials):
        if line.startswith("#"):
            continue
        fields = list(_fields(line))
        if len(fields) >= 5 and all(map(_fits, fields, wanted)):
            return _unescaped(fields[4])
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


def _fields(line: str) -> Iterator[str]:
    """The parts between unescaped colons, escapes and all."""
    start = at = 0
    while at < len(line):
        if line[at] == "\\":
            at += 1
        elif line[at] == ":":
            yield line[start:at]
            start = at + 1
        at += 1
    yield line[start:]


def _fits(field: str, wanted: str) -> bool:
    return field == "*" or _unescaped(field) == wanted


def _unescaped(field: str) -> str:
    """Without the backslashes that protect the character behind them; a last one is itself."""
    text, characters = "", iter(field)
    for character in characters:
        text += next(characters, "\\") if character == "\\" else character
    return text
