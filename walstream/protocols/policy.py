"""For which standbys a receiver waits before it reports a position, and how far those are.

Values and arithmetic, which know no time and no connection. The rules are those by which a primary
waits (``syncrep.c``: `SyncRepGetSyncRecPtr`, `SyncRepGetCandidateStandbys`), so that a primary that
waits for a hub, which waits for its standbys, waits for what it would have waited for without it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from walstream.errors import FormatError
from walstream.formats.synchronous_standby_names import StandbyMethod, SynchronousStandbyNames
from walstream.protocols.standbys import Standby, StandbyState

__all__ = ["LOCAL", "Election", "ReportRules", "ReportedPosition", "parse_rule"]

_NOBODY = "local"

# Whoever is in one of these states has got everything there was at least once.
_COUNTING_STATES = frozenset({StandbyState.STREAMING, StandbyState.STOPPING})


class ReportedPosition(Enum):
    """One of the three positions of a status update."""

    WRITE = "write"
    FLUSH = "flush"
    APPLY = "apply"

    def of(self, standby: Standby) -> int:
        """What a standby reported."""
        if self is ReportedPosition.WRITE:
            return standby.write
        return standby.flush if self is ReportedPosition.FLUSH else standby.apply


def parse_rule(text: str) -> SynchronousStandbyNames | None:
    """A rule as it is given in an option: the standbys to wait for, or None for ``local``.

    A standby that has this name may be given in quotes.

    :raises FormatError: for what is neither.
    """
    if text.strip().lower() == _NOBODY:
        return None
    names = SynchronousStandbyNames.parse(text)
    if not names:
        raise FormatError(f"no standbys are named: say {_NOBODY} to wait for none")
    return names


@dataclass(frozen=True, slots=True)
class ReportRules:
    """For which standbys to wait, position by position; None: none. Falsy if for none at all."""

    write: SynchronousStandbyNames | None = None
    flush: SynchronousStandbyNames | None = None
    apply: SynchronousStandbyNames | None = None

    def __bool__(self) -> bool:
        return any(rule is not None for rule in (self.write, self.flush, self.apply))


LOCAL = ReportRules()
"""What we have ourselves is reported."""


class Election:
    """One rule: which standbys count for it, and how far all of those are that it wants.

    A report of a standby costs next to nothing, however many there are: the positions are kept
    sorted, and only a standby that comes or goes has it chosen anew who counts.

    :param rule: whose positions are wanted.
    :param position: which of the three.
    :ivar value: the byte position that all have reached for whom the rule waits; 0 if there are too
        few. It may go back, when a standby goes, or one comes that is of more weight.
    """

    def __init__(self, rule: SynchronousStandbyNames, position: ReportedPosition) -> None:
        self.rule = rule
        self._of = position
        self._timeline = 0
        self._is_by_priority = rule.method is StandbyMethod.FIRST
        # All that were looked at, by pid. Most of hundreds may not be named at all.
        self._priorities: dict[int, int] = {}
        # Those that might count, in the order in which they would be chosen, and their positions.
        self._ranks: list[tuple[int, int]] = []
        self._positions: dict[int, int] = {}
        # The positions of those that do count.
        self._chosen: set[int] = set()
        self._sorted: list[int] = []
        self.value = 0

    @property
    def is_met(self) -> bool:
        """Whether there are as many standbys as the rule wants, and each reports the position."""
        return self.value > 0

    def restart(self, timeline: int, standbys: Iterable[Standby]) -> None:
        """From now on those count that stream this timeline, of which positions are wanted."""
        self._timeline = timeline
        self._ranks.clear()
        self._positions.clear()
        for standby in standbys:
            self._take(standby)
        self._choose()

    def changed(self, standby: Standby) -> bool:
        """A standby has come, has reported something, or is in another state.

        Whether `value` is another one now.
        """
        before = self.value
        if self._take(standby):
            self._choose()
        return self.value != before

    def left(self, standby: Standby) -> bool:
        """A standby is gone; whether `value` is another one now."""
        before = self.value
        self._priorities.pop(standby.pid, None)
        if self._remove(standby.pid):
            self._choose()
        return self.value != before

    def state_of(self, standby: Standby) -> str:
        """What ``pg_stat_replication.sync_state`` is of a standby for which a primary waits so."""
        if not self.priority_of(standby):
            return "async"
        if standby.pid not in self._chosen:
            return "potential"
        return "sync" if self._is_by_priority else "quorum"

    def priority_of(self, standby: Standby) -> int:
        """What its ``sync_priority`` is; 0 if the rule does not wait for it, or never can."""
        return self._priority(standby) if standby.flush else 0

    def missing(self, standbys: Iterable[Standby]) -> list[str]:
        """The names of which no standby counts, each with the reason, if it is there at all."""
        there: dict[int, str] = {}
        for standby in standbys:
            place = self.rule.position(standby.application_name)
            if place is not None and there.get(place) != "":
                there[place] = self._why_not(standby)
        return [
            f"{name} ({there[place]})" if there.get(place) else name
            for place, name in enumerate(self.rule.names, 1)
            if there.get(place) != ""
        ]

    def _why_not(self, standby: Standby) -> str:
        """Why a standby that is named does not count; empty if it does."""
        if standby.state not in _COUNTING_STATES:
            return standby.state.value
        if not standby.flush:
            return "reports no flush position"
        if self._timeline and standby.timeline != self._timeline:
            return f"on timeline {standby.timeline}"
        return "" if self._of.of(standby) else f"reports no {self._of.value} position"

    def _priority(self, standby: Standby) -> int:
        priority = self._priorities.get(standby.pid)
        if priority is None:
            priority = self.rule.priority(standby.application_name)
            self._priorities[standby.pid] = priority
        return priority

    def _take(self, standby: Standby) -> bool:
        """Note where a standby is; whether there is one more now, or one less, that might count."""
        pid, priority = standby.pid, self._priority(standby)
        if not priority:
            return False
        # Who never reported a flush position is no standby to wait for, for whatever position.
        counts = (
            standby.flush > 0
            and standby.timeline == self._timeline
            and standby.state in _COUNTING_STATES
        )
        if not counts:
            return self._remove(pid)
        position, before = self._of.of(standby), self._positions.get(pid)
        if before is None:
            self._positions[pid] = position
            insort(self._ranks, (priority, pid))
            return True
        if position != before:
            self._positions[pid] = position
            if pid in self._chosen:
                del self._sorted[bisect_left(self._sorted, before)]
                insort(self._sorted, position)
                self._evaluate()
        return False

    def _remove(self, pid: int) -> bool:
        if self._positions.pop(pid, None) is None:
            return False
        self._ranks = [rank for rank in self._ranks if rank[1] != pid]
        return True

    def _choose(self) -> None:
        # Of the same priority, the one that came first, as by PostgreSQL's table of walsenders.
        ranks = self._ranks[: self.rule.number] if self._is_by_priority else self._ranks
        self._chosen = {pid for _, pid in ranks}
        self._sorted = sorted(self._positions[pid] for _, pid in ranks)
        self._evaluate()

    def _evaluate(self) -> None:
        number = self.rule.number
        if len(self._sorted) < number:
            self.value = 0
        else:
            self.value = self._sorted[0] if self._is_by_priority else self._sorted[-number]
