"""What the tests of the protocols share: slots in memory, messages as values, and a sender's test
case. The clock of every test case stands at `NOW`, and so do the messages' time stamps.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import ClassVar, Literal

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from walstream.errors import CommandError
from walstream.formats.lsn import LSN
from walstream.formats.segments import SegmentSize
from walstream.interfaces import IGate, ISlotStore, Slot, SystemIdentity, WALPosition
from walstream.protocols.limits import Limits
from walstream.protocols.open_gate import OpenGate
from walstream.protocols.phases import SenderPhase
from walstream.protocols.sender import WALSender
from walstream.protocols.serving import Serving
from walstream.protocols.settings import SenderSettings
from walstream.protocols.standbys import Standby, Standbys
from walstream.testing.memory import MemoryProvider
from walstream.testing.transport import FlowTransport
from walstream.testing.wal import SYSTEM_IDENTIFIER, WALBuilder, wal_bytes
from walstream.wire.copydata import StandbyStatus, pg_time
from walstream.wire.frames import Frame, FrameReader
from walstream.wire.messages import copy_data, query
from walstream.wire.startup import startup_message
from walstream.wire.stream import StreamReader, WALPayload

SIZE = SegmentSize(1 << 20)
IDENTITY = SystemIdentity(SYSTEM_IDENTIFIER, SIZE, "18.6")
START = SIZE.start(3)
PID = 7
KEY = b"\x01\x02\x03\x04"
NOW = 1_763_900_000.25
TIME = pg_time(NOW)
STARTUP = {
    "user": "postgres",
    "database": "replication",
    "replication": "true",
    "application_name": "pg_receivewal",
}

# Messages that are the same in every conversation, as they are on the wire.
READY_FOR_QUERY = b"Z\x00\x00\x00\x05I"
COPY_BOTH = b"W\x00\x00\x00\x07\x00\x00\x00"
COPY_OUT = b"H\x00\x00\x00\x07\x00\x00\x00"
COPY_DONE = b"c\x00\x00\x00\x04"
TERMINATE = b"X\x00\x00\x00\x04"
SYNC = b"S\x00\x00\x00\x04"
STREAMING_COMPLETE = (
    b"C\x00\x00\x00\x14START_STREAMING\x00C\x00\x00\x00\x16START_REPLICATION\x00" + READY_FOR_QUERY
)
SHUT_DOWN = b"C\x00\x00\x00\x0bCOPY 0\x00"


def wal(start: int, length: int) -> bytes:
    """WAL that shows by itself whether it is in its place."""
    return wal_bytes(start, length, segment_size=SIZE)


def records(start: int, length: int) -> bytes:
    """WAL of whole records, and of one more that the end cuts off; *start* is a segment's."""
    builder = WALBuilder(segment_size=SIZE, start=LSN(start))
    while builder.end < start + length:
        builder.noop(100)
    return builder.bytes(start, start + length)


def error(
    severity: str, sqlstate: str, message: str, detail: str | None = None, hint: str | None = None
) -> bytes:
    """An ErrorResponse as PostgreSQL puts it together."""
    fields = [("S", severity), ("V", severity), ("C", sqlstate), ("M", message)]
    fields += [(code, text) for code, text in (("D", detail), ("H", hint)) if text is not None]
    body = b"".join(f"{code}{text}\0".encode() for code, text in fields) + b"\0"
    return b"E" + (len(body) + 4).to_bytes(4, "big") + body


def wal_message(start: int, data: bytes, end: int) -> bytes:
    """An XLogData message of the moment."""
    header = b"".join(
        number.to_bytes(8, "big", signed=signed)
        for number, signed in ((start, False), (end, False), (TIME, True))
    )
    return b"d" + (len(data) + 29).to_bytes(4, "big") + b"w" + header + data


def keepalive(end: int, *, reply_requested: bool, time: int = TIME) -> bytes:
    """A primary keepalive message."""
    return (
        b"d\x00\x00\x00\x16k"
        + end.to_bytes(8, "big")
        + time.to_bytes(8, "big", signed=True)
        + bytes([reply_requested])
    )


