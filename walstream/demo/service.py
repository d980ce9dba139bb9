"""The demo as a service: gets everything up, lets rows flow and shows them, and clears all away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psycopg
from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from walstream.demo.logs import DemoLog
from walstream.demo.picture import size_text
from walstream.demo.sample import Look, Rows, Sample, Speed
from walstream.demo.screen import Screen
from walstream.demo.stage import Step
from walstream.errors import WalstreamError
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.services.outcome import Outcome

__all__ = ["DemoService", "DemoSettings", "StageLike"]

# Rows are written so often, in seconds.
_WRITE_INTERVAL = 0.1

# And so many at once, at most: a transaction should not take longer than the interval by much.
_MOST_AT_ONCE = 10_000

# Seconds that the standby gets in the end to have all rows.
_CATCH_UP_TIMEOUT = 15.0

# What may go wrong for reasons outside of the demo; its text says what to do.
_EXPECTED = (WalstreamError, OSError, psycopg.Error, CannotListenError)


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """What to show.

    :ivar rows: how many are written a second.
    :ivar seconds: for how long they are; None: until told to stop.
    """

    rows: int
    seconds: float | None = None


class StageLike(Protocol):
    """What is shown: see `walstream.demo.stage.Stage`."""

    @property
    def directory(self) -> Path: ...
    @property
    def written(self) -> int: ...
    @property
    def segment_size(self) -> SegmentSize: ...
    def steps(self) -> Sequence[Step]: ...
    def introduction(self) -> str: ...
    def failed(self) -> Deferred[object]: ...
    def write(self, count: int) -> Deferred[None]: ...
    def look(self) -> Deferred[Look]: ...
    def compare(self, after: int, upto: int) -> Deferred[Rows]: ...
    def close(self) -> Deferred[None]: ...


class DemoService(Service):
    """Shows the whole of walstream once. May be started once.

    :param complain: shows the one sentence of a failure.
    """

    def __init__(
        self,
        settings: DemoSettings,
        stage: StageLike,
        screen: Screen,
        log: DemoLog,
        clock: IReactorTime,
        complain: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._stage = stage
        self._screen = screen
        self._demo_log = log
        self._clock = clock
        self._complain = complain
        self._ending: Outcome[object] = Outcome()
        self._is_ending = False
        self._finished: Outcome[None] = Outcome()
        self._speed = Speed()
        self._equal = Rows()
        self._since: tuple[float, LSN] | None = None

    def finished(self) -> Deferred[None]:
        """Fires when the demo is over, and nothing is left of it.

        :raises Exception: (in the Deferred) what went wrong; it has been shown.
        """
        return self._finished.wait()

    def startService(self) -> None:
        """Begin; `finished` tells how it went."""
        super().startService()  # type: ignore[no-untyped-call]
        self._demo_log.begin(self._screen.say)
        Deferred.fromCoroutine(self._run()).addErrback(self._failed).addBoth(self._finished.set)

    def stopService(self) -> Deferred[None]:
        """End the demo; fires when nothing is left of it."""
        super().stopService()  # type: ignore[no-untyped-call]
        self.end()
        return self._finished.wait().addErrback(lambda _: None)  # it has been shown

    def end(self) -> None:
        """End the demo, soon."""
        self._end(None)

    def _end(self, reason: object) -> None:
        self._is_ending = True
        self._ending.set(reason)

    async def _run(self) -> None:
        try:
            summary = await self._perform()
        finally:
            self._screen.leave()
            try:
                await self._stage.close()
            finally:
                self._demo_log.end()
        self._screen.say(f"\n{summary}")

    async def _perform(self) -> str:
        if not await self._get_up():
            return "The demo was ended before all was up; nothing is left of it."
        await self._let_flow()
        return self._summary(await self._prove())

    # Getting up.

    async def _get_up(self) -> bool:
        """Take the steps; False if the demo was to end meanwhile."""
        for number, step in enumerate(self._stage.steps()):
            if self._is_ending:
                return False
            self._screen.say(f"{step.text} ...")
            await step.take()
            if number == 0:  # the directory is there
                self._demo_log.write_to(self._log_path())
        if self._is_ending:
            return False
        self._screen.say(
            f"{self._stage.introduction()}  log       tail -f {self._log_path()}\n\n"
            f"{self._ends_when()}; nothing is left of it then.\n"
        )
        return True

    def _log_path(self) -> Path:
        return self._stage.directory / "walstream.log"

    def _ends_when(self) -> str:
        if self._settings.seconds is None:
            return "Ctrl-C ends the demo"
        return f"The demo ends after {self._settings.seconds:g} s, or on Ctrl-C"

    # Rows flow, and are shown.

    async def _let_flow(self) -> None:
        """Write and show until it is to end, or something fails."""
        flow = Deferred.fromCoroutine(self._write_and_show())
        # Whatever comes first; a query that hangs can't hold up the end.
        flow.addBoth(self._end)
        self._stage.failed().addBoth(self._end)
        timer = None
        if self._settings.seconds is not None:
            timer = self._clock.callLater(self._settings.seconds, self.end)
        try:
            await self._ending.wait()
        finally:
            flow.cancel()
            if timer is not None and timer.active():
                timer.cancel()

    async def _write_and_show(self) -> None:
        owed = 0.0
        shown = last = self._clock.seconds()
        await self._show()
        while not self._screen.is_gone:
            await deferLater(self._clock, _WRITE_INTERVAL)
            now = self._clock.seconds()
            # Time in which nothing could be written, as when the machine slept, is not made up for.
            owed += min(now - last, 1.0) * self._settings.rows
            last = now
            await self._stage.write(min(int(owed), _MOST_AT_ONCE))
            owed %= 1.0
            if now - shown >= self._screen.interval:
                shown = now
                await self._show()

    async def _show(self) -> Sample:
        sample = await self._sample()
        self._screen.show(sample, self._speed.add(sample.seconds, sample.primary))
        return sample

    async def _sample(self) -> Sample:
        look = await self._stage.look()
        if look.read_back > self._equal.count:
            self._equal += await self._stage.compare(self._equal.count, look.read_back)
        now = self._clock.seconds()
        since, started = self._since = self._since or (now, look.primary)
        return Sample(
            seconds=now - since,
            started=started,
            primary=look.primary,
            hub=look.hub,
            standby=look.standby,
            segment_size=self._stage.segment_size,
            written=self._stage.written,
            read_back=look.read_back,
            equal=self._equal,
            walsenders=look.walsenders,
        )

    # The proof.

    async def _prove(self) -> Sample:
        """Wait until the standby has all rows, and compare them all at once."""
        proof = Deferred.fromCoroutine(self._compare_all())
        try:
            return await proof.addTimeout(_CATCH_UP_TIMEOUT, self._clock)
        except TimeoutError:
            raise WalstreamError(
                f"the standby has not all rows after {_CATCH_UP_TIMEOUT:g} s"
            ) from None

    async def _compare_all(self) -> Sample:
        sample = await self._show()
        end = sample.primary
        while sample.standby < end or sample.read_back < sample.written:
            await deferLater(self._clock, _WRITE_INTERVAL)
            sample = await self._show()
        rows = await self._stage.compare(0, sample.written)
        if rows != sample.equal:
            raise WalstreamError(
                f"the rows have changed since they were first compared: then {sample.equal}, "
                f"now {rows}"
            )
        return sample

    def _summary(self, sample: Sample) -> str:
        return (
            f"In {sample.seconds:.0f} s, {sample.written:,} rows "
            f"({size_text(sample.primary - sample.started)} of WAL) went from the primary by way "
            f"of the hub to the standby, whose {sample.equal.count:,} rows equal the primary's "
            f"(checksum {sample.equal.checksum_text}); the primary had {sample.walsenders} "
            f"walsender{'s' * (sample.walsenders != 1)}; nothing is left of the demo."
        )

    # What went wrong.

    def _failed(self, failure: Failure) -> Failure:
        is_expected = failure.check(*_EXPECTED) is not None
        text = failure.getErrorMessage() if is_expected else failure.getTraceback()
        self._complain(f"walstream demo: {text.strip()}\n")
        return failure
