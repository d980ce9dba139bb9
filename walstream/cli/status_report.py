"""What ``walstream status`` has to tell: an archive as it lies there, and what its processes say.

The form is that of ``walstream status --json``; see docs/reference/status.md. Sections and keys are
those of the processes' own documents (`walstream.services.control_document`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from os.path import join
from time import sleep
from typing import Any

from walstream.archive.compression import WholenessCheck
from walstream.archive.filesystem import FileSystem
from walstream.archive.inventory import Inventory, take_inventory
from walstream.archive.json_text import MISREAD
from walstream.archive.paths import ArchivePaths
from walstream.archive.slot_possession import stored_slots
from walstream.archive.slot_status import wal_status
from walstream.archive.survey import Survey, survey
from walstream.errors import StatusUnknown
from walstream.formats.lsn import LSN
from walstream.formats.positions import WALPosition
from walstream.interfaces import Slot
from walstream.services.control_files import VERSION, ask, socket_names
from walstream.services.control_slots import slot_value

__all__ = ["Report", "Verdict", "make_report", "verdicts"]

Report = dict[str, Any]

# Seconds that a process has to answer; one that is stopped never does.
_PATIENCE = 5.0
# How often a process that turns readers away is asked, and after how many seconds again.
_ATTEMPTS = 20
_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a standby has everything that the archive holds durably.

    :ivar reason: why not, in words; empty if it has.
    """

    name: str
    reason: str

    def __bool__(self) -> bool:
        return not self.reason


def make_report(
    directory: str, sockets: Collection[str] = (), check: WholenessCheck | None = None
) -> Report:
    """Look at an archive, and ask all of its processes.

    :param sockets: control sockets that are not in the archive.
    :param check: that of the look before; see `survey`.
    :raises ArchiveError: if it cannot be one archive.
    :raises StatusUnknown: if a process does not answer.
    :raises OSError: if the directory cannot be read.
    """
    files, paths = FileSystem(), ArchivePaths(os.path.abspath(directory))
    # Before the processes are asked: whoever has all of it then has it.
    found, held = survey(files, paths, check), take_inventory(files, paths)
    documents = _documents(paths, sockets)
    archive = _archive(found, held, documents)
    receivers = [each for each in documents if each["upstream"] is not None]
    senders = [each for each in documents if each["limits"] is not None]
    report: Report = {
        "version": VERSION,
        "directory": paths.root,
        "processes": [
            {**each["process"], "time": each["time"], "limits": each["limits"]}
            for each in documents
        ],
        "archive": archive,
        "upstream": None,
        "clients": [],
        "slots": [],
    }
    for each in receivers:
        report["upstream"] = {"process": each["process"]["pid"], **each["upstream"]}
    end = _position(archive["timeline"], archive["durable_lsn"])
    for each in senders:
        process = each["process"]["pid"]
        report["clients"] += [_judged(client, process, end) for client in each["clients"]]
        report["slots"] += [{"process": process, **slot} for slot in each["slots"]]
    if not senders:  # none that knows better than the files
        stored = stored_slots(files, paths)
        report["slots"] = [{"process": None, **slot_value(each)} for each in stored]
    report["slots"] = [_with_status(each, held) for each in report["slots"]]
    return report


def verdicts(report: Report, names: Collection[str]) -> list[Verdict]:
    """Of each of these standbys, whether it has everything; of several of one name, all have to."""
    return [_verdict(report, name) for name in names]


def _verdict(report: Report, name: str) -> Verdict:
    clients = [each for each in report["clients"] if each["application_name"] == name]
    if report["archive"]["durable_lsn"] is None:
        return Verdict(name, "the archive holds nothing")
    if not clients:
        return Verdict(name, "is not connected")
    lacking = [each for each in clients if not each["complete"]]
    if not lacking:
        return Verdict(name, "")
    worst = max(lacking, key=_bytes_behind)
    behind = worst["flush_bytes_behind"]
    if worst["state"] == "startup":
        return Verdict(name, "is connected, and does not stream")
    if behind is None:
        return Verdict(name, "has not reported what it has")
    if not behind:
        timeline = report["archive"]["timeline"]
        return Verdict(name, f"is on timeline {worst['timeline']}, the archive on {timeline}")
    return Verdict(name, f"lacks {behind} bytes: it has WAL up to {worst['flush_lsn']}")


