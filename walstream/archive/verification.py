"""The verification of an archive: everything that can be told from its files, on all cores.

Takes no lock and writes nothing, so it may run beside a receiver and whoever removes WAL. Its
memory does not depend on how much WAL there is, but for the names of the files.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass

from walstream.archive.coverage import Run, find_gaps, missing_histories, runs_of
from walstream.archive.filesystem import FileSystem
from walstream.archive.inventory import Inventory, take_inventory
from walstream.archive.paths import ArchivePaths
from walstream.archive.verification_plan import Unit, history_of, plan, wanted_by
from walstream.archive.verification_work import Finding, UnitResult, verify_unit
from walstream.errors import ArchiveError
from walstream.formats.lsn import LSN
from walstream.formats.segments import history_file_name

__all__ = ["Finding", "Scope", "Summary", "Verification"]

_REPLACE = "put a good copy of it in its place"


@dataclass(frozen=True, slots=True)
class Scope:
    """What of an archive is verified; all unless told otherwise.

    :ivar start: WAL from this position on.
    :ivar end: WAL before this position.
    """

    timeline: int | None = None
    start: int | None = None
    end: int | None = None


@dataclass(slots=True)
class Summary:
    """What was looked at, and what came of it."""

    segments: int = 0
    ranges: int = 0
    records: int = 0
    bytes: int = 0
    faults: int = 0
    seconds: float = 0.0


class Verification:
    """One verification of an archive.

    :ivar summary: complete when `run` is over.
    :ivar segments: how many segment files are to be read.
    """

    def __init__(self, files: FileSystem, paths: ArchivePaths, scope: Scope | None = None) -> None:
        """
        :raises ArchiveError: if it is no archive.
        :raises OSError: if it cannot be read.
        """
        self.summary = Summary()
        self._begun = time.monotonic()
        self._root = paths.root
        self._scope = scope or Scope()
        self._problems: list[ArchiveError] = []
        self._found = found = take_inventory(files, paths, self._problems.append)
        if found.identity is None and (found.segments or found.partials or found.skipped):
            raise ArchiveError(f"nothing in {paths.root} tells whose WAL it is")
        self._seen: set[Finding] = set()

    def segments(self) -> int:
        """How many files of segments will be read."""
