"""Taking possession of an archive directory, before anything is written into it.

The first time, whatever archive is there is taken, and an empty directory becomes one. Later, after
a failure, only the one that was there before is: what is mounted or unmounted meanwhile, moved
away, or put in its place, shall not get WAL that continues another.

Everything here waits for the disk, so it belongs into a lane.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace

from walstream.archive.bookkeeping import open_ledger
from walstream.archive.compressing import remove_leftovers
from walstream.archive.end_mark import EndMark, read_end_mark
from walstream.archive.filesystem import FileSystem
from walstream.archive.identity import is_same_system, store_identity
from walstream.archive.lock import ArchiveLock
from walstream.archive.paths import ArchivePaths, foreign_names, rank_segments
from walstream.archive.survey import Survey, survey
from walstream.errors import ArchiveError, ArchiveLost
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.segments import SegmentSize, parse_segment_file

__all__ = ["Expected", "Possession", "retake_possession", "take_possession"]

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Possession:
    """An archive that this process may write, and nobody else may."""

    lock: ArchiveLock
    survey: Survey
    mark: EndMark

    def release(self) -> None:
        """Let go of it."""
        try:
            self.mark.close()
        finally:
            self.lock.release()


@dataclass(frozen=True, slots=True)
class Expected:
    """What an archive held when it was let go.

    :ivar identity: whose WAL; None if it was nobody's yet.
    :ivar end: up to where it was durable, by what it told others; None if nothing was.
    """

    identity: SystemIdentity | None
    end: WALPosition | None


def take_possession(files: FileSystem, paths: ArchivePaths) -> Possession:
    """Lock an archive, look at it, and make sure that what it holds is durable.

    The directory is made if only it itself is missing. One that pg_receivewal filled is adopted.

    :raises ArchiveError: if another process writes it, or it cannot be one archive.
    :raises OSError: if the directory cannot be used.
    """
    _make_root(files, paths)
    _refuse_foreign(files, paths)
    return _take(files, paths)


def retake_possession(files: FileSystem, paths: ArchivePaths, expected: Expected) -> Possession:
    """As `take_possession`, of the archive that was let go, and of no other.

    Until it is recognized, nothing is written.

    :raises ArchiveLost: if it is not there, is another one, holds less than *expected*, or
        belongs to another process now.
    :raises OSError: if the directory cannot be used.
    """
    try:
        _recognize(files, paths, expected, survey(files, paths))
        possession = _take(files, paths)
        try:
            # Somebody may have had it between the first look and the lock.
            _recognize(files, paths, expected, possession.survey)
        except BaseException:
            possession.release()
            raise
        return possession
    except (FileNotFoundError, NotADirectoryError) as error:
        if files.find_identity(paths.root) is not None:
            raise
        raise _lost(paths, expected, "found no such directory") from error
    except ArchiveError as error:
        raise ArchiveLost(str(error)) from error


def _take(files: FileSystem, paths: ArchivePaths) -> Possession:
    files.make_directory(paths.own)
    lock = ArchiveLock.acquire(paths)
    try:
        for leftover in (paths.spare, paths.fresh, paths.rewrite, paths.incoming):
            files.unlink(leftover)
        remove_leftovers(files, paths)
        found = survey(files, paths, checks_tail=True)
        if found.identity is not None and found.is_adopted:
            store_identity(files, paths, found.identity)
        _make_durable(files, paths, found)
        found = replace(found, ledger=open_ledger(files, paths, found))
        return Possession(lock, found, EndMark(files, paths))
    except BaseException:
        lock.release()
        raise


# Recognizing the archive that was let go.


def _recognize(files: FileSystem, paths: ArchivePaths, expected: Expected, found: Survey) -> None:
    identity, end = expected.identity, expected.end
    if identity is None:
        # It held nothing; but it had a directory of ours.
        if files.find_identity(paths.own) is None:
            raise _lost(paths, expected, "found a directory that was never an archive")
        return
    if found.identity is None:
        is_empty = not files.names(paths.root)
        what = "an empty directory" if is_empty else "a directory without an archive"
        raise _lost(paths, expected, f"found {what}")
    if not is_same_system(found.identity, identity):
        raise _lost(paths, expected, f"found system {found.identity.system_identifier}")
    if end is None:
        return
    held = found.end
    if held is None or held.timeline < end.timeline or held.lsn < end.lsn:
        raise ArchiveLost(
            f"the archive at {paths.root} holds less than was acknowledged: expected WAL up to "
            f"{_place(end)}, found WAL up to {_place(held)}; bring back what is missing, or "
            "restart to go on with what there is"
        )


def _lost(paths: ArchivePaths, expected: Expected, found: str) -> ArchiveLost:
    whose = "an archive without WAL"
    if expected.identity is not None:
        whose = f"system {expected.identity.system_identifier}"
        if expected.end is not None:
            whose += f" with WAL up to {_place(expected.end)}"
    return ArchiveLost(
        f"the archive at {paths.root} is gone: expected {whose}, {found}; nothing is written there"
    )


def _place(end: WALPosition | None) -> str:
    return "nowhere" if end is None else f"{end.lsn} on timeline {end.timeline}"


# The first time.


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


# Every time.


def _make_durable(files: FileSystem, paths: ArchivePaths, found: Survey) -> None:
    """What is reported as durable from now on must not depend on how its writer ended.

    It may have been killed between giving a segment its name and syncing the directory, or after
    that sync had failed. It may have been another program, or a person who copied what was missing.

    After a failed sync the kernel may take for written what is not, and the next sync would not
    tell. The bytes of a ``.partial`` that the end mark does not vouch for are all written again,
    and those of a finished segment were synced before it got its name. A name is written again if
    it is given to another file.
    """
    if found.identity is not None:
        is_ours = not found.is_adopted
        for name in _unvouched(files, paths, found.identity.segment_size):
            if is_ours and (name.endswith(".partial") or name == found.newest_finished):
                _name_again(files, paths, name)
            fd = files.open(paths.of(name), os.O_RDONLY)
            try:
                files.fsync(fd)
            finally:
                files.close(fd)
    files.fsync_directory(paths.root)


def _unvouched(files: FileSystem, paths: ArchivePaths, size: SegmentSize) -> list[str]:
    """The segments that the end mark does not say are durable, name and all; newest first."""
    mark = read_end_mark(files, paths)
    unvouched = []
    for name in rank_segments(files.names(paths.root)):
        segment = parse_segment_file(name, size)
        if segment is None:
            continue
        if mark is not None and segment.timeline <= mark.timeline:
            if size.start(segment.number + 1) <= mark.lsn:
                break
            if segment.partial and size.start(segment.number) < mark.lsn:
                continue
        unvouched.append(name)
    return unvouched


def _name_again(files: FileSystem, paths: ArchivePaths, name: str) -> None:
    """Give a segment's name to another file with the same bytes.

    On a full disk it is left as it is: that must not keep us from starting.
    """
    old = files.open(paths.of(name), os.O_RDONLY)
    try:
        new = files.open(paths.fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            size = files.size_of(old)
            for offset in range(0, size, _PIECE):
                files.write_all(new, files.pread(old, _PIECE, offset), offset)
            files.fsync(new)
        finally:
            files.close(new)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        files.unlink(paths.fresh)
    else:
        files.rename(paths.fresh, paths.of(name))
    finally:
        files.close(old)
