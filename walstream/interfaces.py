"""The contracts between the parts: what a user implements to plug in a part of their own.

A **provider** gives WAL and says where it ends; a **sink** takes WAL and says how far it is safe.
The protocols know these interfaces and nothing of archives; archives know them and nothing of
protocols. `walstream.testing.contracts` has the tests that an implementation must pass.

Bytes of WAL travel without Deferreds, since there are gigabytes of them: a cursor is read and a
sink is written to by plain calls, and waiting, which is rare, is what the Deferreds are for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import Attribute, Interface

from walstream.formats.lsn import LSN
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.timelines import TimelineHistory
from walstream.gates import Applicant, IExchange, IGate, IPermit, Step

__all__ = [
    "NO_LIMIT",
    "NO_LIMITS",
    "Applicant",
    "BackupHistoryFile",
    "IDatedProvider",
    "IExchange",
    "IGate",
    "IPermit",
    "IPromptSink",
    "IReportPolicy",
    "ISlotStore",
    "IWALCursor",
    "IWALProvider",
    "IWALSink",
    "ReportLimits",
    "Slot",
    "Step",
    "SystemIdentity",
    "WALPosition",
]


@dataclass(frozen=True, slots=True)
class BackupHistoryFile:
    """A backup history file as it is: its name and its contents."""

    name: str
    content: bytes


class IWALCursor(Interface):
    """One reader's place in a provider's WAL, on one timeline."""

    position: int = Attribute("The byte position that `read` gives next.")
    available: int = Attribute(
        "The byte position up to which the provider may give WAL at this moment; on a historic "
        "timeline never past its switch point. Grows only, unless WAL was served before it was "
        "durable, and could not be kept: then it is where that goes on when it comes again."
    )

    def read(limit: int) -> memoryview:
        """Give the WAL at `position`, as much as is at hand and at most *limit* bytes; advance.

        Never waits: an empty view means "not now", and `ready` says when to ask again. The view
        is read-only in spirit and stays valid until the cursor is closed. It ends before *limit*
        only at `available` or at a boundary of the provider's own, such as a segment's end.
        """

    def ready() -> Deferred[None]:
        """Wait until `read` would give at least a byte.

        :raises EndOfTimeline: (in the Deferred) when this timeline ends at `position`.
        :raises WALUnavailable: when the WAL at `position` is not, or no longer, held.

        Cancel it to stop waiting. At most one may be outstanding. The Deferred may have fired
        already when it is returned.
        """

    def close() -> None:
        """Let go of everything. An outstanding `ready` is cancelled."""


class IWALProvider(Interface):
    """A source of one cluster's WAL, which any number of cursors read."""

    identity: SystemIdentity | None = Attribute(
        "Whose WAL this is; None for as long as the provider has none."
    )

    def end() -> WALPosition:
        """The current timeline, and the byte position up to which WAL may be served on it.

        0/0 on timeline 1 while nothing is held. It cuts off no record within a page: standbys
        take that for granted (see `walstream.wire.stream`). Where `IWALSink.write` was told to
        stop is such a position, and so is the end of any page.

        Never goes back on one timeline: served WAL is durable WAL. A provider may be told to serve
        what it has not made durable yet. If that cannot be kept, the position stays, and cursors
        wait until the same WAL has come again.
        """

    def history(timeline: int) -> Deferred[TimelineHistory]:
        """The parsed history of *timeline*; that of timeline 1 is empty.

        :raises WALUnavailable: (in the Deferred) naming ``0000000N.history`` when it is missing.
        """

    def history_file(timeline: int) -> Deferred[bytes]:
        """The contents of ``0000000N.history``, byte by byte; errors as `history`."""

    def backup_history(start: LSN) -> Deferred[BackupHistoryFile | None]:
        """The backup history file of the base backup that started at *start*, if one is held."""

    def open(timeline: int, start: LSN) -> Deferred[IWALCursor]:
        """A cursor at *start* on *timeline*, which is the current one or in its history.

        On the current one *start* may lie beyond the end: `ready` waits until WAL is there.

        :raises WALUnavailable: (in the Deferred) when the segment of *start* is not held.
        """


class IDatedProvider(IWALProvider):
    """A provider that knows when WAL came that was there before it was opened.

    Optional: it spares a client that is to have WAL later a wait after each start. With any other
    provider, what was there at the start counts as having come then.
    """

    def last_written(timeline: int, position: LSN) -> Deferred[float | None]:
        """When the segment of *position* was last written to, in Unix seconds; None if not held.

        All of it had come by then. *timeline* is the current one or in its history.
        """


