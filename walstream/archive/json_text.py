"""What may go wrong with a file of JSON, of ours or of PostgreSQL's, that something has damaged."""

from __future__ import annotations

from typing import Final

__all__ = ["MISREAD"]

#: What reading it raises, and taking out of it what is not there, or is something else: numbers
#: that are infinite, and lists in lists without end, among others.
MISREAD: Final = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
