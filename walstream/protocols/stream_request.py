"""What a walsender makes of START_REPLICATION: PostgreSQL's decisions, in PostgreSQL's words.

`StartReplication` in PostgreSQL's walsender.c; protocol documentation, START_REPLICATION.
"""

from __future__ import annotations

from dataclasses import dataclass

from walstream.errors import CommandError, EndOfTimeline
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALProvider
from walstream.wire.messages import (
    Column,
    ColumnType,
    command_complete,
    data_row,
    row_description,
)

__all__ = ["StreamRequest", "ahead", "cancelled", "decide", "end_of", "forked", "result_of"]

_INTERNAL_ERROR = "XX000"

_NEXT_TIMELINE = [Column("next_tli", ColumnType.INT8), Column("next_tli_startpos", ColumnType.TEXT)]


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A stream that may begin.

    :ivar refusal: an error that the client is shown once the stream has begun: PostgreSQL sends
        CopyBothResponse before it looks whether it has WAL from *start* on.
    :ivar is_ahead: whether there is no WAL at *start* yet, and the client may wait for it.
    """

    timeline: int
    start: LSN
    refusal: CommandError | None = None
    is_ahead: bool = False


async def decide(
    provider: IWALProvider, timeline: int | None, start: LSN, *, may_wait: bool = False
) -> StreamRequest | EndOfTimeline:
    """Whether *provider*'s WAL can be streamed from *start* on *timeline* (None: the current one).

    An `EndOfTimeline` is the answer when the timeline ends exactly at *start*: no stream begins,
    and the client is told at once what comes next.

    :param may_wait: whether a client may begin a little ahead of what there is. A standby that has
        read files of an archive does, and asks for the start of the segment that it needs next; so
        that is a segment at most.
    :raises CommandError: when no stream may begin.
    """
    end = provider.end()
    if timeline is None or timeline == end.timeline:
        refusal, identity = ahead(start, end.lsn), provider.identity
        if refusal is None or not may_wait or identity is None:
            return StreamRequest(end.timeline, start, refusal)
        if start - end.lsn > identity.segment_size:
            return StreamRequest(end.timeline, start, refusal)
        return StreamRequest(end.timeline, start, is_ahead=True)
    history = await provider.history(end.timeline)
    if timeline not in history:
        raise CommandError(
            _INTERNAL_ERROR, f"requested timeline {timeline} is not in this server's history"
        )
    switch_point = history.switch_point(timeline)
    if switch_point is None or start < switch_point:
        return StreamRequest(timeline, start)
    if start > switch_point:
        raise forked(timeline, start, switch_point)
    return EndOfTimeline(history.successor(timeline), switch_point)


async def end_of(provider: IWALProvider, timeline: int) -> EndOfTimeline | None:
    """What follows a timeline of *provider*'s history; None if it is the current one."""
    current = provider.end().timeline
    if timeline == current:
        return None
    history = await provider.history(current)
    switch_point = history.switch_point(timeline)
    assert switch_point is not None  # only the current timeline has none
    return EndOfTimeline(history.successor(timeline), switch_point)


def forked(timeline: int, start: LSN, switch_point: int) -> CommandError:
    """The error for a client that is at *start* on a timeline that was left before."""
    return CommandError(
        _INTERNAL_ERROR,
        f"requested starting point {start} on timeline {timeline} is not in this server's history",
        detail=f"This server's history forked from timeline {timeline} at {LSN(switch_point)}.",
    )


def ahead(start: LSN, end: LSN) -> CommandError | None:
    """The error for a client that wants WAL from *start* on, if it ends at *end*, before that."""
    if start <= end:
        return None
    return CommandError(
        _INTERNAL_ERROR,
        f"requested starting point {start} is ahead of the WAL flush position of this server {end}",
    )


def cancelled() -> CommandError:
    """The error of a stream that a CancelRequest ends, or that it keeps from beginning."""
    return CommandError("57014", "canceling statement due to user request")


def result_of(successor: EndOfTimeline | None) -> bytes:
    """The result of a stream that is over, or of one that there was none of.

    :param successor: what comes next, if it was on a historic timeline.
    """
    # libpq wants both CommandCompletes.
    result = command_complete("START_STREAMING") + command_complete("START_REPLICATION")
    if successor is None:
        return result
    row = (str(successor.next_timeline).encode(), str(LSN(successor.switch_point)).encode())
    return row_description(_NEXT_TIMELINE) + data_row(row) + result