class IWALSink(Interface):
    """A place where one cluster's WAL goes, in order and without a gap.

    Flow control is Twisted's: the receiver registers itself as the sink's push producer, and a
    sink that has enough outstanding calls ``pauseProducing``, and ``resumeProducing`` when it can
    take more. A sink that can take no more at all calls ``stopProducing``; `finish` then tells why.
    """

    identity: SystemIdentity | None = Attribute("Whose WAL is held; None while there is none.")
    written: int = Attribute("The byte position up to which WAL of this stream was taken.")
    flushed: int = Attribute(
        "The byte position up to which everything is durable: data and directory entry. "
        "0 while nothing is. Never goes back on one timeline, but by `rewind`."
    )

    def adopt(identity: SystemIdentity) -> Deferred[None]:
        """Accept the WAL of this cluster from now on; called after each connect.

        Another one may be accepted as long as no WAL is held: who answers first is not always the
        right one, and what was stored for it is forgotten then.

        :raises WrongSystem: (in the Deferred) if other WAL is held; nothing has been changed.
        """

    def resume_position() -> WALPosition | None:
        """Where a stream goes on: a segment's start. None if nothing is held yet.

        It is the segment of `durable_position`, or behind a gap that was accepted there.
        """

    def durable_position() -> WALPosition | None:
        """The exact durable end, which may lie inside a segment; None if nothing is held."""

    def histories() -> Collection[int]:
        """The timelines whose history files are held."""

    def history(timeline: int) -> Deferred[TimelineHistory]:
        """As `IWALProvider.history`."""

    def store_history(timeline: int, content: bytes) -> Deferred[None]:
        """Keep a timeline history file, durably and under its proper name.

        :raises FormatError: (in the Deferred) if it is none.
        :raises TimelineMismatch: (in the Deferred) if one is held that tells another history.
        """

    def store_backup_history(file: BackupHistoryFile) -> Deferred[None]:
        """Keep a backup history file, durably; errors as `store_history`."""

    def begin(timeline: int, start: LSN) -> Deferred[None]:
        """WAL follows from *start*, the start of a segment, on *timeline*.

        :raises SinkFailed: (in the Deferred) when there is no place to put it.
        :raises Discontinuity: (in the Deferred) if a gap would be left.
        :raises TimelineMismatch: (in the Deferred) if *timeline* does not descend from what is
            held.
        """

    def write(start: int, data: memoryview) -> None:
        """Take *data*, whose first byte has position *start*. *data* is reused after the call.

        It ends where a message of the server's does, or a page: nowhere else may a sender stop.

        :raises Discontinuity: if *start* is not where the stream stands; nothing was taken.
        :raises TimelineMismatch: if it differs from what is durable already; nothing was taken.
        :raises SinkFailed: when it cannot be kept.
        """

    def flush() -> Deferred[LSN]:
        """Make everything taken so far durable; fires with the new `flushed`.

        Calls made while a flush is under way share the next one.

        :raises SinkFailed: (in the Deferred) when it could not be made durable.
        """

    def accept_gap(start: LSN, end: WALPosition) -> Deferred[None]:
        """The WAL between `durable_position`, which is at *start*, and *end* will never come.

        It is recorded durably before this fires. The next stream begins at *end*, a segment's
        start. Until something of it is durable the gap may be accepted anew, with another end.

        :raises Discontinuity: (in the Deferred) if *start* is not where the sink ends.
        :raises TimelineMismatch: (in the Deferred) if the timeline of *end* does not descend from
            what is held.
        :raises SinkFailed: (in the Deferred) if it cannot be recorded.
        """

    def rewind(switch_point: LSN) -> Deferred[None]:
        """The upstream has left the timeline of `durable_position` at *switch_point*, before it.

        If what is held beyond is only the beginning of a record, it is given up:
        `durable_position` is *switch_point* then.

        :raises TimelineMismatch: (in the Deferred) naming the record that is whole and ends
            beyond; nothing was changed.
        """

    def finish() -> Deferred[None]:
        """The stream ends here: make everything durable and close what is open.

        :raises SinkFailed: (in the Deferred) when it could not be made durable.
        """

    def registerProducer(producer: IPushProducer, streaming: bool) -> None:
        """As `twisted.internet.interfaces.IConsumer`; *streaming* is True."""

    def unregisterProducer() -> None:
        """As `twisted.internet.interfaces.IConsumer`."""


