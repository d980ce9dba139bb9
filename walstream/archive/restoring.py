"""Gives files of an archive to a server in recovery, and never one that is not right.

What PostgreSQL does with a file that it gets is out of our hands: damage in it is the end of WAL
to it, where recovery ends and the server is opened. So is a segment that is not there. Therefore
what is damaged is not given, and what is missing in the middle is not passed over in silence.

Started once for each segment: nothing here imports Twisted, nor what else takes time to import.
"""

from __future__ import annotations

import os
import re
from os.path import basename, dirname, exists, isdir, join

from walstream.archive.compression import read_segment
from walstream.archive.end_mark import read_end_mark
from walstream.archive.filesystem import FileSystem
from walstream.archive.identity import find_identity
from walstream.archive.paths import ArchivePaths, forms_of, rank_segments
from walstream.errors import ArchiveError, DamagedWAL, FormatError
from walstream.formats.arriving_pages import ArrivingPages
from walstream.formats.lsn import LSN
from walstream.formats.page_rules import PageRules
from walstream.formats.pages import PAGE_SIZE, Buffer
from walstream.formats.positions import SystemIdentity
from walstream.formats.record_walk import RecordWalk
from walstream.formats.segments import (
    SegmentFile,
    history_file_name,
    is_backup_history_name,
    parse_history_file_name,
    parse_segment_file,
)
from walstream.formats.timelines import TimelineHistory

__all__ = ["restore"]

_SEGMENT = re.compile(r"[0-9A-F]{24}")


def restore(
    files: FileSystem,
    paths: ArchivePaths,
    name: str,
    target: str,
    *,
    partial: bool = False,
    records: bool = False,
) -> bool:
    """Give the file *name*; False if there is none, and nothing is wrong about that.

    The target appears with all its contents or not at all. It is not synced: PostgreSQL does that
    itself when it keeps it (``KeepFileRestoredFromArchive``), and else uses it once.

    :param name: of a segment, a timeline's history or a backup's history: ``%f``.
    :param target: where it goes: ``%p``.
    :param records: whether each record's checksum is checked too, of finished segments.
    :param partial: whether the segment that is still being received may be given too.
    :raises FormatError: for another name, and if what there is is damaged.
    :raises ArchiveError: if there is no archive, it is another cluster's, or WAL is missing in it.
    :raises OSError: if a file cannot be read or written.
    """
    _check_is_there(paths)
    identity = _identify(files, paths, target)
    content: Buffer | None
    if parse_history_file_name(name) is not None or is_backup_history_name(name):
        content = _small_file(files, paths, name)
    elif _SEGMENT.fullmatch(name):
        if identity is None:
            raise ArchiveError(f"{paths.root} holds nothing that tells whose WAL it is")
        content = _Segment(files, paths, identity, name, target).content(
            partial=partial, records=records
        )
    else:
        raise FormatError(
            f"{name!r} is not the name of a segment, a timeline history or a backup history file"
        )
    if content is None:
        return False
    _deliver(files, content, target)
    return True


def _check_is_there(paths: ArchivePaths) -> None:
    if not isdir(paths.root):
        raise ArchiveError(f"there is no directory {paths.root}: is it mounted?")
    if exists(paths.of("archive_status")):
        raise ArchiveError(f"{paths.root} is a server's own pg_wal, and no archive")
    if exists(paths.identity):
        return
    # What walstream has written has an identity; what others have, segments.
    if not rank_segments(os.listdir(paths.root)):
        raise ArchiveError(f"{paths.root} holds no WAL, so it is no archive: is it mounted?")


def _identify(files: FileSystem, paths: ArchivePaths, target: str) -> SystemIdentity | None:
    ranked = [] if exists(paths.identity) else rank_segments(files.names(paths.root))
    identity = find_identity(files, paths, ranked)
    server = _system_of_server(target)
    if identity is not None and server not in (None, identity.system_identifier):
        raise ArchiveError(
            f"{paths.root} holds the WAL of system {identity.system_identifier}, but this server "
            f"is of system {server}"
        )
    return identity


def _small_file(files: FileSystem, paths: ArchivePaths, name: str) -> bytes | None:
    try:
        content = files.read(paths.of(name))
    except FileNotFoundError:
        return None
    timeline = parse_history_file_name(name)
    if timeline is not None and not TimelineHistory.parse(timeline, content).ancestors:
        raise FormatError(f"{paths.of(name)} is damaged: it names no timeline")
    return content


