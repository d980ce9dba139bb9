"""Options about an archive: where it is, how it is filled, and what of it is kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from twisted.python import usage

from walstream.tap.group import CommandOptions
from walstream.tap.values import count, one_of

if TYPE_CHECKING:
    from walstream.archive.retention import RetentionPolicy
    from walstream.formats.compression import Compression
    from walstream.services.archive_care import ArchiveCare

__all__ = ["ArchiveOptions", "CareOptions", "CompressionOptions", "RetentionOptions"]


class ArchiveOptions(CommandOptions):
    """Where the WAL is kept."""

    optParameters = [
        ["archive", "D", None, "The directory of the WAL archive."],
        [
            "control",
            None,
            "archive",
            "Where the control socket is, which walstream status asks: in the archive, or at the "
            "path given; or none.",
        ],
    ]

    #: Whether the directory is made if it is not there yet.
    makes_archive = True

    def uses_archive(self) -> bool:
        """Whether an archive is needed at all."""
        return True

    def opt_directory(self, path: str) -> None:
        """The same as --archive, by pg_receivewal's name."""
        self["archive"] = path

    def postOptions(self) -> None:
        """Check the path. It is made absolute: twistd may change the directory it runs in."""
        super().postOptions()
        self.control = self._control()
        if not self.uses_archive():
            return
        self.archive = Path(
            self.required("archive", "say where the WAL is kept, such as --archive=/srv/wal")
        ).absolute()
        if self.archive.is_dir():
            return
        if self.archive.exists():
            raise usage.UsageError(f"--archive: {self.archive} is not a directory")
        if not self.makes_archive:
            raise usage.UsageError(f"--archive: there is no directory {self.archive}")
        if not self.archive.parent.is_dir():
            raise usage.UsageError(
                f"--archive: {self.archive} cannot be made, since there is no directory "
                f"{self.archive.parent}; make that one first"
            )

    def _control(self) -> str:
        from walstream.services.control import IN_ARCHIVE, NOWHERE

        place = cast(str, self["control"])
        if place in (IN_ARCHIVE, NOWHERE):
            return place
        if not os.path.isdir(os.path.dirname(os.path.abspath(place))):
            raise usage.UsageError(
                f"--control: there is no directory {os.path.dirname(os.path.abspath(place))}: "
                "say archive, none, or a path in a directory that is there"
            )
        return os.path.abspath(place)


class CompressionOptions(CommandOptions):
    """In which form finished segments are kept."""

    optParameters = [
        [
            "compress",
            "Z",
            "none",
            "Compress finished segments: none, gzip, lz4 or zstd, with a level or options behind "
            "a colon, as for pg_receivewal.",
        ],
        [
            "compress-jobs",
            None,
            None,
            "How many segments to compress at a time (default: half of the cores, at most 4).",
        ],
    ]

    def postOptions(self) -> None:
        """Read the method, and see whether it is there."""
        from walstream.formats.compression import Compression

        super().postOptions()
        self.compression = self.checked("compress", Compression.parse)
        self.compress_jobs = self.checked("compress-jobs", count) or _default_jobs()
        if self.compression is None:
            if self["compress-jobs"] is not None:
                raise usage.UsageError("--compress-jobs is for --compress only: leave it out")
            return
        _require_library(self.compression)


class RetentionOptions(CommandOptions):
    """What is kept of the archive. Without any of these all is."""

    optParameters = [
        ["keep-age", None, None, "Keep what was received in this time, such as 30d."],
        ["keep-size", None, None, "Keep the newest segments of so many bytes, such as 500GB."],
        ["keep-from", None, None, "Keep everything from a segment, an LSN or slot:NAME on."],
        ["keep-backups", None, None, "Keep what the newest so many backups need."],
        [
            "max-slot-wal-keep-size",
            None,
            None,
            "The most that slots hold back, such as 100GB: those that need more are lost.",
        ],
    ]

    _kept_backups: tuple[str, ...] = ()

    def opt_keep_backup(self, path: str) -> None:
        """Keep what the backup at this path needs. May be given more than once."""
        self._kept_backups += (os.path.abspath(path),)

    def postOptions(self) -> None:
        """Make a policy of them."""
        from walstream.archive.retention import RetentionPolicy
        from walstream.formats.quantities import parse_count, parse_duration, parse_size

        super().postOptions()
        self.retention: RetentionPolicy = RetentionPolicy(
            keep_age=self.checked("keep-age", parse_duration),
            keep_size=self.checked("keep-size", parse_size),
            keep_from=self["keep-from"],
            keep_backups=self.checked("keep-backups", parse_count),
            keep_backup=self._kept_backups,
            max_slot_wal_keep_size=self.checked("max-slot-wal-keep-size", parse_size),
        )
        if self["max-slot-wal-keep-size"] is not None and not self.retention:
            raise usage.UsageError(
                "--max-slot-wal-keep-size limits what slots hold back of what is removed: say what "
                "to keep too, such as --keep-age=30d"
            )


class CareOptions(CompressionOptions, RetentionOptions, ArchiveOptions):
    """How an archive is filled and looked after."""

    optParameters = [
        [
            "verify",
            None,
            "headers",
            "What of the WAL is checked before it counts: headers, records.",
        ],
    ]

    def postOptions(self) -> None:
        """Gather what the groups made of their options."""
        from walstream.archive.checking import Verify
        from walstream.services.archive_care import ArchiveCare

        super().postOptions()
        self.care: ArchiveCare = ArchiveCare(
            verify=self.checked("verify", one_of(Verify)) or Verify.HEADERS,
            compression=self.compression,
            compress_jobs=self.compress_jobs,
            retention=self.retention,
        )


def _default_jobs() -> int:
    """Compressing leaves room for receiving, which waits for nobody."""
    return max(1, min((os.cpu_count() or 1) // 2, 4))


def _require_library(compression: Compression) -> None:
    from walstream.archive.codecs import require_library
    from walstream.errors import ArchiveError

    try:
        require_library(compression.method)
    except ArchiveError as error:
        raise usage.UsageError(f"--compress: {error}") from error
