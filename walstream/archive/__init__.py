"""Archives: directories of WAL, in pg_receivewal's layout, that are sink and provider at once.

`ArchiveDirectory` is for the process that fills one, and may serve it too; `ArchiveReader` is for
any other process. This package knows disks, and no protocol.
"""

from walstream.archive.directory import ArchiveDirectory
from walstream.archive.reader import ArchiveReader
from walstream.archive.serving import Equipment, Storage

__all__ = ["ArchiveDirectory", "ArchiveReader", "Equipment", "Storage"]
