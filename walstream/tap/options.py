"""The commands and their options."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.python import usage

from walstream.tap.archive_groups import ArchiveOptions, CareOptions
from walstream.tap.group import CommandOptions
from walstream.tap.peer_groups import ListenOptions, UpstreamOptions
from walstream.tap.report_group import ReportOptions
from walstream.tap.slot_groups import SlotOptions
from walstream.tap.tls_group import TLSOptions
from walstream.tap.values import one_of, seconds, whole_number

if TYPE_CHECKING:
    from walstream.formats.lsn import LSN
    from walstream.protocols.receiver_settings import OnSynchronous

__all__ = ["DemoOptions", "HubOptions", "Options", "ReceiveOptions", "SendOptions"]


class ReceiveOptions(UpstreamOptions, CareOptions):
    """twistd walstream receive"""

    synopsis = "--upstream=CONNINFO --archive=DIR [options]"
    longdesc = "Receive WAL from a PostgreSQL server into an archive, as pg_receivewal does."
    optParameters = [
        ["endpos", "E", None, "Stop once WAL up to this position was received."],
        [
            "on-synchronous",
            None,
            "switch",
            "Without --synchronous, where the server's synchronous_standby_names names us: switch "
            "to being synchronous, or refuse, that is, end.",
        ],
    ]
    optFlags = [
        ["synchronous", None, "Make WAL durable, and report it, as it comes."],
        ["no-loop", "n", "End when the connection is lost, instead of connecting again."],
        ["create-slot", None, "Make the replication slot --slot, with WAL reserved, and end."],
        ["if-not-exists", None, "With --create-slot: it is no error if the slot exists."],
        ["drop-slot", None, "Drop the replication slot --slot, and end."],
    ]

    def postOptions(self) -> None:
        """Check what is done with the slot, in pg_receivewal's words; then all the rest."""
        create, drop = self["create-slot"], self["drop-slot"]
        if create and drop:
            raise usage.UsageError("cannot use --create-slot together with --drop-slot")
        if self["slot"] is None and (create or drop):
            action = "--create-slot" if create else "--drop-slot"
            raise usage.UsageError(f"{action} needs a slot to be specified using --slot")
        if self["if-not-exists"] and not create:
            raise usage.UsageError("--if-not-exists is for --create-slot only: leave it out")
        super().postOptions()

    def uses_archive(self) -> bool:
        """Not for what is done with a slot alone."""
        return not (self["create-slot"] or self["drop-slot"])

    def is_synchronous(self) -> bool:
        """As told."""
        return bool(self["synchronous"])

    def on_synchronous(self) -> OnSynchronous:
        """As told."""
        from walstream.protocols.receiver_settings import OnSynchronous

        return self.checked("on-synchronous", one_of(OnSynchronous)) or OnSynchronous.SWITCH

    def end_position(self) -> LSN | None:
        """As told."""
        from walstream.formats.lsn import LSN

        return self.checked("endpos", LSN.parse)


class SendOptions(ListenOptions, TLSOptions, SlotOptions, ArchiveOptions):
    """twistd walstream send"""

    synopsis = "--archive=DIR --listen=ENDPOINT [options]"
    longdesc = "Serve the WAL of an archive to standbys, pg_receivewal and other followers."
    makes_archive = False


class HubOptions(ListenOptions, TLSOptions, SlotOptions, ReportOptions, CareOptions):
    """twistd walstream hub"""

    synopsis = "--upstream=CONNINFO --archive=DIR --listen=ENDPOINT [options]"
    longdesc = "Receive WAL from one server, archive it, and serve it to any number of followers."
    optParameters = [
        [
            "serve",
            None,
            "flushed",
            "When WAL is served: once it is flushed, that is, durable here; or once it is written.",
        ],
    ]

    def postOptions(self) -> None:
        """Say when WAL is served, which is the archive's business."""
        from walstream.archive.tail import Serve

        super().postOptions()
        serve = self.checked("serve", one_of(Serve)) or Serve.FLUSHED
        if serve is Serve.WRITTEN and self.processes > 1:
            raise usage.UsageError(
                "--serve=written is for one process, since others learn of WAL when it is durable: "
                "leave out --processes, or serve what is flushed"
            )
        self.care = replace(self.care, serve=serve)


class DemoOptions(CommandOptions):
    """twistd walstream demo"""

    synopsis = "[options]"
    longdesc = "Show a primary, a hub and a standby behind it, in a temporary directory."
    optParameters = [
        ["for", None, None, "End after this many seconds, instead of on Ctrl-C."],
        ["rows", None, "100", "How many rows to write each second."],
    ]

    def postOptions(self) -> None:
        """Check the numbers."""
        super().postOptions()
        self.seconds = self.checked("for", seconds)
        self.rows = self.checked("rows", whole_number) or 0


class Options(CommandOptions):
    """twistd walstream"""

    longdesc = "Receive, archive, serve and relay PostgreSQL's write-ahead log."
    subCommands = [
        ["receive", None, ReceiveOptions, "Receive WAL from a server into an archive."],
        ["send", None, SendOptions, "Serve the WAL of an archive."],
        ["hub", None, HubOptions, "Receive and serve, over one archive."],
        ["demo", None, DemoOptions, "Show all of it on an embedded PostgreSQL."],
    ]

    def getSynopsis(self) -> str:  # noqa: N802
        """How it is called; a command's own synopsis comes behind it."""
        caller = self.parent.getSynopsis() if self.parent is not None else "Usage: twistd"
        return f"{caller} walstream" + ("" if self.subCommand else " receive|send|hub|demo ...")

    def postOptions(self) -> None:
        """There must be a command."""
        if self.subCommand is None:
            raise usage.UsageError("a command is missing: receive, send, hub or demo")
