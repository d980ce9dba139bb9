"""Tests for walstream.services.hub: in which order the parts start and stop."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.log_capture import capture_log
from walstream.errors import ArchiveError, SinkFailed
from walstream.protocols.receiver import StreamEnd
from walstream.services.hub import HubService
from walstream.services.outcome import Outcome
from walstream.services.receive import ReceiverService
from walstream.services.send import SenderService


class Steps:
    """What happened, in order, and what is under way until the test says that it is done."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._under_way: dict[str, Deferred[None]] = {}

    def note(self, step: str) -> None:
        """A step that takes no time."""
        self.seen.append(step)

    def begin(self, step: str) -> Deferred[None]:
        """A step that is done when the test says so."""
        self.seen.append(step)
        done: Deferred[None] = Deferred()
        self._under_way[step] = done
        return done

    def done(self, step: str) -> None:
        """The step is done."""
        self._under_way.pop(step).callback(None)

    def failed(self, step: str, error: Exception) -> None:
        """The step has failed."""
        self._under_way.pop(step).errback(error)


class FakeStorage:
    """Opens and closes when the test says so."""

    def __init__(self, steps: Steps, name: str) -> None:
        self.steps = steps
        self.name = name

    def open(self) -> Deferred[None]:
        return self.steps.begin(f"open {self.name}")

    def close(self) -> Deferred[None]:
        return self.steps.begin(f"close {self.name}")


class FakeReceiver:
    """Starts at once, stops when the test says so."""

    running = 0

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.outcome: Outcome[StreamEnd] = Outcome()

    def startService(self) -> None:
        self.running = 1
        self.steps.note("connect")

    def finished(self) -> Deferred[StreamEnd]:
        return self.outcome.wait()

    def stopService(self) -> Deferred[None]:
        self.running = 0
        return self.steps.begin("end the stream")


class FakeSender:
    """Listens, stops listening and drains when the test says so."""

    running = 0

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def startService(self) -> None:
        self.running = 1

    def listening(self) -> Deferred[None]:
        return self.steps.begin("listen")

    def stop_accepting(self) -> Deferred[None]:
        return self.steps.begin("let nobody in")

    def stopService(self) -> Deferred[None]:
        self.running = 0
        return self.steps.begin("see all off")


class HubCase(SynchronousTestCase):
    """A hub of two storages, a receiver and a sender."""

    def setUp(self) -> None:
        self.log = capture_log(self)
        self.steps = Steps()
        self.receiver = FakeReceiver(self.steps)
        self.sender = FakeSender(self.steps)
        self.hub = self.make_hub()

    def make_hub(self, *, receives: bool = True, sends: bool = True) -> HubService:
        """A hub with or without its parts."""
        parts: Any = self.receiver if receives else None, self.sender if sends else None
        return HubService(
            [FakeStorage(self.steps, "archive"), FakeStorage(self.steps, "slots")],
            receiver=cast(ReceiverService, parts[0]),
            sender=cast(SenderService, parts[1]),
        )

    def start(self) -> None:
        """Start it, to the end."""
        self.hub.startService()
        for step in ("open archive", "open slots", "listen"):
            self.steps.done(step)
        self.steps.seen.clear()

    def goes(self, *steps: str) -> None:
        """One step after the other: each begins when the one before is done, and not earlier."""
        for step in steps:
            self.assertEqual(self.steps.seen, [step])
            self.steps.seen.clear()
            self.steps.done(step)


