"""Tests for walstream.demo.service."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from walstream.demo.logs import DemoLog, HeldOutput
from walstream.demo.sample import Look, Rows, Sample
from walstream.demo.service import DemoService, DemoSettings
from walstream.demo.stage import Step
from walstream.errors import WalstreamError
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.services.outcome import Outcome

START = 0x3000000


class FakeStage:
    """Servers that do at once what is asked of them, and a standby that may stay behind."""

    segment_size = SegmentSize(1 << 20)

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.written = 0
        self.read_back: int | None = None
        self.events: list[str] = []
        self.step: Callable[[], Deferred[None]] = lambda: succeed(None)
        self.looking: Callable[[Look], Deferred[Look]] = succeed
        self.closing: Callable[[], Deferred[None]] = lambda: succeed(None)
        self.hub: Outcome[object] = Outcome()
        self.salt = 0

    def steps(self) -> Sequence[Step]:
        return [Step("making a directory", self._make), Step("starting it all", self._start)]

    def _make(self) -> Deferred[None]:
        self.directory.mkdir()
        return succeed(None)

    def _start(self) -> Deferred[None]:
        self.events.append("start")
        return self.step()

    def introduction(self) -> str:
        return "psql -p 1234\n"

    def failed(self) -> Deferred[object]:
        return self.hub.wait()

    def write(self, count: int) -> Deferred[None]:
        self.written += count
        return succeed(None)

    def look(self) -> Deferred[Look]:
        read_back = self.written if self.read_back is None else self.read_back
        primary, standby = (LSN(START + 100 * rows) for rows in (self.written, read_back))
        return self.looking(Look(primary, standby, standby, read_back, 1))

    def compare(self, after: int, upto: int) -> Deferred[Rows]:
        checksum = 0 if after else self.salt
        for row in range(after + 1, upto + 1):
            checksum ^= row
        return succeed(Rows(upto - after, checksum))

    def close(self) -> Deferred[None]:
        self.events.append("close")
        return self.closing()


class FakeScreen:
    """Remembers what it was given."""

    interval = 1.0
    is_gone = False

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[Sample] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def show(self, sample: Sample, speed: float) -> None:
        self.shown.append(sample)

    def leave(self) -> None:
        self.said.append("(left)")


class DemoServiceTests(SynchronousTestCase):
    """The demo from its start to its end."""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.stage = FakeStage(Path(temporary.name) / "demo")
        self.screen = FakeScreen()
        self.clock = Clock()
        self.complaints: list[str] = []
        self.publisher = LogPublisher()

    def service(self, rows: int = 100, seconds: float | None = None) -> DemoService:
        """A service that was started."""
        service = DemoService(
            DemoSettings(rows, seconds),
            self.stage,
            self.screen,
            DemoLog(self.publisher, HeldOutput(io.StringIO(), lambda _: None)),
            self.clock,
            self.complaints.append,
        )
        service.startService()
        self.addCleanup(self.end, service)
        return service

    def end(self, service: DemoService) -> None:
        """End the demo if the test has not, and have it close its log."""
        service.end()
        self.advance(16.0)
        service.finished().addErrback(lambda _: None)

    def advance(self, seconds: float) -> None:
        """Let time pass, in steps as short as the service's."""
        self.clock.pump([0.05] * round(seconds / 0.05))

    def text(self) -> str:
        """All that was said."""
        return "\n".join(self.screen.said)

    def test_says_what_it_does_and_how_to_connect(self) -> None:
        """Each step, the addresses, where the log is, and how it ends."""
        self.service()
        self.assertEqual(self.screen.said[:2], ["making a directory ...", "starting it all ..."])
        self.assertIn("psql -p 1234\n", self.text())
        self.assertIn(f"tail -f {self.stage.directory}/walstream.log", self.text())
        self.assertIn("Ctrl-C ends the demo", self.text())

    def test_writes_as_many_rows_as_it_was_told(self) -> None:
        """A second's worth each second, in small portions."""
        self.service(rows=25)
        self.advance(0.5)
        self.assertTrue(10 <= self.stage.written <= 13, self.stage.written)
        self.advance(3.5)
        self.assertTrue(97 <= self.stage.written <= 100, self.stage.written)

    def test_does_not_make_up_for_time_that_it_missed(self) -> None:
        """After a night's sleep of the machine, a second's worth of rows is written."""
        self.service(rows=10)
        self.clock.advance(36_000.0)
        self.assertEqual(self.stage.written, 10)

    def test_writes_no_more_at_once_than_is_good(self) -> None:
        """However many a second are asked for."""
        self.service(rows=1_000_000)
        self.clock.advance(0.1)
        self.assertEqual(self.stage.written, 10_000)

    def test_shows_samples_as_often_as_the_screen_wants(self) -> None:
        """The first at once, then one each interval, with what was compared."""
        self.service(rows=100)
        self.assertEqual(len(self.screen.shown), 1)
        self.advance(5.1)
        self.assertTrue(5 <= len(self.screen.shown) <= 6)
        last = self.screen.shown[-1]
        self.assertEqual(last.equal.count, last.read_back)
        self.assertEqual(last.started, START)
        self.assertGreater(last.primary, START)

    def test_ends_after_the_time_it_was_told(self) -> None:
        """With the proof that all rows have arrived, after everything is cleared away."""
        service = self.service(rows=100, seconds=3.0)
        self.assertIn("ends after 3 s", self.text())
        self.advance(2.5)
        self.assertNoResult(service.finished())
        self.advance(1.0)
        self.successResultOf(service.finished())
        self.assertEqual(self.stage.events, ["start", "close"])
        self.assertEqual(self.screen.said[-2], "(left)")
        self.assertRegex(
            self.screen.said[-1],
            rf"^\nIn 3 s, {self.stage.written} rows .* whose {self.stage.written} rows equal the "
            r"primary's \(checksum [0-9a-f]{16}\); the primary had 1 walsender; nothing is left",
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.complaints, [])

    def test_waits_in_the_end_for_a_standby_that_is_behind(self) -> None:
        """The proof is about all rows."""
        service = self.service(rows=100)
        self.advance(1.0)
        self.stage.read_back = 10
        self.advance(1.0)
        stopped = service.stopService()
        self.advance(2.0)
        self.assertNoResult(stopped)
        self.stage.read_back = None
        self.advance(0.5)
        self.successResultOf(stopped)
        self.successResultOf(service.finished())
        self.assertEqual(self.screen.shown[-1].equal.count, self.stage.written)

    def test_a_standby_that_does_not_catch_up_is_a_failure(self) -> None:
        """After a while it is given up, and everything cleared away."""
        service = self.service(rows=100)
        self.stage.read_back = 0
        self.advance(1.0)
        service.end()
        self.advance(20.0)
        self.failureResultOf(service.finished(), WalstreamError)
        self.assertEqual(
            self.complaints, ["walstream demo: the standby has not all rows after 15 s\n"]
        )
        self.assertEqual(self.stage.events, ["start", "close"])

    def test_rows_that_changed_meanwhile_are_a_failure(self) -> None:
        """All rows are compared once more in the end, and with what was seen before."""
        service = self.service(rows=100)
        self.advance(2.0)
        self.stage.salt = 1 << 40
        service.end()
        self.failureResultOf(service.finished(), WalstreamError)
        self.assertIn("the rows have changed", self.complaints[0])

    def test_ends_while_it_gets_up(self) -> None:
        """The step under way is finished, no other is begun, and all is cleared away."""
        step: Deferred[None] = Deferred()
        self.stage.step = lambda: step
        service = self.service()
        stopped = service.stopService()
        self.assertNoResult(stopped)
        step.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.stage.events, ["start", "close"])
        self.assertIn("before all was up", self.screen.said[-1])
        self.assertEqual(self.screen.shown, [])

    def test_shows_the_sentence_of_a_failure(self) -> None:
        """What went wrong is not a traceback, if it was to be expected; and nothing is left."""
        self.stage.step = lambda: fail(WalstreamError("no PostgreSQL: pip install it"))
        service = self.service()
        self.failureResultOf(service.finished(), WalstreamError)
        self.assertEqual(self.complaints, ["walstream demo: no PostgreSQL: pip install it\n"])
        self.assertEqual(self.stage.events, ["start", "close"])
        self.successResultOf(service.stopService())

    def test_shows_the_traceback_of_a_fault(self) -> None:
        """What was not to be expected is shown so that it can be found."""
        self.stage.step = lambda: fail(ZeroDivisionError("oh"))
        service = self.service()
        self.failureResultOf(service.finished(), ZeroDivisionError)
        self.assertIn("Traceback", self.complaints[0])

    def test_ends_with_the_hub(self) -> None:
        """A hub that gives up ends the demo, as a failure."""
        service = self.service()
        self.advance(1.0)
        self.stage.hub.set(Failure(WalstreamError("wrong system")))
        self.failureResultOf(service.finished(), WalstreamError)
        self.assertEqual(self.complaints, ["walstream demo: wrong system\n"])

    def test_a_query_that_fails_ends_it(self) -> None:
        """Such as one to a server that someone has ended."""
        service = self.service()
        self.advance(1.0)
        self.stage.looking = lambda _: fail(WalstreamError("server closed the connection"))
        self.advance(1.5)
        self.failureResultOf(service.finished(), WalstreamError)

    def test_a_query_that_hangs_does_not_hold_up_the_end(self) -> None:
        """It is left alone; the servers' end ends it."""
        service = self.service()
        self.stage.looking = lambda _: Deferred()
        self.advance(2.0)
        service.end()
        self.advance(16.0)
        self.failureResultOf(service.finished(), WalstreamError)
        self.assertEqual(self.stage.events, ["start", "close"])

    def test_ends_when_nobody_looks_on_any_more(self) -> None:
        """A pipe whose reader has left; that is no failure."""
        service = self.service()
        self.advance(1.0)
        self.screen.is_gone = True
        self.advance(0.5)
        self.successResultOf(service.finished())

    def test_warnings_appear_on_the_screen(self) -> None:
        """For as long as the demo runs; the file has everything."""
        service = self.service()
        logger = Logger("hub", observer=self.publisher)
        logger.warn("the upstream is slow")
        logger.info("a standby connected")
        self.assertEqual(self.screen.said[-1], "the upstream is slow")
        log = (self.stage.directory / "walstream.log").read_text()
        self.assertIn("a standby connected", log)
        service.end()
        self.successResultOf(service.finished())

    def test_a_failure_to_clear_away_is_a_failure(self) -> None:
        """Something is left, which one has to know."""
        self.stage.closing = lambda: fail(OSError("directory not empty"))
        service = self.service(seconds=1.0)
        self.advance(2.0)
        self.failureResultOf(service.finished(), OSError)
        self.assertEqual(self.complaints, ["walstream demo: directory not empty\n"])
