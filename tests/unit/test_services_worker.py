"""Tests for walstream.services.worker: what a worker does with what it is told."""

from __future__ import annotations

import os
import pickle
import socket
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.channels import ChannelPair
from tests.unit.conversation import IDENTITY, START, STARTUP, MemorySlots, kinds, messages
from walstream.access.policy import AccessFiles
from walstream.archive.serving import Storage
from walstream.formats.lsn import LSN
from walstream.interfaces import WALPosition
from walstream.protocols.admission import Strangers
from walstream.protocols.settings import SenderSettings
from walstream.services import worker
from walstream.services.access import Access
from walstream.services.tls_files import TLSFiles
from walstream.services.worker import Worker
from walstream.services.worker_channel import (
    Adopt,
    Beat,
    Begin,
    Cancel,
    Drain,
    Leave,
    Reload,
    Terminate,
)
from walstream.services.worker_host import MainEnd
from walstream.services.worker_sessions import WorkerSessions
from walstream.testing.memory import MemoryProvider
from walstream.testing.transport import FlowTransport
from walstream.wire.messages import parse_backend_key_data, query
from walstream.wire.startup import startup_message

HERE = WALPosition(1, LSN(START))


class Reader(MemoryProvider):
    """A provider that can be opened, told to look, and closed.

    :ivar looks: those that are under way.
    :ivar opening: what opening it, and `closing`, what closing it waits for.
    """

    def __init__(self) -> None:
        super().__init__(IDENTITY, HERE)
        self.looks: list[Deferred[None]] = []
        self.opening: Deferred[None] = Deferred()
        self.closing: Deferred[None] = Deferred()
        self.storage = Storage(lambda: self.opening, lambda: self.closing)

    def look(self) -> Deferred[None]:
        self.looks.append(Deferred())
        return self.looks[-1]


class FakeReactor(Clock):
    """Makes protocols for what is handed over, or finds the client gone."""

    def __init__(self) -> None:
        super().__init__()
        self.is_gone = False
        self.adopted: list[FlowTransport] = []

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:  # noqa: N802
        assert family is socket.AF_INET
        os.fstat(descriptor)
        if self.is_gone:
            raise OSError("Transport endpoint is not connected")
        transport = FlowTransport(clock=self)
        transport.connect(factory.buildProtocol(None))
        self.adopted.append(transport)


class Owner:
    """The worker, in the main process's eyes."""