class IPromptSink(IWALSink):
    """A sink that can tell, in the thread in which it made WAL durable, that it did.

    Optional: it spares a commit that waits for the news the time that it takes to wake the
    reactor's thread. A receiver goes by `IWALSink.flush` with any other sink.
    """

    def sync_soon() -> None:
        """Make durable what was taken, as soon as the disk gets to it.

        Never waits, and costs next to nothing while a sync is under way. To be called while a
        stream is on; who asked learns of success by `watch_durable`, of failure as always.
        """

    def watch_durable(in_thread: Callable[[int], bool], in_reactor: Callable[[], None]) -> None:
        """Tell of each new durable position of the stream that has begun; one watcher at a time.

        :param in_thread: called with the position, which is then durable, data and directory
            entry; in any thread, in which it must not wait and not raise. It says whether that
            was enough, so that the reactor's thread need not be woken for the watcher.
        :param in_reactor: called in the reactor's thread after `flushed` has moved: soon, or when
            somebody looks at `flushed`.
        """

    def unwatch_durable() -> None:
        """Tell nothing any more; a call that is under way in another thread may still end."""


NO_LIMIT: Final = (1 << 64) - 1
"""A limit beyond every position."""


@dataclass(frozen=True, slots=True)
class ReportLimits:
    """How far the positions may go that a receiver reports upstream: byte positions, each.

    They only hold back. Nothing that is not durable here is ever reported as flushed, nor anything
    as applied that is not reported as flushed.
    """

    write: int = NO_LIMIT
    flush: int = NO_LIMIT
    apply: int = NO_LIMIT


NO_LIMITS: Final = ReportLimits()
"""A receiver reports what it has itself."""


class IReportPolicy(Interface):
    """What a receiver waits for before it reports upstream what it has: its standbys, say.

    All of it is called, and calls, in the reactor's thread, and a commit waits for it: what takes
    time has to be done elsewhere.
    """

    applied: str = Attribute(
        "In words, who has to have applied what is reported as applied; empty: nobody. For the log."
    )
    limits: ReportLimits = Attribute(
        "How far may be reported at this moment. May go back; what was reported does not."
    )

    def begin(timeline: int, changed: Callable[[], None]) -> None:
        """A stream of this timeline begins: call *changed* from now on when `limits` have moved."""

    def end() -> None:
        """The stream is over: nobody waits for `limits` until the next one begins."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A physical replication slot.

    :ivar restart: the oldest WAL that its user may still need; None before anything is reserved.
    :ivar active_pid: the number of the session that uses it now, as in BackendKeyData; or None.
    :ivar invalidation: why the slot is lost for good, in the words of pg_replication_slots'
        ``invalidation_reason``; None for one that can be used.
    """

    name: str
    temporary: bool
    restart: WALPosition | None
    active_pid: int | None
    invalidation: str | None = None


class ISlotStore(Interface):
    """Physical replication slots: named reservations of WAL, each used by one session at a time.

    A method that returns a Deferred raises `CommandError` in it, with PostgreSQL's SQLSTATE and
    words, where PostgreSQL does. The others never wait and never raise: what they are told of a
    slot that is gone meanwhile, or another session's, is no news.
    """

    def create(
        name: str, pid: int, *, temporary: bool, restart: WALPosition | None
    ) -> Deferred[Slot]:
        """Make a slot; 42602 for a bad name, 42710 if it exists, 53400 when all are in use.

        58P01 if the WAL at *restart* is not there any more. Once this has fired, it is held.
        """

    def read(name: str) -> Deferred[Slot | None]:
        """The slot of that name, if there is one."""

    def acquire(name: str, pid: int) -> Deferred[Slot]:
        """Use a slot in session *pid*; 42704 if it does not exist, 55006 if another uses it.

        A session that has ended before this fires gives the slot back by `end_session`. Whether
        it can be used that is lost, by `Slot.invalidation`, is for the caller to say.
        """

    def advance(name: str, restart: WALPosition) -> None:
        """Its user has everything before *restart*. Made durable soon, not at once.

        A slot that was lost is good again by that.
        """

    def release(name: str, pid: int) -> None:
        """Session *pid* no longer uses the slot."""

    def drop(name: str, *, wait: bool, pid: int | None = None) -> Deferred[None]:
        """Remove a slot; 42704 if it does not exist; in use: 55006, or wait until it is free.

        :param pid: the session that asks: it may drop a temporary slot of its own.
        """

    def end_session(pid: int) -> None:
        """Release and drop whatever session *pid* has: slots in use, and temporary ones.

        Called at a session's end, perhaps more than once, and after each error in it that leaves
        it alive: PostgreSQL drops temporary slots then.
        """

    def watch_terminations(terminate: Callable[[int], None]) -> None:
        """Have *terminate* called with the number of each session whose slot is taken from it.

        The session has to end; what it had is given back by `end_session` as always.
        """
