"""What can be fed: a parser, or a whole session, with what it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes bytes of which nobody knows who wrote them.

    :ivar run: takes one input. Whatever it raises is a finding: what may be raised it catches.
    :ivar modules: those that are to be covered, by their full names.
    :ivar seeds: inputs to begin with.
    :ivar words: what inputs are made of, besides bytes.
    :ivar longest: bytes of the longest input.
    :ivar logs_faults: whether it is in order that faults are logged: they are somebody else's.
    """

    name: str
    run: Callable[[bytes], object]
    modules: tuple[str, ...]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()
    longest: int = 2048
    logs_faults: bool = False