class FakeFiles:
    """What reads files; notes what is done with it."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self._name = name
        self._calls = calls

    def open(self) -> Deferred[None]:
        return succeed(None)

    def reload(self) -> None:
        self._calls.append(f"reload {self._name}")

    def close(self) -> Deferred[None]:
        self._calls.append(f"close {self._name}")
        return succeed(None)


class WorkerCase(SynchronousTestCase):
    """A worker that has begun."""

    def begin(self, **more: bytes) -> None:
        """Have it begin, with more than every one has."""
        self.reactor = FakeReactor()
        self.over: list[bool] = []
        self.store = MemorySlots()
        self.sessions: WorkerSessions[Any] = WorkerSessions(self.store)
        self.main = MainEnd(self.sessions, lambda: None)
        self.reader = Reader()
        self.worker = Worker(self.reactor, cast(Any, self.reader), self.over.append)
        self.pair = ChannelPair(self.main, self.worker)
        settings = pickle.dumps(SenderSettings(max_total_rate=1000))
        begun = self.main.ask(Begin, settings=settings, clients=1, **more)
        self.turn()
        self.assertNoResult(begun)
        self.reader.opening.callback(None)
        self.turn()
        self.successResultOf(begun)

    def turn(self) -> None:
        """What is said is heard, and answered."""
        self.reactor.advance(0)
        self.pair.deliver()


class FilesTests(WorkerCase):
    """What a worker does about the files that it reads itself."""

    def setUp(self) -> None:
        self.calls: list[str] = []
        gate, tls_files = FakeFiles("access", self.calls), FakeFiles("tls", self.calls)
        self.patch(Access, "gate", lambda *_: gate)
        self.patch(worker, "_server_tls", lambda files: files)
        self.patch(TLSFiles, "of", lambda tls, reactor: tls_files)

    def begin_with_files(self) -> None:
        access = Access(AccessFiles("hba", None, "roles"))
        self.begin(access=pickle.dumps(access), tls=pickle.dumps("files"))

    def test_reload(self) -> None:
        """Either those of TLS, or those about who comes in; and none if there are none."""
        self.begin_with_files()
        for is_tls, expected in ((True, "reload tls"), (False, "reload access")):
            self.main.tell(Reload, tls=is_tls)
            self.turn()
            self.assertEqual(self.calls.pop(), expected)
        self.begin()
        for is_tls in (True, False):
            self.main.tell(Reload, tls=is_tls)
            self.turn()
        self.assertEqual(self.calls, [])

    def test_it_leaves(self) -> None:
        """And reads nothing any more."""
        self.begin_with_files()
        self.main.tell(Leave)
        self.turn()
        self.assertEqual(self.calls, ["close tls", "close access"])


class WorkerTests(WorkerCase):
    """`Worker`, once it has begun."""

    def setUp(self) -> None:
        self.begin()

    def hand_over(self) -> tuple[int, FlowTransport | None]:
        """A client is handed over; its number, and its end of the connection."""
        pid = self.sessions.begin(Owner())
        descriptor = os.open(os.devnull, os.O_RDONLY)
        handed = self.main.ask(Adopt, descriptor=descriptor, family=int(socket.AF_INET), pid=pid)
        self.turn()
        self.successResultOf(handed)
        # Ours and the worker's are one here: it has to have closed it.
        self.assertRaises(OSError, os.fstat, descriptor)
        return pid, self.reactor.adopted[-1] if self.reactor.adopted else None

    def log_in(self) -> tuple[int, FlowTransport]:
        """A client is handed over and let in."""
        pid, transport = self.hand_over()
        assert transport is not None
        transport.deliver(startup_message(STARTUP))
        answer = transport.take()
        self.assertTrue(kinds(answer).endswith("KZ"), answer)
        (body,) = (body for kind, body in messages(answer) if kind == ord("K"))
        told, self.key = parse_backend_key_data(body)
        self.assertEqual(told, pid)
        self.turn()
        return pid, transport

    def test_a_session_has_the_main_process_s_number(self) -> None:
        """And is a client there, until it goes."""
        pid, transport = self.log_in()
        self.assertEqual([standby.pid for standby in self.sessions.standbys], [pid])
        transport.peer_closed()
        self.reactor.advance(5)
        self.turn()
        self.assertEqual((len(self.sessions.standbys), len(self.sessions)), (0, 0))

    def test_a_client_has_gone_meanwhile(self) -> None:
        """It has no address any more; its session is over."""
        self.reactor.is_gone = True
        self.hand_over()
        self.assertEqual(len(self.sessions), 0)

    def test_a_session_that_cannot_begin(self) -> None:
        """A fault costs that connection, and none of the others, nor the worker."""
        pid, _ = self.log_in()
        self.patch(Strangers, "enter", lambda *_: 1 / 0)
        _, transport = self.hand_over()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        assert transport is not None
        self.assertIn(b"internal error", transport.take())
        self.turn()
        self.assertEqual(transport.peer_saw, "end")
        self.assertEqual(
            ([each.pid for each in self.sessions.standbys], len(self.sessions)), ([pid], 1)
        )

    def test_a_flood(self) -> None:
        """There are no more connections than there may be, those on their way out included.

        Its share of the clients is one; there are a hundred strangers and fifty that go.
        """
        for _ in range(160):
            _, transport = self.hand_over()
            assert transport is not None
            # It is told that it is wrong here, which it does not read.
            transport.deliver(startup_message({"user": "u", "replication": "database"}))
        self.turn()
        self.assertEqual((len(self.reactor.adopted), len(self.sessions)), (151, 151))
        self.reactor.advance(60)
        self.turn()
        self.assertEqual(len(self.sessions), 0)
        self.log_in()

    def test_a_stream_is_cancelled(self) -> None:
        """By who knows the key, to whichever worker he has come."""
        pid, transport = self.log_in()
        transport.deliver(query("START_REPLICATION 0/300000"))
        self.assertEqual(kinds(transport.take()), "W")
        for number, key in ((pid, b"key!"), (pid, b""), (pid + 1, self.key), (pid, self.key)):
            self.assertEqual(transport.take(), b"")
            self.main.tell(Cancel, pid=number, key=key)
            self.turn()
        self.assertEqual(kinds(transport.take()), "EZ")

    def test_a_slot_is_taken_away(self) -> None:
        """Its session ends."""
        pid, transport = self.log_in()
        for number in (pid + 1, pid):
            self.assertEqual(transport.take(), b"")
            self.main.tell(Terminate, pid=number)
            self.turn()
        self.assertEqual(kinds(transport.take()), "E")

    def test_its_share(self) -> None:
        """Of the clients, and of the rate, which is told again and again."""
        senders = self.worker._senders
        assert senders is not None
        shared = senders.limits.shared_rate
        assert shared is not None
        for rate, expected in ((400.0, 400.0), (400.0, 400.0), (None, 400.0)):
            self.main.ask(Beat, rate=rate)
            self.turn()
            self.assertEqual(shared.rate, expected)
        self.log_in()
        _, transport = self.hand_over()
        assert transport is not None
        transport.deliver(startup_message(STARTUP))
        self.assertEqual(kinds(transport.take()), "E")

    def test_it_drains_what_it_knows(self) -> None:
        """Nothing is looked for, if it knows all that there is."""
        drained = self.main.ask(Drain, grace=1.0, end=HERE)
        self.turn()
        self.successResultOf(drained)
        self.assertEqual(self.reader.looks, [])

    def test_it_drains_what_there_is(self) -> None:
        """It looks first, if the main process knows of more."""
        further = WALPosition(1, LSN(START + 8))
        drained = self.main.ask(Drain, grace=1.0, end=further)
        self.turn()
        self.assertNoResult(drained)
        self.reader.looks[0].callback(None)
        self.turn()
        self.successResultOf(drained)

    def test_it_cannot_look(self) -> None:
        """Then it drains what it knows."""
        drained = self.main.ask(Drain, grace=1.0, end=WALPosition(2, LSN(0)))
        self.turn()
        self.reader.looks[0].errback(OSError("the disk is gone"))
        self.turn()
        self.successResultOf(drained)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_the_main_process_is_gone(self) -> None:
        """So is the worker."""
        self.pair.cut()
        self.assertEqual(self.over, [False])
        self.flushLoggedErrors()

    def test_it_leaves(self) -> None:
        """When the archive is closed; that the channel is closed then is in order."""
        self.main.tell(Leave)
        self.turn()
        self.assertEqual(self.over, [])
        self.reader.closing.callback(None)
        self.pair.cut()
        self.assertEqual(self.over, [True])

    def test_the_channel_takes_no_more(self) -> None:
        """Reports wait then: it is their consumer."""
        producer = self.pair.worker_transport.producer
        assert producer is not None
        producer.pauseProducing()
        self.log_in()
        self.assertEqual(len(self.sessions.standbys), 0)
        producer.resumeProducing()
        self.turn()
        self.assertEqual(len(self.sessions.standbys), 1)
