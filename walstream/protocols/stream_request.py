"""What a walsender makes of START_REPLICATION: PostgreSQL's decisions, in PostgreSQL's words.

`StartReplication` in PostgreSQL's walsender.c; protocol documentation, START_REPLICATION.
"""

from __future__ import annotations

from dataclasses import dataclass

from walstream.errors import CommandError, EndOfTimeline
from walstream.formats.lsn import LSN
from walstream.interfaces import IWALProvider

__all__ = ["StreamRequest", "decide"]

_INTERNAL_ERROR = "XX000"


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A stream that may begin.

    :ivar refusal: an error that the client is shown once the stream has begun: PostgreSQL sends
        CopyBothResponse before it looks whether it has WAL from *start* on.
    """

    timeline: int
    start: LSN
    refusal: CommandError | None = None


async def decide(
    provider: IWALProvider, timeline: int | None, start: LSN
) -> StreamRequest | EndOfTimeline:
    """Whether *provider*'s WAL can be streamed from *start* on *timeline* (None: the current one).

    An `EndOfTimeline` is the answer when the timeline ends exactly at *start*: no stream begins,
    and the client is told at once what comes next.

    :raises CommandError: when no stream may begin.
    """
    end = provider.end()
    if timeline is None or timeline == end.timeline:
        return StreamRequest(end.timeline, start, _ahead(start, end.lsn))
    history = await provider.history(end.timeline)
    if timeline not in history:
        raise CommandError(
            _INTERNAL_ERROR, f"requested timeline {timeline} is not in this server's history"
        )
    switch_point = history.switch_point(timeline)
    if switch_point is None or start < switch_point:
        return StreamRequest(timeline, start)
    if start > switch_point:
        raise CommandError(
            _INTERNAL_ERROR,
            f"requested starting point {start} on timeline {timeline} "
            "is not in this server's history",
            detail=f"This server's history forked from timeline {timeline} at {switch_point}.",
        )
    return EndOfTimeline(history.successor(timeline), switch_point)


def _ahead(start: LSN, end: LSN) -> CommandError | None:
    if start <= end:
        return None
    return CommandError(
        _INTERNAL_ERROR,
        f"requested starting point {start} is ahead of the WAL flush position of this server {end}",
    )
