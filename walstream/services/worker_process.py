"""One worker, as the main process sees it: a process, the channel to it, and its log."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from walstream.errors import WorkerLost
from walstream.interfaces import WALPosition
from walstream.protocols.settings import SenderSettings
from walstream.services.access import Access
from walstream.services.outcome import Outcome
from walstream.services.worker_channel import (
    CHANNEL_DESCRIPTOR,
    Adopt,
    Beat,
    Begin,
    Cancel,
    Drain,
    Leave,
    Reload,
    Terminate,
    connect,
)
from walstream.services.worker_host import MainEnd
from walstream.services.worker_logs import LOG_DESCRIPTOR, Lines, repeat_event, repeat_output
from walstream.services.worker_sessions import WorkerSessions

if TYPE_CHECKING:
    from walstream.tls.server import ServerFiles

__all__ = ["WorkerProcess"]

# Seconds that a process has to end when the channel is closed.
_LAST_WORDS = 1.0

_PROGRAM = "walstream.services.worker_main"


class WorkerProcess(ProcessProtocol):
    """A worker, from its start to its end.

    :ivar number: 1, 2, …: its place among the workers; the one that is started in place of one
        that died has the same.
    :ivar missed: how many beats in a row it has not answered.
    :ivar rate: its share of the rate of all clients, in bytes a second; it learns of it with the
        next beat.
    """

    def __init__(
        self,
        reactor: Any,
        number: int,
        archive: str,
        settings: SenderSettings,
        share: int | None,
        sessions: WorkerSessions[WorkerProcess],
        tls: ServerFiles | None = None,
        access: Access | None = None,
    ) -> None:
        """
        :param share: how many clients it may have; None: any number.
        :param tls: with what it encrypts connections; None: it does not.
        :param access: who comes in; None: everybody.
        """
        self._access = access
        self.number = number
        self.missed = 0
        self.share = share
        self.rate: float | None = None
        self._reactor = reactor
        self._archive = archive
        self._settings = settings
        self._tls = tls
        self._ended: Outcome[str] = Outcome()
        self._channel = MainEnd(sessions, self._channel_lost)
        self._killing: IDelayedCall | None = None
        self._has_ended = False
        self._is_beating = False
        self._output = {
            LOG_DESCRIPTOR: Lines(partial(repeat_event, number)),
            1: Lines(partial(repeat_output, number)),
            2: Lines(partial(repeat_output, number)),
        }

    @property
    def is_open(self) -> bool:
        """Whether it can be spoken to."""
        return self._channel.is_open

    # What the main process has it do.

    def start(self) -> Deferred[None]:
        """Start the process; fires when it can take clients.

        :raises ArchiveError: (in the Deferred) if it cannot open the archive.
        :raises WorkerLost: (in the Deferred) if it ended before.
        """
        return Deferred.fromCoroutine(self._start())

    def ended(self) -> Deferred[str]:
        """Fires when the process has ended and all that it said is in the log; says how."""
        return self._ended.wait()

    def adopt(self, connection: socket.socket, pid: int) -> Deferred[dict[str, Any]]:
        """Hand over a client; fires when the worker has it. It must stay open until then."""
        return self._channel.ask(
            Adopt, descriptor=connection.fileno(), family=connection.family, pid=pid
        )

    def cancel(self, pid: int, key: bytes) -> None:
        """A CancelRequest names this session."""
        self._channel.tell(Cancel, pid=pid, key=key)

    def terminate(self, pid: int) -> None:
        """Its slot is taken from this session."""
        self._channel.tell(Terminate, pid=pid)

    def beat(self) -> None:
        """Ask whether it is alive; count how often there was no answer until now."""
        if self._is_beating:
            self.missed += 1
            return
        self._is_beating = True
        self._channel.ask(Beat, rate=self.rate).addCallbacks(self._beats, lambda _: None)

    def drain(self, grace: float, end: WALPosition) -> Deferred[dict[str, Any]]:
        """See its clients off, with everything up to *end*."""
        return self._channel.ask(Drain, grace=grace, end=end)

    def reload(self, *, tls: bool) -> None:
        """Have it read files again: see `Reload`."""
        self._channel.tell(Reload, tls=tls)

    def leave(self) -> None:
        """Let it end."""
        self._channel.tell(Leave)

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessExitedAlready):
            if self.transport is not None:
                self._process().signalProcess("KILL")

    @property
    def pid(self) -> int:
        """The number of the process."""
        pid: int = self._process().pid
        return pid

    # ProcessProtocol.

    def childDataReceived(self, child_fd: int, data: bytes) -> None:
        """The worker has logged or printed something."""
        self._output[child_fd].feed(data)

    def processEnded(self, reason: Failure) -> None:
        """The process has ended, and its pipes are read to their ends."""
        self._has_ended = True
        for lines in self._output.values():
            lines.end()
        if self._killing is not None and self._killing.active():
            self._killing.cancel()
        how = "it ended by itself" if reason.check(ProcessDone) else reason.getErrorMessage()
        self._ended.set(how.removeprefix("A process has ended with a probable error condition: "))

    async def _start(self) -> None:
        try:
            self._spawn()
        except OSError as error:
            if self.transport is None:
                self._ended.set("it was never there")
            raise WorkerLost(f"worker {self.number} cannot be started: {error}") from error
        settings = pickle.dumps(replace(self._settings, delays=dict(self._settings.delays)))
        tls = None if self._tls is None else pickle.dumps(self._tls)
        try:
            await self._channel.ask(
                Begin,
                settings=settings,
                clients=self.share,
                tls=tls,
                access=None if self._access is None else pickle.dumps(self._access),
            )
        except Exception as error:
            if self._channel.is_open:
                raise
            how = await self._ended.wait()
            raise WorkerLost(f"worker {self.number} did not start: {how}") from error

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            self._reactor.spawnProcess(
                self,
                sys.executable,
                # -P: no module is to be found in the directory that we happen to be in.
                [sys.executable, "-P", "-m", _PROGRAM, str(self.number), self._archive],
                env=_environment(os.environ, sys.path),
                childFDs={
                    0: nothing,
                    1: "r",
                    2: "r",
                    CHANNEL_DESCRIPTOR: theirs.fileno(),
                    LOG_DESCRIPTOR: "r",
                },
            )
            connect(self._reactor, self._channel, ours.fileno())
        finally:
            os.close(nothing)
            theirs.close()
            ours.close()

    def _channel_lost(self) -> None:
        # It is ending, or is of no use any more. It may have something to say in the log.
        if not self._has_ended:
            self._killing = self._reactor.callLater(_LAST_WORDS, self.kill)

    def _process(self) -> Any:
        return self.transport

    def _beats(self, _: object) -> None:
        self._is_beating = False
        self.missed = 0


def _environment(ours: Mapping[str, str], path: list[str]) -> dict[str, str]:
    """A worker has to find the modules that we have found, however we did."""
    directories = [os.path.abspath(directory) for directory in path]
    return {**ours, "PYTHONPATH": os.pathsep.join(directories)}
