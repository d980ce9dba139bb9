"""Makes an image of a segment file: finds it, decodes it, maps a window, reads it ahead, checks it.

Everything here waits for the disk, so it belongs into a lane.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import MAP_SHARED, PROT_READ, mmap

from walstream.archive.codecs import codec_of
from walstream.archive.compression import decode_unnamed
from walstream.archive.filesystem import FileSystem
from walstream.archive.images import WINDOW, Image
from walstream.archive.native import populate
from walstream.archive.paths import ArchivePaths
from walstream.errors import ArchiveError, FormatError, WALUnavailable
from walstream.formats.lsn import LSN
from walstream.formats.pages import LONG_HEADER_SIZE, SegmentHeader
from walstream.formats.positions import SystemIdentity

__all__ = ["SegmentRequest", "load_image"]

_READ = 1 << 20


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """Which segment is wanted.

    :ivar segment: the name of the segment, for messages.
    :ivar candidates: the files that may hold it, best first.
    :ivar start: the position of its first byte.
    :ivar valid: how many of its bytes are WAL at this moment.
    :ivar offset: where the window begins, of which an image is wanted.
    """

    segment: str
    candidates: Sequence[str]
    identity: SystemIdentity
    start: LSN
    valid: int
    offset: int = 0


def load_image(files: FileSystem, paths: ArchivePaths, request: SegmentRequest) -> Image:
    """Map a window of the first of the candidates that exists and is whole.

    A compressed one is decoded first, all of it, since only its end tells whether it is good; into
    a file that has no name: its pages are the kernel's to write out when memory is short, as those
    of a segment are. It is mapped as a whole, so that nobody decodes it again for another window.

    :raises WALUnavailable: if there is none; if one cannot be served, that is its cause.
    """
    trouble: Exception | None = None
    for candidate in request.candidates:
        try:
            image = _load(files, paths.of(candidate), request)
            if image is not None:
                return image
        except (OSError, FormatError, ArchiveError) as error:
            trouble = trouble or error
    raise WALUnavailable(request.segment, reason=_reason(trouble)) from trouble


def _load(files: FileSystem, path: str, request: SegmentRequest) -> Image | None:
    fds = []
    try:
        fds.append(files.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return None
    try:
        size = request.identity.segment_size
        if codec_of(path) is None:
            return _map(files, fds[0], path, request, request.offset, min(size, WINDOW))
        fds.append(decode_unnamed(files, fds[0], path, size))
        image = _map(files, fds[-1], path, request, 0, size)
        image.is_copy = True
        return image
    finally:
        for fd in fds:
            files.close(fd)


def _map(
    files: FileSystem, fd: int, path: str, request: SegmentRequest, offset: int, length: int
) -> Image:
    name, size = os.path.basename(path), request.identity.segment_size
    found = files.size_of(fd)
    if found != size:
        raise FormatError(f"{name} has {found} bytes and not {size}")
    if request.valid >= LONG_HEADER_SIZE:
        head = files.pread(fd, LONG_HEADER_SIZE, 0)
        _check_header(SegmentHeader.parse(head), name, request)
    mapping = mmap(fd, length, flags=MAP_SHARED, prot=PROT_READ, offset=offset)
    # What lies behind has just been written, if at all, so it is in memory anyway.
    valid = min(request.valid - offset, length)
    if not populate(mapping, valid):
        for begin in range(offset, offset + valid, _READ):
            files.pread(fd, _READ, begin)
    return Image(mapping, request.start + offset, offset)


def _reason(trouble: Exception | None) -> str | None:
    """What clients may know of it: where the archive lies is none of their business."""
    if isinstance(trouble, OSError):
        return trouble.strerror
    return None if trouble is None else str(trouble)


def _check_header(header: SegmentHeader, name: str, request: SegmentRequest) -> None:
    found = (header.address, header.system_identifier, header.segment_size)
    identity = request.identity
    if found != (request.start, identity.system_identifier, identity.segment_size):
        raise FormatError(
            f"{name} holds the WAL of system {header.system_identifier} from {header.address} on, "
            f"in segments of {header.segment_size} bytes"
        )
