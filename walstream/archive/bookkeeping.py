"""Keeps the ledger of an archive while it is filled, and says aloud what the archive lacks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.logger import Logger

from walstream.archive.abandoned import remove_abandoned
from walstream.archive.continuity import begins_at
from walstream.archive.filesystem import FileSystem
from walstream.archive.holdings import Holdings, take_stock
from walstream.archive.lane import Lane
from walstream.archive.ledger import AcceptedGap, Ledger, change_ledger, now
from walstream.archive.paths import ArchivePaths
from walstream.archive.survey import Survey, read_history
from walstream.errors import ArchiveError, SinkFailed
from walstream.formats.lsn import LSN
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.segments import parse_segment_file
from walstream.formats.timelines import TimelineHistory

__all__ = ["Bookkeeping", "open_ledger"]

# A hole may have more segments than anybody wants to read.
_SHOWN = 5

_log = Logger()


def open_ledger(files: FileSystem, paths: ArchivePaths, found: Survey) -> Ledger | None:
    """The ledger of an archive that was just taken into possession, brought up to date.

    To be run in a lane. If it cannot be written now, it will be later, and is the same then.

    :raises ArchiveError: if the ledger is damaged, or another cluster's.
    """
    ledger, identity, end = found.ledger, found.identity, found.durable
    if identity is None:
        return ledger
    mine = (identity.system_identifier, identity.segment_size)
    if ledger is not None and (ledger.system_identifier, ledger.segment_size) != mine:
        raise ArchiveError(
            f"{paths.ledger} is of system {ledger.system_identifier}, but the archive's segments "
            f"are of system {mine[0]}: remove it, if it is they that belong here"
        )
    if end is None:
        return ledger
    segments = (parse_segment_file(name, identity.segment_size) for name in files.names(paths.root))
    stocktaking = partial(
        take_stock,
        identity=identity,
        holdings=Holdings.of(filter(None, segments)),
        end=end,
        history_of=partial(read_history, files, paths),
        when=now(),
    )
    try:
        return change_ledger(files, paths, stocktaking)
    except OSError as error:
        _log.warn("could not write {path}: {reason}", path=paths.ledger, reason=error.strerror)
        return stocktaking(ledger)


class Bookkeeping:
    """The ledger of an archive that this process fills.

    :ivar ledger: what it says; None before there is anything to say.
    :ivar behind_gap: where the archive goes on, if that is not where it ends: see `Survey`.
    """

    def __init__(
        self, files: FileSystem, paths: ArchivePaths, lane: Lane, assure: Callable[[], None]
    ) -> None:
        """Keep no books yet.

        :param assure: `Tenure.assure`.
        """
        self.ledger: Ledger | None = None
        self.behind_gap: WALPosition | None = None
        self._assure = assure
        self._files = files
        self._paths = paths
        self._lane = lane

    @property
    def gaps(self) -> tuple[AcceptedGap, ...]:
        """The gaps that were accepted."""
        return () if self.ledger is None else self.ledger.gaps

    def start_over(self) -> None:
        """There is nothing that books were kept of."""
        self.ledger = self.behind_gap = None

    def found(self, survey: Survey) -> None:
        """Go on with what was found; say what is missing in it."""
        self.ledger, self.behind_gap = survey.ledger, survey.behind_gap
        for name in survey.unreadable:
            _log.warn(
                "{name} was left unfinished by pg_receivewal: it is not read and not continued, "
                "and its segment is received anew; remove it",
                name=name,
            )
        if survey.torn is not None and survey.durable is not None:
            _log.error(
                "WAL that was acknowledged is not in the archive any more: {reason}; the archive "
                "goes on at {lsn} (timeline {timeline}), if the server still has the WAL",
                reason=survey.torn,
                lsn=str(survey.durable.lsn),
                timeline=survey.durable.timeline,
            )
        if survey.ledger is not None:
            self._show(survey.ledger)

    async def begin(
        self,
        identity: SystemIdentity,
        held: WALPosition | None,
        start: WALPosition,
        history: TimelineHistory,
    ) -> None:
        """A stream begins; on a timeline that is new here, that is written down first.

        :param held: where the archive ends.
        :raises SinkFailed: if it could not be.
        """
        if held is not None:
            # A new timeline's first segment begins with WAL of the old one.
            start = WALPosition(start.timeline, LSN(max(start.lsn, begins_at(history))))
        empty = Ledger(identity.system_identifier, identity.segment_size)
        ledger = self.ledger
        if ledger is None or ledger.begun(start, history) != ledger:
            ledger = await self._change(lambda stored: (stored or empty).begun(start, history))
        if held is not None and held.timeline < start.timeline:
            job = partial(remove_abandoned, self._files, self._paths, ledger)
            try:
                await self._lane.run(job)
            except OSError as error:
                root = self._paths.root
                raise SinkFailed(f"could not remove a file of {root}: {error.strerror}") from error

    async def accept_gap(self, start: WALPosition, end: WALPosition) -> None:
        """The WAL from *start* to *end* will be missing for ever.

        :raises SinkFailed: if that could not be written down; it is not accepted then.
        """
        if self.ledger is None:
            raise SinkFailed("an archive that holds nothing has no gap")
        when, mine = now(), self.ledger
        self.ledger = await self._change(
            lambda ledger: (ledger or mine).gap_accepted(start, end, when)
        )
        self.behind_gap = end
        _log_gap(self.gaps[-1])

    def came(self) -> None:
        """WAL has become durable: what was accepted before is behind us."""
        self.behind_gap = None

    async def _change(self, change: Callable[[Ledger | None], Ledger]) -> Ledger:
        mine = self.ledger

        def job() -> Ledger:
            self._assure()
            return change_ledger(self._files, self._paths, lambda stored: change(stored or mine))

        try:
            self.ledger = await self._lane.run(job)
        except OSError as error:
            raise SinkFailed(f"could not store {self._paths.ledger}: {error.strerror}") from error
        return self.ledger

    def _show(self, ledger: Ledger) -> None:
        for gap in ledger.gaps:
            _log_gap(gap)
        for hole in ledger.holes:
            names = hole.segments(ledger.segment_size)
            shown = ", ".join(names[:_SHOWN])
            _log.error(
                "the archive has a hole from {start} to {end} (timeline {timeline}): {count} "
                "segments are missing, {names}; no backup from before can be restored to beyond, "
                "and no standby served across it: copy them in from elsewhere and start again. "
                "Receiving goes on",
                start=str(LSN(hole.start)),
                end=str(LSN(hole.end)),
                timeline=hole.timeline,
                count=len(names),
                names=shown if len(names) <= _SHOWN else f"{shown}, … {names[-1]}",
            )


def _log_gap(gap: AcceptedGap) -> None:
    _log.error(
        "the archive has a gap {gap}: no backup from before can be restored to beyond it",
        gap=str(gap),
    )
