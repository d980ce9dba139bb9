"""Retention as a part of a service: what ``walstream prune`` does, every few minutes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.archive.filesystem import FileSystem
from walstream.archive.lane import Lane
from walstream.archive.paths import ArchivePaths
from walstream.archive.retention import Plan, RetentionPolicy, prune
from walstream.archive.slot_limit import explain
from walstream.errors import WalstreamError

__all__ = ["INTERVAL", "Retention"]

#: Seconds between two looks. The first comes as late, so that clients can come back before it.
INTERVAL = 300.0


class Retention:
    """Removes from an archive what nobody needs, from `open` to `close`.

    Whatever keeps it from doing so is logged, and it is tried again: streaming goes on.

    :ivar last_plan: what was removed last, and why not more; None before.
    :param lane: a thread of its own; closed with it.
    :param now: the time of the files, in seconds since 1970.
    :param assure: proves that the archive still is ours, or raises `ArchiveLost`.
    """

    _log = Logger()

    def __init__(
        self,
        paths: ArchivePaths,
        policy: RetentionPolicy,
        lane: Lane,
        clock: IReactorTime,
        now: Callable[[], float],
        *,
        assure: Callable[[], None],
    ) -> None:
        self._paths = paths
        self._policy = policy
        self._lane = lane
        self._now = now
        self._assure = assure
        self._last_words = ""
        self.last_plan: Plan | None = None
        self._look_again = LoopingCall(self._look)
        self._look_again.clock = clock

    async def _open(self) -> None:
        self._look_again.start(INTERVAL, now=False).addErrback(self._failed)

    def open(self) -> Deferred[None]:
        """Begin; see `walstream.services.hub.Storage`."""
        return Deferred.fromCoroutine(self._open())

    def close(self) -> Deferred[None]:
        """End; fires when nothing is being removed any more."""
        if self._look_again.running:
            self._look_again.stop()
        return self._lane.close()

    def _look(self) -> Deferred[None]:
        job = partial(self._prune, self._now())
        # A LoopingCall waits for it, so there is never a second one.
        return self._lane.run(job).addCallbacks(self._pruned, self._failed)

    def _prune(self, now: float) -> Plan:
        self._assure()
        return prune(FileSystem(), self._paths, self._policy, now)

    def _pruned(self, plan: Plan) -> None:
        self._last_words = ""
        self.last_plan = plan
        for slot in plan.lost:
            self._log.warn(
                'invalidated obsolete replication slot "{slot}": {why}',
                slot=slot.name,
                why=explain(slot, plan.oldest),
            )
        if plan.removed:
            self._log.info(
                "removed {count} old segment files, {bytes} bytes; {kept} stays: {reason}",
                count=len(plan.removed),
                bytes=plan.bytes,
                kept=plan.next_kept,
                reason=plan.reason,
            )

    def _failed(self, failure: Failure) -> None:
        if failure.check(WalstreamError, OSError) is None:
            self._log.failure("retention failed", failure)
            return
        words = failure.getErrorMessage()
        if words != self._last_words:
            self._last_words = words
            self._log.error("no WAL was removed: {reason}", reason=words)
