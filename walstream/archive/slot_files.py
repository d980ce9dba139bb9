"""The files of an archive's replication slots: one small JSON file for each.

Knows where they are and what is in them; who uses a slot, and when it is written, is not known
here. Everything but `SlotFiles.load` writes to a disk and belongs into a lane, one at a time, and
to the process that has the slots: see `slot_possession`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from os.path import dirname, join
from typing import Final

from walstream.archive.filesystem import FileSystem
from walstream.archive.json_text import MISREAD
from walstream.errors import ArchiveError, CommandError
from walstream.formats.lsn import LSN
from walstream.interfaces import Slot, WALPosition

__all__ = ["SlotFiles", "check_slot_name"]

_SUFFIX: Final = ".json"
_LONGEST_NAME: Final = 63  # NAMEDATALEN - 1
_NAME: Final = re.compile(rf"[a-z0-9_]{{1,{_LONGEST_NAME}}}")


def check_slot_name(name: str) -> None:
    """Refuse what cannot be the name of a slot, and therefore not of a file either.

    :raises CommandError: 42602, or 42622 for one that is too long (`ReplicationSlotValidateName`).
    """
    if not name:
        raise CommandError("42602", f'replication slot name "{name}" is too short')
    if len(name) > _LONGEST_NAME:
        raise CommandError("42622", f'replication slot name "{name}" is too long')
    if not _NAME.fullmatch(name):
        raise CommandError(
            "42602",
            f'replication slot name "{name}" contains invalid character',
            hint="Replication slot names may only contain lower case letters, numbers, "
            "and the underscore character.",
        )


class SlotFiles:
    """Slots in a directory, which is made when the first one is stored.

    A file gets its name when it is whole and durable, so whatever is killed at whatever instant,
    a name stands for the slot as it was before or as it is after.
    """

    def __init__(self, files: FileSystem, directory: str) -> None:
        self._files = files
        self._directory = directory
        # No slot has this name: those of slots' files end in .json.
        self._incoming = join(directory, "incoming")
        self._is_ready = False

    def load(self) -> Iterator[Slot]:
        """The slots that are stored; none of them is in use. Anything else is left alone.

        :raises ArchiveError: for a file that is not what `store` writes.
        """
        try:
            names = self._files.names(self._directory)
        except FileNotFoundError:
            return
        for name in sorted(names):
            slot_name = name.removesuffix(_SUFFIX)
            if slot_name != name and _NAME.fullmatch(slot_name):
                slot = self._read(slot_name)
                if slot is not None:
                    yield slot

    def store(self, slot: Slot) -> None:
        """Make a slot durable.

        :raises OSError: if that fails; what was stored before may be there still, or not.
        """
        self.make_directory()
        content = json.dumps(_fields(slot), indent=1) + "\n"
        self._files.store(self._incoming, self._path(slot.name), content.encode())

    def remove(self, name: str) -> None:
        """Remove a slot, durably; there may be none.

        :raises OSError: if that fails.
        """
        self._files.unlink(self._path(name))
        try:
            self._files.fsync_directory(self._directory)
        except FileNotFoundError:
            return  # Where there is no directory there is no file either.

    def make_directory(self) -> None:
        """Make the directory, durably.

        :raises OSError: if that fails.
        """
        # Once in each process, whether they are there or not: a directory that another process
        # made shortly before it was killed need not be durable.
        if self._is_ready:
            return
        for directory in (dirname(self._directory), self._directory):
            self._files.make_directory(directory)
            self._files.fsync_directory(dirname(directory))
        self._is_ready = True

    def _path(self, name: str) -> str:
        return join(self._directory, name + _SUFFIX)

    def _read(self, name: str) -> Slot | None:
        path = self._path(name)
        try:
            content = self._files.read(path)
        except FileNotFoundError:
            return None  # dropped since the directory was listed
        try:
            return _slot(name, json.loads(content))
        except MISREAD as error:
            raise ArchiveError(
                f"{path} is damaged ({error}): remove it, and create the replication slot again"
            ) from error


def _fields(slot: Slot) -> dict[str, object]:
    # Named as READ_REPLICATION_SLOT and pg_replication_slots name them.
    fields: dict[str, object] = {"name": slot.name}
    if slot.temporary:
        fields["temporary"] = True
    if slot.restart is not None:
        fields["restart_lsn"] = str(slot.restart.lsn)
        fields["restart_tli"] = slot.restart.timeline
    if slot.invalidation is not None:
        fields["invalidation_reason"] = slot.invalidation
    return fields


def _slot(name: str, fields: object) -> Slot:
    if not isinstance(fields, dict):
        raise TypeError("it is not a JSON object")
    temporary = fields.get("temporary", False)
    invalidation = fields.get("invalidation_reason")
    if not isinstance(temporary, bool) or not isinstance(invalidation, str | None):
        raise TypeError("temporary is not a truth value, or invalidation_reason not a text")
    return Slot(name, temporary, _restart(fields), None, invalidation)


def _restart(fields: dict[str, object]) -> WALPosition | None:
    if "restart_lsn" not in fields:
        return None
    lsn, timeline = fields["restart_lsn"], fields["restart_tli"]
    if not isinstance(lsn, str) or not isinstance(timeline, int):
        raise TypeError("restart_lsn is not a text, or restart_tli not a number")
    return WALPosition(timeline, LSN.parse(lsn))
