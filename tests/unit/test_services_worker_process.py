"""Tests for walstream.services.worker_process: a worker as its main process sees it."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.channels import ChannelPair
from tests.unit.conversation import START, MemorySlots
from tests.unit.log_capture import capture_log
from walstream.errors import ArchiveError, WorkerLost
from walstream.formats.lsn import LSN
from walstream.interfaces import WALPosition
from walstream.protocols.settings import SenderSettings
from walstream.services.worker_channel import (
    Adopt,
    Beat,
    Begin,
    Cancel,
    Channel,
    Drain,
    Leave,
    Reload,
    Terminate,
)
from walstream.services.worker_process import WorkerProcess
from walstream.services.worker_sessions import WorkerSessions


class FakeEnd(Channel):
    """The worker's end: notes what it hears.

    :ivar begun: what `Begin` is answered with.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.heard: list[Any] = []
        self.begun: Deferred[dict[str, object]] = Deferred()
        self.beats: list[Deferred[dict[str, object]]] = []

    @Begin.responder
    def begin(
        self, settings: bytes, clients: int | None, tls: bytes | None, access: bytes | None
    ) -> Deferred[dict[str, object]]:
        self.heard.append((pickle.loads(settings), clients))
        self.tls = tls
        return self.begun

    @Beat.responder
    def beat(self, rate: float | None) -> Deferred[dict[str, object]]:
        self.heard.append(rate)
        self.beats.append(Deferred())
        return self.beats[-1]

    @Adopt.responder
    def adopt(self, descriptor: int, family: int, pid: int) -> dict[str, object]:
        self.heard.append((descriptor, family, pid))
        return {}

    @Cancel.responder
    def cancel(self, pid: int, key: bytes) -> dict[str, object]:
        self.heard.append(("cancel", pid, key))
        return {}

    @Terminate.responder
    def terminate(self, pid: int) -> dict[str, object]:
        self.heard.append(("terminate", pid))
        return {}

    @Drain.responder
    def drain(self, grace: float, end: WALPosition) -> dict[str, object]:
        self.heard.append((grace, end))
        return {}

    @Reload.responder
    def reload(self, tls: bool) -> dict[str, object]:
        self.heard.append(("reload", tls))
        return {}

    @Leave.responder
    def leave(self) -> dict[str, object]:
        self.heard.append("leave")
        return {}


class FakeReactor(Clock):
    """Spawns nothing; a process transport as well.

    :ivar spawned: with what it was asked to.
    :ivar signals: what was sent to the process.
    """

    pid: int | None = 4711

    def __init__(self) -> None:
        super().__init__()
        self.spawned: dict[str, Any] = {}
        self.refusal: OSError | None = None
        self.signals: list[str] = []
        self.end = FakeEnd()

    def spawnProcess(self, protocol: Any, executable: str, args: list[str], **options: Any) -> None:  # noqa: N802
        if self.refusal is not None:
            raise self.refusal
        self.spawned = {"executable": executable, "args": args, **options}
        protocol.makeConnection(self)

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:  # noqa: N802
        assert family == socket.AF_UNIX
        self.pair = ChannelPair(factory.buildProtocol(None), self.end)

    def signalProcess(self, name: str) -> None:  # noqa: N802
        if self.pid is None:
            raise ProcessExitedAlready()
        self.signals.append(name)


