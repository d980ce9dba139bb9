"""Groups of options, which the commands are made of: the archive, the upstream, the followers.

Each group checks its options in ``postOptions``, and leaves what it made of them in attributes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

from twisted.python import usage

from walstream.tap.values import count, one_of, seconds, slot_name, whole_number

if TYPE_CHECKING:
    from walstream.formats.compression import Compression
    from walstream.formats.lsn import LSN
    from walstream.protocols.receiver import ReceiverSettings
    from walstream.upstream import Upstream

__all__ = [
    "ArchiveOptions",
    "CommandOptions",
    "CompressionOptions",
    "ListenOptions",
    "UpstreamOptions",
]

_T = TypeVar("_T")

# libpq's variables that say where a server is; with one of them, --upstream may be left out.
_PLACE_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGSERVICE")


class CommandOptions(usage.Options):
    """What all commands have in common."""

    # usage collects these from all the classes that an object is of.
    optParameters: list[list[str | None]] = []
    optFlags: list[list[str | None]] = []

    def postOptions(self) -> None:
        """Check the options; groups go on from here."""

    def opt_version(self) -> NoReturn:
        """Print walstream's version, and exit."""
        from walstream import __version__

        sys.stdout.write(f"walstream {__version__}\n")
        raise SystemExit(0)

    opt_V = opt_version

    def checked(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        """The value of option *name* as *parse* understands it; None if it was not given."""
        text = self[name]
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            raise usage.UsageError(f"--{name}: {error}") from error

    def required(self, name: str, remedy: str) -> str:
        """The value of an option that there must be."""
        text = self[name]
        if not text:
            raise usage.UsageError(f"--{name} is missing: {remedy}")
        return cast(str, text)


class ArchiveOptions(CommandOptions):
    """Where the WAL is kept."""

    optParameters = [["archive", "D", None, "The directory of the WAL archive."]]

    #: Whether the directory is made if it is not there yet.
    makes_archive = True

    def opt_directory(self, path: str) -> None:
        """The same as --archive, by pg_receivewal's name."""
        self["archive"] = path

    def postOptions(self) -> None:
        """Check the path. It is made absolute: twistd may change the directory it runs in."""
        super().postOptions()
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


class UpstreamOptions(CommandOptions):
    """Where the WAL comes from, and how it is received."""

    optParameters = [
        [
            "upstream",
            "d",
            None,
            "How to connect to the server: a URI or key=value string as libpq's tools take it. "
            "PG* variables and service files count too. A password is best kept in ~/.pgpass.",
        ],
        ["slot", "S", None, "The replication slot to stream from."],
        ["status-interval", "s", "10", "Seconds between status updates; 0: only when asked."],
        ["startpos", None, None, "Where to start if the archive is empty, such as 0/3000000."],
        ["dialect", None, "modern", "The protocol: modern, or 2009 for the first design."],
        ["wal-segsize", None, None, "With --dialect=2009: the segment size in MB (default: 16)."],
    ]
    optFlags = [["verbose", "v", "Log each finished segment too."]]

    def opt_dbname(self, text: str) -> None:
        """The same as --upstream, by pg_receivewal's name."""
        self["upstream"] = text

    def postOptions(self) -> None:
        """Read the connection string, and make settings of the rest."""
        super().postOptions()
        self.upstream = self._upstream()
        self.settings = self._receiver_settings()

    def _upstream(self) -> Upstream:
        from walstream.upstream import parse_conninfo

        if self["upstream"] is None and not any(map(os.environ.get, _PLACE_VARIABLES)):
            raise usage.UsageError(
                "--upstream is missing: say where the server is, such as "
                "--upstream='host=db1 user=replicator', or set PGHOST"
            )
        self["upstream"] = self["upstream"] or ""
        upstream = self.checked("upstream", lambda text: parse_conninfo(text, os.environ))
        return cast("Upstream", upstream)

    def _receiver_settings(self) -> ReceiverSettings:
        from walstream.formats.lsn import LSN
        from walstream.formats.segments import DEFAULT_SEGMENT_SIZE, SegmentSize
        from walstream.protocols.receiver import Dialect, ReceiverSettings

        dialect = self.checked("dialect", one_of(Dialect)) or Dialect.MODERN
        size = self.checked("wal-segsize", lambda text: SegmentSize(whole_number(text) << 20))
        if dialect is Dialect.MODERN and size is not None:
            raise usage.UsageError(
                "--wal-segsize is for --dialect=2009 only: leave it out, the server tells it"
            )
        if dialect is Dialect.DESIGN_2009 and self["slot"] is not None:
            raise usage.UsageError(
                "--slot is not possible with --dialect=2009, which knows no replication slots: "
                "leave one of them out"
            )
        return ReceiverSettings(
            slot=self.checked("slot", slot_name),
            synchronous=self.is_synchronous(),
            status_interval=float(self.checked("status-interval", whole_number) or 0),
            start_position=self.checked("startpos", LSN.parse),
            end_position=self.end_position(),
            dialect=dialect,
            segment_size=size or DEFAULT_SEGMENT_SIZE,
        )

    def is_synchronous(self) -> bool:
        """Whether WAL is made durable as it comes. A hub serves what is durable, so it must be."""
        return True

    def end_position(self) -> LSN | None:
        """Where to stop; a hub goes on for ever."""
        return None


class ListenOptions(CommandOptions):
    """Whom the archive is served to."""

    optParameters = [
        [
            "listen",
            "l",
            None,
            "Where to listen: a Twisted endpoint, such as tcp:5433:interface=127.0.0.1 or "
            "unix:/run/walstream/.s.PGSQL.5433.",
        ],
        ["sender-timeout", None, "60", "Seconds that a client may be silent; 0: for ever."],
    ]
    optFlags = [
        [
            "trust-network",
            None,
            "Let clients from other machines in: nobody is asked for a password.",
        ]
    ]

    def postOptions(self) -> None:
        """Check where to listen."""
        from walstream.protocols.settings import SenderSettings
        from walstream.services.listen import check_endpoint

        super().postOptions()
        self.listen = self.required(
            "listen", "say where to listen, such as --listen=tcp:5433:interface=127.0.0.1"
        )
        trust = bool(self["trust-network"])
        self.checked("listen", lambda text: check_endpoint(text, trust_network=trust))
        self.sender_settings: SenderSettings = SenderSettings(
            sender_timeout=self.checked("sender-timeout", seconds) or 0.0
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
