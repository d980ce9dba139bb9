r"""Regular expressions about names, as ``pg_hba.conf`` and ``pg_ident.conf`` have them.

They are PostgreSQL's (documentation, "Regular Expression Details"), and Python's engine is to take
them for the same: it would read a character class such as ``[[:alpha:]]`` as something else, and
let ``$`` stand before a newline as well, so that a rule misses whom it means. What the two have in
common is used, what can be said in Python's words is, and what cannot be is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from walstream.errors import FormatError

__all__ = ["name_pattern"]

# By the C collation, which PostgreSQL has for these files.
_CLASSES: Final[Mapping[str, str]] = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t-\r",
    "upper": "A-Z",
    "word": "a-zA-Z0-9_",
    "xdigit": "0-9a-fA-F",
}
# Letters that mean the same to both behind a backslash, and those that do outside of brackets. The
# two differ in what \1 is where its parentheses have found nothing.
_LETTERS: Final = "dswDSWtnrfv"
_ANCHORS: Final = "AZ"

_ESCAPE: Final = r"\\(?P<escaped>.)"
_PIECE: Final = re.compile(
    rf"{_ESCAPE}"
    r"|(?P<bracket>\[\^?+\]?+(?:\[(?P<mark>[:.=]).*?(?P=mark)\]|\\.|(?!\[[:.=])[^\]\\])*\])"
    r"|(?P<open>\[)"
    r"|(?P<end>\$)"
    r"|(?P<brace>\{)(?![0-9])"
    r"|(?P<group>\(\?(?!:|=|!|<=|<!).?)",
    re.DOTALL,
)
_MEMBER: Final = re.compile(
    rf"{_ESCAPE}|\[(?P<kind>[:.=])(?P<named>.*?)(?P=kind)\]|(?P<plain>[\[&|~])|(?P<dashes>--)",
    re.DOTALL,
)
_WITHOUT_CASE: Final = "(?i)"


@lru_cache(maxsize=1000)
def name_pattern(text: str) -> re.Pattern[str]:
    """The expression, to be searched for in a name.

    :raises FormatError: if it is none, or one that PostgreSQL would take for another.
    """
    try:
        rest = text.removeprefix(_WITHOUT_CASE)
        flags = re.ASCII | re.DOTALL | (re.IGNORECASE if rest != text else re.NOFLAG)
        return re.compile(_PIECE.sub(_in_python, rest), flags)
    except (re.error, OverflowError, RecursionError, FormatError) as error:
        raise FormatError(f'invalid regular expression "{text}": {error}') from None


def _in_python(piece: re.Match[str]) -> str:
    if piece["escaped"]:
        return _escape(piece["escaped"], _LETTERS + _ANCHORS)
    if piece["bracket"]:
        opened = re.match(r"\[\^?\]?", piece[0])
        assert opened is not None, "a bracket begins so"
        return opened[0] + _MEMBER.sub(_member, piece[0][opened.end() : -1]) + "]"
    if piece["open"]:
        raise FormatError("brackets [] not balanced")
    if piece["group"]:
        raise _other(piece["group"])
    return r"\Z" if piece["end"] else r"\{"


def _member(member: re.Match[str]) -> str:
    """A part of what is in brackets."""
    if member["escaped"]:
        return _escape(member["escaped"], _LETTERS)
    if member["kind"]:
        found = _CLASSES.get(member["named"]) if member["kind"] == ":" else None
        if found is None:
            raise _other(member[0])
        return found
    if member["dashes"]:
        raise _other("-- in brackets")
    return f"\\{member['plain']}"


def _escape(character: str, known: str) -> str:
    if character.isalnum() and character not in known:
        raise _other(f"\\{character}")
    return f"\\{character}"


def _other(what: str) -> FormatError:
    return FormatError(f"{what} is not offered by walstream")
