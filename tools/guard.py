"""A guard, and how it is taken away: see `tools.mutations`."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Guard"]


class Guard(NamedTuple):
    """A piece of code without which a promise would be broken.

    :ivar kind: what would come of it: a class of loss, say.
    :ivar what: what the guard does.
    :ivar file: the module, under ``walstream/``.
    :ivar snippet: the guard, which is in the module exactly once.
    :ivar without: what stands in its place when it is taken away.
    :ivar test: what fails then, under ``tests.unit``.
    """

    kind: str
    what: str
    file: str
    snippet: str
    without: str
    test: str

    def remove_from(self, source: str) -> str:
        """The module without the guard.

        :raises SyntaxError: if that is no Python: any test would fail.
        """
        mutated = source.replace(self.snippet, self.without)
        compile(mutated, self.file, "exec")
        return mutated
