"""Tests for walstream.services.process; `tests.integration.test_usage` has a process's own end."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.testing import MemoryReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.log_capture import capture_log
from walstream.services.outcome import Outcome
from walstream.services.process import ProcessService


class ProcessReactor(MemoryReactor):
    """A reactor that runs when it is told to, and counts how often it was stopped."""

    stops = 0

    def callFromThread(self, function: Callable[..., object], *arguments: object) -> None:
        function(*arguments)

    def go(self) -> None:
        """Run: what waited for that happens."""
        self.running = True
        hooks, self.whenRunningHooks = self.whenRunningHooks, []
        for function, arguments, options in hooks:
            function(*arguments, **options)

    def stop(self) -> None:
        assert self.running, "a reactor that is not running cannot be stopped"
        self.stops += 1


class Work:
    """A service that is over when the test says so."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.outcome: Outcome[Any] = Outcome()
        self.stopping: Deferred[None] = succeed(None)
        self.reloads: list[Callable[[], object]] = []

    def startService(self) -> None:
        self.events.append("start")

    def stopService(self) -> Deferred[None]:
        self.events.append("stop")
        return self.stopping

    def finished(self) -> Deferred[Any]:
        return self.outcome.wait()


class ProcessServiceTests(SynchronousTestCase):
    """A process that ends with its service."""

    def setUp(self) -> None:
        self.addCleanup(gc.unfreeze)
        self.log = capture_log(self)
        self.reactor = ProcessReactor()
        self.work = Work()
        self.failures = 0
        self.handlers: dict[int, Callable[..., None]] = {}
        self.service = ProcessService(
            self.work, self.reactor, self.note_failure, install=self.handlers.__setitem__
        )

    def note_failure(self) -> None:
        self.failures += 1

    def start(self) -> None:
        """Start it, and run the reactor."""
        self.service.startService()
        self.reactor.go()

    def test_end(self) -> None:
        """When the service is over the reactor stops; that is no failure."""
        self.start()
        self.assertEqual((self.work.events, self.reactor.stops), (["start"], 0))
        self.work.outcome.set(None)
        self.assertEqual((self.failures, self.reactor.stops), (0, 1))

    def test_failure(self) -> None:
        """When the service has failed that is noted first, then the reactor stops."""
        self.start()
        self.work.outcome.set(Failure(ValueError("x")))
        self.assertEqual((self.failures, self.reactor.stops), (1, 1))

    def test_over_before_the_reactor_runs(self) -> None:
        """A service that is over at once stops the reactor as soon as it runs."""
        self.work.outcome.set(Failure(ValueError("x")))
        self.service.startService()
        self.assertEqual((self.failures, self.reactor.stops), (1, 0))
        self.reactor.go()
        self.assertEqual(self.reactor.stops, 1)

    def test_signals(self) -> None:
        """SIGINT and SIGTERM stop the reactor, are logged by name, and are no failure."""
        for number, name in ((signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")):
            self.setUp()
            self.start()
            self.handlers[number](number, None)
            self.assertEqual((self.failures, self.reactor.stops), (0, 1))
            self.assertEqual(
                [text for text in self.log if "signal" in text][-1],
                f"received interrupt signal, exiting ({name})",
            )

    def test_reload(self) -> None:
        """At SIGHUP a service reads its files again, if it has any: it goes on."""
        self.start()
        self.assertNotIn(signal.SIGHUP, self.handlers)
        self.setUp()
        read: list[str] = []
        self.reload_by(lambda: read.append("this"), lambda: read.append("that"))
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.assertEqual(read, ["this", "that"])
        self.assertEqual(self.reactor.stops, 0)
        self.assertIn("received SIGHUP, reloading configuration files", self.log)

    def reload_by(self, *reloads: Callable[[], object]) -> None:
        """Start what reads files again by those."""
        self.work.reloads = [*reloads]
        self.service = ProcessService(
            self.work, self.reactor, self.note_failure, install=self.handlers.__setitem__
        )
        self.start()

    def test_reload_that_fails(self) -> None:
        """Is in the log, and keeps no other from being done; late or at once."""

        def break_down() -> None:
            raise RuntimeError("for the test")

        read: list[str] = []
        failures = [break_down, lambda: fail(RuntimeError("for the test"))]
        self.reload_by(*failures, lambda: read.append("that"))
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.assertEqual(read, ["that"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        self.assertEqual(self.reactor.stops, 0)

    def test_reload_at_the_end(self) -> None:
        """Whoever is leaving reads nothing any more: it may be closed already."""
        read: list[str] = []
        self.reload_by(lambda: read.append("this"))
        self.work.outcome.set(None)
        self.handlers[signal.SIGHUP](signal.SIGHUP, None)
        self.assertEqual(read, [])

    def test_handlers_after_the_reactors(self) -> None:
        """Signals are taken over once the reactor runs, which installs its own before."""
        self.service.startService()
        self.assertEqual(self.handlers, {})
        self.reactor.go()
        self.assertEqual(set(self.handlers), {signal.SIGINT, signal.SIGTERM})

    def test_what_was_imported(self) -> None:
        """Is no business of the garbage collector's, once the reactor runs."""
        gc.unfreeze()
        self.service.startService()
        self.assertEqual(gc.get_freeze_count(), 0)
        self.reactor.go()
        self.assertGreater(gc.get_freeze_count(), 10_000)

    def test_stops_once(self) -> None:
        """A second signal, or the service's end meanwhile, does not stop the reactor again."""
        self.start()
        self.handlers[signal.SIGINT](signal.SIGINT, None)
        self.handlers[signal.SIGTERM](signal.SIGTERM, None)
        self.successResultOf(self.service.stopService())
        self.work.outcome.set(None)
        self.assertEqual(self.reactor.stops, 1)
        self.assertEqual(self.work.events, ["start", "stop"])

    def test_stopped_from_outside(self) -> None:
        """When the application stops the service, the reactor is being stopped already."""
        self.start()
        self.successResultOf(self.service.stopService())
        self.work.outcome.set(None)
        self.assertEqual(self.reactor.stops, 0)

    def test_waits_for_the_service(self) -> None:
        """Stopping takes as long as the service's does."""
        self.start()
        self.work.stopping = Deferred()
        stopped = self.service.stopService()
        self.assertNoResult(stopped)
        self.work.stopping.callback(None)
        self.successResultOf(stopped)

    def test_failure_to_stop(self) -> None:
        """A service that cannot stop in order is a failure of the process, and logged in full."""
        self.start()
        self.work.stopping = fail(OSError("disk gone"))
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.failures, 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_failure_while_stopping(self) -> None:
        """What fails while it stops is a failure of the process."""
        self.start()
        self.handlers[signal.SIGTERM](signal.SIGTERM, None)
        self.work.outcome.set(Failure(OSError("disk gone")))
        self.assertEqual(self.failures, 1)
