"""Options about others: the upstream that WAL comes from, the followers that it is served to."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from twisted.logger import Logger
from twisted.python import usage

from walstream.tap.access_group import AccessOptions
from walstream.tap.group import CommandOptions
from walstream.tap.values import (
    named_duration,
    one_of,
    own_apply_position,
    processes,
    rate,
    seconds,
    size_or_none,
    slot_name,
    whole_number,
)

if TYPE_CHECKING:
    from walstream.formats.lsn import LSN
    from walstream.protocols.receiver import ReceiverSettings
    from walstream.protocols.receiver_settings import OnSynchronous, ReportApply
    from walstream.services.access import Access
    from walstream.upstream import Upstream

__all__ = ["ListenOptions", "UpstreamOptions"]

_log = Logger()

# libpq's variables that say where a server is; with one of them, --upstream may be left out.
_PLACE_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGSERVICE")


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
        [
            "password-file",
            None,
            None,
            "A file with the password for the server in its first line, which nobody else may "
            "read.",
        ],
        ["slot", "S", None, "The replication slot to stream from."],
        ["status-interval", "s", "10", "Seconds between status updates; 0: only when asked."],
        [
            "report-apply",
            None,
            "local",
            "What to report as applied, since nothing is here: local, what is durable, or none. "
            "With none, a commit with synchronous_commit=remote_apply that waits for us waits for "
            "ever. A hub can report what its standbys have applied: see --report-flush.",
        ],
        [
            "synchronous-check",
            None,
            "5",
            "Seconds between two looks, over a second connection, at the server's "
            "synchronous_standby_names, when that matters; 0: at each connect only.",
        ],
        ["startpos", None, None, "Where to start if the archive is empty, such as 0/3000000."],
        [
            "accept-gap",
            None,
            None,
            "Where the archive may be left with a gap, if the server lacks what comes next: "
            "the end of the archive, as the error message names it.",
        ],
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
        from walstream.upstream import parse_conninfo, read_secret, secrets_in

        if self["upstream"] is None and not any(map(os.environ.get, _PLACE_VARIABLES)):
            raise usage.UsageError(
                "--upstream is missing: say where the server is, such as "
                "--upstream='host=db1 user=replicator', or set PGHOST"
            )
        if self["upstream"] is None:
            self["upstream"] = ""
        for name in secrets_in(self["upstream"]):
            _log.warn(
                "{name} is on the command line, where every user of this machine can see it (ps): "
                "use --password-file, a password file (~/.pgpass) or a systemd credential",
                name=name,
            )
        file = Path(self["password-file"]).absolute() if self["password-file"] else None
        upstream = cast(
            "Upstream",
            self.checked("upstream", lambda text: parse_conninfo(text, os.environ, file)),
        )
        if file is not None:
            self.checked("password-file", lambda _: read_secret(file, upstream.credentials))
        return upstream

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
        if dialect is Dialect.DESIGN_2009 and self["accept-gap"] is not None:
            raise usage.UsageError(
                "--accept-gap is not possible with --dialect=2009, which cannot find what comes "
                "behind the gap: use --dialect=modern"
            )
        return ReceiverSettings(
            on_synchronous=self.on_synchronous(),
            report_apply=self.report_apply(),
            synchronous_check=self.checked("synchronous-check", seconds) or 0.0,
            slot=self.checked("slot", slot_name),
            synchronous=self.is_synchronous(),
            status_interval=float(self.checked("status-interval", whole_number) or 0),
            start_position=self.checked("startpos", LSN.parse),
            end_position=self.end_position(),
            accept_gap=self.checked("accept-gap", LSN.parse),
            dialect=dialect,
            segment_size=size or DEFAULT_SEGMENT_SIZE,
            wall_clock=time.time,
        )

    def is_synchronous(self) -> bool:
        """Whether WAL is made durable as it comes. A hub serves what is durable, so it must be."""
        return True

    def on_synchronous(self) -> OnSynchronous:
        """What to do where commits wait for us: a hub is synchronous anyway."""
        from walstream.protocols.receiver_settings import OnSynchronous

        return OnSynchronous.SWITCH

    def report_apply(self) -> ReportApply:
        """What to report as applied, if that is not up to others."""
        from walstream.protocols.receiver_settings import ReportApply

        return self.checked("report-apply", own_apply_position) or ReportApply.FLUSH

    def end_position(self) -> LSN | None:
        """Where to stop; a hub goes on for ever."""
        return None


class ListenOptions(AccessOptions):
    """Whom the archive is served to."""

    optParameters = [
        ["sender-timeout", None, "60", "Seconds that a client may be silent; 0: for ever."],
        [
            "hold-ahead",
            None,
            "60",
            "Seconds that a client waits which asks for WAL a little ahead of what there is; "
            "0: it is refused at once.",
        ],
        ["max-clients", None, "1000", "How many clients there may be at a time; 0: any number."],
        ["max-rate", None, "0", "How much WAL each client gets per second, such as 50MB; 0: all."],
        ["max-total-rate", None, "0", "How much all of them get together; 0: all."],
        [
            "lag-warning",
            None,
            "1GB",
            "Say in the log when a client is this far behind, and when it has caught up; 0: never.",
        ],
        ["processes", None, "1", "How many processes send, or auto: one for each core."],
    ]
    optFlags = [
        [
            "trust-network",
            None,
            "Let clients from other machines in without --hba, or unencrypted.",
        ]
    ]

    #: Where to listen: server endpoint strings.
    listen: tuple[str, ...] = ()
    _delays: Mapping[str, float] = MappingProxyType({})

    def opt_listen(self, text: str) -> None:
        """Where to listen: a Twisted endpoint, such as tcp:5433:interface=127.0.0.1 or
        unix:/run/walstream/.s.PGSQL.5433. May be given more than once.
        """
        self.listen += (text,)

    opt_l = opt_listen

    def opt_delay(self, text: str) -> None:
        """A client, by its application_name, that gets WAL only when it has been here for so long:
        NAME=TIME, such as late=8h; * for all that are not named. May be given more than once.
        """
        name, delay = self.understood("delay", text, named_duration)
        if name in self._delays:
            raise usage.UsageError(f"--delay is given twice for {name}: leave one of them out")
        self._delays = {**self._delays, name: delay}

    def postOptions(self) -> None:
        """Check where to listen."""
        from walstream.protocols.settings import SenderSettings
        from walstream.services.listen import check_endpoints, reaches_out

        super().postOptions()
        if not self.listen:
            raise usage.UsageError(
                "--listen is missing: say where to listen, such as "
                "--listen=tcp:5433:interface=127.0.0.1"
            )
        trust = bool(self["trust-network"])
        self.understood(
            "listen",
            self.listen,
            partial(
                check_endpoints,
                trust_network=trust,
                has_rules=self.has_rules,
                has_tls=self.has_tls,
            ),
        )
        self.access: Access | None = self.make_access(
            self["archive"],
            may_trust_strangers=trust or not any(map(reaches_out, self.listen)),
        )
        self.processes: int = self.checked("processes", processes) or 1
        self.sender_settings: SenderSettings = SenderSettings(
            sender_timeout=self.checked("sender-timeout", seconds) or 0.0,
            hold_ahead=self.checked("hold-ahead", seconds) or 0.0,
            max_clients=self.checked("max-clients", whole_number) or 0,
            max_rate=self.checked("max-rate", rate) or 0,
            max_total_rate=self.checked("max-total-rate", rate) or 0,
            delays=self._delays,
            lag_warning=self.checked("lag-warning", size_or_none) or 0,
        )
