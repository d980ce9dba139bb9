"""What a role may have: so many connections, these timelines, from that position on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from twisted.internet.defer import Deferred
from zope.interface import implementer

from walstream.access.role_places import Places
from walstream.access.role_store import Roles
from walstream.errors import CommandError
from walstream.formats.lsn import LSN
from walstream.formats.role_file import Limits
from walstream.gates import IPermit

__all__ = ["RolePermit"]

_numbers = count(1)


@implementer(IPermit)
class RolePermit:
    """The permit of one connection. Its limits are those of the role at the moment that counts.

    A user that no role has been made for has none, where a rule lets it in without a password.

    :param roles: the roles of this moment.
    """

    def __init__(
        self, user: str, identity: str, roles: Callable[[], Roles], places: Places
    ) -> None:
        self.identity: str | None = identity
        self._user = user
        self._roles = roles
        self._places = places
        self._had_role = user in roles().roles
        self._number = next(_numbers)

    def enter(self) -> Deferred[None]:
        """See `IPermit.enter`."""
        role = self._roles().roles.get(self._user)
        limit = None if role is None else role.limits.connections
        return self._places.enter(self._number, self._user, limit)

    def leave(self) -> None:
        """See `IPermit.leave`."""
        self._places.leave(self._number)

    def check_stream(self, timeline: int, start: int) -> None:
        """See `IPermit.check_stream`."""
        role = self._roles().roles.get(self._user)
        if role is None and self._had_role:
            raise self._denied(timeline, start, "The role does not exist any more.")
        limits = Limits() if role is None else role.limits
        if not limits.allow_timeline(timeline) or start < limits.start:
            raise self._denied(timeline, start, f"The role may have WAL {_extent(limits)}.")

    def _denied(self, timeline: int, start: int, detail: str) -> CommandError:
        return CommandError(
            "42501",
            f'permission denied for role "{self._user}" to stream WAL from {LSN(start)} '
            f"on timeline {timeline}",
            detail=detail,
        )


def _extent(limits: Limits) -> str:
    first, last = limits.timelines
    if last is None:
        timelines = f"of timeline {first} and later" if first > 1 else "of any timeline"
    elif first == last:
        timelines = f"of timeline {first}"
    else:
        timelines = f"of timelines {first} to {last}"
    return f"{timelines}, from {limits.start} on" if limits.start else timelines