def status(write: int, flush: int = 0, apply: int = 0, *, reply_requested: bool = False) -> bytes:
    """A standby status update."""
    return copy_data(StandbyStatus(write, flush, apply, TIME, reply_requested).pack())


def messages(data: bytes) -> list[Frame]:
    """*data* as messages; there must be nothing but whole ones."""
    reader = FrameReader(lambda _: 1 << 30)
    reader.feed(data)
    found = []
    while (message := reader.next()) is not None:
        found.append(message)
    assert reader.take_rest() == b"", "an incomplete message"
    return found


def kinds(data: bytes) -> str:
    """The types of the messages in *data*."""
    return "".join(chr(message.kind) for message in messages(data))


def streamed(
    data: bytes, start: int, payload: WALPayload = WALPayload.MODERN
) -> tuple[bytes, list[Frame]]:
    """The WAL of a stream that begins at *start*, and all messages that are not WAL."""
    reader, wal, others = StreamReader(payload), bytearray(), []
    for event in reader.events(memoryview(data)):
        if isinstance(event, Frame):
            others.append(event)
            continue
        position, piece = event
        assert position == start + len(wal), f"{position:X} is not {start + len(wal):X}"
        wal += piece
    assert reader.take_rest() == b"", "an incomplete message"
    return bytes(wal), others


