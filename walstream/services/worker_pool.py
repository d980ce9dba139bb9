"""The workers of one service: started together, and started again when one dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, FirstError, TimeoutError, gatherResults
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from walstream.services.retry import Backoff, Repetition

__all__ = ["Member", "WorkerPool"]

# Seconds between two questions whether a worker is alive.
_BEAT = 1.0
# So many may be left unanswered before it gets no more clients, and before it is ended: its
# clients have given up by then, and the slots that they used must become free.
_SUSPECT_AFTER = 3
_DEAD_AFTER = 60
# Seconds that a worker has to close the archive.
_LEAVING = 5.0


class Member(Protocol):
    """A worker: see `WorkerProcess`."""

    number: int
    missed: int

    @property
    def pid(self) -> int: ...

    @property
    def is_open(self) -> bool: ...

    def start(self) -> Deferred[None]: ...

    def ended(self) -> Deferred[str]: ...

    def beat(self) -> None: ...

    def leave(self) -> None: ...

    def kill(self) -> None: ...


W = TypeVar("W", bound=Member)


class WorkerPool(Generic[W]):
    """A number of workers, each of which is replaced when it ends. Used once.

    :param make: makes the worker of that number, not started yet.
    :param lost: called when a worker has ended; says how many sessions were lost with it.
    :param news: called when there are more `available` than before.
    :param before_beat: called before all are asked whether they are alive, about once a second.
    """

    _log = Logger()

    def __init__(
        self,
        make: Callable[[int], W],
        count: int,
        clock: Any,
        lost: Callable[[W], int],
        news: Callable[[], None],
        *,
        before_beat: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._make = make
        self._count = count
        self._clock = clock
        self._lost = lost
        self._news = news
        self._before_beat = before_beat
        self._backoff = backoff or Backoff()
        self._alive: dict[int, W] = {}
        self._ready: dict[int, W] = {}
        self._suspect: set[W] = set()
        self._pauses: set[Deferred[None]] = set()
        self._keeping: list[Deferred[None]] = []
        self._beating = LoopingCall(self._beat)
        self._beating.clock = clock
        self._is_closing = False

    @property
    def alive(self) -> list[W]:
        """The workers that have not ended, those that are starting among them."""
        return list(self._alive.values())

    @property
    def ready(self) -> list[W]:
        """The workers that have started and not ended."""
        return list(self._ready.values())

    @property
    def available(self) -> list[W]:
        """Those that may get clients."""
        return [each for each in self.ready if each.is_open and each not in self._suspect]

    def open(self) -> Deferred[None]:
        """Start all of them; fires when all are ready.

        :raises WalstreamError: (in the Deferred) why one can't be; none is left then.
        """
        return Deferred.fromCoroutine(self._open())

    def close(self) -> Deferred[None]:
        """End all of them; fires when all have ended."""
        return Deferred.fromCoroutine(self._close())

    # Starting and ending.

    async def _open(self) -> None:
        workers = [self._make(number + 1) for number in range(self._count)]
        starting = [Deferred.fromCoroutine(self._start(worker)) for worker in workers]
        try:
            await gatherResults(starting, consumeErrors=True)
        except FirstError as error:
            await self._close()
            error.subFailure.raiseException()
        self._keeping = [Deferred.fromCoroutine(self._keep(worker)) for worker in workers]
        self._beating.start(_BEAT, now=False)

    async def _start(self, worker: W) -> None:
        """Start it.

        :raises WalstreamError: if that can't be; the process has ended then.
        """
        self._alive[worker.number] = worker
        try:
            await worker.start()
        except BaseException:
            worker.kill()
            await worker.ended()
            del self._alive[worker.number]
            raise
        self._ready[worker.number] = worker
        self._log.info("worker {number} is process {pid}", number=worker.number, pid=worker.pid)

    async def _close(self) -> None:
        self._is_closing = True
        if self._beating.running:
            self._beating.stop()
        for pause in list(self._pauses):
            pause.cancel()
        await gatherResults([Deferred.fromCoroutine(self._end(each)) for each in self.ready])
        for starting in list(self._alive.values()):
            starting.kill()
            await starting.ended()
        await gatherResults(self._keeping)

    async def _end(self, worker: W) -> None:
        worker.leave()
        try:
            await worker.ended().addTimeout(_LEAVING, self._clock)
        except TimeoutError:
            self._log.warn("worker {number} does not end: killed", number=worker.number)
            worker.kill()
            await worker.ended()

    # Keeping them.

    async def _keep(self, worker: W) -> None:
        """See to it that there is a worker in this one's place."""
        failures = 0
        while True:
            since = self._clock.seconds()
            how = await worker.ended()
            self._forget(worker)
            lost = self._lost(worker)
            if self._is_closing:
                return
            if self._clock.seconds() - since >= self._backoff.longest:
                failures = 0
            self._log.error(
                "worker {number} has ended, and {lost} connections with it: {how}",
                number=worker.number,
                lost=lost,
                how=how,
            )
            replacement = await self._replace(worker.number, failures)
            if replacement is None:
                return
            worker, failures = replacement
            failures += 1

    async def _replace(self, number: int, failures: int) -> tuple[W, int] | None:
        """Start a worker in the place of one that has ended, however often it takes.

        The result is None when the pool is closed, else the worker and how often it failed.
        """
        repetition = Repetition(self._clock)
        while await self._pause(self._backoff.delay(failures)):
            worker = self._make(number)
            try:
                await self._start(worker)
            except Exception as error:
                failures += 1
                if not self._is_closing and repetition.is_news(str(error)):
                    self._log.error(
                        "cannot start worker {number}; trying again: {reason}",
                        number=number,
                        reason=str(error),
                    )
                continue
            self._news()
            return worker, failures
        return None

    async def _pause(self, seconds: float) -> bool:
        """Wait; whether to go on then."""
        if self._is_closing:
            return False
        pause: Deferred[None] = deferLater(self._clock, seconds)
        self._pauses.add(pause)
        try:
            await pause
        except CancelledError:
            return False
        finally:
            self._pauses.discard(pause)
        return True

    def _forget(self, worker: W) -> None:
        self._alive.pop(worker.number, None)
        self._ready.pop(worker.number, None)
        self._suspect.discard(worker)

    def _beat(self) -> None:
        self._before_beat()
        for worker in self.ready:
            worker.beat()
            if worker in self._suspect:
                self._reconsider(worker)
            elif worker.missed >= _SUSPECT_AFTER:
                self._suspect.add(worker)
                self._log.warn(
                    "worker {number} (process {pid}) does not answer: it gets no more clients "
                    "until it does",
                    number=worker.number,
                    pid=worker.pid,
                )

    def _reconsider(self, worker: W) -> None:
        if not worker.missed:
            self._suspect.discard(worker)
            self._log.info("worker {number} answers again", number=worker.number)
            self._news()
        elif worker.missed == _DEAD_AFTER:
            self._log.error(
                "worker {number} has not answered for {seconds} s: killed",
                number=worker.number,
                seconds=round(_DEAD_AFTER * _BEAT),
            )
            worker.kill()