class StartTests(HubCase):
    """How a hub starts."""

    def test_order(self) -> None:
        """It opens the storage, then listens, then connects."""
        ready = self.hub.ready()
        self.hub.startService()
        self.goes("open archive", "open slots")
        self.assertNoResult(ready)
        self.goes("listen")
        self.assertEqual(self.steps.seen, ["connect"])
        self.successResultOf(ready)

    def test_receiver_alone(self) -> None:
        """Without a sender it connects when the storage is open."""
        self.hub = self.make_hub(sends=False)
        self.hub.startService()
        self.goes("open archive", "open slots")
        self.assertEqual(self.steps.seen, ["connect"])

    def test_sender_alone(self) -> None:
        """Without a receiver it is up when it listens, and not finished."""
        self.hub = self.make_hub(receives=False)
        self.hub.startService()
        self.goes("open archive", "open slots", "listen")
        self.successResultOf(self.hub.ready())
        self.assertNoResult(self.hub.finished())

    def test_storage_that_cannot_be_opened(self) -> None:
        """A failure to open is told to all who ask, and nothing else is begun."""
        ready = self.hub.ready()
        self.hub.startService()
        self.goes("open archive")
        self.steps.failed("open slots", ArchiveError("in use by process 7"))
        self.failureResultOf(ready, ArchiveError)
        self.failureResultOf(self.hub.finished(), ArchiveError)
        self.assertEqual(self.steps.seen, ["open slots"])
        self.assertEqual(self.log, ["cannot start: in use by process 7"])

    def test_stop_after_failed_opening(self) -> None:
        """What was opened before the failure is closed."""
        self.hub.startService()
        self.goes("open archive")
        self.steps.failed("open slots", ArchiveError("x"))
        self.steps.seen.clear()
        stopped = self.hub.stopService()
        self.goes("close archive")
        self.successResultOf(stopped)
        self.failureResultOf(self.hub.finished(), ArchiveError)

    def test_busy_port(self) -> None:
        """When it cannot listen it does not connect either, and ends in order."""
        self.hub.startService()
        self.goes("open archive", "open slots")
        self.steps.failed("listen", OSError("busy"))
        self.failureResultOf(self.hub.finished(), OSError)
        self.assertEqual(self.steps.seen, ["listen"])
        self.steps.seen.clear()
        stopped = self.hub.stopService()
        self.goes("let nobody in", "see all off", "close slots", "close archive")
        self.successResultOf(stopped)


class StopTests(HubCase):
    """How a hub stops."""

    def test_order(self) -> None:
        """Followers are seen off after the source has stopped, and the storage closed last."""
        self.start()
        stopped = self.hub.stopService()
        self.goes("let nobody in", "end the stream", "see all off", "close slots")
        self.assertNoResult(stopped)
        self.goes("close archive")
        self.successResultOf(stopped)
        self.assertIs(self.successResultOf(self.hub.finished()), StreamEnd.STOPPED)

    def test_never_started(self) -> None:
        """A hub that was not started has nothing to stop."""
        self.successResultOf(self.hub.stopService())
        self.assertEqual(self.steps.seen, [])

    def test_while_opening(self) -> None:
        """A hub that is told to stop while it opens its storage waits for that, and closes it."""
        self.hub.startService()
        stopped = self.hub.stopService()
        self.goes("open archive", "open slots", "close slots", "close archive")
        self.successResultOf(stopped)

    def test_while_beginning_to_listen(self) -> None:
        """A hub that is told to stop while it begins to listen does not connect any more."""
        self.hub.startService()
        self.goes("open archive", "open slots")
        stopped = self.hub.stopService()
        self.goes("listen", "let nobody in", "see all off", "close slots", "close archive")
        self.successResultOf(stopped)

    def test_receiver_that_is_over(self) -> None:
        """The receiver's end is the hub's result; the hub stays up until it is stopped."""
        self.start()
        self.receiver.outcome.set(StreamEnd.END_POSITION)
        self.assertIs(self.successResultOf(self.hub.finished()), StreamEnd.END_POSITION)
        self.assertEqual(self.steps.seen, [])

    def test_receiver_that_failed(self) -> None:
        """What the receiver gave up on is the hub's failure."""
        self.start()
        self.receiver.outcome.set(Failure(SinkFailed("x")))
        self.failureResultOf(self.hub.finished(), SinkFailed)

    def test_storage_that_cannot_be_closed(self) -> None:
        """If something cannot be closed well the rest is closed all the same; then it is told."""
        self.start()
        stopped = self.hub.stopService()
        self.goes("let nobody in", "end the stream", "see all off")
        self.assertEqual(self.steps.seen, ["close slots"])
        self.steps.seen.clear()
        self.steps.failed("close slots", OSError("disk gone"))
        self.goes("close archive")
        self.failureResultOf(stopped, OSError)
        self.failureResultOf(self.hub.finished(), OSError)
        self.assertEqual(self.log, ["cannot close the archive in order: disk gone"])
