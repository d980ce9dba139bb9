"""The verification of an archive: all that can be told from its files, found on all cores.

Takes no lock and writes nothing, so it may run beside a receiver, and beside whoever removes WAL.
What it needs of memory does not depend on how much WAL there is, but for the names of the files.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from walstream.archive.coverage import Gap, find_gaps, missing_histories, runs_of
from walstream.archive.filesystem import FileSystem
from walstream.archive.inventory import Held, take_inventory
from walstream.archive.paths import ArchivePaths
from walstream.archive.verification_plan import Unit, plan
from walstream.archive.verification_work import Finding, UnitResult, verify_unit
from walstream.errors import ArchiveError
from walstream.formats.lsn import LSN
from walstream.formats.positions import WALPosition
from walstream.formats.segments import history_file_name
from walstream.formats.timelines import TimelineHistory

__all__ = ["Finding", "Scope", "Summary", "Verification"]

# Units that wait for a process, for each of them: enough that none is ever idle.
_QUEUE = 3

# So much WAL is verified before another process would have begun.
_WORTH = 64 << 20


@dataclass(frozen=True, slots=True)
class Scope:
    """What of an archive is verified; all of it unless told otherwise.

    :ivar start: WAL from this position on, :ivar end: and before this one.
    """

    timeline: int | None = None
    start: int | None = None
    end: int | None = None

    def overlaps(self, start: int, end: int) -> bool:
        """Whether a byte from *start* to before *end* is between the two ends."""
        return (self.start is None or end > self.start) and (self.end is None or start < self.end)


@dataclass(slots=True)
class Summary:
    """What was looked at, and what came of it.

    :ivar ranges: runs of segments of one timeline without a gap.
    :ivar faults: what is not good.
    """

    segments: int = 0
    ranges: int = 0
    records: int = 0
    bytes: int = 0
    faults: int = 0


class Verification:
    """One verification of one archive.

    :ivar scope: what of it is looked at; may be changed before `findings` is called.
    :ivar segment_size: None if there is no WAL.
    :ivar summary: what `findings` has come to.
    """

    def __init__(self, files: FileSystem, paths: ArchivePaths, scope: Scope | None = None) -> None:
        """
        :raises ArchiveError: if it is no archive.
        :raises OSError: if it cannot be read.
        """
        self.scope = scope or Scope()
        self._root = paths.root
        self._problems: list[ArchiveError] = []
        self._found = found = take_inventory(files, paths, self._problems.append)
        self.summary = Summary(ranges=len(runs_of(found.segments)))
        self.segment_size = None if found.identity is None else found.size
        self._seen: set[Finding] = set()

    @property
    def files(self) -> int:
        """How many files of segments there are to read."""
        return sum(map(self._wanted, [*self._found.segments, *self._found.partials]))

    def findings(
        self, jobs: int = 1, progress: Callable[[int], object] = lambda _: None
    ) -> Iterator[Finding]:
        """Verify all of it, and tell what is found as it is found.

        :param jobs: so many processes read; with 1, this one does.
        :param progress: told how many segments more were read.
        """
        for finding in self._all(jobs, progress):
            if finding not in self._seen:
                self._seen.add(finding)
                self.summary.faults += finding.is_fault
                yield finding

    def _all(self, jobs: int, progress: Callable[[int], object]) -> Iterator[Finding]:
        yield from self._about_histories()
        yield from self._about_files()
        if self._found.identity is not None:
            yield from self._about_gaps()
            yield from self._about_content(jobs, progress)

    def _wanted(self, held: Held) -> bool:
        """Whether a segment is on the scope's timeline and has a byte between its ends."""
        scope, size = self.scope, self._found.size
        return scope.timeline in (None, held.timeline) and scope.overlaps(
            size.start(held.number), size.start(held.number + 1)
        )

    # What the names and the small files tell.

    def _about_histories(self) -> Iterator[Finding]:
        for problem in self._problems:
            yield Finding("damage", self._root, str(problem))
        histories = self._found.histories
        for timeline in missing_histories(self._found):
            yield _missing_history(timeline, f"segments of timeline {timeline} are held")
        for timeline, history in sorted(histories.items()):
            for past in history.ancestors:
                if past.timeline != 1 and past.timeline not in histories:
                    why = f"timeline {timeline} descends from {past.timeline}"
                    yield _missing_history(past.timeline, why)
                elif past.timeline in histories:
                    yield from _differences(histories[past.timeline], history)

    def _about_files(self) -> Iterator[Finding]:
        for name in self._found.skipped:
            yield Finding(
                "size",
                name,
                "has not the size of a segment, so nothing can be done with it",
                "put a whole copy of this segment in its place, or remove it",
            )
        for held in self._found.segments if self._found.identity is not None else ():
            history = self._found.histories.get(held.timeline)
            if history is None or not history.ancestors:
                continue
            begins = history.ancestors[-1].switch_point
            if held.number < self._found.size.number(begins) and self._wanted(held):
                yield Finding(
                    "history",
                    held.name,
                    f"lies before timeline {held.timeline} began, which was at {begins}",
                    "it is of another history: move it away",
                )

    def _about_gaps(self) -> Iterator[Finding]:
        size = self._found.size
        for gap in find_gaps(self._found):
            start, end = size.start(gap.first), size.start(gap.last + 1)
            if self.scope.timeline in (None, gap.timeline) and self.scope.overlaps(start, end):
                yield self._gap(gap, start, end)

    def _gap(self, gap: Gap, start: LSN, end: LSN) -> Finding:
        first, last = (self._found.size.name(gap.timeline, each) for each in (gap.first, gap.last))
        number = gap.last - gap.first + 1
        which = f"segment {first} is" if number == 1 else f"{number} segments, to {last}, are"
        if gap.accepted is not None:
            return Finding(
                "note",
                first,
                f"{which} missing: WAL from {start} to {end}, which was accepted on {gap.accepted}",
                "no backup from before can be restored to beyond it",
                start,
            )
        return Finding(
            "gap",
            first,
            f"{which} missing, which is the WAL from {start} to {end}",
            "recovery cannot pass it; put the missing segments there, if another archive has them",
            start,
        )

    # What the WAL itself tells.

    def _about_content(self, jobs: int, progress: Callable[[int], object]) -> Iterator[Finding]:
        last: int | None = None
        for unit, result in self._results(jobs):
            if not unit.goes_on:
                last = None
            if result.first is not None and last is not None and result.first[1] != last:
                yield self._broken_chain(unit, result.first, last)
            if result.last is not None or result.first is not None or not result.is_whole:
                last = result.last
            self.summary.segments += result.segments
            self.summary.records += result.records
            self.summary.bytes += result.bytes
            progress(result.segments)
            yield from result.findings

    def _broken_chain(self, unit: Unit, first: tuple[int, int], last: int) -> Finding:
        lsn, previous = map(LSN, first)
        return Finding(
            "damage",
            unit.pieces[0].name,
            f"the record at {lsn} says that the one before it is at {previous}, but it is at "
            f"{LSN(last)}",
            "this segment, or the one before it, is of another history: find out which",
            lsn,
        )

    def _durable_ends(self) -> list[WALPosition]:
        """Up to where the archive is durable, and was when a gap was accepted there."""
        mark, ledger = self._found.mark, self._found.ledger
        gaps = () if ledger is None else ledger.gaps
        ends = [WALPosition(gap.timeline, gap.start) for gap in gaps]
        return ends if mark is None else [*ends, mark]

    def _results(self, jobs: int) -> Iterator[tuple[Unit, UnitResult]]:
        units = plan(self._found, jobs, self._wanted, self._durable_ends())
        if jobs == 1 or self.files * self._found.size <= _WORTH:
            for unit in units:
                yield unit, verify_unit(self._root, unit)
            return
        yield from _in_processes(self._root, units, jobs)


