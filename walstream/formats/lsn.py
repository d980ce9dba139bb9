"""LSN, a byte position in the WAL. Knows its text form, and nothing of segments or timelines."""

from __future__ import annotations

import re
from typing import Self

from walstream.errors import FormatError

__all__ = ["INVALID", "LSN"]

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class LSN(int):
    """A byte position in the WAL, an unsigned 64-bit number.

    Its text is PostgreSQL's: the upper and the lower 32 bits in hexadecimal, with a slash
    between them (PostgreSQL documentation, "pg_lsn Type"). Arithmetic gives plain integers, so
    that it costs no more than theirs; wrap a result again where it will be shown.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form: one to eight digits on each side, of either case.

        :raises FormatError: for anything else, blanks around it included.
        """
        match = _LSN.fullmatch(text)
        if match is None:
            raise FormatError(f"{text!r} is not an LSN: expected X/X, such as 16/B374D848")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


#: The position that no WAL has (``InvalidXLogRecPtr``); on the wire it means "none".
INVALID = LSN(0)
