"""How segments are to be compressed, in the words that PostgreSQL's tools take.

``METHOD[:DETAIL]`` is read as by ``pg_receivewal --compress``, and what is wrong with it is told in
PostgreSQL's sentences (``parse_compress_options`` and ``common/compression.c``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from walstream.errors import FormatError

__all__ = ["Compression", "Method"]


class Method(Enum):
    """A way of compressing, by PostgreSQL's name."""

    GZIP = "gzip"
    LZ4 = "lz4"
    ZSTD = "zstd"


# Lowest and highest level, and the default, which counts even where it is outside of these.
_LEVELS: Mapping[Method, tuple[int, int, int]] = {
    Method.GZIP: (1, 9, -1),
    Method.LZ4: (1, 12, 0),
    Method.ZSTD: (-131072, 22, 3),
}

_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")
# What PostgreSQL's parse_bool takes for one.
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True}
_BOOLEANS |= {"false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Compression:
    """A method, and how hard it is to try.

    :ivar level: as the method's library numbers it; gzip's -1 is that library's own default.
    :ivar long_distance: whether zstd looks for repetitions far back.
    """

    method: Method
    level: int
    long_distance: bool = False

    @classmethod
    def parse(cls, text: str) -> Compression | None:
        """Read ``METHOD[:DETAIL]``, or a gzip level as of old; None for no compression.

        :raises FormatError: in PostgreSQL's words.
        """
        if _INTEGER.fullmatch(text):
            text = f"gzip:{text}" if int(text) else "none"
        name, colon, detail = text.partition(":")
        if name != "none" and name not in {method.value for method in Method}:
            raise FormatError(f'unrecognized compression algorithm: "{name}"')
        try:
            options = _parse_detail(detail) if colon else {}
            if name != "none":
                return _check(Method(name), options)
            _check_none(options)
            return None
        except _WrongDetail as error:
            raise FormatError(f"invalid compression specification: {error}") from None


class _WrongDetail(Exception):
    """What is wrong behind the colon."""


def _parse_detail(detail: str) -> dict[str, int]:
    if _INTEGER.fullmatch(detail):
        return {"level": int(detail)}
    options = {}
    for word in detail.split(","):
        keyword, equals, value = word.partition("=")
        if not keyword:
            raise _WrongDetail("found empty string where a compression option was expected")
        if keyword in ("level", "workers"):
            options[keyword] = _integer(keyword, value if equals else None)
        elif keyword == "long":
            options[keyword] = _boolean(keyword, value if equals else "on")
        else:
            raise _WrongDetail(f'unrecognized compression option: "{keyword}"')
    return options


def _integer(keyword: str, value: str | None) -> int:
    if value is None:
        raise _WrongDetail(f'compression option "{keyword}" requires a value')
    if not _INTEGER.fullmatch(value):
        raise _WrongDetail(f'value for compression option "{keyword}" must be an integer')
    return int(value)


def _boolean(keyword: str, value: str) -> bool:
    try:
        return _BOOLEANS[value.lower()]
    except KeyError:
        raise _WrongDetail(
            f'value for compression option "{keyword}" must be a Boolean value'
        ) from None


def _check_none(options: dict[str, int]) -> None:
    if options.get("level"):
        raise _WrongDetail('compression algorithm "none" does not accept a compression level')
    _check_flags("none", options, is_zstd=False)


def _check(method: Method, options: dict[str, int]) -> Compression:
    lowest, highest, default = _LEVELS[method]
    level = options.get("level", default)
    if level != default and not lowest <= level <= highest:
        raise _WrongDetail(
            f'compression algorithm "{method.value}" expects a compression level between '
            f"{lowest} and {highest} (default at {default})"
        )
    _check_flags(method.value, options, is_zstd=method is Method.ZSTD)
    return Compression(method, level, bool(options.get("long")))


def _check_flags(name: str, options: dict[str, int], *, is_zstd: bool) -> None:
    if "workers" in options:
        if is_zstd:
            raise _WrongDetail(
                "each segment is compressed in one thread: leave workers out, and say how many "
                "segments at a time with --compress-jobs"
            )
        raise _WrongDetail(f'compression algorithm "{name}" does not accept a worker count')
    if "long" in options and not is_zstd:
        raise _WrongDetail(f'compression algorithm "{name}" does not support long-distance mode')
