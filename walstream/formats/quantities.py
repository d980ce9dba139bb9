"""Amounts, of time and of space as PostgreSQL's settings have them: a number and a unit."""

from __future__ import annotations

import re

from walstream.errors import FormatError

__all__ = ["parse_count", "parse_duration", "parse_size"]

_QUANTITY = re.compile(r"([0-9]{1,12})\s?([A-Za-z]+)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
# As in PostgreSQL, of 1024 each (documentation, "Parameter Names and Values").
_BYTES = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


def parse_count(text: str) -> int:
    """A number of 1 or more, in decimal digits.

    :raises FormatError: for anything else.
    """
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise FormatError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def parse_duration(text: str) -> int:
    """Seconds, of a text such as ``30d`` or ``12h``.

    :raises FormatError: for anything else; a number without a unit too.
    """
    return _parse(text, _SECONDS, "a time such as 30d")


def parse_size(text: str) -> int:
    """Bytes, of a text such as ``500GB``.

    :raises FormatError: for anything else; a number without a unit too.
    """
    return _parse(text, _BYTES, "a size such as 500GB")


def _parse(text: str, units: dict[str, int], what: str) -> int:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        raise FormatError(f"{text!r} is not {what}: the units are {', '.join(units)}")
    return int(match[1]) * units[match[2]]
