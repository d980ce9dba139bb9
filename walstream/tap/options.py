"""The commands and their options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python import usage

from walstream.tap.archive_groups import ArchiveOptions, CareOptions
from walstream.tap.group import CommandOptions
from walstream.tap.peer_groups import ListenOptions, UpstreamOptions
from walstream.tap.values import seconds, whole_number

if TYPE_CHECKING:
    from walstream.formats.lsn import LSN

__all__ = ["DemoOptions", "HubOptions", "Options", "ReceiveOptions", "SendOptions"]


class ReceiveOptions(UpstreamOptions, CareOptions):
    """twistd walstream receive"""

    synopsis = "--upstream=CONNINFO --archive=DIR [options]"
    longdesc = "Receive WAL from a PostgreSQL server into an archive, as pg_receivewal does."
    optParameters = [["endpos", "E", None, "Stop once WAL up to this position was received."]]
    optFlags = [
        ["synchronous", None, "Make WAL durable, and report it, as it comes."],
        ["no-loop", "n", "End when the connection is lost, instead of connecting again."],
    ]

    def is_synchronous(self) -> bool:
        """As told."""
        return bool(self["synchronous"])

    def end_position(self) -> LSN | None:
        """As told."""
        from walstream.formats.lsn import LSN

        return self.checked("endpos", LSN.parse)


class SendOptions(ListenOptions, ArchiveOptions):
    """twistd walstream send"""

    synopsis = "--archive=DIR --listen=ENDPOINT [options]"
    longdesc = "Serve the WAL of an archive to standbys, pg_receivewal and other followers."
    makes_archive = False


class HubOptions(ListenOptions, UpstreamOptions, CareOptions):
    """twistd walstream hub"""

    synopsis = "--upstream=CONNINFO --archive=DIR --listen=ENDPOINT [options]"
    longdesc = "Receive WAL from one server, archive it, and serve it to any number of followers."


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
