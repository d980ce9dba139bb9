"""The file of roles: who may come in by a password, and how far each may go.

A line is a role, its verifier or ``-`` for none, and what limits it::

    # name      verifier                        limits
    standby1    SCRAM-SHA-256$4096:…$…:…
    "the copy"  SCRAM-SHA-256$4096:…$…:…        connections=2 timelines=3- from=0/3000000
    monitor     -

Words, quotes and comments are those of ``pg_hba.conf``. What is there by hand, comments too, stays
when a role is added or dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from walstream.errors import FormatError
from walstream.formats.auth_file import AuthLine, Files, read_auth_file
from walstream.formats.lsn import INVALID, LSN

__all__ = [
    "Limits",
    "Role",
    "parse_limits",
    "parse_roles",
    "role_line",
    "with_role",
    "without_role",
]

_NO_VERIFIER: Final = "-"
_LONGEST_NAME: Final = 63  # NAMEDATALEN - 1
# What is written needs no quotes.
_VERIFIER: Final = re.compile(r"[A-Za-z0-9$:+/=-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a role may go.

    :ivar connections: how many it may have at a time; None: as many as anybody.
    :ivar timelines: the first and the last timeline that it may stream; None for the last: any
        later one.
    :ivar start: the position before which nothing is streamed to it.
    """

    connections: int | None = None
    timelines: tuple[int, int | None] = (1, None)
    start: LSN = INVALID

    def allow_timeline(self, timeline: int) -> bool:
        """Whether it may stream that timeline."""
        first, last = self.timelines
        return first <= timeline and (last is None or timeline <= last)

    def __str__(self) -> str:
        """As they are written."""
        words = []
        if self.connections is not None:
            words.append(f"connections={self.connections}")
        first, last = self.timelines
        if last == first:
            words.append(f"timelines={first}")
        elif self.timelines != (1, None):
            words.append(f"timelines={first}-{last or ''}")
        if self.start:
            words.append(f"from={self.start}")
        return " ".join(words)


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class Role:
    """A role.

    :ivar verifier: what is kept of its password, as text; None: it has none, and comes in where a
        rule asks for none.
    """

    name: str
    verifier: str | None = field(default=None, repr=False)
    limits: Limits = NO_LIMITS


def parse_roles(text: str, path: str) -> Mapping[str, Role]:
    """Read the roles.

    :param path: what the file is called, for messages.
    :raises FormatError: for the first line that is wrong. It does not repeat what may be secret.
    """
    roles: dict[str, Role] = {}
    for line in _lines(text, path):
        role = _role(line)
        if role.name in roles:
            raise _wrong(line, f'role "{_shown(role.name)}" is there twice')
        roles[role.name] = role
    return roles


def with_role(text: str, role: Role, path: str) -> str:
    """The file with that role: in the place of the one of its name, or in the end."""
    new = role_line(role)
    lines = _physical(text)
    numbers = _numbers_of(text, role.name, path)
    if not numbers:
        lines.append(new)
    else:
        lines[numbers[0] - 1 : numbers[-1]] = [new]
    return "".join(f"{line}\n" for line in lines)


def without_role(text: str, name: str, path: str) -> str:
    """The file without that role.

    :raises FormatError: if it is not there.
    """
    numbers = _numbers_of(text, name, path)
    if not numbers:
        raise FormatError(f'role "{name}" does not exist')
    lines = _physical(text)
    del lines[numbers[0] - 1 : numbers[-1]]
    return "".join(f"{line}\n" for line in lines)


def role_line(role: Role) -> str:
    """The line of a role.

    :raises FormatError: if it cannot have that name, or that verifier.
    """
    name = role.name
    if not name or not name.isprintable() or len(name.encode()) > _LONGEST_NAME:
        raise FormatError(f"{name!r} cannot be the name of a role")
    if role.verifier is not None and not _VERIFIER.fullmatch(role.verifier):
        raise FormatError(f"what role {name!r} has is no verifier")
    quoted = '"' + name.replace('"', '""') + '"'
    if name.isascii() and name.replace("_", "").replace("-", "").isalnum():
        quoted = name
    return f"{quoted} {role.verifier or _NO_VERIFIER} {role.limits}".rstrip()


class _OneFile:
    """What `read_auth_file` reads from: the file that is at hand. Nothing is included.

    :ivar includes: whether it asks for another one.
    """

    def __init__(self, text: str, path: str) -> None:
        self.includes = False
        self._text = text
        self._path = path

    def read(self, path: str) -> str:
        if path == self._path:
            return self._text
        self.includes = True
        raise FileNotFoundError

    def names(self, path: str) -> Sequence[str]:
        self.includes = True
        raise FileNotFoundError


def _lines(text: str, path: str) -> Sequence[AuthLine]:
    file = _OneFile(text, path)
    files: Files = file
    try:
        lines = list(read_auth_file(path, files))
    except FormatError:
        if not file.includes:
            raise
        lines = []
    if file.includes:
        # Which one is not said: behind an @ there may be a verifier.
        raise FormatError(f'a file of roles does not include others: configuration file "{path}"')
    return lines


def _physical(text: str) -> list[str]:
    """The lines as `read_auth_file` counts them: only a newline ends one."""
    return text.removesuffix("\n").split("\n") if text else []


def _numbers_of(text: str, name: str, path: str) -> range:
    """The numbers of the lines that are the role's: several, if backslashes continue it."""
    physical = _physical(text)
    for line in _lines(text, path):
        if line.fields[0][0].text == name:
            last = line.number
            while last < len(physical) and physical[last - 1].endswith("\\"):
                last += 1
            return range(line.number, last + 1)
    return range(0)


def _role(line: AuthLine) -> Role:
    words = [tokens[0].text for tokens in line.fields if len(tokens) == 1]
    if len(words) != len(line.fields) or len(words) < 2:
        raise _wrong(line, "a role is a name, a verifier or -, and its limits")
    name, verifier, *words = words
    try:
        limits = parse_limits(words)
    except FormatError as error:
        raise _wrong(line, str(error)) from None
    return Role(name, None if verifier == _NO_VERIFIER else verifier, limits)


def parse_limits(words: Sequence[str]) -> Limits:
    """Read limits as they are written: ``connections=2``, say.

    :raises FormatError: for the first that is wrong.
    """
    connections: int | None = None
    timelines: tuple[int, int | None] = (1, None)
    start = INVALID
    for word in words:
        name, _, value = word.partition("=")
        match name:
            case "connections":
                connections = _number(value)
            case "timelines":
                first, dash, last = value.partition("-")
                begin = _number(first)
                timelines = (begin, begin if not dash else _number(last) if last else None)
            case "from":
                start = _position(value)
            case _:
                raise FormatError(
                    f'there is no limit "{_shown(name)}", but connections, timelines, from'
                )
    return Limits(connections, timelines, start)


def _position(text: str) -> LSN:
    try:
        return LSN.parse(text)
    except FormatError:
        raise FormatError(f'"{_shown(text)}" is no position, such as 16/B374D848') from None


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise FormatError(f'"{_shown(text)}" is no number')
    return int(text)


def _shown(word: str) -> str:
    # In a line that is wrong, the verifier may be anywhere.
    return "…" if "$" in word or len(word) > 20 else word


def _wrong(line: AuthLine, what: str) -> FormatError:
    # Not `AuthLine.wrong`, which shows the line, and with it the verifier.
    return FormatError(f"{what}: {line.place}")
