"""Retention: which of an archive's segments may go, and their removal.

A policy is made of what it keeps, and what nobody keeps goes: the cut is before the first segment
that a policy, a slot, a reader or a backup keeps. Segments before it go, of all timelines, the
oldest first, and none behind it, so what is left has no gap that was not there before. Whoever
needs WAL from a position on needs nothing of a smaller number, on whatever timeline it lies.

Everything here reads and writes files, so it belongs into a lane.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter

from walstream.archive.backup_starts import read_backup_start
from walstream.archive.coverage import Gap, current_timeline, look_twice, missing_histories
from walstream.archive.filesystem import FileSystem
from walstream.archive.holds import (
    Hold,
    claims,
    holding_slots,
    newest,
    reader_holds,
    slot_holds,
)
from walstream.archive.inventory import Held, Inventory
from walstream.archive.ledger import Ledger, change_ledger
from walstream.archive.paths import ArchivePaths
from walstream.archive.readers import forget_dead_readers, retention_lock
from walstream.archive.slot_limit import release_obsolete
from walstream.archive.slot_status import over_limit
from walstream.errors import FormatError, RetentionRefused
from walstream.formats.lsn import INVALID, LSN
from walstream.formats.positions import SystemIdentity, WALPosition
from walstream.formats.segments import history_file_name, parse_segment_file
from walstream.formats.timelines import TimelineHistory
from walstream.interfaces import Slot

__all__ = ["Plan", "RetentionPolicy", "make_plan", "prune"]

# So many files are removed at once; it takes milliseconds.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """What is kept. Whatever one of these keeps stays; so at least one has to be given.

    :ivar keep_age: what was received in the last so many seconds.
    :ivar keep_size: the newest so many bytes of segment files.
    :ivar keep_from: everything from there on: a segment's name, an LSN, ``slot:NAME``,
        ``readers``, a backup history file's name, or the path of a backup.
    :ivar keep_backups: what the newest so many backups need whose history files are held.
    :ivar keep_backup: what these backups need, as paths.
    :ivar max_slot_wal_keep_size: the most that slots hold back, in bytes, however much they need:
        a slot that needs more is lost when what it needs is kept by nothing else.
    """

    keep_age: float | None = None
    keep_size: int | None = None
    keep_from: str | None = None
    keep_backups: int | None = None
    keep_backup: tuple[str, ...] = ()
    max_slot_wal_keep_size: int | None = None

    def __bool__(self) -> bool:
        return replace(self, max_slot_wal_keep_size=None) != RetentionPolicy()


@dataclass(frozen=True, slots=True)
class Plan:
    """What may go, the oldest first.

    :ivar identity: whose WAL it is.
    :ivar cut: what lies before this position goes.
    :ivar next_kept: the file of the first segment that stays; None if there is none.
    :ivar reason: why it stays.
    :ivar kept_from: from where on the policy keeps WAL, without slots and readers.
    :ivar lost: the slots that have to be lost for that, and were when it is over.
    :ivar oldest: the position before which these must not need anything.
    """

    identity: SystemIdentity
    removed: tuple[Held, ...]
    cut: LSN
    next_kept: str | None
    reason: str
    kept_from: LSN = INVALID
    lost: tuple[Slot, ...] = ()
    oldest: LSN = INVALID

    @property
    def bytes(self) -> int:
        """How much space that gives."""
        return sum(held.on_disk for held in self.removed)


def prune(
    files: FileSystem,
    paths: ArchivePaths,
    policy: RetentionPolicy,
    now: float,
    advance: Callable[[int], object] = lambda done: None,
    wait: Callable[[float], None] = time.sleep,
) -> Plan:
    """Remove what may go; what was removed.

    Killed at any moment, it leaves an archive that tells what is missing from it, and why.

    :param now: the time, in seconds since 1970.
    :param advance: called with the number of files removed since it was called last.
    :param wait: waits so many seconds, for a process to let go of a slot.
    :raises RetentionRefused: if it is not sure what may go; nothing was removed.
    :raises ArchiveError: if it is no archive.
    :raises OSError: if files cannot be read or removed.
    """
    lost, oldest = _lose_slots(files, paths, policy, now, wait)
    with retention_lock(files, paths, shared=False):
        forget_dead_readers(files, paths)
        # What still has a hold keeps it, whatever the limit.
        unlimited = replace(policy, max_slot_wal_keep_size=None)
        plan = _make_plan(files, paths, unlimited, now, lately=not lost)
        plan = replace(plan, lost=lost, oldest=oldest)
        if not plan.removed:
            return plan
        _record(files, paths, plan)
    done = 0
    try:
        while done < len(plan.removed):
            # Whoever begins to read waits for one batch only; what they need then stays.
            with retention_lock(files, paths, shared=False):
                batch = plan.removed[done : done + _BATCH]
                claim = _claim_before(files, paths, plan, batch[-1].number + 1)
                if claim is not None:
                    return replace(
                        plan,
                        removed=plan.removed[:done],
                        next_kept=batch[0].name,
                        reason=claim.reason,
                    )
                for held in batch:
                    files.unlink(paths.of(held.name))
            done += len(batch)
            advance(len(batch))
    finally:
        files.fsync_directory(paths.root)
    return plan


def _lose_slots(
    files: FileSystem,
    paths: ArchivePaths,
    policy: RetentionPolicy,
    now: float,
    wait: Callable[[float], None],
) -> tuple[tuple[Slot, ...], LSN]:
    """Take the slots out of service, durably, that hold back more than they may; see `Plan`."""
    if policy.max_slot_wal_keep_size is None:
        return (), INVALID
    plan = make_plan(files, paths, policy, now)
    if plan.lost:
        release_obsolete(files, paths, plan.oldest, wait)
    return plan.lost, plan.oldest


def _claim_before(files: FileSystem, paths: ArchivePaths, plan: Plan, number: int) -> Hold | None:
    """Who has come to need a segment before that number since the plan was made."""
    size = plan.identity.segment_size
    # What the users of slots that were lost read is not waited for.
    holds = claims(files, paths, size, lately=not plan.lost)
    return next((hold for hold in holds if hold.number < number), None)


def make_plan(files: FileSystem, paths: ArchivePaths, policy: RetentionPolicy, now: float) -> Plan:
    """Find out what may go. Changes nothing; errors as `prune`."""
    return _make_plan(files, paths, policy, now, lately=True)


def _make_plan(
    files: FileSystem, paths: ArchivePaths, policy: RetentionPolicy, now: float, *, lately: bool
) -> Plan:
    found, gaps = look_twice(files, paths)
    identity = _check_sure(paths, found, gaps)
    wishes = list(_Wishes(files, paths, found, policy, now).holds())
    readers = list(reader_holds(files, paths, found.size, lately=lately))
    slots = holding_slots(files, paths)
    last = newest(found)
    if last is None:
        return Plan(identity, (), INVALID, None, "there is no finished segment")
    wished = min((last, *wishes), key=attrgetter("number"))
    lost, oldest = over_limit(slots, found, wished.number, policy.max_slot_wal_keep_size)
    held_by = slot_holds([slot for slot in slots if slot not in lost], found.size)
    hold = min((wished, *held_by, *readers), key=attrgetter("number"))
    oldest_first = sorted(found.segments, key=lambda held: (held.number, held.timeline, held.name))
    removed = tuple(held for held in oldest_first if held.number < hold.number)
    kept = oldest_first[len(removed)]
    return Plan(
        identity,
        removed,
        found.size.start(kept.number),
        kept.name,
        hold.reason,
        found.size.start(wished.number),
        lost,
        oldest,
    )


def _check_sure(paths: ArchivePaths, found: Inventory, gaps: Iterable[Gap]) -> SystemIdentity:
    if found.identity is None:
        raise RetentionRefused(
            f"{paths.root} holds nothing that tells whose WAL it is: is it an archive?"
        )
    gap = next((gap for gap in gaps if gap.accepted is None), None)
    if gap is not None:
        first, last = (found.size.name(gap.timeline, each) for each in (gap.first, gap.last))
        raise RetentionRefused(
            f"the archive has a gap, from {first} to {last}: what lies before may be all that "
            "there is to restore from; nothing was removed"
        )
    missing = missing_histories(found)
    if missing:
        raise RetentionRefused(
            f"{history_file_name(missing[0])} is missing, so it cannot be told which WAL "
            f"timeline {missing[0]} descends from; nothing was removed"
        )
    return found.identity


class _Wishes:
    """What a policy keeps of an archive."""

    def __init__(
        self,
        files: FileSystem,
        paths: ArchivePaths,
        found: Inventory,
        policy: RetentionPolicy,
        now: float,
    ) -> None:
        self._files = files
        self._paths = paths
        self._found = found
        self._policy = policy
        self._now = now

    def holds(self) -> Iterator[Hold]:
        """Each of the policy's parts."""
        policy = self._policy
        if not policy:
            raise RetentionRefused("no policy says what to keep")
        if policy.keep_age is not None:
            yield from self._young(policy.keep_age)
        if policy.keep_size is not None:
            yield from self._newest_bytes(policy.keep_size)
        if policy.keep_from is not None:
            yield from self._from(policy.keep_from)
        if policy.keep_backups is not None:
            yield from self._backups(policy.keep_backups)
        for path in policy.keep_backup:
            yield self._backup(path)

    def _young(self, seconds: float) -> Iterator[Hold]:
        young = [held for held in self._found.segments if held.modified > self._now - seconds]
        if young:
            oldest = min(young, key=lambda held: held.number)
            age = max(self._now - oldest.modified, 0)
            yield Hold(oldest.number, f"it was received {_span(age)} ago, within the age kept")

    def _newest_bytes(self, limit: int) -> Iterator[Hold]:
        total = 0
        by_number = sorted(self._found.segments, key=lambda held: held.number, reverse=True)
        for held in by_number:
            total += held.on_disk
            if total > limit:
                # All of one number go or stay together.
                yield Hold(held.number + 1, "from here on it is within the size kept")
                return
        if by_number:
            yield Hold(by_number[-1].number, "all of it is within the size kept")

    def _from(self, what: str) -> Iterator[Hold]:
        if what == "readers":
            return  # They are never cut off.
        if what.startswith("slot:"):
            restart = _restart(self._files, self._paths, what.removeprefix("slot:"))
            if restart is None:
                raise RetentionRefused(f"--keep-from={what}: no such slot has reserved WAL")
            number = self._number(restart.lsn)
        else:
            number = self._named(what)
        yield Hold(number, f"it is kept from {what} on")

    def _named(self, what: str) -> int:
        segment = parse_segment_file(what, self._found.size)
        if segment is not None and not segment.partial:
            return self._held(segment.number, what)
        if what in self._found.backups:
            return self._held(self._number(self._found.backups[what].lsn), what)
        if os.path.exists(what):
            return self._backup(what).number
        try:
            lsn = LSN.parse(what)
        except ValueError:
            raise RetentionRefused(
                f"--keep-from={what}: that is no segment's name, LSN, slot:NAME, backup history "
                "file of the archive, and no path of a backup"
            ) from None
        return self._held(self._number(lsn), what)

    def _backups(self, count: int) -> Iterator[Hold]:
        positions = sorted(
            {
                each.lsn: name for name, each in self._found.backups.items() if self._serves(each)
            }.items(),
            reverse=True,
        )
        if len(positions) < count:
            oldest = min((held.number for held in self._found.segments), default=0)
            yield Hold(oldest, f"of {count} backups to keep, {len(positions)} are known")
        else:
            lsn, name = positions[count - 1]
            yield Hold(self._number(lsn), f"backup {name} needs it")

    def _serves(self, start: WALPosition) -> bool:
        """Whether a backup can be recovered by what the archive has, up to its end."""
        current = current_timeline(self._found) or 1
        line = self._found.histories.get(current, TimelineHistory(current, ()))
        return line.timeline_at(start.lsn) == start.timeline and self._has(self._number(start.lsn))

    def _backup(self, path: str) -> Hold:
        try:
            start = read_backup_start(path)
        except (OSError, FormatError) as error:
            raise RetentionRefused(f"it cannot be told what a backup needs: {error}") from error
        identity = self._found.identity
        if identity is not None and start.system_identifier not in (
            None,
            identity.system_identifier,
        ):
            raise RetentionRefused(
                f"{path} is a backup of system {start.system_identifier}, the archive is of system "
                f"{identity.system_identifier}"
            )
        number = self._held(self._number(start.position.lsn), path)
        return Hold(number, f"backup {path} needs WAL from {start.position.lsn} on")

    def _number(self, lsn: int) -> int:
        return self._found.size.number(lsn)

    def _has(self, number: int) -> bool:
        return any(held.number == number for held in self._found.segments)

    def _held(self, number: int, what: str) -> int:
        """A wish to keep what is not there is a mistake of somebody's."""
        newest = max((held.number for held in self._found.segments), default=0)
        if number > newest + 1:
            raise RetentionRefused(
                f"{what} lies behind all that the archive holds: is it another cluster's? Nothing "
                "was removed"
            )
        return number


def _restart(files: FileSystem, paths: ArchivePaths, name: str) -> WALPosition | None:
    slots = holding_slots(files, paths)
    return next((slot.restart for slot in slots if slot.name == name), None)


def _record(files: FileSystem, paths: ArchivePaths, plan: Plan) -> None:
    """Note in the ledger, durably, what is about to go, so that it is never taken for a hole."""

    def removed(ledger: Ledger | None) -> Ledger:
        empty = Ledger(plan.identity.system_identifier, plan.identity.segment_size)
        return (ledger or empty).removed(plan.cut)

    change_ledger(files, paths, removed)


def _span(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
