"""Whether the server's commits wait for us, and what a receiver does about it.

A primary whose ``synchronous_standby_names`` names a receiver waits with its commits until that
one has reported them as durable, however long that takes. Whether it does is a setting over there,
which an operator may change at any time; so a receiver asks, and lives up to it.

What makes that safe does not depend on the answers: whatever the server says, WAL is made durable
and reported within a second of its arrival (`walstream.protocols.acknowledgement`). So a commit
that waits for a receiver which does not know of it is slow, and no commit hangs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from twisted.logger import Logger

from walstream.errors import FormatError, NotSynchronous, ServerError
from walstream.formats.synchronous_standby_names import SynchronousStandbyNames
from walstream.protocols.questions import Questions
from walstream.protocols.receiver_settings import OnSynchronous, ReceiverSettings, ReportApply

__all__ = ["StandbyDemands", "SynchronousDuty", "ask_demands"]

_APPLIED = "remote_apply"


@dataclass(frozen=True, slots=True)
class StandbyDemands:
    """What a server asks of its standbys.

    :ivar names: for whom its commits wait.
    :ivar commit: its ``synchronous_commit``, which any session may change for itself.
    :ivar is_primary: whether it makes commits at all; those of a standby's are its primary's.
    """

    names: SynchronousStandbyNames
    commit: str
    is_primary: bool = True

    def concern(self, application_name: str) -> bool:
        """Whether commits wait, or may come to wait, for the standby of that name."""
        return self.is_primary and self.names.priority(application_name) > 0


async def ask_demands(questions: Questions, parameters: Mapping[str, str]) -> StandbyDemands | None:
    """Ask a server, whose ParameterStatus values are given as well; None if it does not tell.

    :raises Disconnected: when the connection ends meanwhile.
    """
    try:
        names, commit = await questions.standby_demands()
        parsed = SynchronousStandbyNames.parse(names)
    except (FormatError, ServerError):
        # An old server, or another program; or a syntax that is younger than this version.
        return None
    # The parameter is PostgreSQL 14's. What an older standby's own standbys are to it is nothing
    # either, but it can't be told from a primary.
    return StandbyDemands(parsed, commit, parameters.get("in_hot_standby") != "on")


class SynchronousDuty:
    """What a receiver owes to its server's commits; it outlives connections.

    :ivar is_synchronous: make durable, and report, every batch of WAL as it comes.
    :ivar reports_flush: whether to report a flush position at all. It is what moves a slot on, and
        what makes us eligible as a synchronous standby.
    :ivar reports_apply: whether to report what is durable as applied.
    :param applied: who has to have applied it before, in words; empty: nobody.
    """

    _log = Logger()

    def __init__(self, settings: ReceiverSettings, applied: str = "") -> None:
        self.is_synchronous = settings.synchronous
        refuses = settings.on_synchronous is OnSynchronous.REFUSE
        # Who refuses to be a synchronous standby must not become one by accident either.
        self.reports_flush = settings.synchronous or settings.slot is not None or not refuses
        self.reports_apply = settings.report_apply is ReportApply.FLUSH
        self._applied = applied
        self._is_told_to = settings.synchronous
        self._refuses = refuses
        self._concerns_us = False
        self._wants_applied = False
        self._has_said_that_it_is_not_told = False

    @property
    def depends_on_demands(self) -> bool:
        """Whether the server's demands could change anything, but for what the log says."""
        return not (self._is_told_to and self.reports_apply)

    def learn(self, demands: StandbyDemands | None, application_name: str) -> None:
        """Live up to what the server demands of the standby that it knows by this name.

        :raises NotSynchronous: if that is what we are to refuse.
        """
        if demands is None:
            self._say_that_it_is_not_told()
            return
        concerns_us = demands.concern(application_name)
        if concerns_us and self._refuses and not self._is_told_to:
            raise NotSynchronous(str(demands.names), application_name)
        if concerns_us is not self._concerns_us:
            self._concerns_us = concerns_us
            if not self._is_told_to:
                self.is_synchronous = concerns_us
                self._say_what_changed(demands, application_name)
        wants_applied = concerns_us and demands.commit == _APPLIED
        if wants_applied is not self._wants_applied:
            self._wants_applied = wants_applied
            if wants_applied:
                self._say_that_nothing_is_applied()

    def _say_what_changed(self, demands: StandbyDemands, application_name: str) -> None:
        if self.is_synchronous:
            self._log.warn(
                "the server waits for this receiver: synchronous_standby_names is {names}, which "
                "names {application_name}. From now on WAL is made durable and reported as it "
                "comes; start with --synchronous to have that from the first byte",
                names=str(demands.names),
                application_name=application_name,
            )
        else:
            self._log.warn(
                "the server does not wait for this receiver any more: its "
                "synchronous_standby_names does not name {application_name}. WAL is made durable "
                "within a second again, instead of as it comes",
                application_name=application_name,
            )

    def _say_that_nothing_is_applied(self) -> None:
        if self.reports_apply and self._applied:
            self._log.info(
                "the server's synchronous_commit is remote_apply: WAL is reported as applied when "
                "it is by {applied}, and durable here",
                applied=self._applied,
            )
        elif self.reports_apply:
            self._log.info(
                "the server's synchronous_commit is remote_apply: an archive applies nothing, so "
                "what is durable in it is reported as applied"
            )
        else:
            self._log.error(
                "the server's synchronous_commit is remote_apply, and this receiver, one of its "
                "synchronous standbys, reports nothing as applied: commits that wait for it wait "
                "for ever. Use --report-apply=flush, or another synchronous_commit"
            )

    def _say_that_it_is_not_told(self) -> None:
        if not self._has_said_that_it_is_not_told:
            self._has_said_that_it_is_not_told = True
            self._log.info(
                "the server does not tell whether its commits wait for this receiver; if they do, "
                "start it with --synchronous"
            )