def _in_processes(root: str, units: Iterator[Unit], jobs: int) -> Iterator[tuple[Unit, UnitResult]]:
    # Imported here, for they take as long as verifying a segment does.
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    # A fork costs least, but must not be done where there are threads.
    may_fork = "fork" in multiprocessing.get_all_start_methods() and threading.active_count() == 1
    context = multiprocessing.get_context("fork" if may_fork else None)
    pool = ProcessPoolExecutor(jobs, mp_context=context)
    waiting: deque[tuple[Unit, Future[UnitResult]]] = deque()
    try:
        for unit in units:
            waiting.append((unit, pool.submit(verify_unit, root, unit)))
            if len(waiting) >= jobs * _QUEUE:
                done, result = waiting.popleft()
                yield done, result.result()
        while waiting:
            done, result = waiting.popleft()
            yield done, result.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _missing_history(timeline: int, why: str) -> Finding:
    return Finding(
        "history",
        history_file_name(timeline),
        f"is missing, but {why}",
        "fetch it from the server's pg_wal, or from another archive",
    )


def _differences(past: TimelineHistory, later: TimelineHistory) -> Iterator[Finding]:
    """Whether a history tells of an ancestor what the ancestor's own history does."""
    own = [(switch.timeline, switch.switch_point) for switch in past.ancestors]
    told = [(switch.timeline, switch.switch_point) for switch in later.ancestors]
    told = told[: [timeline for timeline, _ in told].index(past.timeline)]
    if own != told:
        yield Finding(
            "history",
            history_file_name(later.timeline),
            f"tells another descent of timeline {past.timeline} than "
            f"{history_file_name(past.timeline)} does",
            "they are of two clusters, or two servers were promoted to the same timeline",
        )
