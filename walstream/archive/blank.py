"""An archive into which no WAL has come yet: it may still be another system's.

Whoever answers first, when an archive is new, is the one whose archive it is to be: that is
written down before anything else. But it may be the wrong server, or an impostor that has no WAL
of anybody. Until some has come there is nothing that could be mixed with another's, and what was
written down is no reason to refuse the right one.

Everything here waits for the disk, so it belongs into a lane.
"""

from __future__ import annotations

from collections.abc import Callable

from walstream.archive.end_mark import read_end_mark
from walstream.archive.filesystem import FileSystem
from walstream.archive.ledger import load_ledger
from walstream.archive.paths import ArchivePaths, rank_segments
from walstream.formats.pages import LONG_HEADER_SIZE
from walstream.formats.segments import (
    SegmentSize,
    parse_backup_history_name,
    parse_history_file_name,
)

__all__ = ["clear_if_blank"]


def clear_if_blank(
    files: FileSystem, paths: ArchivePaths, size: SegmentSize, assure: Callable[[], None]
) -> bool:
    """If no WAL has come yet, remove what was written down of the system that was to send it.

    But for its name, which goes when another takes its place: if we are killed before that, all
    this is done again. Whether it was so.

    :param size: that system's.
    :param assure: `Tenure.assure`.
    :raises ArchiveError: if the ledger is damaged.
    :raises OSError: if something cannot be read, or removed.
    """
    if not _is_blank(files, paths):
        return False
    assure()
    for name in files.names(paths.root):
        is_history = parse_history_file_name(name) or parse_backup_history_name(name, size)
        if is_history or rank_segments([name]):
            files.unlink(paths.of(name))
    for path in (paths.ledger, paths.spare, paths.fresh, paths.rewrite):
        files.unlink(path)
    for directory in (paths.root, paths.own):
        files.fsync_directory(directory)
    return True


def _is_blank(files: FileSystem, paths: ArchivePaths) -> bool:
    """Whether no WAL has ever become durable here, as far as one can see.

    What is in doubt, a file that cannot be read for one, is not blank.
    """
    if read_end_mark(files, paths) is not None:
        return False
    ledger = load_ledger(files, paths)
    if ledger is not None and ledger.gaps:
        return False  # something was held, before the first of them
    return all(_is_unwritten(files, paths, name) for name in rank_segments(files.names(paths.root)))


def _is_unwritten(files: FileSystem, paths: ArchivePaths, name: str) -> bool:
    """Whether a segment's file was made, and nothing has come into it: not even a page's header."""
    if not name.endswith(".partial") or "." in name.removesuffix(".partial"):
        return False
    return not any(files.read(paths.of(name), LONG_HEADER_SIZE))
