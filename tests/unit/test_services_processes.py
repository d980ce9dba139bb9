"""Tests for walstream.services.processes: connections are handed to workers."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection, Port
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.conversation import IDENTITY, START, MemorySlots
from tests.unit.log_capture import capture_log
from tests.unit.workers import FakeWorker
from walstream.interfaces import WALPosition
from walstream.protocols.settings import SenderSettings
from walstream.protocols.standbys import Standby
from walstream.services.processes import SenderProcesses
from walstream.services.worker_standbys import pack_standby
from walstream.testing.memory import MemoryProvider


class FakeSocket:
    """Says whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


class FakePort(Port):
    """Accepts connections, or not."""

    connected = True
    disconnecting = False

    def __init__(self) -> None:
        self.is_reading = True

    def stopReading(self) -> None:
        self.is_reading = False

    def startReading(self) -> None:
        self.is_reading = True


class PlainConnection(Connection):
    """A connection of a plain socket's, as a port makes it."""

    def __init__(self, port: Port) -> None:
        self.server = port
        self.fake = FakeSocket()
        self.is_reading = True

    def getHandle(self) -> FakeSocket:  # type: ignore[override]
        return self.fake

    def stopReading(self) -> None:
        self.is_reading = False


class SenderProcessesTests(SynchronousTestCase):
    """`SenderProcesses` with three workers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = capture_log(self)
        self.slots = MemorySlots()
        self.port = FakePort()
        self.end = WALPosition(1, START)
        self.workers: list[FakeWorker] = []
        self.settings: list[SenderSettings] = []
        self.open(SenderSettings())

    def open(self, settings: SenderSettings) -> None:
        """Start three workers."""
        self.workers.clear()
        self.processes = SenderProcesses(
            self.clock,
            "archive",
            MemoryProvider(IDENTITY, self.end),
            self.slots,
            settings,
            3,
            make=self.make,
        )
        self.successResultOf(self.processes.open())
        self.addCleanup(self.close)

    def make(
        self,
        _: object,
        number: int,
        archive: str,
        settings: SenderSettings,
        share: int | None,
        sessions: object,
        tls: object,
        access: object,
    ) -> FakeWorker:
        self.assertTrue(archive.startswith("/"))
        self.settings.append(settings)
        self.workers.append(FakeWorker.that_starts(number))
        self.workers[-1].share = share
        return self.workers[-1]

    def let_in(self, *pids: int) -> None:
        """Those sessions' clients are let in."""
        for pid in pids:
            self.processes._sessions.changed([pack_standby(Standby(pid, "u", "", None, 0.0))])

    def close(self) -> None:
        self.successResultOf(self.processes.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def connect(self, port: FakePort | None = None) -> FakeSocket:
        """A client connects, to the usual port or to another one."""
        protocol: Any = self.processes.buildProtocol(None)
        self.assertTrue(IProtocol.providedBy(protocol))
        transport = PlainConnection(port or self.port)
        protocol.makeConnection(transport)
        self.assertFalse(transport.is_reading)
        return transport.fake

    def adopted(self, worker: FakeWorker) -> list[int]:
        """The numbers of the sessions that a worker was given."""
        return [call[2] for call in worker.calls if call[0] == "adopt"]

    def test_the_one_with_the_fewest(self) -> None:
        """A connection goes to it, whichever had the last one."""
        one, two, three = self.workers
        for _ in range(6):
            self.connect()
        self.assertEqual([*map(self.adopted, self.workers)], [[1, 4], [2, 5], [3, 6]])
        for pid in (2, 5, 6):
            self.processes._sessions.ended(pid)
        for _ in range(3):
            self.connect()
        self.assertEqual(self.adopted(two)[2:], [7, 8])
        self.assertEqual(self.adopted(three)[2:], [9])
        self.assertEqual(self.adopted(one)[2:], [])

    def test_our_copy_of_a_connection(self) -> None:
        """It is kept until the worker has its own, which it may still lack when it is told."""
        connection = self.connect()
        self.assertFalse(connection.is_closed)
        self.workers[0].adopting[0].callback({})
        self.assertTrue(connection.is_closed)

    def test_reload(self) -> None:
        """Workers that are starting are told, too: they may have read what there was before."""
        self.workers[0].end("it was killed")
        self.patch(FakeWorker, "that_starts", FakeWorker)
        self.clock.advance(0.1)
        self.assertFalse(self.workers[3].starting.called)
        self.processes.reload(tls=True)
        told = [("reload", True) in worker.calls for worker in self.workers]
        self.assertEqual(told, [False, True, True, True])
        self.workers[3].started()

    def test_a_worker_dies_before_it_has_it(self) -> None:
        """Perhaps it has answered already: the client has to connect again."""
        connection = self.connect()
        self.workers[0].end("it was killed")
        self.workers[0].adopting[0].errback(ConnectionLost())
        self.assertTrue(connection.is_closed)
        self.assertEqual(self.slots.calls, [("end_session", 1)])
        self.assertIn("worker 1 has ended, and 1 connections with it: it was killed", self.log)

    def test_a_worker_cannot_take_it(self) -> None:
        """It is no session then."""
        connection = self.connect()
        self.workers[0].adopting[0].errback(RuntimeError("for the test"))
        self.assertTrue(connection.is_closed)
        self.assertEqual(self.slots.calls, [("end_session", 1)])

    def test_no_worker_is_there(self) -> None:
        """Clients wait for one, in the order in which they came."""
        for worker in self.workers[:3]:
            worker.end("it was killed")
        waiting = [self.connect() for _ in range(4)]
        self.clock.advance(0.1)
        self.assertEqual(
            [self.adopted(worker) for worker in self.workers[3:]], [[1, 2, 3, 4], [], []]
        )
        self.assertFalse(any(connection.is_closed for connection in waiting))

    def test_too_many_wait(self) -> None:
        """No more are accepted: the kernel has them wait, or come again."""
        for worker in self.workers[:3]:
            worker.end("it was killed")
        waiting = [self.connect() for _ in range(49)]
        self.assertTrue(self.port.is_reading)
        waiting += [self.connect() for _ in range(3)]
        self.assertFalse(self.port.is_reading)
        self.assertFalse(any(connection.is_closed for connection in waiting))
        self.assertEqual(sum("clients have to wait" in line for line in self.log), 1)
        self.successResultOf(self.processes.drain(10))
        self.assertTrue(all(connection.is_closed for connection in waiting))

    def test_a_worker_is_slow(self) -> None:
        """It is given twenty at a time; the others wait here, and in the end in the kernel.

        So a flood costs a bounded number of descriptors, here and on the way.
        """
        connections = [self.connect() for _ in range(3 * 20 + 49)]
        self.assertEqual([len(self.adopted(worker)) for worker in self.workers], [20] * 3)
        self.assertTrue(self.port.is_reading)
        connections.append(self.connect())
        self.assertFalse(self.port.is_reading)
        self.assertFalse(any("have to wait" in line for line in self.log))
        slow, *others = self.workers
        for worker in others:
            while worker.adopting:
                worker.adopting.pop(0).callback({})
        self.assertTrue(self.port.is_reading)
        self.assertEqual(len(self.adopted(slow)), 20)
        self.assertEqual(sum(not connection.is_closed for connection in connections), 20)
        slow.end("it was killed")
        while slow.adopting:
            slow.adopting.pop(0).errback(ConnectionLost())
        self.assertTrue(all(connection.is_closed for connection in connections))
        self.assertEqual(self.processes._under_way, {})

    def test_several_ports(self) -> None:
        """Each is closed by the first connection that is too much, and all are opened again."""
        for worker in self.workers:
            worker.end("it was killed")
        other = FakePort()
        for _ in range(50):
            self.connect()
        self.assertEqual((self.port.is_reading, other.is_reading), (False, True))
        self.connect(other)
        self.assertFalse(other.is_reading)
        self.assertEqual(sum("have to wait" in line for line in self.log), 1)
        self.clock.advance(0.1)
        self.assertEqual((self.port.is_reading, other.is_reading), (True, True))

    def test_a_port_that_is_closed_meanwhile(self) -> None:
        """It is not listened to again."""
        for worker in self.workers[:3]:
            worker.end("it was killed")
        for _ in range(50):
            self.connect()
        self.port.disconnecting = True
        self.clock.advance(0.1)
        self.assertEqual(sum(len(self.adopted(worker)) for worker in self.workers), 50)
        self.assertFalse(self.port.is_reading)

    def test_shares_of_the_clients(self) -> None:
        """Each worker may have so many; one that is full gets none while another one has room."""
        self.close()
        self.open(SenderSettings(max_clients=4))
        self.assertEqual([worker.share for worker in self.workers], [2, 1, 1])
        for _ in range(3):
            self.connect()
        self.let_in(2, 3)
        for _ in range(3):
            self.connect()
        self.assertEqual([*map(self.adopted, self.workers)], [[1, 4, 5, 6], [2], [3]])
        self.let_in(1, 4)
        self.connect()  # to be turned away, by whichever
        self.processes._sessions.left(3)
        self.connect()
        self.assertEqual([*map(self.adopted, self.workers)], [[1, 4, 5, 6], [2, 7], [3, 8]])

    def test_any_number_of_clients(self) -> None:
        """Nobody is ever full."""
        self.close()
        self.open(SenderSettings(max_clients=0))
        self.assertEqual([worker.share for worker in self.workers], [None] * 3)

    def test_shares_of_the_rate(self) -> None:
        """By the clients that each has, anew every second; one without any may begin."""
        self.close()
        self.settings.clear()
        self.open(SenderSettings(max_total_rate=1000))
        self.assertEqual([each.max_total_rate for each in self.settings], [334] * 3)
        self.clock.advance(1)
        self.assertEqual([worker.rate for worker in self.workers], [1000 / 3] * 3)
        for _ in range(5):
            self.connect()
        self.let_in(1, 4, 2, 5)
        self.clock.advance(1)
        self.assertEqual([worker.rate for worker in self.workers], [400, 400, 200])

    def test_no_rate(self) -> None:
        """Nobody is told of one."""
        self.clock.advance(1)
        self.assertEqual([worker.rate for worker in self.workers], [None] * 3)

    def test_drain(self) -> None:
        """All workers see their clients off at the same time, up to the archive's end."""
        drained = self.processes.drain(10)
        self.assertIsNone(self.processes.buildProtocol(None))
        for worker in self.workers:
            self.assertNoResult(drained)
            self.assertEqual(worker.calls, [("drain", 10, self.end)])
            worker.draining.callback({})
        self.successResultOf(drained)
        self.successResultOf(self.processes.drain(10))

    def test_asked_again_to_drain(self) -> None:
        """It fires together with the first time."""
        first, second = self.processes.drain(10), self.processes.drain(10)
        for worker in self.workers:
            self.assertNoResult(second)
            worker.draining.callback({})
        self.successResultOf(first)
        self.successResultOf(second)

    def test_a_worker_dies_while_it_drains(self) -> None:
        """Its clients are gone; the others are waited for."""
        drained = self.processes.drain(10)
        self.workers[0].draining.errback(ConnectionLost())
        self.assertNoResult(drained)
        for worker in self.workers[1:]:
            worker.draining.callback({})
        self.successResultOf(drained)

    def test_a_worker_does_not_come_to_an_end(self) -> None:
        """It is killed a little after the grace."""
        drained = self.processes.drain(10)
        for worker in self.workers[1:]:
            worker.draining.callback({})
        self.clock.advance(11.9)
        self.assertNoResult(drained)
        self.clock.advance(0.2)
        self.successResultOf(drained)
        self.assertIn("kill", self.workers[0].calls)

    def test_what_is_no_plain_socket(self) -> None:
        """Its state could not be handed over."""
        protocol: Any = self.processes.buildProtocol(None)
        self.assertRaises(RuntimeError, protocol.makeConnection, object())
