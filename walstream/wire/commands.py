"""Today's replication commands as values, and the text of those that a receiver sends.

Source: PostgreSQL's documentation, "Streaming Replication Protocol". How such a text is read is
`walstream.wire.grammar`'s business; what a command does is not known in this layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from walstream.formats.lsn import LSN

__all__ = [
    "AlterReplicationSlot",
    "BaseBackup",
    "Command",
    "CreateReplicationSlot",
    "DropReplicationSlot",
    "FetchTimelineHistory",
    "IdentifySystem",
    "OptionValue",
    "ReadReplicationSlot",
    "Show",
    "StartLogicalReplication",
    "StartReplication",
    "UploadManifest",
]

OptionValue = str | int | None
"""The value of an option in parentheses; None if it stands without one, which means true."""


@dataclass(frozen=True, slots=True)
class IdentifySystem:
    """IDENTIFY_SYSTEM."""

    def text(self) -> str:
        """The command as a client sends it."""
        return "IDENTIFY_SYSTEM"


@dataclass(frozen=True, slots=True)
class Show:
    """SHOW: the value of a run-time parameter."""

    name: str

    def text(self) -> str:
        """The command as a client sends it."""
        return "SHOW " + ".".join(map(_unquoted_if_plain, self.name.split(".")))


@dataclass(frozen=True, slots=True)
class FetchTimelineHistory:
    """TIMELINE_HISTORY: the name and the contents of a timeline's history file."""

    timeline: int

    def text(self) -> str:
        """The command as a client sends it."""
        return f"TIMELINE_HISTORY {self.timeline}"


@dataclass(frozen=True, slots=True)
class StartReplication:
    """START_REPLICATION, physical.

    :ivar timeline: None for the server's current one.
    :ivar slot: None for none.
    """

    start: LSN
    timeline: int | None = None
    slot: str | None = None

    def text(self) -> str:
        """The command as a client sends it."""
        slot = "" if self.slot is None else f"SLOT {_quoted(self.slot)} "
        timeline = "" if self.timeline is None else f" TIMELINE {self.timeline}"
        return f"START_REPLICATION {slot}{self.start}{timeline}"


@dataclass(frozen=True, slots=True)
class StartLogicalReplication:
    """START_REPLICATION … LOGICAL, with the output plugin's options."""

    slot: str
    start: LSN
    options: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreateReplicationSlot:
    """CREATE_REPLICATION_SLOT.

    :ivar reserve_wal: WAL is kept from now on, and not from the first connection on.
    :ivar plugin: a logical slot's output plugin; None makes the slot a physical one.
    :ivar options: a logical slot's options.
    """

    name: str
    temporary: bool = False
    reserve_wal: bool = False
    plugin: str | None = None
    options: Mapping[str, OptionValue] = field(default_factory=dict)

    @property
    def physical(self) -> bool:
        """Whether the slot is to be a physical one."""
        return self.plugin is None

    def text(self) -> str:
        """The command for a physical slot, in a form that servers from 10 to 18 read."""
        temporary = " TEMPORARY" if self.temporary else ""
        reserve_wal = " RESERVE_WAL" if self.reserve_wal else ""
        return f"CREATE_REPLICATION_SLOT {_quoted(self.name)}{temporary} PHYSICAL{reserve_wal}"


@dataclass(frozen=True, slots=True)
class ReadReplicationSlot:
    """READ_REPLICATION_SLOT."""

    name: str

    def text(self) -> str:
        """The command as a client sends it."""
        return f"READ_REPLICATION_SLOT {_quoted(self.name)}"


@dataclass(frozen=True, slots=True)
class AlterReplicationSlot:
    """ALTER_REPLICATION_SLOT."""

    name: str
    options: Mapping[str, OptionValue]


@dataclass(frozen=True, slots=True)
class DropReplicationSlot:
    """DROP_REPLICATION_SLOT.

    :ivar wait: if the slot is in use, wait until it is free.
    """

    name: str
    wait: bool = False

    def text(self) -> str:
        """The command as a client sends it."""
        return f"DROP_REPLICATION_SLOT {_quoted(self.name)}{' WAIT' if self.wait else ''}"


@dataclass(frozen=True, slots=True)
class BaseBackup:
    """BASE_BACKUP."""

    options: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UploadManifest:
    """UPLOAD_MANIFEST."""


Command = (
    IdentifySystem
    | Show
    | FetchTimelineHistory
    | StartReplication
    | StartLogicalReplication
    | CreateReplicationSlot
    | ReadReplicationSlot
    | AlterReplicationSlot
    | DropReplicationSlot
    | BaseBackup
    | UploadManifest
)

_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_$]*")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _unquoted_if_plain(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else _quoted(name)
