"""Follows an archive that another process writes: walstream's, or pg_receivewal.

Takes no lock and writes nothing. What it reads in the reactor's thread is an end mark and a few
sizes of files; whatever needs more, a new timeline for one, is left to a survey in the lane.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.archive.compression import WholenessCheck
from walstream.archive.documents import Documents
from walstream.archive.end_mark import read_end_mark
from walstream.archive.filesystem import FileSystem
from walstream.archive.identity import is_same_system
from walstream.archive.lane import Lane
from walstream.archive.paths import ArchivePaths
from walstream.archive.provider import ArchiveProvider
from walstream.archive.survey import Survey, is_held, survey
from walstream.errors import ArchiveError
from walstream.formats.lsn import INVALID
from walstream.formats.positions import WALPosition
from walstream.formats.segments import SegmentSize, parse_history_file_name, parse_segment_file
from walstream.formats.timelines import TimelineHistory

__all__ = ["Follower"]


class Follower:
    """Tells a provider how far the archive goes."""

    _log = Logger()

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        provider: ArchiveProvider,
        documents: Documents,
        lane: Lane,
    ) -> None:
        self._files = files
        self._paths = paths
        self._provider = provider
        self._documents = documents
        self._lane = lane
        self._is_looking = self._look_again = False
        self._skipped: set[str] = set()
        self._check = WholenessCheck()
        self._ledger = self._ledger_fingerprint()

    def changed(self, changed: Collection[str]) -> None:
        """Files may have changed: those, or if there are none, any."""
        identity = self._provider.identity
        if identity is None or not changed:
            self._look()
            return
        try:
            understood = [
                self._file_changed(path, identity.segment_size) for path in sorted(changed)
            ]
        except OSError as error:
            self._failed(Failure(error))
            return
        if not all(understood):
            self._look()

    async def look(self) -> None:
        """Look at all of the archive.

        :raises ArchiveError: if it cannot be one archive.
        """
        job = partial(survey, self._files, self._paths, self._check)
        ledger = self._ledger_fingerprint()  # of before: if it changes meanwhile, we look again
        self.found(await self._lane.run(job))
        self._ledger = ledger

    def found(self, survey: Survey) -> None:
        """Tell what a survey found."""
        for name in sorted({*survey.skipped} - self._skipped):
            self._log.warn("segment file {name} has incorrect size, skipping", name=name)
        for reason in sorted({*survey.damaged} - self._skipped):
            self._log.error("{reason}: it does not count as finished", reason=reason)
        self._skipped.update(survey.skipped, survey.damaged)
        self._documents.histories |= survey.histories
        if survey.identity is None:
            return
        held = self._provider.identity
        if held is not None and not is_same_system(held, survey.identity):
            raise ArchiveError(
                f"archive {self._paths.root} was of system {held.system_identifier} and is now of "
                f"system {survey.identity.system_identifier}: open it anew"
            )
        self._provider.identity = survey.identity
        if survey.ledger is not None and survey.ledger.gaps != self._provider.gaps:
            self._provider.gaps = survey.ledger.gaps
        if survey.end is not None:
            self._found_end(survey.end, survey.history)

    # What has changed: False if that takes a survey to understand.

    def _file_changed(self, path: str, size: SegmentSize) -> bool:
        if path == self._paths.end:
            return self._mark_changed(size)
        if path in (self._paths.own, self._paths.identity, self._paths.ledger):
            return False
        directory, name = os.path.split(path)
        if directory != self._paths.root:
            return True
        if parse_history_file_name(name) is not None:
            return False
        segment = parse_segment_file(name, size)
        if segment is None:
            return True
        if segment.partial:
            # Perhaps a new file, in place of one whose disk has failed.
            self._provider.was_replaced(segment.timeline, segment.number)
            return True
        end = WALPosition(segment.timeline, size.start(segment.number + 1))
        if segment.compression is not None and self._is_news(end):
            return False  # it has to be decoded, to see whether it is whole
        return self._advance(end, size)

    def _mark_changed(self, size: SegmentSize) -> bool:
        mark = read_end_mark(self._files, self._paths)
        return mark is None or self._advance(mark, size)

    def _advance(self, end: WALPosition, size: SegmentSize) -> bool:
        now = self._provider.end()
        if not self._is_news(end):
            return True
        if end.timeline != now.timeline or self._ledger_fingerprint() != self._ledger:
            return False  # a gap may have been accepted in between
        if is_held(self._files, self._paths, size, end):
            self._provider.extend(end)
        return True

    def _is_news(self, end: WALPosition) -> bool:
        now = self._provider.end()
        return end.lsn > now.lsn or end.timeline > now.timeline

    def _ledger_fingerprint(self) -> tuple[int, int, int] | None:
        try:
            return self._files.fingerprint(self._paths.ledger)
        except FileNotFoundError:
            return None

    # Surveys, one at a time.

    def _look(self) -> None:
        if self._is_looking:
            self._look_again = True
            return
        self._is_looking = True
        Deferred.fromCoroutine(self.look()).addErrback(self._failed).addBoth(self._looked)

    def _looked(self, _: object) -> None:
        self._is_looking = False
        if self._look_again:
            self._look_again = False
            self._look()

    def _failed(self, failure: Failure) -> None:
        if failure.check(ArchiveError, OSError) is None:
            self._log.failure("cannot follow the archive {path}", failure, path=self._paths.root)
            return
        self._log.error(
            "cannot follow the archive {path} for now: {reason}",
            path=self._paths.root,
            reason=failure.getErrorMessage(),
        )

    def _found_end(self, end: WALPosition, history: TimelineHistory | None) -> None:
        now = self._provider.end()
        if now.lsn == INVALID:
            self._provider.extend(end, history or TimelineHistory(end.timeline, ()))
        elif end.timeline == now.timeline:
            if end.lsn > now.lsn:
                self._provider.extend(end)
        elif history is not None and now.timeline in history:
            switch_point = history.switch_point(now.timeline)
            if switch_point is not None and end.lsn >= switch_point:
                self._provider.extend(end, history)
        elif end.timeline > now.timeline:
            self._log.warn(
                "the archive goes on at {lsn} on timeline {timeline}, which does not descend from "
                "timeline {now}, or its history file is missing: it is not followed",
                lsn=str(end.lsn),
                timeline=end.timeline,
                now=now.timeline,
            )
