"""A service that is its process's whole business: when it is over, so is the process.

This is for the face of walstream, ``twistd`` and ``twist``. A larger application that holds the
services itself decides itself when to end.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["ExitStatus", "ProcessService"]


class ExitStatus:
    """What the process exits with, for which ``twistd`` and ``twist`` have no means.

    They return normally from a reactor that was stopped, so the status is put in place of theirs
    when the interpreter ends. It ends at once then: make the object before anything else that has
    to happen at the end, since what was registered before it does not.
    """

    def __init__(self) -> None:
        self.status = 0
        atexit.register(self._leave)

    def fail(self) -> None:
        """Exit with 1, like pg_receivewal when it ends for another reason than being told to."""
        self.status = 1

    def _leave(self) -> None:
        if self.status:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(self.status)


class _Ending(Protocol):
    """A service that tells when it is over, and whether well; it logs a failure itself."""

    def startService(self) -> None: ...

    def stopService(self) -> Deferred[None]: ...

    def finished(self) -> Deferred[Any]: ...


class ProcessService(Service):
    """Runs a service, and stops the reactor when it is over.

    SIGINT and SIGTERM end it in order, and are no failure; Twisted's own handlers would have the
    process die by the signal after all was done. At SIGHUP a service reads its files again, if it
    has any that may change.

    :param reactor: `IReactorCore` and `IReactorFromThreads`.
    :param on_failure: called when the service failed, before the reactor stops.
    """

    _log = Logger()

    def __init__(
        self,
        service: _Ending,
        reactor: Any,
        on_failure: Callable[[], None],
        *,
        install: Callable[[int, Callable[..., None]], object] = signal.signal,
    ) -> None:
        self._service = service
        self._reactor = reactor
        self._on_failure = on_failure
        self._install = install
        self._reloads: Sequence[Callable[[], object]] = getattr(service, "reloads", ())
        self._leaving = False

    def startService(self) -> None:
        """Start the service; its end is the reactor's."""
        super().startService()  # type: ignore[no-untyped-call]
        # The reactor installs its own handlers when it starts.
        self._reactor.callWhenRunning(self._install_handlers)
        # What was imported is never garbage, and to look at all of it, as full collections do,
        # takes 30 ms, measured, in which no WAL passes.
        self._reactor.callWhenRunning(gc.freeze)
        self._service.startService()
        self._service.finished().addErrback(self._failed).addCallback(self._leave)

    def stopService(self) -> Deferred[None]:
        """Stop the service; a failure to do so in order is a failure."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._leaving = True
        return maybeDeferred(self._service.stopService).addErrback(self._cannot_stop)

    def _install_handlers(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._install(number, self._on_signal)
        if self._reloads:
            self._install(signal.SIGHUP, self._on_hang_up)

    def _on_hang_up(self, number: int, _: object) -> None:
        self._reactor.callFromThread(self._reload)

    def _reload(self) -> None:
        if self._leaving:
            return
        self._log.info("received SIGHUP, reloading configuration files")
        for reload in self._reloads:
            maybeDeferred(reload).addErrback(self._cannot_reload)

    def _cannot_reload(self, failure: Failure) -> None:
        # Of files that are not good, who reads them says so.
        self._log.failure("configuration files could not be reloaded", failure)

    def _on_signal(self, number: int, _: object) -> None:
        self._reactor.callFromThread(self._interrupted, signal.Signals(number).name)

    def _interrupted(self, name: str) -> None:
        self._log.info("received interrupt signal, exiting ({name})", name=name)
        self._leave(None)

    def _failed(self, _: Failure) -> None:
        # Whoever has failed has said so.
        self._on_failure()

    def _cannot_stop(self, failure: Failure) -> None:
        self._log.failure("could not stop in order", failure)
        self._on_failure()

    def _leave(self, _: object) -> None:
        if not self._leaving:
            self._leaving = True
            # Not before it runs: a reactor that isn't running can't be stopped.
            self._reactor.callWhenRunning(self._reactor.stop)
