"""What groups of options have in common.

A command is made of groups. Each checks its options in ``postOptions``, and leaves what it made of
them in attributes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast

from twisted.python import usage

__all__ = ["CommandOptions"]

_T = TypeVar("_T")
_G = TypeVar("_G")


class CommandOptions(usage.Options):
    """What all commands have in common."""

    # usage collects these from all the classes that an object is of.
    optParameters: list[list[str | None]] = []
    optFlags: list[list[str | None]] = []

    _given: frozenset[str] = frozenset()

    def __setitem__(self, name: str, value: Any) -> None:
        """Take the value of an option, once. usage itself would let the last one win, in silence.

        A flag's value is a number: it says the same when it is given twice.
        """
        if isinstance(value, str):
            if name in self._given:
                raise usage.UsageError(f"--{name} is given twice: leave one of them out")
            self._given |= {name}
        super().__setitem__(name, value)

    def postOptions(self) -> None:
        """Check the options; groups go on from here."""

    def opt_version(self) -> NoReturn:
        """Print walstream's version, and exit."""
        from walstream import __version__

        sys.stdout.write(f"walstream {__version__}\n")
        raise SystemExit(0)

    opt_V = opt_version

    def checked(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        """The value of option *name* as *parse* understands it; None if it was not given."""
        text = self[name]
        return None if text is None else self.understood(name, text, parse)

    def understood(self, name: str, given: _G, parse: Callable[[_G], _T]) -> _T:
        """What was given for option *name* as *parse* understands it."""
        try:
            return parse(given)
        except ValueError as error:
            raise usage.UsageError(f"--{name}: {error}") from error

    def required(self, name: str, remedy: str) -> str:
        """The value of an option that there must be."""
        text = self[name]
        if not text:
            raise usage.UsageError(f"--{name} is missing: {remedy}")
        return cast(str, text)
