"""The names of files that belong to one process: what it reads, and its control socket.

A process number alone may be another container's too.
"""

from __future__ import annotations

import os
import re
import secrets

__all__ = ["new_name", "process_of"]

_NAME = re.compile(r"([0-9]{1,10})-[0-9a-f]{16}")


def new_name() -> str:
    """A name for a file of this process's, which no other has."""
    return f"{os.getpid()}-{secrets.token_hex(8)}"


def process_of(name: str) -> int | None:
    """The number of the process whose file has that name; None if it is no such name."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1])