class WorkerProcessTests(SynchronousTestCase):
    """`WorkerProcess`."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.log = capture_log(self)
        sessions: WorkerSessions[WorkerProcess] = WorkerSessions(MemorySlots())
        self.settings = SenderSettings(sender_timeout=7.0, delays={"late": 60.0})
        self.worker = WorkerProcess(self.reactor, 2, "/srv/wal", self.settings, 5, sessions)

    def start(self) -> FakeEnd:
        """It has started; the worker's end."""
        started = self.worker.start()
        self.reactor.pair.deliver()
        self.assertNoResult(started)
        self.reactor.end.begun.callback({})
        self.reactor.pair.deliver()
        self.successResultOf(started)
        return self.reactor.end

    def end(self, reason: Exception) -> None:
        """The process ends."""
        self.reactor.pair.cut()
        self.reactor.pid = None
        self.worker.processEnded(Failure(reason))

    def test_what_is_started(self) -> None:
        """This Python, with the modules that are found here, in whatever directory; no terminal."""
        self.start()
        spawned = self.reactor.spawned
        self.assertEqual(spawned["executable"], sys.executable)
        program = ["-P", "-m", "walstream.services.worker_main", "2", "/srv/wal"]
        self.assertEqual(spawned["args"], [sys.executable, *program])
        path = spawned["env"]["PYTHONPATH"].split(os.pathsep)
        self.assertEqual(path, [os.path.abspath(each) for each in sys.path])
        self.assertEqual(spawned["env"]["PATH"], os.environ["PATH"])
        descriptors = spawned["childFDs"]
        self.assertEqual(sorted(descriptors), [0, 1, 2, 3, 4])
        self.assertEqual([descriptors[number] for number in (1, 2, 4)], ["r"] * 3)

    def test_what_it_is_told_first(self) -> None:
        """How to serve, and how many."""
        end = self.start()
        self.assertEqual(end.heard, [(self.settings, 5)])

    def test_it_cannot_be_started(self) -> None:
        """The system has no process left."""
        self.reactor.refusal = OSError(11, "Resource temporarily unavailable")
        self.failureResultOf(self.worker.start(), WorkerLost)
        self.successResultOf(self.worker.ended())
        self.worker.kill()

    def test_it_cannot_open_the_archive(self) -> None:
        """It says why."""
        started = self.worker.start()
        self.reactor.end.begun.errback(ArchiveError("for the test"))
        self.reactor.pair.deliver()
        error = self.failureResultOf(started, ArchiveError).value
        self.assertEqual(str(error), "for the test")

    def test_it_ends_while_it_starts(self) -> None:
        """What is said is how, once all that it said itself is in the log."""
        started = self.worker.start()
        self.worker.childDataReceived(2, b"ModuleNotFoundError: No module")
        self.reactor.pair.cut()
        self.assertNoResult(started)
        self.end(ProcessTerminated(1))
        error = self.failureResultOf(started, WorkerLost).value
        self.assertEqual(str(error), "worker 2 did not start: process ended with exit code 1.")
        self.assertIn("worker 2: ModuleNotFoundError: No module", self.log)

    def test_how_it_ended(self) -> None:
        """By a signal, or by itself."""
        self.start()
        self.end(ProcessTerminated(None, 9))
        how = self.successResultOf(self.worker.ended())
        self.assertEqual(how, "process ended by signal 9.")
        self.assertFalse(self.worker.is_open)

    def test_it_ended_by_itself(self) -> None:
        """With exit status 0."""
        self.start()
        self.end(ProcessDone(0))
        self.assertEqual(self.successResultOf(self.worker.ended()), "it ended by itself")

    def test_the_channel_is_closed(self) -> None:
        """A process that does not follow is killed; it has a second, for its last words."""
        self.start()
        self.reactor.pair.cut()
        self.assertFalse(self.worker.is_open)
        self.reactor.advance(0.9)
        self.assertEqual(self.reactor.signals, [])
        self.reactor.advance(0.2)
        self.assertEqual(self.reactor.signals, ["KILL"])

    def test_it_ends_after_the_channel(self) -> None:
        """Then there is nobody to kill, and nothing to wait for."""
        self.start()
        self.end(ProcessDone(0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_beats(self) -> None:
        """What counts is how often it had not answered when it was asked again."""
        end = self.start()
        self.worker.rate = 2.5
        for missed in (0, 1, 2):
            self.worker.beat()
            self.reactor.pair.deliver()
            self.assertEqual(self.worker.missed, missed)
        self.assertEqual(end.heard[1:], [2.5])
        end.beats[0].callback({})
        self.reactor.pair.deliver()
        self.assertEqual(self.worker.missed, 0)
        self.worker.beat()
        self.reactor.pair.deliver()
        self.assertEqual(len(end.beats), 2)

    def test_a_client_is_handed_over(self) -> None:
        """As a descriptor."""
        end = self.start()
        with socket.socket() as connection:
            handed = self.worker.adopt(connection, 17)
            self.assertNoResult(handed)
            self.reactor.pair.deliver()
            self.successResultOf(handed)
            self.assertEqual(end.heard[1:], [(connection.fileno(), int(socket.AF_INET), 17)])

    def test_what_else_it_is_told(self) -> None:
        """Of its sessions, of files, and of the end."""
        end = self.start()
        self.worker.cancel(1, b"key!")
        self.worker.terminate(2)
        self.worker.reload(tls=True)
        drained = self.worker.drain(10.0, WALPosition(2, LSN(START)))
        self.worker.leave()
        self.reactor.pair.deliver()
        self.successResultOf(drained)
        drain = 10.0, WALPosition(2, LSN(START))
        expected = [("cancel", 1, b"key!"), ("terminate", 2), ("reload", True), drain, "leave"]
        self.assertEqual(end.heard[1:], expected)
