"""Where things are in an archive directory, and which names in it are of what kind.

The layout is pg_receivewal's; walstream's own files are in a hidden directory of their own, where
neither PostgreSQL's tools nor a ``restore_command`` comes across them. Knows names only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from os.path import join

from walstream.formats.segments import is_backup_history_name

__all__ = [
    "COMPRESSIONS",
    "ArchivePaths",
    "foreign_names",
    "forms_of",
    "rank_segments",
]

#: What the names of compressed segments end in.
COMPRESSIONS = ("gz", "lz4", "zst")

_SEGMENT = re.compile(r"[0-9A-F]{24}(\.(gz|lz4|zst))?(\.partial)?")
_COMPANION = re.compile(r"\..*|lost\+found|[0-9A-F]{8}\.history(\.tmp)?")


class ArchivePaths:
    """The paths of an archive's files.

    :ivar root: the archive directory.
    :ivar own: walstream's directory in it.
    :ivar lock: locked by the process that writes the archive.
    :ivar identity: whose WAL is held.
    :ivar end: how far it is durable.
    :ivar spare: the file of the next segment, made ahead.
    :ivar fresh: the file of a segment, while it is being made in a hurry.
    :ivar rewrite: a segment that is received again, because its ``.partial`` is not trusted.
    :ivar incoming: a small file before it gets its name.
    :ivar ledger: what the archive holds, and lacks.
    :ivar ledger_lock: locked while the ledger is changed.
    :ivar ledger_incoming: the ledger before it gets its name.
    :ivar slots: the directory of the replication slots.
    :ivar readers: the directory in which processes say what they still read.
    :ivar retention: locked by whoever removes WAL, and shared by who begins to read.
    :ivar control: the directory of the control sockets.
    :ivar roles: who may come in: the verifiers of their passwords, and their limits.
    :ivar compressing: the directory of compressed segments, until they are verified.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.own = join(root, ".walstream")
        self.lock = join(self.own, "lock")
        self.identity = join(self.own, "identity.json")
        self.end = join(self.own, "end")
        self.spare = join(self.own, "spare")
        self.fresh = join(self.own, "fresh")
        self.rewrite = join(self.own, "rewrite")
        self.incoming = join(self.own, "incoming")
        self.ledger = join(self.own, "ledger.json")
        self.ledger_lock = join(self.own, "ledger.lock")
        self.ledger_incoming = join(self.own, "ledger.incoming")
        self.slots = join(self.own, "slots")
        self.readers = join(self.own, "readers")
        self.retention = join(self.own, "retention")
        self.control = join(self.own, "control")
        self.roles = join(self.own, "roles")
        self.compressing = join(self.own, "compressing")

    def of(self, name: str) -> str:
        """The path of a file that other programs know."""
        return join(self.root, name)

    def partial(self, name: str) -> str:
        """The path of the segment *name* while it is incomplete."""
        return join(self.root, name + ".partial")


def rank_segments(names: Iterable[str]) -> list[str]:
    """The names of segment files, newest first, by pg_receivewal's rule.

    The highest number is the newest; of the same, the higher timeline; of the same, the complete
    one, and as it is before compressed. Equally long hex digits sort as the numbers do, so the
    segment size need not be known.
    """
    return sorted(filter(_SEGMENT.fullmatch, names), key=_rank, reverse=True)


def _rank(name: str) -> tuple[str, str, bool, bool]:
    return name[8:24], name[:8], not name.endswith(".partial"), len(name) == 24


def forms_of(name: str) -> list[str]:
    """The files that may hold the finished segment *name*, in the order in which to look.

    Whoever compresses or decompresses it makes the new file before removing the old one. Between
    two looks a segment may so have become plain again.
    """
    return [name, *(f"{name}.{suffix}" for suffix in COMPRESSIONS), name]


def foreign_names(names: Iterable[str]) -> list[str]:
    """The names that neither pg_receivewal nor an ``archive_command`` puts into an archive."""
    return sorted(
        name
        for name in names
        if not (
            _SEGMENT.fullmatch(name) or _COMPANION.fullmatch(name) or is_backup_history_name(name)
        )
    )
