"""What strangers say of themselves, as the log has it: no break of a line, no forged field."""

from __future__ import annotations

__all__ = ["printable", "quoted", "word"]


def printable(text: str) -> str:
    """A text that ends a line of the log: it may say something that would forge lines of it."""
    return text if text.isprintable() else ascii(text)


def quoted(text: str) -> str:
    """A text in double quotes: it is one field, whatever it says."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(map(_visible, escaped)) + '"'


def word(text: str) -> str:
    """A text that is one field; in quotes if it could be taken for more than a word."""
    is_plain = text.isprintable() and not any(character in text for character in ' "\\')
    return text if is_plain else quoted(text)


def _visible(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
