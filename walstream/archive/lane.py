"""Lanes: threads of an archive's own for the calls that wait for a disk.

The reactor's thread pool is not used: it has ten threads, name resolution shares them, and a
stalled disk would take them all. Neither is `deferToThreadPool`, which costs a synchronous commit
a quarter of its rate, measured, against the plain queue here.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any, Protocol, TypeAlias, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["Lane", "ThreadLane"]

T = TypeVar("T")

# A job, and who is told its result, in the reactor's thread.
_Task: TypeAlias = tuple[Callable[[], Any], Callable[[Any], None] | None]


class Lane(Protocol):
    """Runs jobs elsewhere, begun in the order in which they were given."""

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        """Run *job*; the Deferred has its result. Cancelling it does not stop the job."""

    def post(self, job: Callable[[], None]) -> None:
        """Run *job* and say nothing of it; an error goes to the log."""

    def tell(self, news: Callable[[], None]) -> None:
        """For a job: have *news* called in the reactor's thread, soon."""

    def close(self) -> Deferred[None]:
        """Take no more jobs; fires when all that were given are done."""


class ThreadLane:
    """A lane of one thread, in which each job is over before the next begins; or of a few.

    Nothing here bounds the queue: whoever gives jobs has a bound of their own. The threads are
    daemons, so that a process that never came to `close` can still end; whatever they are at,
    an archive survives to be killed. They start with the first job.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorFromThreads, name: str, threads: int = 1) -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[_Task | None] = SimpleQueue()
        self._names = [f"{name}-{number}" for number in range(threads)]
        self._threads: list[Thread] = []
        self._over: Deferred[None] | None = None

    def run(self, job: Callable[[], T]) -> Deferred[T]:
        """See `Lane.run`."""
        if self._over is not None:
            return fail(RuntimeError("the archive is closed"))
        result: Deferred[T] = Deferred()
        try:
            self._put(job, result.callback)
        except RuntimeError as error:
            return fail(_no_thread(error))
        return result

    def post(self, job: Callable[[], None]) -> None:
        """See `Lane.post`."""
        if self._over is None:
            try:
                self._put(job, None)
            except RuntimeError:
                self._log_failure(Failure())

    def tell(self, news: Callable[[], None]) -> None:
        """See `Lane.tell`."""
        self._reactor.callFromThread(news)

    def close(self) -> Deferred[None]:
        """See `Lane.close`. To be called once."""
        if not self._threads:
            self._over = succeed(None)
            return self._over
        self._over = Deferred()
        for _ in self._threads:
            self._jobs.put(None)
        return self._over

    def _put(self, job: Callable[[], Any], report: Callable[[Any], None] | None) -> None:
        """Queue a job, once there is a thread for it.

        :raises RuntimeError: if there is none, and the system gives none now.
        """
        while self._names:
            thread = Thread(target=self._work, name=self._names[-1], daemon=True)
            try:
                thread.start()
            except RuntimeError:
                if not self._threads:
                    raise
                break  # fewer will do for now
            self._names.pop()
            self._threads.append(thread)
        self._jobs.put((job, report))

    def _work(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, report = task
            try:
                result = job()
            except BaseException as error:
                # Whatever it is, memory that ran out for one: somebody waits for the answer, and
                # the next job for this thread.
                result = _failure(error)
                report = report or self._log_failure
            if report is not None:
                self._reactor.callFromThread(report, result)
            del task, job, report, result  # or they would live until the next job comes
        self._reactor.callFromThread(self._ended, current_thread())

    def _log_failure(self, failure: Failure) -> None:
        self._log.failure("a job of the archive failed", failure)

    def _ended(self, thread: Thread) -> None:
        thread.join()
        self._threads.remove(thread)
        if not self._threads and self._over is not None:
            self._over.callback(None)


def _failure(error: BaseException) -> Failure:
    try:
        return Failure(error)
    except MemoryError:
        return _OUT_OF_MEMORY


def _no_thread(error: RuntimeError) -> OSError:
    return OSError(errno.EAGAIN, f"no thread for the archive: {error}")


# To make one takes memory.
_OUT_OF_MEMORY = Failure(MemoryError())
