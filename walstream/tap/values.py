"""Reading the values of options; what is wrong with one is a `FormatError` that says what."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from walstream.errors import FormatError
from walstream.formats.quantities import parse_duration, parse_size

if TYPE_CHECKING:
    from walstream.protocols.receiver_settings import ReportApply

__all__ = [
    "count",
    "named_duration",
    "one_of",
    "own_apply_position",
    "processes",
    "rate",
    "seconds",
    "size_or_none",
    "slot_name",
    "whole_number",
]

# As PostgreSQL's least MAX_RATE for BASE_BACKUP: below it, messages would have to be cut.
_LEAST_RATE = 32 << 10

_E = TypeVar("_E", bound=Enum)


def one_of(kind: type[_E]) -> Callable[[str], _E]:
    """A parser for the values of an Enum."""

    def parse(text: str) -> _E:
        try:
            return kind(text)
        except ValueError:
            values = " or ".join(str(member.value) for member in kind)
            raise FormatError(f"{text!r} is none of the values that there are: {values}") from None

    return parse


def whole_number(text: str) -> int:
    """A number of 0 or more, in decimal digits."""
    if not (text.isascii() and text.isdecimal()):
        raise FormatError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def count(text: str) -> int:
    """A number of 1 or more, in decimal digits."""
    number = whole_number(text)
    if not number:
        raise FormatError("it has to be at least 1")
    return number


def processes(text: str) -> int:
    """A number of processes of 1 or more, or ``auto``: as many as this one may use cores."""
    if text == "auto":
        return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return count(text)


def seconds(text: str) -> float:
    """A number of seconds of 0 or more, with a fraction if need be."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise FormatError(f"{text!r} is not a number of seconds of 0 or more")
    return number


def size_or_none(text: str) -> int:
    """Bytes, of a text such as ``1GB``; ``0`` for none."""
    return 0 if text == "0" else parse_size(text)


def rate(text: str) -> int:
    """Bytes per second, of a text such as ``50MB``; ``0`` for any number."""
    number = size_or_none(text)
    if 0 < number < _LEAST_RATE:
        raise FormatError(f"{text!r} is too little: at least 32kB, or 0 for no limit")
    return number


def named_duration(text: str) -> tuple[str, float]:
    """A name and seconds, of a text such as ``standby2=8h``."""
    name, equals, time = text.rpartition("=")
    if not equals or not name:
        raise FormatError(f"{text!r} is not NAME=TIME, such as standby2=8h")
    return name, float(parse_duration(time))


def own_apply_position(text: str) -> ReportApply:
    """What to report as applied where nothing is; ``flush`` is the word of old for ``local``."""
    from walstream.protocols.receiver_settings import ReportApply

    try:
        return {"local": ReportApply.FLUSH}.get(text) or ReportApply(text)
    except ValueError:
        raise FormatError(f"{text!r} is neither local nor none") from None


def slot_name(text: str) -> str:
    """The name of a replication slot (``ReplicationSlotValidateName`` in PostgreSQL)."""
    if not text or len(text) > 63 or not set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789_"):
        raise FormatError(
            f"{text!r} is not a slot's name: it has 1 to 63 lower-case letters, digits and _"
        )
    return text