class _Segment:
    """A segment that a server asks for."""

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        identity: SystemIdentity,
        name: str,
        target: str,
    ) -> None:
        self._files = files
        self._paths = paths
        self._name = name
        self._target = target
        self._identity = identity
        segment = parse_segment_file(name, self._identity.segment_size)
        if segment is None:
            raise FormatError(
                f"no segment of {self._identity.segment_size} bytes is named {name}: does "
                f"{paths.root} belong to this server?"
            )
        self._segment: SegmentFile = segment

    def content(self, *, partial: bool, records: bool) -> Buffer | None:
        """What the segment holds; None if it is not there and need not be."""
        content = self._finished(records)
        if content is None and partial:
            # It may get its final name between the two looks.
            content = self._unfinished() or self._finished(records)
        if content is None:
            self._check_no_hole()
        return content

    def _finished(self, records: bool) -> Buffer | None:
        damage: FormatError | None = None
        for name in forms_of(self._name):
            path = self._paths.of(name)
            try:
                content = read_segment(self._files, path, self._identity.segment_size)
                self._check(content)
                if records:
                    self._check_records(content)
                return content
            except FileNotFoundError:
                continue
            except FormatError as error:
                # In another form it may be whole: a crash can leave two.
                damage = damage or error
            except DamagedWAL as error:
                damage = damage or FormatError(f"{path} is damaged: {error}")
        if damage is not None:
            raise damage
        return None

    def _unfinished(self) -> Buffer | None:
        """As much of it as is WAL, and zeros behind.

        Everything up to the end mark has to be right. The mark may be older than the truth, after
        a power cut, so what follows is given too, as far as it is WAL: recovery finds the end.
        """
        path = self._paths.partial(self._name)
        size = self._identity.segment_size
        try:
            content = bytearray(self._files.read(path, size))
        except FileNotFoundError:
            return None
        content += bytes(size - len(content))
        try:
            self._check(content)
        except DamagedWAL as error:
            good = error.position - error.position % PAGE_SIZE
            if good < self._durable_end():
                raise FormatError(f"{path} is damaged: {error}") from error
            good -= self._start
            content[good:] = bytes(size - good)
        return content

    def _durable_end(self) -> int:
        """Up to where the segment is durable by the end mark; 0 if that says nothing of it."""
        mark = read_end_mark(self._files, self._paths)
        return mark.lsn if mark is not None and mark.timeline == self._segment.timeline else 0

    def _check(self, content: Buffer) -> None:
        """Check all page headers.

        :raises DamagedWAL: naming the first that is not right.
        """
        ArrivingPages(self._start, self._rules()).check(self._start, memoryview(content))

    def _check_records(self, content: Buffer) -> None:
        """Check all records that are whole in it.

        :raises DamagedWAL: naming the first that is not right.
        """
        from crc32c import crc32c

        RecordWalk(self._start, self._rules(), crc32c).feed(self._start, bytes(content))

    @property
    def _start(self) -> LSN:
        return self._identity.segment_size.start(self._segment.number)

    def _rules(self) -> PageRules:
        return PageRules(
            self._identity.segment_size,
            history=self._history(self._segment.timeline),
            system_identifier=self._identity.system_identifier,
        )

    def _history(self, timeline: int) -> TimelineHistory | None:
        if timeline == 1:
            return TimelineHistory(1, ())
        try:
            content = self._files.read(self._paths.of(history_file_name(timeline)))
        except FileNotFoundError:
            return None
        return TimelineHistory.parse(timeline, content)

    # What must not pass for the end of WAL.

    def _check_no_hole(self) -> None:
        """See to it that the server does not take a hole for the end of WAL, and opens.

        A standby waits, and may get the segment elsewhere; and what is in pg_wal is used anyway.
        """
        newer = [
            name[:24]
            for name in rank_segments(self._files.names(self._paths.root))
            if name[:8] == self._name[:8] and name[:24] > self._name and "partial" not in name
        ]
        if not newer or _is_standby(self._target) or exists(_in_pg_wal(self._target, self._name)):
            return
        raise ArchiveError(
            f"{self._name} is missing in {self._paths.root}, which holds {min(newer)} and others "
            "behind it: recovery must not end here as if there were no more"
        )


def _deliver(files: FileSystem, content: Buffer, target: str) -> None:
    incoming = f"{target}.incoming"
    fd = files.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        files.write_all(fd, memoryview(content), 0)
    except OSError:
        files.unlink(incoming)
        raise
    finally:
        files.close(fd)
    files.rename(incoming, target)


# The server: its data directory is where it runs the command, and where %p begins.


def _data_directory(target: str) -> str:
    # Not "..": pg_wal may be a link.
    return dirname(dirname(target)) or "."


def _system_of_server(target: str) -> int | None:
    """The system identifier of the server whose pg_wal it is; None if that cannot be told."""
    try:
        with open(join(_data_directory(target), "global", "pg_control"), "rb") as file:
            start = file.read(8)  # ControlFileData.system_identifier
    except OSError:
        return None
    return int.from_bytes(start, "little") if len(start) == 8 else None


def _is_standby(target: str) -> bool:
    return exists(join(_data_directory(target), "standby.signal"))


def _in_pg_wal(target: str, name: str) -> str:
    return join(dirname(target), name) if basename(target) != name else ""
