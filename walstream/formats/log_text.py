"""What strangers say of themselves, as the log has it: no break of a line, no forged field."""

from __future__ import annotations

import unicodedata
from typing import Final

__all__ = ["printable", "quoted", "shown", "word"]

# Characters of a text that a peer has people shown: its longest messages have some hundred.
_LONGEST_SHOWN: Final = 2_000
# Control and format characters, surrogates, what has no meaning, ends of lines and paragraphs.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str) -> str:
    """A text of which all can be seen, in one line: it may say something that would forge lines."""
    if text.isprintable():  # which no-break spaces aren't: they are left, too
        return text
    return "".join(map(_visible, text))


def shown(value: bytes) -> str:
    """What a peer says, for a log or a terminal, which it can neither flood nor forge lines of.

    Bytes that are not UTF-8 become U+FFFD.
    """
    head = value[: 4 * _LONGEST_SHOWN]
    said = head.decode("utf-8", "replace")
    rest = " …" if len(said) > _LONGEST_SHOWN or len(value) > len(head) else ""
    return printable(said[:_LONGEST_SHOWN]) + rest


def quoted(text: str) -> str:
    """A text in double quotes: it is one field, whatever it says."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(escaped)}"'


def word(text: str) -> str:
    """A text that is one field; in quotes if it could be taken for more than a word."""
    is_plain = text.isprintable() and not any(character in text for character in ' "\\')
    return text if is_plain else quoted(text)


def _visible(character: str) -> str:
    if unicodedata.category(character) in _INVISIBLE:
        return character.encode("unicode_escape").decode("ascii")
    return character
