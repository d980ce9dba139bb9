"""``synchronous_standby_names``: for which standbys a commit waits, and which names it means.

The syntax is that of PostgreSQL 9.6 and later (``syncrep_scanner.l``, ``syncrep_gram.y``), of which
the plain list of older versions is a part::

    a, b            FIRST 1 (a, b): the first of them that is there
    2 (a, b, c)     FIRST 2 (a, b, c)
    FIRST 2 (…)     by priority, in the order of the list
    ANY 2 (…)       by quorum, all alike
    *               any name

A name is an identifier, a number, or anything in double quotes. It means each standby whose
``application_name`` is the same but for the case of ASCII letters (``SyncRepGetStandbyPriority``);
``*`` means all, in quotes too. A server changes what is not ASCII in an ``application_name``, so
compare the name that the server reports.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from walstream.errors import FormatError

__all__ = ["NO_STANDBYS", "StandbyMethod", "SynchronousStandbyNames"]


class StandbyMethod(Enum):
    """How the standbys are chosen."""

    FIRST = "FIRST"
    """By priority: those that come first in the list, of those that are there."""

    ANY = "ANY"
    """By quorum: as many as are wanted, whichever are the fastest."""


@dataclass(frozen=True, slots=True)
class SynchronousStandbyNames:
    """A value of the setting. Falsy if no standby is waited for.

    :ivar method: how they are chosen.
    :ivar number: how many are waited for; 0 exactly if there are no names.
    :ivar names: the list, as it is written but for quotes.
    """

    method: StandbyMethod
    number: int
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if (self.number > 0) is not bool(self.names) or self.number < 0:
            raise ValueError(f"{self.number} standbys of {len(self.names)} names")

    @classmethod
    def parse(cls, text: str) -> SynchronousStandbyNames:
        """Read a value as SHOW gives it.

        :raises FormatError: for what a server does not accept.
        """
        if not text:
            return NO_STANDBYS
        method, number, names = _Parser(text).setting()
        if not 0 < number <= _LARGEST_NUMBER:
            raise FormatError(f"number of synchronous standbys ({number}) must be above zero")
        return cls(method, number, names)

    def __str__(self) -> str:
        """A text that `parse` and every server from 10 on read as the same value."""
        if not self:
            return ""
        return f"{self.method.value} {self.number} ({', '.join(map(_quoted, self.names))})"

    def __bool__(self) -> bool:
        return bool(self.names)

    def position(self, application_name: str) -> int | None:
        """The place in the list, from 1 on, of the first name that means this standby, or None."""
        folded = _fold(application_name)
        for place, name in enumerate(self.names, 1):
            if name == _ALL or _fold(name) == folded:
                return place
        return None

    def priority(self, application_name: str) -> int:
        """A standby's ``sync_priority`` in ``pg_stat_replication``; 0: no commit waits for it.

        A server that is itself a standby gives 0 to all of its own.
        """
        place = self.position(application_name)
        if place is None:
            return 0
        return place if self.method is StandbyMethod.FIRST else 1


NO_STANDBYS = SynchronousStandbyNames(StandbyMethod.FIRST, 0, ())
"""The empty setting, the default: no commit waits for a standby."""

_ALL = "*"
_LARGEST_NUMBER = 2**31 - 1
_LONGEST_NUMBER = 11

_TO_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

# A byte of 128 and more may stand in an identifier; all characters beyond ASCII consist of such.
_TOKEN = re.compile(
    r"""
    (?P<space> [ \t\n\r\f\v]+ )
    | " (?P<quoted> (?: [^"] | "" )* ) "
    | (?P<identifier> [A-Za-z_\u0080-\U0010ffff] [A-Za-z0-9_$\u0080-\U0010ffff]* )
    | (?P<number> [0-9]+ )
    | (?P<sign> [*,()] )
    """,
    re.VERBOSE,
)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*|[0-9]+", re.ASCII)
_KEYWORDS = {method.value for method in StandbyMethod}


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # name, number, keyword, "," "(" ")", or "end"
    text: str


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))[::-1]

    def setting(self) -> tuple[StandbyMethod, int, tuple[str, ...]]:
        """The whole of it."""
        method, number = StandbyMethod.FIRST, 1
        has_number = False
        if self._next.kind == "keyword":
            method = StandbyMethod(self._take("keyword").text.upper())
            has_number = True
        elif self._next.kind == "number" and self._tokens[-2].kind == "(":
            has_number = True
        if has_number:
            # One that is longer than any that is allowed need not be read.
            number = int(self._take("number").text.lstrip("0")[:_LONGEST_NUMBER] or "0")
            self._take("(")
        names = [self._name()]
        while self._next.kind == ",":
            self._take(",")
            names.append(self._name())
        if has_number:
            self._take(")")
        self._take("end")
        return method, number, tuple(names)

    @property
    def _next(self) -> _Token:
        return self._tokens[-1]

    def _name(self) -> str:
        return self._take("number" if self._next.kind == "number" else "name").text

    def _take(self, kind: str) -> _Token:
        token = self._tokens[-1]
        if token.kind != kind:
            near = "the end" if token.kind == "end" else repr(token.text)
            raise FormatError(f"synchronous_standby_names: error at {near} of {self._text!r}")
        return self._tokens.pop()


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise FormatError(f"synchronous_standby_names: error at {text[place:]!r} of {text!r}")
        place = match.end()
        yield from _meaning(match)
    yield _Token("end", "")


def _meaning(match: re.Match[str]) -> Iterator[_Token]:
    kind, found = match.lastgroup, match[match.lastgroup or 0]
    if kind == "quoted":
        yield _Token("name", found.replace('""', '"'))
    elif kind == "identifier":
        yield _Token("keyword" if found.upper() in _KEYWORDS else "name", found)
    elif kind == "number":
        yield _Token("number", found)
    elif kind == "sign":
        yield _Token("name" if found == _ALL else found, found)


def _quoted(name: str) -> str:
    if name == _ALL or (_PLAIN.fullmatch(name) and name.upper() not in _KEYWORDS):
        return name
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def _fold(name: str) -> str:
    return name.translate(_TO_LOWER)
