"""How an archive is filled and looked after: what its options come to, and the parts they take."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from walstream.archive.checking import Verify
from walstream.archive.compressor import Compressor
from walstream.archive.directory import ArchiveDirectory
from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import ThreadLane
from walstream.archive.retention import RetentionPolicy
from walstream.archive.tail import Serve
from walstream.formats.compression import Compression
from walstream.services.hub import Storage
from walstream.services.retention import Retention

__all__ = ["ArchiveCare"]


@dataclass(frozen=True, slots=True)
class ArchiveCare:
    """How an archive is filled and looked after.

    :ivar verify: what of the arriving WAL is checked.
    :ivar serve: when followers in this process are served it.
    :ivar compression: how finished segments are compressed; None: not at all.
    :ivar compress_jobs: how many at a time.
    :ivar retention: what is kept; unless told otherwise, everything.
    """

    verify: Verify = Verify.HEADERS
    serve: Serve = Serve.FLUSHED
    compression: Compression | None = None
    compress_jobs: int = 1
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)

    def directory(self, reactor: Any, archive: str | os.PathLike[str]) -> ArchiveDirectory:
        """The archive, to be filled."""
        return ArchiveDirectory(archive, reactor, verify=self.verify, serve=self.serve)

    def caretakers(self, reactor: Any, directory: ArchiveDirectory) -> Iterator[Storage]:
        """What works on the archive while it is filled; to be opened after it."""
        paths, files = directory.paths, FileSystem()
        if self.compression is not None:
            lane = ThreadLane(reactor, "walstream-compress", self.compress_jobs)
            jobs = self.compress_jobs
            yield Compressor(
                files, paths, directory, directory.assure, self.compression, lane, reactor, jobs
            )
        if self.retention:
            lane = ThreadLane(reactor, "walstream-prune")
            yield Retention(
                paths, self.retention, lane, reactor, time.time, assure=directory.assure
            )