def _bytes_behind(client: Report) -> int:
    behind: int | None = client["flush_bytes_behind"]
    return 1 << 64 if behind is None else behind


# Asking.


def _documents(paths: ArchivePaths, sockets: Collection[str]) -> list[Report]:
    """What the processes say: those that receive first, so that the end is from before the
    positions that are compared with it.
    """
    every = [join(paths.control, name) for name in socket_names(paths.control)]
    told = []
    for path in (*every, *map(os.path.abspath, sockets)):
        document = _document(path, is_asked_for=path not in every)
        if document is not None:
            told.append(document)
    return sorted(told, key=lambda each: each["upstream"] is None)


def _document(path: str, *, is_asked_for: bool) -> Report | None:
    """What a process says; None if it has ended.

    A process turns readers away when there are many: it is asked again.
    """
    try:
        for attempt in range(_ATTEMPTS):
            if attempt:
                sleep(_PAUSE)
            answer = ask(path, _PATIENCE)
            if answer:
                break
            if answer is None:
                if is_asked_for:
                    raise StatusUnknown(f"{path}: no process listens there")
                return None
        else:
            raise StatusUnknown(f"{path}: the process has too many to answer")
    except OSError as error:
        raise StatusUnknown(f"{path}: {error.strerror}") from error
    try:
        document: Report = json.loads(answer)
        version = document["version"]
    except MISREAD as error:
        raise StatusUnknown(f"{path}: the answer was cut off") from error
    if version != VERSION:
        raise StatusUnknown(f"{path}: another version of walstream runs there")
    return document


# Putting together.


def _archive(found: Survey, held: Inventory, documents: Collection[Report]) -> Report:
    """What is held, as it lies there, and as far as the processes know better."""
    told = [each["archive"] for each in documents]
    ends = [_position(each["timeline"], each["durable_lsn"]) for each in told]
    end = max(filter(None, (found.end, found.durable, *ends)), default=None)
    written = [LSN.parse(each["written_lsn"] or "0/0") for each in told]
    serving = [LSN.parse(each["serving_lsn"]) for each in told if each["serving_lsn"]]
    first = min((each.number for each in (*held.segments, *held.partials)), default=None)
    identity = found.identity
    return {
        "system_identifier": identity and str(identity.system_identifier),
        "segment_size": identity and int(identity.segment_size),
        "server_version": identity and identity.server_version,
        "timeline": end and end.timeline,
        "oldest_lsn": None if first is None else str(held.size.start(first)),
        "durable_lsn": end and str(end.lsn),
        "written_lsn": end and str(max([end.lsn, *written])),
        "serving_lsn": str(max(serving)) if serving else None,
    }


def _with_status(told: Report, held: Inventory) -> Report:
    """A slot, and what has become of the WAL that it needs."""
    restart = _position(told["restart_timeline"], told["restart_lsn"])
    slot = Slot(told["slot_name"], False, restart, None, told["invalidation_reason"])
    status = wal_status(slot, held)
    return {**told, "wal_status": status and status.value}


def _judged(client: Report, process: int, end: WALPosition | None) -> Report:
    """A client of one process, compared with what another one may have received."""
    judged = {**client, "process": process}
    if end is None:
        return judged
    flush = LSN.parse(client["flush_lsn"] or "0/0")
    judged["complete"] = client["timeline"] == end.timeline and flush >= end.lsn
    for name in ("sent", "write", "flush", "replay"):
        position = client[f"{name}_lsn"]
        if position is not None:
            judged[f"{name}_bytes_behind"] = max(0, end.lsn - LSN.parse(position))
    if judged["complete"]:
        judged["behind_seconds"] = None
    return judged


def _position(timeline: int | None, lsn: str | None) -> WALPosition | None:
    if timeline is None or lsn is None:
        return None
    return WALPosition(timeline, LSN.parse(lsn))
