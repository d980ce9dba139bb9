"""Where a receiver's stream starts, and whether this server's WAL may enter the sink at all.

The order is pg_receivewal's: the end of what is held; else the slot's position; else a position
the user named; else the server's flush position; always a segment's start. Before that, nothing
is written that does not belong: another system, a server that is behind, a timeline that forks
off before our end are refused, with both positions named.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from twisted.logger import Logger

from walstream.errors import ArchiveError, ServerError, TimelineMismatch, UpstreamBehind
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize, history_file_name
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import IWALSink, SystemIdentity, WALPosition
from walstream.protocols.questions import Questions

__all__ = ["StreamStart", "check_descent", "follow_timeline", "start_2009", "start_modern"]

_log = Logger()

# A server's timeline is any number of 32 bits, and each in between is a question at each connect.
_SIDELINES = 100


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Where to start.

    :ivar position: the timeline, and the start of a segment on it.
    :ivar segment_size: the server's.
    :ivar sender_timeout: the server's ``wal_sender_timeout`` in seconds; 0: off, or not asked.
    """

    position: WALPosition
    segment_size: SegmentSize
    sender_timeout: float


async def start_modern(
    questions: Questions, sink: IWALSink, *, slot: str | None, start: LSN | None
) -> StreamStart:
    """Decide by today's protocol.

    :raises UpstreamRefused: when the server's WAL does not belong into *sink*.
    """
    system = await questions.identify_system()
    size = await questions.segment_size()
    await sink.adopt(SystemIdentity(system.system_identifier, size, questions.server_version))
    await follow_timeline(questions, sink, system.end)
    reserved = await _read_slot(questions, slot)
    resume = sink.resume_position()
    if resume is None and start is not None:
        resume = await _named_position(sink, system.end, start)
    resume = resume or reserved or system.end
    timeout = await questions.sender_timeout()
    return StreamStart(WALPosition(resume.timeline, size.floor(resume.lsn)), size, timeout)


async def start_2009(
    questions: Questions, sink: IWALSink, *, size: SegmentSize, start: LSN | None
) -> StreamStart:
    """Decide by the design of December 2009, which knows neither sizes nor the server's end.

    :raises UpstreamRefused: when the server's WAL does not belong into *sink*.
    """
    system_identifier = await questions.get_system_identifier()
    timeline = await questions.get_timeline()
    held = sink.identity
    size = held.segment_size if held is not None else size
    await sink.adopt(SystemIdentity(system_identifier, size, questions.server_version))
    resume = sink.resume_position()
    if resume is None:
        if start is None:
            raise ArchiveError(
                "the archive is empty and the 2009 dialect cannot ask the server where its WAL "
                "ends: name a start position with --startpos"
            )
        resume = WALPosition(timeline, start)
    if resume.timeline != timeline:
        raise TimelineMismatch(
            f"the archive ends on timeline {resume.timeline}, the server is on {timeline}, and the "
            "2009 dialect knows no way from one to the other: use --dialect modern"
        )
    backup = await questions.get_backup_history_file(start or resume.lsn)
    if backup is not None:
        await sink.store_backup_history(backup)
    return StreamStart(WALPosition(timeline, size.floor(resume.lsn)), size, 0.0)


async def follow_timeline(questions: Questions, sink: IWALSink, server: WALPosition) -> None:
    """Check that *server*'s timeline continues what is held, then get all its history files.

    Checked first, stored afterwards: the history file of a branch that is not ours would stand in
    the way of the right one.

    :raises UpstreamBehind: when the server's WAL ends before the sink's.
    :raises TimelineMismatch: when its timeline forked off before the sink's end.
    """
    history = TimelineHistory(1, ())
    content = b""
    if server.timeline > 1:
        content = await _history_file(questions, sink, server.timeline)
        history = TimelineHistory.parse(server.timeline, content)
    held = sink.durable_position() or sink.resume_position()
    if held is not None:
        held = await _without_unfinished_record(sink, held, history)
        check_descent(held, server, history)
    if server.timeline == 1:
        return
    await _store_once(sink, history, content)
    for index, ancestor in enumerate(history.ancestors):
        if ancestor.timeline > 1 and ancestor.timeline not in sink.histories():
            copied = TimelineHistory(ancestor.timeline, history.ancestors[:index])
            await _fetch_ancestor(questions, sink, copied)
    sidelines = (each for each in range(2, server.timeline) if each not in history)
    for timeline in islice(sidelines, _SIDELINES):
        if timeline not in sink.histories():
            await _fetch_sideline(questions, sink, timeline)


async def _history_file(questions: Questions, sink: IWALSink, timeline: int) -> bytes:
    try:
        return await questions.timeline_history(timeline)
    except ServerError:
        # An ancestor of the server's timeline, of which the file is gone, has been made already.
        if timeline not in sink.histories():
            raise
        return (await sink.history(timeline)).format()


