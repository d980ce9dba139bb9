"""Tests for walstream.services.senders and tls_files: what is read again, when, and by whom."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import Authority
from tests.unit.conversation import IDENTITY, START, MemorySlots
from tests.unit.log_capture import capture_log
from tests.unit.workers import FakeWorker
from walstream.access.policy import AccessFiles
from walstream.interfaces import WALPosition
from walstream.protocols.settings import SenderSettings
from walstream.services import senders
from walstream.services.access import Access
from walstream.services.processes import SenderProcesses
from walstream.services.senders import Senders, make_senders
from walstream.services.tls_files import TLSFiles
from walstream.testing.disk import ManualLane
from walstream.testing.memory import MemoryProvider
from walstream.tls.server import ServerFiles, ServerTLS


class ReloadCase(SynchronousTestCase):
    """A server's certificate, and a lane in which it is read again when the test lets it."""

    def setUp(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.authority = Authority(directory, "authority")
        self.files = self.renew()
        self.tls = ServerTLS(self.files)
        self.lane = ManualLane(is_held=True)
        self.log = capture_log(self)

    def renew(self) -> ServerFiles:
        """Another certificate in the place of the one that was there."""
        self.issued = self.authority.issue("localhost", stem="server")
        return ServerFiles(self.issued.certificate, self.issued.key)

    def spoil(self) -> None:
        """A key that is none."""
        self.issued.key.write_text("nonsense")


class TLSFilesTests(ReloadCase):
    """`TLSFiles`."""

    def setUp(self) -> None:
        super().setUp()
        self.reread = TLSFiles(self.tls, self.lane)
        self.successResultOf(self.reread.open())

    def test_in_a_thread(self) -> None:
        """The file system may take its time: until then it is as it was."""
        first = self.tls.context
        reloading = self.reread.reload()
        self.assertNoResult(reloading)
        self.assertIs(self.tls.context, first)
        self.lane.work()
        self.assertTrue(self.successResultOf(reloading))
        self.assertIsNot(self.tls.context, first)

    def test_in_quick_succession(self) -> None:
        """What was read last counts, if it is good; else what was good last."""
        reloading = [self.reread.reload() for _ in range(3)]
        found = []
        for change in (self.renew, self.renew, self.spoil):
            change()
            self.lane.work(1)
            found.append(self.tls.context)
        self.assertEqual([*map(self.successResultOf, reloading)], [True, True, False])
        self.assertIsNot(found[0], found[1])
        self.assertIs(found[1], found[2])
        self.assertIn("TLS was not reloaded, the old certificate stays in force", self.log[-1])

    def test_close(self) -> None:
        """What is being read is not waited for."""
        reloading = self.reread.reload()
        self.successResultOf(self.reread.close())
        self.assertTrue(self.lane.is_closed)
        self.lane.work()
        self.assertTrue(self.successResultOf(reloading))


class MakeSendersTests(ReloadCase):
    """`make_senders`."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(TLSFiles, "of", lambda tls, _: TLSFiles(tls, self.lane))
        self.patch(senders, "SenderProcesses", partial(SenderProcesses, make=self.make_worker))
        self.workers: list[FakeWorker] = []

    def make_worker(self, _: object, number: int, *others: object) -> FakeWorker:
        self.workers.append(FakeWorker.that_starts(number))
        return self.workers[-1]

    def make(self, processes: int, *, access: bool = False) -> Senders:
        reactor: Any = Clock()
        here = WALPosition(1, START)
        return make_senders(
            reactor,
            "archive",
            MemoryProvider(IDENTITY, here),
            MemorySlots(),
            SenderSettings(),
            processes,
            self.tls,
            Access(AccessFiles("hba", None, "roles")) if access else None,
        )

    def test_one_process(self) -> None:
        """It reads its own."""
        made = self.make(1)
        (reload,) = made.reloads
        first = self.tls.context
        reload()
        self.lane.work()
        self.assertIsNot(self.tls.context, first)
        self.assertEqual(len(self.make(1, access=True).reloads), 2)

    def test_it_is_closed(self) -> None:
        """With all the rest."""
        for processes in (1, 2):
            self.lane = ManualLane()
            made = self.make(processes)
            for storage in reversed(made.storage):
                self.successResultOf(storage.close())
            self.assertTrue(self.lane.is_closed)

    def test_several_processes(self) -> None:
        """They read theirs once it is known that those are good; rules do not wait for that."""
        made = self.make(2, access=True)
        self.successResultOf(made.storage[0].open())
        self.addCleanup(made.storage[0].close)

        def told(is_good: bool) -> None:
            for reload in made.reloads:
                reload()
            told_before = [("reload", False)]
            self.assertEqual([worker.calls for worker in self.workers], [told_before] * 2)
            self.lane.work()
            told_after = told_before + [("reload", True)] * is_good
            self.assertEqual([worker.calls for worker in self.workers], [told_after] * 2)
            for worker in self.workers:
                worker.calls.clear()

        told(is_good=True)
        self.spoil()
        told(is_good=False)
        self.assertIn("TLS was not reloaded", self.log[-1])
