"""From where on a base backup needs WAL: what the backup itself says.

It is a directory as pg_basebackup makes it, plain or of tar files, or one file of it. Everything
here reads files, so it belongs into a lane.
"""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass
from os.path import join

from walstream.archive.json_text import MISREAD
from walstream.errors import FormatError
from walstream.formats.backup_history import parse_backup_start
from walstream.formats.lsn import LSN
from walstream.formats.positions import WALPosition

__all__ = ["BackupStart", "read_backup_start"]

# What says it, in a backup's directory; the first that is there.
_TELLING = ("backup_label", "backup_manifest", "base.tar", "base.tar.gz")


@dataclass(frozen=True, slots=True)
class BackupStart:
    """Where replay of a backup begins.

    :ivar system_identifier: whose backup it is, where it says so: in the manifest, from 17 on.
    """

    position: WALPosition
    system_identifier: int | None = None


def read_backup_start(path: str) -> BackupStart:
    """Read where a backup begins.

    :param path: of the backup's directory, of its ``backup_label`` or ``backup_manifest``, of its
        ``base.tar``, or of a backup history file.
    :raises FormatError: if it does not say.
    :raises OSError: if it cannot be read.
    """
    if os.path.isdir(path):
        there = [join(path, name) for name in _TELLING if os.path.exists(join(path, name))]
        if not there:
            raise FormatError(
                f"{path} is no base backup: it has neither backup_label nor backup_manifest"
            )
        path = there[0]
    try:
        if tarfile.is_tarfile(path):
            return BackupStart(_position(_label_in_tar(path)))
        with open(path, "rb") as file:
            content = file.read()
        if content.lstrip()[:1] == b"{":
            return _in_manifest(json.loads(content))
        return BackupStart(_position(content))
    except (*MISREAD, tarfile.TarError) as error:
        raise FormatError(f"{path} does not say where a base backup begins: {error}") from error


def _position(content: bytes) -> WALPosition:
    return WALPosition(*parse_backup_start(content))


def _label_in_tar(path: str) -> bytes:
    with tarfile.open(path) as tar:
        # The server puts it first; a tar of a whole directory has it anywhere, below "./" perhaps.
        for member in tar:
            if member.name.removeprefix("./") == "backup_label":
                file = tar.extractfile(member)
                if file is not None:
                    return file.read()
    raise FormatError("there is no backup_label in it")


def _in_manifest(manifest: dict[str, object]) -> BackupStart:
    ranges = manifest["WAL-Ranges"]
    if not isinstance(ranges, list) or not ranges:
        raise FormatError("it names no WAL")
    starts = [(LSN.parse(each["Start-LSN"]), int(each["Timeline"])) for each in ranges]
    lsn, timeline = min(starts)
    system = manifest.get("System-Identifier")
    return BackupStart(WALPosition(timeline, lsn), int(system) if isinstance(system, int) else None)
