"""Workers that are in the test's hands, in place of processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed

from walstream.interfaces import WALPosition
from walstream.services.outcome import Outcome

__all__ = ["FakeWorker"]


class FakeWorker:
    """A worker: starts, ends and answers when the test says so.

    :ivar calls: what was asked of it.
    :ivar ends_when_told: whether `leave` ends it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.pid = 1000 + number
        self.missed = 0
        self.share: int | None = None
        self.rate: float | None = None
        self.is_open = True
        self.calls: list[Any] = []
        self.starting: Deferred[None] = Deferred()
        self.adopting: list[Deferred[dict[str, Any]]] = []
        self.draining: Deferred[dict[str, Any]] = Deferred()
        self.ends_when_told = True
        self.on_beat: Callable[[], None] = lambda: None
        self._ended: Outcome[str] = Outcome()

    # What a pool calls.

    def start(self) -> Deferred[None]:
        return self.starting

    def ended(self) -> Deferred[str]:
        return self._ended.wait()

    def beat(self) -> None:
        self.calls.append("beat")
        self.on_beat()

    def leave(self) -> None:
        self.calls.append("leave")
        if self.ends_when_told:
            self.end("it ended by itself")

    def kill(self) -> None:
        self.calls.append("kill")
        self.end("it was killed")

    def adopt(self, connection: object, pid: int) -> Deferred[dict[str, Any]]:
        self.calls.append(("adopt", connection, pid))
        self.adopting.append(Deferred())
        return self.adopting[-1]

    def drain(self, grace: float, end: WALPosition) -> Deferred[dict[str, Any]]:
        self.calls.append(("drain", grace, end))
        return self.draining

    def cancel(self, pid: int, key: bytes) -> None:
        self.calls.append(("cancel", pid, key))

    def terminate(self, pid: int) -> None:
        self.calls.append(("terminate", pid))

    def reload(self, *, tls: bool) -> None:
        self.calls.append(("reload", tls))

    # What a test does.

    def end(self, how: str) -> None:
        """The process ends."""
        self.is_open = False
        self._ended.set(how)
        if not self.starting.called:
            self.starting.errback(RuntimeError(how))

    def started(self) -> None:
        """It has started."""
        self.starting.callback(None)

    @classmethod
    def that_starts(cls, number: int) -> FakeWorker:
        """One that starts at once."""
        worker = cls(number)
        worker.starting = succeed(None)
        return worker
