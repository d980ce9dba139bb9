"""Reporting upstream what the standbys behind a sender have, instead of what we have alone.

It keeps to PostgreSQL's promise, and has its price: a commit that waits for standbys which are not
there waits until they are. So that is said in the log, by name, and there can be an end to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from walstream.formats.synchronous_standby_names import SynchronousStandbyNames
from walstream.interfaces import NO_LIMIT, NO_LIMITS, IReportPolicy, ReportLimits
from walstream.protocols.policy import Election, ReportedPosition, ReportRules
from walstream.protocols.standbys import Standby, Standbys

__all__ = ["RuleState", "StandbyPolicy"]


@dataclass(frozen=True, slots=True)
class RuleState:
    """How one position is reported at this moment.

    :ivar position: ``write``, ``flush`` or ``apply``.
    :ivar rule: the rule, in the grammar of ``synchronous_standby_names``.
    :ivar is_met: whether there are enough standbys; if not, commits that need them wait.
    :ivar is_lifted: whether they do not, since that has been so for too long.
    :ivar reached: the byte position that all have whom the rule waits for; 0 if it is not met.
    :ivar missing: the names of which nobody counts, with the reason; some may not be needed.
    """

    position: str
    rule: str
    is_met: bool
    is_lifted: bool
    reached: int
    missing: tuple[str, ...]


class _Rule:
    """A rule, what was said of it, and when there is an end to waiting."""

    def __init__(self, rule: SynchronousStandbyNames, position: ReportedPosition) -> None:
        self.position = position
        self.election = Election(rule, position)
        self.is_said_to_be_met = True
        self.is_lifted = False
        self.call: IDelayedCall | None = None

    @property
    def limit(self) -> int:
        return NO_LIMIT if self.is_lifted else self.election.value

    def cancel(self) -> None:
        call, self.call = self.call, None
        if call is not None and call.active():
            call.cancel()


@implementer(IReportPolicy)
class StandbyPolicy:
    """Waits for standbys by the rules of ``synchronous_standby_names``.

    :param rules: for which, position by position.
    :param standbys: those that there are.
    :param timeout: seconds after which a rule that cannot be met, for want of standbys, is lifted
        until it can; 0: never, commits wait.
    """

    _log = Logger()

    def __init__(
        self, rules: ReportRules, standbys: Standbys, clock: IReactorTime, timeout: float = 0.0
    ) -> None:
        self.limits = NO_LIMITS
        self._standbys = standbys
        self._clock = clock
        self._timeout = timeout
        self._changed: Callable[[], None] | None = None
        chosen = (
            (rules.write, ReportedPosition.WRITE),
            (rules.flush, ReportedPosition.FLUSH),
            (rules.apply, ReportedPosition.APPLY),
        )
        self._rules = [_Rule(rule, which) for rule, which in chosen if rule is not None]
        self.applied = "" if rules.apply is None else str(rules.apply)
        standbys.watch(self)

    # What others look at.

    def state(self) -> list[RuleState]:
        """What there is to know about each rule, at this moment."""
        return [
            RuleState(
                rule.position.value,
                str(rule.election.rule),
                rule.election.is_met,
                rule.is_lifted,
                rule.election.value,
                tuple(rule.election.missing(self._standbys)),
            )
            for rule in self._rules
        ]

    def sync_state(self, standby: Standby) -> tuple[int, str]:
        """``sync_priority`` and ``sync_state`` of a standby, as ``pg_stat_replication`` has them.

        They are those of the flush position's rule, or else of the first that there is.
        """
        by_weight = sorted(self._rules, key=lambda r: r.position is not ReportedPosition.FLUSH)
        if not by_weight:
            return 0, "async"
        election = by_weight[0].election
        return election.priority_of(standby), election.state_of(standby)

    # IReportPolicy

    def begin(self, timeline: int, changed: Callable[[], None]) -> None:
        """See `IReportPolicy.begin`."""
        self._changed = changed
        for rule in self._rules:
            rule.election.restart(timeline, self._standbys)
        self._look_at_all()
        self.limits = self._limits()

    def end(self) -> None:
        """See `IReportPolicy.end`."""
        self._changed = None
        for rule in self._rules:
            rule.cancel()

    # StandbyWatcher

    def standby_changed(self, standby: Standby) -> None:
        """See `StandbyWatcher.standby_changed`: a commit may be waiting for what it says."""
        moved = False
        for rule in self._rules:
            moved = rule.election.changed(standby) or moved
        if moved:
            self._update()

    def standby_left(self, standby: Standby) -> None:
        """See `StandbyWatcher.standby_left`."""
        moved = False
        for rule in self._rules:
            moved = rule.election.left(standby) or moved
        if moved:
            self._update()

    def _update(self) -> None:
        if self._changed is None:
            return
        self._look_at_all()
        self.limits = self._limits()
        self._changed()

    def _limits(self) -> ReportLimits:
        return ReportLimits(**{rule.position.value: rule.limit for rule in self._rules})

    # Rules that cannot be met.

    def _look_at_all(self) -> None:
        for rule in self._rules:
            if rule.election.is_met:
                self._is_met(rule)
            else:
                self._is_not_met(rule)

    def _is_met(self, rule: _Rule) -> None:
        if rule.is_said_to_be_met:
            return
        rule.cancel()
        rule.is_said_to_be_met, rule.is_lifted = True, False
        self._log.warn(
            "the {position} position is reported by {rule} again: there are enough standbys",
            position=rule.position.value,
            rule=str(rule.election.rule),
        )

    def _is_not_met(self, rule: _Rule) -> None:
        if rule.is_said_to_be_met:
            rule.is_said_to_be_met = False
            self._log.warn(
                "the {position} position is not reported any further: {rule} is not met. Not "
                "there: {missing}. A commit that waits for it waits {until}",
                position=rule.position.value,
                rule=str(rule.election.rule),
                missing=", ".join(rule.election.missing(self._standbys)) or "one more of them",
                until=f"at most {self._timeout:g} s" if self._timeout else "until they are",
            )
        if self._timeout and not rule.is_lifted and rule.call is None:
            rule.call = self._clock.callLater(self._timeout, self._lift, rule)

    def _lift(self, rule: _Rule) -> None:
        rule.call = None
        rule.is_lifted = True
        self._log.error(
            "the {position} position is reported as it is here: {rule} has not been met for "
            "{seconds:g} s. What is acknowledged from now on may be nowhere else",
            position=rule.position.value,
            rule=str(rule.election.rule),
            seconds=self._timeout,
        )
        self._update()
