"""Archives: directories of WAL, in pg_receivewal's layout, that are sink and provider at once.

`ArchiveDirectory` is for the process that fills one, and may serve it too; `ArchiveReader` is for
any other process. This package knows disks, and no protocol.

These names are imported when they are asked for, since they need Twisted: what PostgreSQL starts
once for each segment, ``walstream restore-wal``, uses other modules of this package and does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from walstream.archive.directory import ArchiveDirectory
    from walstream.archive.reader import ArchiveReader
    from walstream.archive.serving import Equipment, Storage

__all__ = ["ArchiveDirectory", "ArchiveReader", "Equipment", "Storage"]

_MODULES = {
    "ArchiveDirectory": "directory",
    "ArchiveReader": "reader",
    "Equipment": "serving",
    "Storage": "serving",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
