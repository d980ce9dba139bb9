"""What an archive directory holds, and where a stream would go on: pg_receivewal's rules, and ours.

Everything here reads the directory, so it belongs into a lane.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from walstream.archive.compression import WholenessCheck
from walstream.archive.end_mark import read_end_mark
from walstream.archive.filesystem import FileSystem
from walstream.archive.identity import adopt_segments, check_newest, load_identity
from walstream.archive.ledger import Ledger, load_ledger
from walstream.archive.paths import COMPRESSIONS, ArchivePaths, rank_segments
from walstream.archive.torn import valid_end
from walstream.errors import ArchiveError, FormatError
from walstream.formats.lsn import LSN
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.segments import (
    SegmentFile,
    SegmentSize,
    history_file_name,
    parse_history_file_name,
    parse_segment_file,
)
from walstream.formats.timelines import TimelineHistory

__all__ = ["Survey", "is_held", "read_history", "survey"]


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    :ivar identity: whose WAL it is; None if there is none.
    :ivar is_adopted: whether *identity* comes from the segments, for want of a file that says it.
    :ivar durable: the durable end on the timeline that a stream goes on with.
    :ivar end: up to where WAL may be served; may be on an older timeline than *durable*.
    :ivar history: the history of the timeline of *end*.
    :ivar histories: the timelines whose history files are held.
    :ivar newest_finished: the name of the newest finished segment's file.
    :ivar skipped: segment files that have a wrong size, or a name that is none at this size.
    :ivar damaged: what is wrong with compressed segments that would be the newest finished ones.
    :ivar ledger: what the ledger says; None if there is none.
    :ivar behind_gap: where a stream goes on if that is not at *durable*: behind a gap that was
        accepted there, and behind which nothing has come yet.
    :ivar torn: why *durable* is less than what was acknowledged; None if it is not.
    :ivar unreadable: compressed segments that were never finished, of which nothing can be used.
    """

    identity: SystemIdentity | None = None
    is_adopted: bool = False
    durable: WALPosition | None = None
    end: WALPosition | None = None
    history: TimelineHistory | None = None
    histories: frozenset[int] = frozenset()
    newest_finished: str | None = None
    skipped: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()
    ledger: Ledger | None = None
    behind_gap: WALPosition | None = None
    torn: str | None = None
    unreadable: tuple[str, ...] = ()


def survey(
    files: FileSystem,
    paths: ArchivePaths,
    check: WholenessCheck | None = None,
    *,
    checks_tail: bool = False,
) -> Survey:
    """Look at an archive directory. Changes nothing.

    :param check: that of the survey before, which knows the newest segment already, perhaps.
    :param checks_tail: see whether the ``.partial`` holds WAL up to the end mark, as it should.
    :raises ArchiveError: if it cannot be one archive.
    :raises OSError: if it cannot be read.
    """
    names = files.names(paths.root)
    if "archive_status" in names:
        raise ArchiveError(
            f"{paths.root} is a server's own pg_wal, which is not an archive: its files are "
            "removed and used again; choose another directory"
        )
    ranked = rank_segments(names)
    histories = frozenset(filter(None, map(parse_history_file_name, names)))
    identity = load_identity(files, paths)
    is_adopted = identity is None
    if identity is None:
        identity = adopt_segments(files, paths, ranked)
    else:
        check_newest(files, paths, ranked, identity)
    ledger = load_ledger(files, paths)
    if identity is None:
        return Survey(histories=histories, ledger=ledger)
    look = _Look(files, paths, identity.segment_size, ranked, check or WholenessCheck(), ledger)
    durable, end = look.ends(read_end_mark(files, paths), checks_tail)
    gap = None
    if ledger is not None and durable is not None and (gap := ledger.pending_gap(durable)):
        durable = WALPosition(gap.timeline, gap.start)
    history = None
    if end is not None:
        history = read_history(files, paths, end.timeline)
        end = look.clamp(end, durable)
    return Survey(
        identity=identity,
        is_adopted=is_adopted,
        durable=durable,
        end=end,
        history=history,
        histories=histories,
        newest_finished=look.newest_finished,
        skipped=tuple(look.skipped),
        damaged=tuple(look.damaged.values()),
        ledger=ledger,
        behind_gap=None if gap is None else WALPosition(gap.end_timeline, gap.end),
        torn=look.torn,
        unreadable=tuple(name for name in ranked if _is_unreadable(name)),
    )


def _is_unreadable(name: str) -> bool:
    return name.endswith(".partial") and not name.removesuffix(".partial").isalnum()


def is_held(files: FileSystem, paths: ArchivePaths, size: SegmentSize, end: WALPosition) -> bool:
    """Whether an end mark agrees with the files: its last byte must be in one that is there."""
    name = size.name(end.timeline, size.number(end.lsn - 1))
    # At a segment's end the file had its final name before the mark was written.
    if size.offset(end.lsn) and files.find_size(paths.partial(name)) == size:
        return True
    if files.find_size(paths.of(name)) == size:
        return True
    return any(files.find_size(f"{paths.of(name)}.{suffix}") for suffix in COMPRESSIONS)


def read_history(files: FileSystem, paths: ArchivePaths, timeline: int) -> TimelineHistory | None:
    """The history of a timeline; None if its file is not held.

    :raises ArchiveError: if the file is damaged.
    """
    if timeline == 1:
        return TimelineHistory(1, ())
    path = paths.of(history_file_name(timeline))
    try:
        return TimelineHistory.parse(timeline, files.read(path))
    except FileNotFoundError:
        return None
    except FormatError as error:
        raise ArchiveError(f"{path} is damaged: {error}") from error


