"""When the upstream no longer has the WAL that a sink needs next.

That is an error which says so, and names the ways out. One of them is that the operator accepts
the gap, by its position: then the stream goes on with the oldest WAL that the server still has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from walstream.errors import ServerError, WALRemoved
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALSink, WALPosition
from walstream.protocols.questions import Questions

__all__ = ["cross_gap", "is_removed", "oldest_segment"]

# What a walsender answers START_REPLICATION with when the WAL is not there any more.
_UNDEFINED_FILE = "58P01"
# And when the slot was invalidated (PostgreSQL 18), among other things.
_OBJECT_NOT_IN_PREREQUISITE_STATE = "55000"

#: Whether the server has the WAL at a position.
Probe = Callable[[WALPosition], Awaitable[bool]]


def is_removed(error: ServerError) -> bool:
    """Whether a server says that the WAL it was asked for is gone."""
    return error.sqlstate == _UNDEFINED_FILE


async def cross_gap(
    questions: Questions,
    sink: IWALSink,
    error: ServerError,
    position: WALPosition,
    accepted: LSN | None,
    has_wal: Probe,
) -> WALPosition:
    """Go on behind a gap, if the operator accepted it; where that is.

    :param error: what START_REPLICATION at *position* was answered with, before any WAL came.
    :param accepted: the position at which a gap may begin.
    :raises WALRemoved: if it does not begin there.
    :raises ServerError: *error* itself, if it is about something else.
    """
    identity, held = sink.identity, sink.durable_position()
    if identity is None or held is None:
        raise error
    if not is_removed(error) and (
        error.sqlstate != _OBJECT_NOT_IN_PREREQUISITE_STATE or await has_wal(position)
    ):
        raise error
    size = identity.segment_size
    if accepted != held.lsn:
        segment = size.name(position.timeline, size.number(position.lsn))
        raise WALRemoved(segment, held.lsn, held.timeline, str(error)) from error
    server = (await questions.identify_system()).end
    history = await sink.history(server.timeline)

    def start_of(number: int) -> WALPosition:
        lsn = size.start(number)
        return WALPosition(history.timeline_at(lsn), lsn)

    number = await oldest_segment(
        size.number(position.lsn), size.number(server.lsn), lambda each: has_wal(start_of(each))
    )
    behind = start_of(number)
    await sink.accept_gap(accepted, behind)
    return behind


async def oldest_segment(
    missing: int, newest: int, is_there: Callable[[int], Awaitable[bool]]
) -> int:
    """The lowest segment above *missing* that a server has; it removes the oldest first.

    *newest*, into which it writes, is there for certain, and not asked for: it may have no WAL yet.
    """
    there = max(newest, missing + 1)
    while there - missing > 1:
        middle = (missing + there) // 2
        if await is_there(middle):
            there = middle
        else:
            missing = middle
    return there
