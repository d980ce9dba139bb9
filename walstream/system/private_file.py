"""Files with secrets in them: opened only if nobody else may read them."""

from __future__ import annotations

import os
import stat

from walstream.errors import FormatError

__all__ = ["open_private"]


def open_private(path: str | os.PathLike[str], name: str, *, has_other_guard: bool = False) -> int:
    """A file descriptor, for reading, of a file that is its owner's alone.

    :param name: what messages call the file.
    :param has_other_guard: whether it is kept from others by means that its permission bits don't
        show.
    :raises FormatError: if others have access to it, or it is no plain file.
    :raises OSError: if it can't be opened.
    """
    # Opened first: what is looked at is what is read. A FIFO must not make us wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise FormatError(f"{name} is not a plain file")
        if mode & (stat.S_IRWXG | stat.S_IRWXO) and not has_other_guard:
            raise FormatError(
                f"{name} has group or world access; permissions should be u=rw (0600) or less"
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