class _Look:
    """One look at the segment files of an archive whose segment size is known."""

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        size: SegmentSize,
        ranked: Sequence[str],
        check: WholenessCheck,
        ledger: Ledger | None,
    ) -> None:
        self.size = size
        self.torn: str | None = None
        self._ledger = ledger
        self.skipped: dict[str, None] = {}
        self.damaged: dict[str, str] = {}
        self.newest_finished: str | None = None
        self._files = files
        self._paths = paths
        self._ranked = ranked
        self._check = check

    def ends(
        self, mark: WALPosition | None, checks_tail: bool
    ) -> tuple[WALPosition | None, WALPosition | None]:
        """The durable end where a stream goes on, and the end to serve."""
        newest = next(self._segments(), None)
        if newest is None:
            return self._nothing_left(mark), None
        finished = next((segment for segment in self._segments() if not segment.partial), None)
        # A mark tells how far the archive was durable, which is less now if a segment is damaged.
        if mark is not None and (
            self.damaged or not is_held(self._files, self._paths, self.size, mark)
        ):
            self.torn = f"no file holds the WAL before {mark.lsn} (timeline {mark.timeline})"
            mark = None
        if mark is not None and checks_tail:
            valid, self.torn = valid_end(self._files, self._paths, self.size, mark)
            mark = WALPosition(mark.timeline, valid)
        durable = self._durable(newest, mark)
        return durable, self._served(finished, mark) or durable

    def _nothing_left(self, mark: WALPosition | None) -> WALPosition | None:
        """Where an archive ends that has a ledger and not one segment.

        Its process may have been killed before the first byte; or somebody has removed them all.
        """
        current = None if self._ledger is None else self._ledger.current
        if current is None:
            return None
        lsn = current.start
        if mark is not None and mark.timeline == current.timeline:
            lsn = max(lsn, mark.lsn)
        return WALPosition(current.timeline, self.size.floor(lsn))

    def clamp(self, end: WALPosition, durable: WALPosition | None) -> WALPosition:
        """Take back what *end* has beyond the point where the stream's timeline left its own.

        Another program may have put a finished segment there whose second half nobody followed.
        """
        if durable is None or durable.timeline <= end.timeline:
            return end
        history = read_history(self._files, self._paths, durable.timeline)
        if history is None or end.timeline not in history:
            return end
        switch_point = history.switch_point(end.timeline)
        return WALPosition(end.timeline, min(end.lsn, switch_point or end.lsn))

    def _segments(self) -> Iterator[SegmentFile]:
        """The segments that count, newest first. PostgreSQL never has WAL in number 0."""
        for name in self._ranked:
            segment = parse_segment_file(name, self.size)
            if segment is None or not self._has_right_size(name, segment):
                self.skipped[name] = None
            elif segment.number and not self._is_left(segment):
                yield self._judged(name, segment)

    def _is_left(self, segment: SegmentFile) -> bool:
        return self._ledger is not None and self._ledger.is_left(
            segment.timeline, self.size.start(segment.number)
        )

    def _judged(self, name: str, segment: SegmentFile) -> SegmentFile:
        """A segment that is finished by its name; if the file is damaged, it is not.

        The newest one says where the stream goes on, so it must be whole: of a compressed file
        that is not known before it was decoded. Damage in older ones is noticed when they are read.
        """
        if self.newest_finished is None and not segment.partial:
            damage = None
            if segment.compression is not None:
                damage = self._check.damage(self._files, self._paths.of(name), self.size)
            if damage is None:
                self.newest_finished = name
            else:
                self.damaged[name] = damage
        return replace(segment, partial=True) if name in self.damaged else segment

    def _has_right_size(self, name: str, segment: SegmentFile) -> bool:
        # A .partial of another size is put right before it is continued.
        if segment.partial or segment.compression is not None:
            return True
        return self._files.find_size(self._paths.of(name)) == self.size

    def _durable(self, newest: SegmentFile, mark: WALPosition | None) -> WALPosition:
        if not newest.partial:
            return WALPosition(newest.timeline, self.size.start(newest.number + 1))
        number = self._first_unfinished(newest)
        start, end = self.size.start(number), self.size.start(number + 1)
        if mark is not None and mark.timeline == newest.timeline and start <= mark.lsn < end:
            return mark
        return WALPosition(newest.timeline, start)

    def _first_unfinished(self, newest: SegmentFile) -> int:
        """The lowest of the unfinished segments that end in *newest*.

        We go on to a few segments while the ones before are still being synced. If we are killed
        then, they all are .partial, and the stream must go on at the first or leave a gap.
        """
        number, lowest = newest.number, 0
        if self._ledger is not None and self._ledger.current is not None:
            lowest = self.size.number(self._ledger.current.start)  # there may be a gap before it
        for segment in self._segments():
            if segment.number < max(number - 1, lowest):
                break
            if segment.timeline != newest.timeline:
                continue
            if not segment.partial:
                break
            number = segment.number
        return number

    def _served(self, finished: SegmentFile | None, mark: WALPosition | None) -> WALPosition | None:
        if finished is None:
            return mark
        end = WALPosition(finished.timeline, self.size.start(finished.number + 1))
        if mark is None or self._age(mark) < self._age(end):
            return end
        return mark

    def _age(self, end: WALPosition) -> tuple[int, int, LSN]:
        return self.size.number(end.lsn - 1), end.timeline, end.lsn