async def _without_unfinished_record(
    sink: IWALSink, held: WALPosition, history: TimelineHistory
) -> WALPosition:
    """Where the sink ends, without a record that the crash of its server left unfinished.

    Such a record is on no timeline that follows, so whoever holds its beginning has not forked.
    """
    if held.timeline not in history:
        return held
    switch_point = history.switch_point(held.timeline)
    if switch_point is None or held.lsn <= switch_point:
        return held
    try:
        await sink.rewind(switch_point)
    except TimelineMismatch as error:
        raise _forked(held, switch_point, f"; {error}") from error
    return sink.durable_position() or held


def _forked(held: WALPosition, switch_point: LSN, because: str = "") -> TimelineMismatch:
    return TimelineMismatch(
        f"the server left timeline {held.timeline} at {switch_point}, the archive holds that "
        f"timeline up to {held.lsn}: the two have forked{because}"
    )


def check_descent(held: WALPosition, server: WALPosition, history: TimelineHistory) -> None:
    """Whether a server at *server*, with that *history*, continues WAL held up to *held*."""
    if held.timeline not in history:
        raise TimelineMismatch(
            f"starting timeline {held.timeline} is not present in the server, which is on timeline "
            f"{server.timeline}; the archive ends at {held.lsn}"
        )
    switch_point = history.switch_point(held.timeline)
    if switch_point is not None and held.lsn > switch_point:
        raise _forked(held, switch_point)
    if switch_point is None and server.lsn < held.lsn:
        raise UpstreamBehind(
            f"the server's WAL ends at {server.lsn} on timeline {server.timeline}, the archive "
            f"already holds WAL up to {held.lsn}: it is a restored or lagging server"
        )


async def _store_once(sink: IWALSink, history: TimelineHistory, content: bytes) -> None:
    """Store a history file; one that is held already must tell the same story."""
    if history.timeline not in sink.histories():
        await sink.store_history(history.timeline, content)
    elif (held := await sink.history(history.timeline)) != history:
        raise TimelineMismatch(
            f"the server's {history_file_name(history.timeline)} says that the timeline descends "
            f"from {_descent(history)}, the archive's says {_descent(held)}: two servers were "
            "promoted to the same timeline number"
        )


def _descent(history: TimelineHistory) -> str:
    return ", ".join(f"{past.timeline} up to {past.switch_point}" for past in history.ancestors)


async def _fetch_ancestor(questions: Questions, sink: IWALSink, copied: TimelineHistory) -> None:
    """Get an ancestor's history file.

    A server does not keep them for ever, and can do without: each file begins with a copy of the
    one before.

    :param copied: what the server's own file says of the ancestor.
    """
    try:
        content = await questions.timeline_history(copied.timeline)
    except ServerError as error:
        content = copied.format()
        _log.info(
            "the server has no {name} any more, so it is made from that of its own timeline: "
            "{error}",
            name=history_file_name(copied.timeline),
            error=str(error),
        )
    await sink.store_history(copied.timeline, content)


async def _fetch_sideline(questions: Questions, sink: IWALSink, timeline: int) -> None:
    """Get the history file of a timeline that is no ancestor, but has a number in between.

    Whoever goes from an older timeline to this one asks for the files of all numbers: a standby
    fetches each (``WalRcvFetchTimeLineHistoryFiles``), a recovery ends its search for the newest
    timeline at the first that is missing (``findNewestTimeLine``).
    """
    try:
        content = await questions.timeline_history(timeline)
    except ServerError as error:
        _log.info(
            "the server has no {name}, of a timeline that it does not descend from; without that "
            "file standbys and recoveries do not get from an older timeline to the server's: "
            "{error}",
            name=history_file_name(timeline),
            error=str(error),
        )
        return
    await sink.store_history(timeline, content)


async def _read_slot(questions: Questions, slot: str | None) -> WALPosition | None:
    """Where the slot holds WAL back, if there is one; READ_REPLICATION_SLOT exists from 15 on."""
    if slot is None:
        return None
    if questions.server_major < 15:
        _log.info(
            "PostgreSQL before 15 does not tell where replication slot {slot} stands: an empty "
            "archive begins at the server's position, or where --startpos says",
            slot=slot,
        )
        return None
    position = await questions.slot_position(slot)
    if position is None:
        _log.warn(
            "replication slot {slot} holds no WAL back before it is used: what comes until then "
            "may be lost; make slots by --create-slot, which reserves WAL at once",
            slot=slot,
        )
    return position


async def _named_position(sink: IWALSink, server: WALPosition, start: LSN) -> WALPosition:
    if start > server.lsn:
        raise UpstreamBehind(
            f"--startpos {start} is ahead of the server's flush position {server.lsn}"
        )
    timeline = server.timeline
    if timeline > 1:
        timeline = (await sink.history(timeline)).timeline_at(start)
    return WALPosition(timeline, start)
