"""Taking possession of an archive directory, before anything is written into it.

Everything here waits for the disk, so it belongs into a lane.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from walstream.archive.end_mark import EndMark
from walstream.archive.filesystem import FileSystem
from walstream.archive.identity import store_identity
from walstream.archive.lock import ArchiveLock
from walstream.archive.paths import ArchivePaths, foreign_names
from walstream.archive.survey import Survey, survey
from walstream.errors import ArchiveError

__all__ = ["Possession", "take_possession"]


@dataclass(frozen=True, slots=True)
class Possession:
    """An archive that this process may write, and nobody else may."""

    lock: ArchiveLock
    survey: Survey
    mark: EndMark


def take_possession(files: FileSystem, paths: ArchivePaths) -> Possession:
    """Lock an archive, look at it, and make sure that what it holds is durable.

    The directory is made if only it itself is missing. One that pg_receivewal filled is adopted.

    :raises ArchiveError: if another process writes it, or it cannot be one archive.
    :raises OSError: if the directory cannot be used.
    """
    _make_root(files, paths)
    _refuse_foreign(files, paths)
    files.make_directory(paths.own)
    lock = ArchiveLock.acquire(paths)
    try:
        for leftover in (paths.spare, paths.fresh, paths.rewrite, paths.incoming):
            files.unlink(leftover)
        found = survey(files, paths)
        if found.identity is not None and found.is_adopted:
            store_identity(files, paths, found.identity)
        _make_durable(files, paths, found)
        return Possession(lock, found, EndMark(files, paths))
    except BaseException:
        lock.release()
        raise


def _make_root(files: FileSystem, paths: ArchivePaths) -> None:
    if not os.path.isdir(paths.root):
        files.make_directory(paths.root)
        files.fsync_directory(os.path.dirname(paths.root))


def _refuse_foreign(files: FileSystem, paths: ArchivePaths) -> None:
    """The first time, see whether the operator really means this directory."""
    if files.find_size(paths.identity) is not None:
        return
    foreign = foreign_names(files.names(paths.root))
    if foreign:
        shown = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise ArchiveError(
            f"{paths.root} holds files that do not belong into a WAL archive ({shown}): move them "
            "away, or choose another directory"
        )


def _make_durable(files: FileSystem, paths: ArchivePaths, found: Survey) -> None:
    """What is reported as durable from now on must not depend on how its writer ended.

    It may have been killed between giving a segment its name and syncing the directory, and it
    may have been another program. Older segments have long been written back.
    """
    if found.newest_finished is not None:
        path = paths.of(found.newest_finished)
        if files.find_size(path) is not None:
            fd = files.open(path, os.O_RDONLY)
            try:
                files.fsync(fd)
            finally:
                files.close(fd)
    files.fsync_directory(paths.root)
