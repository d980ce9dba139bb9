"""Backup history files: which WAL a base backup needs. Knows their contents.

PostgreSQL writes one beside the WAL when a base backup ends, and archives it (PostgreSQL
documentation, "Making a Base Backup Using the Low Level API").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from walstream.errors import FormatError
from walstream.formats.lsn import LSN

__all__ = ["BackupHistory", "parse_backup_start"]

_LOCATION = re.compile(r"([0-9A-Fa-f/]+) \(file ([0-9A-F]{24})\)")
_TIMELINE = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class BackupHistory:
    """The contents of a backup history file; None where an older PostgreSQL wrote no such line.

    :ivar start: where replay of the backup must begin.
    :ivar stop: where replay must have come before the backup is consistent.
    :ivar checkpoint: the position of the checkpoint that the backup began with.
    :ivar method: how it was made: ``streamed``, or ``pg_start_backup`` (9.1 and later).
    :ivar backup_from: ``primary`` or ``standby``; ``master`` up to 13 (9.2 and later).
    :ivar start_time: in PostgreSQL's words, in the time zone of its log; so is `stop_time`.
    :ivar label: as the user gave it, up to its first line break.
    :ivar start_timeline: 11 and later; so is `stop_timeline`.
    """

    start: LSN
    start_segment: str
    stop: LSN
    stop_segment: str
    checkpoint: LSN
    method: str | None
    backup_from: str | None
    start_time: str | None
    label: str | None
    start_timeline: int | None
    stop_time: str | None
    stop_timeline: int | None

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Read a backup history file. Lines of unknown keys are passed over.

        :raises FormatError: naming the line that is missing or wrong.
        """
        values = _values(content)
        start, start_segment = _location(values, "START WAL LOCATION")
        stop, stop_segment = _location(values, "STOP WAL LOCATION")
        return cls(
            start=start,
            start_segment=start_segment,
            stop=stop,
            stop_segment=stop_segment,
            checkpoint=LSN.parse(_required(values, "CHECKPOINT LOCATION")),
            method=values.get("BACKUP METHOD"),
            backup_from=values.get("BACKUP FROM"),
            start_time=values.get("START TIME"),
            label=values.get("LABEL"),
            start_timeline=_timeline(values, "START TIMELINE"),
            stop_time=values.get("STOP TIME"),
            stop_timeline=_timeline(values, "STOP TIMELINE"),
        )


def parse_backup_start(content: bytes) -> tuple[int, LSN]:
    """The timeline and the position at which replay of a backup must begin.

    :param content: of a backup history file, or of a backup's ``backup_label``, which has the
        same lines (``build_backup_content`` in PostgreSQL's xlogbackup.c).
    :raises FormatError: naming the line that is missing or wrong.
    """
    values = _values(content)
    start, segment = _location(values, "START WAL LOCATION")
    return _timeline(values, "START TIMELINE") or int(segment[:8], 16), start


def _values(content: bytes) -> dict[str, str]:
    # A label is in an encoding that nobody knows, hence surrogateescape.
    text = content.decode("utf-8", "surrogateescape")
    pairs = (line.partition(": ") for line in text.split("\n"))
    return {key: value for key, separator, value in pairs if separator}


def _required(values: Mapping[str, str], key: str) -> str:
    try:
        return values[key]
    except KeyError:
        raise FormatError(f"a backup history file needs a line {key!r}") from None


def _location(values: Mapping[str, str], key: str) -> tuple[LSN, str]:
    value = _required(values, key)
    match = _LOCATION.fullmatch(value)
    if match is None:
        raise FormatError(f"backup history file: {key!r} is not 'X/X (file NAME)' but {value!r}")
    return LSN.parse(match[1]), match[2]


def _timeline(values: Mapping[str, str], key: str) -> int | None:
    value = values.get(key)
    if value is None:
        return None
    if _TIMELINE.fullmatch(value) is None:
        raise FormatError(f"backup history file: {key!r} is not a number but {value!r}")
    return int(value)
