"""Makes an image of a segment file: finds it, decodes it, maps it, reads it ahead, checks it.

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
from walstream.archive.images import Image
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
    """

    segment: str
    candidates: Sequence[str]
    identity: SystemIdentity
    start: LSN
    valid: int


def load_image(files: FileSystem, paths: ArchivePaths, request: SegmentRequest) -> Image:
    """Map the first of the candidates that exists and is whole.

    A compressed one is decoded first, into a file that has no name: its pages are the kernel's to
    write out when memory is short, as those of a segment are.

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
    raise WALUnavailable(request.segment) from trouble


def _load(files: FileSystem, path: str, request: SegmentRequest) -> Image | None:
    fds = []
    try:
        fds.append(files.open(path, os.O_RDONLY))
    except FileNotFoundError:
        return None
    try:
        if codec_of(path) is not None:
            fds.append(decode_unnamed(files, fds[0], path, request.identity.segment_size))
        return _map(files, fds[-1], path, request)
    finally:
        for fd in fds:
            files.close(fd)


def _map(files: FileSystem, fd: int, path: str, request: SegmentRequest) -> Image:
    name, size = os.path.basename(path), request.identity.segment_size
    found = files.size_of(fd)
    if found != size:
        raise FormatError(f"{name} has {found} bytes and not {size}")
    mapping = mmap(fd, size, flags=MAP_SHARED, prot=PROT_READ)
    # What lies behind has just been written, if at all, so it is in memory anyway.
    if not populate(mapping, request.valid):
        for offset in range(0, request.valid, _READ):
            files.pread(fd, _READ, offset)
    if request.valid >= LONG_HEADER_SIZE:
        _check_header(SegmentHeader.parse(mapping[:LONG_HEADER_SIZE]), name, request)
    return Image(mapping, request.start)


def _check_header(header: SegmentHeader, name: str, request: SegmentRequest) -> None:
    found = (header.address, header.system_identifier, header.segment_size)
    identity = request.identity
    if found != (request.start, identity.system_identifier, identity.segment_size):
        raise FormatError(
            f"{name} holds the WAL of system {header.system_identifier} from {header.address} on, "
            f"in segments of {header.segment_size} bytes"
        )
