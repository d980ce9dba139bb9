"""How many connections each role has."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from twisted.internet.defer import Deferred, fail, succeed

from walstream.errors import CommandError

__all__ = ["Places", "RolePlaces", "too_many"]


class Places(Protocol):
    """Counts the connections of roles. `RolePlaces` does it by itself."""

    def enter(self, number: int, role: str, limit: int | None) -> Deferred[None]:
        """A connection of *role* comes in.

        :param number: by which it is known from others.
        :param limit: how many the role may have; None: any number.
        :raises CommandError: (in the Deferred) if it has as many already.
        """

    def leave(self, number: int) -> None:
        """That connection is gone; it may not have come in."""


class RolePlaces:
    """The connections of all roles, in this process."""

    def __init__(self) -> None:
        self._inside: dict[int, str] = {}
        self._counts: Counter[str] = Counter()

    def enter(self, number: int, role: str, limit: int | None) -> Deferred[None]:
        """See `Places.enter`."""
        if limit is not None and self._counts[role] >= limit:
            return fail(too_many(role))
        self._inside[number] = role
        self._counts[role] += 1
        return succeed(None)

    def leave(self, number: int) -> None:
        """See `Places.leave`."""
        role = self._inside.pop(number, None)
        if role is not None:
            self._counts[role] -= 1
            if not self._counts[role]:
                del self._counts[role]


def too_many(role: str) -> CommandError:
    """What PostgreSQL says to one connection too many (``InitializeSessionUserId``)."""
    return CommandError("53300", f'too many connections for role "{role}"')
