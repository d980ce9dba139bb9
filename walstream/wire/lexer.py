"""The words of the replication commands: a command's text cut into tokens.

Knows what PostgreSQL's ``repl_scanner.l`` (15 to 18) knows: blanks, keywords in upper case only,
identifiers, strings, numbers and positions. There are no comments. How tokens make up a command
is `walstream.wire.grammar`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final, NamedTuple

from walstream.errors import CommandError
from walstream.formats.lsn import LSN

__all__ = ["KEYWORDS", "Kind", "Token", "syntax_error", "tokens"]

KEYWORDS: Final = frozenset(
    {
        "ALTER_REPLICATION_SLOT",
        "BASE_BACKUP",
        "CREATE_REPLICATION_SLOT",
        "DROP_REPLICATION_SLOT",
        "EXPORT_SNAPSHOT",
        "IDENTIFY_SYSTEM",
        "LOGICAL",
        "NOEXPORT_SNAPSHOT",
        "PHYSICAL",
        "READ_REPLICATION_SLOT",
        "RESERVE_WAL",
        "SHOW",
        "SLOT",
        "START_REPLICATION",
        "TEMPORARY",
        "TIMELINE",
        "TIMELINE_HISTORY",
        "TWO_PHASE",
        "UPLOAD_MANIFEST",
        "USE_SNAPSHOT",
        "WAIT",
    }
)


class Kind(Enum):
    """What a token is."""

    KEYWORD = auto()
    IDENTIFIER = auto()
    STRING = auto()
    NUMBER = auto()
    POSITION = auto()
    SYMBOL = auto()
    END = auto()


class Token(NamedTuple):
    """A token, and what it stands for: an `LSN`, a number, or a text without its quotes."""

    kind: Kind
    value: str | int


# In this order the first that matches is also the longest, as flex wants it. The possessive
# quantifiers keep a hostile text from being read more than once.
_TOKEN: Final = re.compile(
    rb"""[ \t\n\r\f\v]*+
    (?: (?P<position> [0-9A-Fa-f]+ / [0-9A-Fa-f]+ )
      | (?P<number> [0-9]++ )
      | (?P<word> [A-Za-z\x80-\xff_] [A-Za-z\x80-\xff_0-9$]*+ )
      | ' (?P<string> (?: [^']++ | '' )*+ ) '
      | " (?P<quoted> (?: [^"]++ | "" )*+ ) "
      | (?P<symbol> . )
      | (?P<end> \Z )
    )""",
    re.VERBOSE | re.DOTALL,
)

# NAMEDATALEN - 1
_LONGEST_IDENTIFIER: Final = 63
_UINT32: Final = 0xFFFFFFFF
_LONGEST_UINT32: Final = 10


def tokens(text: bytes) -> Iterator[Token]:
    """The tokens of *text*, one by one, the last being that of kind END.

    Bytes that are not UTF-8 become lone surrogates (``surrogateescape``).

    :raises CommandError: 42601 for a quotation that does not end, and for a number or a position
        that does not fit into its 32 or 64 bits.
    """
    offset = 0
    kind = None
    while kind is not Kind.END:
        match = _TOKEN.match(text, offset)
        assert match is not None, "the last two alternatives match whatever is left"
        token = _token(match.lastgroup or "", match[match.lastgroup or 0])
        kind = token.kind
        offset = match.end()
        yield token


def _token(group: str, value: bytes) -> Token:
    match group:
        case "word":
            return _word(value)
        case "quoted":
            return Token(Kind.IDENTIFIER, _text(value.replace(b'""', b'"')[:_LONGEST_IDENTIFIER]))
        case "string":
            return Token(Kind.STRING, _text(value.replace(b"''", b"'")))
        case "number":
            return Token(Kind.NUMBER, _number(value))
        case "position":
            return Token(Kind.POSITION, _position(value))
        case "end":
            return Token(Kind.END, "")
    return _symbol(value)


def _word(value: bytes) -> Token:
    word = _text(value)
    if word in KEYWORDS:
        return Token(Kind.KEYWORD, word)
    return Token(Kind.IDENTIFIER, _text(value.lower()[:_LONGEST_IDENTIFIER]))


def _symbol(value: bytes) -> Token:
    if value in (b"'", b'"'):
        raise CommandError("42601", "unterminated quoted string")
    return Token(Kind.SYMBOL, _text(value))


def _number(value: bytes) -> int:
    # PostgreSQL cuts what does not fit to its lower 32 bits, silently.
    digits = value.lstrip(b"0") or b"0"
    if len(digits) > _LONGEST_UINT32 or int(digits) > _UINT32:
        raise syntax_error()
    return int(digits)


def _position(value: bytes) -> LSN:
    high, low = (int(half, 16) for half in value.split(b"/"))
    if high > _UINT32 or low > _UINT32:
        raise CommandError("42601", "invalid streaming start location")
    return LSN(high << 32 | low)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def syntax_error() -> CommandError:
    """What PostgreSQL's parser says about anything that it cannot read."""
    return CommandError("42601", "syntax error")
