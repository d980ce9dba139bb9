"""Those for whom a receiver receives besides its sink: what it reports and passes on for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IReactorTime

from walstream.interfaces import IReportPolicy
from walstream.protocols.feedback import (
    NO_FEEDBACK,
    FeedbackReporter,
    FeedbackSource,
    MergedFeedback,
)
from walstream.protocols.policy import LOCAL, ReportRules
from walstream.protocols.standby_policy import StandbyPolicy
from walstream.protocols.standbys import Standbys

__all__ = ["NOBODY", "Downstream", "DownstreamSettings"]

# Seconds after which a client that says nothing needs nothing, where no timeout says so.
_SILENCE = 60.0


@dataclass(frozen=True, slots=True)
class Downstream:
    """What a receiver's connections have to do with its standbys.

    :ivar policy: what is waited for before something is reported; None: nothing.
    :ivar feedback: what the server is to keep for them; None: nothing is said of that.
    """

    policy: IReportPolicy | None = None
    feedback: FeedbackSource | None = None

    @property
    def applied(self) -> str:
        """In words, who has to have applied what is reported as applied; empty: nobody."""
        return "" if self.policy is None else self.policy.applied

    def reporter(
        self, clock: IReactorTime, interval: float, wall_clock: Callable[[], float]
    ) -> FeedbackReporter | None:
        """Tells the server of one stream what it is to keep."""
        if self.feedback is None:
            return None
        return FeedbackReporter(self.feedback, clock, interval, wall_clock)


NOBODY: Final = Downstream()
"""There is nothing but the sink."""


@dataclass(frozen=True, slots=True)
class DownstreamSettings:
    """What a hub does upstream for its standbys. In brackets, the options.

    :ivar rules: for which of them to wait (``--report-write``, ``--report-flush``,
        ``--report-apply``).
    :ivar timeout: seconds after which a rule that cannot be met is lifted; 0: never
        (``--report-timeout``).
    :ivar feedback: whether to pass on hot standby feedback (``--feedback``).
    :ivar policy: another policy, instead of the rules.
    """

    rules: ReportRules = LOCAL
    timeout: float = 0.0
    feedback: bool = True
    policy: IReportPolicy | None = None

    def made_for(
        self, standbys: Standbys, clock: IReactorTime, sender_timeout: float
    ) -> Downstream:
        """What that comes to for these standbys, whose sender has this timeout in seconds."""
        policy = self.policy
        if policy is None and self.rules:
            policy = StandbyPolicy(self.rules, standbys, clock, self.timeout)
        feedback = NO_FEEDBACK
        if self.feedback:
            feedback = MergedFeedback(standbys, clock, sender_timeout or _SILENCE)
        return Downstream(policy, feedback)