@implementer(ISlotStore)
class MemorySlots:
    """Slots in memory.

    :ivar calls: what was called, but for `read` and `slots`.
    :ivar held_back: `create`, `acquire` and `drop` wait until this fires, if there is any.
    :ivar terminate: ends the session of that number.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.held_back: Deferred[None] | None = None
        self._slots: dict[str, Slot] = {}
        self._owners: dict[str, int] = {}
        self.terminate: Callable[[int], None] = lambda pid: None

    def create(
        self, name: str, pid: int, *, temporary: bool, restart: WALPosition | None
    ) -> Deferred[Slot]:
        self.calls.append(("create", name, pid, temporary, restart))
        return self._soon().addCallback(lambda _: self._create(name, pid, temporary, restart))

    def _create(self, name: str, pid: int, temporary: bool, restart: WALPosition | None) -> Slot:
        if name in self._slots:
            raise CommandError("42710", f'replication slot "{name}" already exists')
        slot = Slot(name, temporary, restart, pid if temporary else None)
        self._slots[name] = slot
        self._owners[name] = pid
        return slot

    def read(self, name: str) -> Deferred[Slot | None]:
        return succeed(self._slots.get(name))

    def slots(self) -> Collection[Slot]:
        return self._slots.values()

    def acquire(self, name: str, pid: int) -> Deferred[Slot]:
        self.calls.append(("acquire", name, pid))
        return self._soon().addCallback(lambda _: self._acquire(name, pid))

    def _acquire(self, name: str, pid: int) -> Slot:
        slot = self._slots.get(name)
        if slot is None:
            raise CommandError("42704", f'replication slot "{name}" does not exist')
        if slot.active_pid not in (None, pid):
            raise CommandError(
                "55006", f'replication slot "{name}" is active for PID {slot.active_pid}'
            )
        self._slots[name] = replace(slot, active_pid=pid)
        return self._slots[name]

    def advance(self, name: str, restart: WALPosition) -> None:
        self.calls.append(("advance", name, restart))
        self._slots[name] = replace(self._slots[name], restart=restart)

    def release(self, name: str, pid: int) -> None:
        self.calls.append(("release", name, pid))
        slot = self._slots[name]
        assert slot.active_pid == pid, f"{pid} releases what {slot.active_pid} uses"
        if not slot.temporary:
            self._slots[name] = replace(slot, active_pid=None)

    def drop(self, name: str, *, wait: bool, pid: int | None = None) -> Deferred[None]:
        self.calls.append(("drop", name, wait))
        return self._soon().addCallback(lambda _: self._drop(name))

    def _drop(self, name: str) -> None:
        if name not in self._slots:
            raise CommandError("42704", f'replication slot "{name}" does not exist')
        del self._slots[name]

    def end_session(self, pid: int) -> None:
        self.calls.append(("end_session", pid))
        for slot in list(self._slots.values()):
            if slot.active_pid == pid:
                self._slots[slot.name] = replace(slot, active_pid=None)
            if slot.temporary and self._owners[slot.name] == pid:
                del self._slots[slot.name]

    def lose(self, name: str, reason: str) -> None:
        """Take a slot out of service for good."""
        self._slots[name] = replace(self._slots[name], invalidation=reason)

    def watch_terminations(self, terminate: Callable[[int], None]) -> None:
        self.terminate = terminate

    def _soon(self) -> Deferred[None]:
        waiter: Deferred[None] = succeed(None)
        if self.held_back is not None:
            waiter = Deferred()
            self.held_back.chainDeferred(waiter)
        return waiter


class FailingSlots(MemorySlots):
    """Slots whose store has broken down."""

    def create(
        self, name: str, pid: int, *, temporary: bool, restart: WALPosition | None
    ) -> Deferred[Slot]:
        return fail(RuntimeError("the store has broken down"))


class SenderCase(SynchronousTestCase):
    """One session of a `WALSender` whose client is the test.

    The provider holds one segment and a bit, from the start of segment 3 on.
    """

    kind: ClassVar[Literal["tcp", "tls"]] = "tcp"
    direct: ClassVar[bool] = False
    buffer_size = 65536

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.provider = MemoryProvider(IDENTITY, WALPosition(1, START))
        self.provider.append(wal(START, SIZE))
        self.end = self.provider.append(wal(START + SIZE, 0x2028))
        self.slots = MemorySlots()
        self.settings = SenderSettings(wall_clock=lambda: NOW)
        self.gate: IGate = OpenGate()
        self.gone: list[WALSender] = []
        self.standbys = Standbys()
        self.cancelled: list[tuple[int, bytes]] = []

    def connect(self) -> WALSender:
        """A client connects."""
        serving = Serving(
            self.provider,
            self.slots,
            self.settings,
            self.clock,
            Limits.of(self.settings, self.provider, self.clock),
            self.standbys,
            self.gate,
            lambda pid, key: self.cancelled.append((pid, key)),
        )
        self.session = WALSender(serving, PID, KEY, self.gone.append)
        self.transport = FlowTransport(self.kind, self.clock, buffer_size=self.buffer_size)
        self.transport.connect(self.session, direct=self.direct)
        self.addCleanup(self.check_nothing_is_left)
        return self.session

    def log_in(self, **parameters: str) -> bytes:
        """A client connects and is let in; the answer."""
        self.connect()
        return self.say(startup_message({**STARTUP, **parameters}))

    def standby(self) -> Standby:
        """The client as others see it, who must be the only one."""
        (standby,) = self.standbys
        return standby

    def say(self, data: bytes) -> bytes:
        """The client sends *data*; what it reads then, to the end."""
        self.transport.deliver(data)
        return self.hear()

    def hear(self) -> bytes:
        """What the client reads, until nothing more comes."""
        return b"".join(self._all())

    def _all(self) -> Iterable[bytes]:
        while piece := self.transport.take():
            yield piece

    def ask(self, command: str) -> bytes:
        """The client sends a command; the answer."""
        return self.say(query(command))

    def stream(self, start: int = START, timeline: int | None = None) -> bytes:
        """A client is let in, asks for a stream, and reads all that there is."""
        self.log_in()
        suffix = "" if timeline is None else f" TIMELINE {timeline}"
        return self.ask(f"START_REPLICATION {start >> 32:X}/{start & 0xFFFFFFFF:X}{suffix}")

    def check_nothing_is_left(self) -> None:
        """Once the connection is gone there are no timers, no cursors and no slots in use."""
        if self.transport.connected:
            self.hear()
            self.transport.peer_closed()
            self.transport.take()
            self.clock.advance(self.settings.close_timeout)
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.gone, [self.session])
        self.assertIs(self.session.phase, SenderPhase.CLOSED)
        self.assertIsNone(self.session.stream)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.provider.cursors, [])
        for slot in self.slots.slots():
            self.assertIsNone(slot.active_pid)
            self.assertFalse(slot.temporary)
