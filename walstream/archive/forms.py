"""The forms that a finished segment's file may have, and reading each of them."""

from __future__ import annotations

import gzip
import os
import zlib

from walstream.archive.filesystem import FileSystem
from walstream.archive.paths import COMPRESSIONS
from walstream.errors import FormatError

__all__ = ["FORMS", "read_segment"]

#: What the names end in; the first is WAL as it is.
FORMS = ("", *(f".{suffix}" for suffix in COMPRESSIONS))


def read_segment(files: FileSystem, path: str, size: int) -> bytes:
    """All that the segment file at *path* holds: *size* bytes.

    :raises OSError: if the file cannot be read.
    :raises FormatError: if it does not hold exactly that, or cannot be decoded.
    """
    content = files.read(path)
    if path.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise FormatError(f"{os.path.basename(path)} is damaged: {error}") from error
    if len(content) != size:
        raise FormatError(f"{os.path.basename(path)} has {len(content)} bytes and not {size}")
    return content
