"""Target: the main process's end of a channel, and a worker that has lost its senses.

A worker is trusted, but it reads what strangers send. Whatever it says, the main process goes on:
nothing is raised, what it knows of other workers' clients stays, and when the worker is gone
nothing is left of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from twisted.internet.task import Clock
from twisted.protocols import amp

from tests.fuzz.script import Script
from tests.fuzz.target import Target
from tests.unit.channels import ChannelPair
from tests.unit.conversation import IDENTITY, START, MemorySlots
from walstream.access.throttle import Throttle
from walstream.formats.lsn import LSN
from walstream.interfaces import WALPosition
from walstream.protocols.settings import SenderSettings
from walstream.protocols.standbys import Standby, StandbyState
from walstream.services import worker_channel
from walstream.services.control_document import Document, SendingSide
from walstream.services.worker_channel import Beat, Channel
from walstream.services.worker_host import MainEnd
from walstream.services.worker_sessions import WorkerSessions
from walstream.services.worker_standbys import pack_standby
from walstream.services.worker_values import Position
from walstream.testing.memory import MemoryProvider

_HERE: Final = WALPosition(1, LSN(START))
_SAID: Final[tuple[type[amp.Command], ...]] = (
    worker_channel.CreateSlot,
    worker_channel.ReadSlot,
    worker_channel.AcquireSlot,
    worker_channel.DropSlot,
    worker_channel.AdvanceSlot,
    worker_channel.ReleaseSlot,
    worker_channel.EndSession,
    worker_channel.StandbysChanged,
    worker_channel.SentSoFar,
    worker_channel.StandbyLeft,
    worker_channel.SessionEnded,
    worker_channel.EnterRole,
    worker_channel.LeaveRole,
    worker_channel.SettlePassword,
    worker_channel.Cancel,
    worker_channel.Begin,
    amp.StartTLS,
    amp.ProtocolSwitchCommand,
)
_MOST_SAID: Final = 256 * 1024


class _Host:
    """A worker, as its sessions know it."""

    def cancel(self, pid: int, key: bytes) -> None:
        pass

    def terminate(self, pid: int) -> None:
        pass


class _Watcher:
    """Works with what is reported, as policies and feedback do."""

    def standby_changed(self, standby: Standby) -> None:
        assert isinstance(standby.state, StandbyState)
        positions = (standby.sent, standby.write, standby.flush, standby.apply)
        assert all(0 <= position < 1 << 64 for position in positions)
        assert standby.lags.write is None or standby.lags.write * 2 is not None
        if standby.feedback is not None:
            assert standby.feedback.xmin_epoch << 32 | standby.feedback.xmin >= 0

    def standby_left(self, standby: Standby) -> None:
        pass


class _Nonsense:
    """A main process with two workers, one of which says anything."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._clock = Clock()
        self._slots = MemorySlots()
        throttle = Throttle(self._clock.seconds)
        self._sessions: WorkerSessions[Any] = WorkerSessions(self._slots, throttle)
        self._sessions.standbys.watch(_Watcher())
        self._good, self._host = _Host(), _Host()
        self._lost = 0
        self._main = MainEnd(self._sessions, self._note_loss)
        self._worker = Channel()  # type: ignore[no-untyped-call]
        self._pair = ChannelPair(self._main, self._worker)
        self._document = Document(
            "send", "/archive", MemoryProvider(IDENTITY, _HERE), self._clock, self._clock.seconds
        )
        self._document.sending = SendingSide(self._sessions.standbys, SenderSettings(), self._slots)
        self._others = self._sessions.begin(self._good)
        self._pids = [self._sessions.begin(self._host) for _ in range(3)]
        self._sessions.changed([self._standby(self._others)])

    def run(self) -> None:
        """All that the script says, and then the worker is gone."""
        while self._script and self._is_open():
            _DOES[self._script.number() % len(_DOES)](self)
            self._deliver()
            self._check()
        self._pair.cut()
        self._sessions.lost(self._host)
        assert self._lost == 1, "nobody is told that it is gone"
        assert self._sessions.number(self._host) == self._sessions.clients(self._host) == 0
        assert len(self._sessions) <= 1
        assert self._sessions.places._inside == {}, "its clients still have their places"
        assert {each.pid for each in self._sessions.standbys} <= {self._others}

    def _is_open(self) -> bool:
        return self._main.is_open and not self._pair.ends[0][1].is_closing

    def _note_loss(self) -> None:
        self._lost += 1

    def _deliver(self) -> None:
        # The worker has no senses left for what it is answered.
        said = self._pair.ends[0][1]
        assert len(said.written) <= _MOST_SAID
        said.written = b""
        worker = self._pair.ends[1][1]
        written, worker.written = worker.written, b""
        if written and self._is_open():
            self._main.dataReceived(written)

    def _check(self) -> None:
        assert min(self._sessions.number(each) for each in (self._host, self._good)) >= 0
        assert min(self._sessions.clients(each) for each in (self._host, self._good)) >= 0
        json.loads(b"".join(self._document.pieces()))

    def _standby(self, pid: int) -> bytes:
        return pack_standby(Standby(pid, "u", "n", ("127.0.0.1", 4), 0.0, StandbyState.STREAMING))

    # What it says.

    def say(self) -> None:
        self._pair.ends[1][1].written += self._script.piece()

    def command(self) -> None:
        """A command, with some of its arguments, or others' values in them."""
        command = _SAID[self._script.number() % len(_SAID)]
        box = amp.Box()
        box[b"_command"] = command.commandName
        if self._script.number() & 1:
            box[b"_ask"] = b"1"
        for name, argument in command.arguments:
            value = self._value(argument)
            if value is not None:
                box[name] = value
        self._pair.ends[1][1].written += box.serialize()

    def _value(self, argument: amp.Argument) -> bytes | None:
        how = self._script.number()
        pid = b"%d" % [*self._pids, self._others][how >> 3 & 3]
        match how & 7:
            case 0:
                return None
            case 1:
                return self._script.piece()
            case 2:
                return self._standby(int(pid))
            case 3:
                return pid + b" 4194304"
        if isinstance(argument, Position):
            return Position().toString(_HERE)
        if isinstance(argument, amp.Integer):
            return pid
        if isinstance(argument, amp.Boolean):
            return b"True" if how & 8 else b"False"
        return b"name%d" % (how >> 5)

    def report(self) -> None:
        """A client's report, with something else in the place of one value."""
        values = json.loads(self._standby(self._pids[self._script.number() % 3]))
        name = list(values)[self._script.number() % len(values)]
        try:
            values[name] = json.loads(self._script.piece())
        except (ValueError, RecursionError):
            values.pop(name)
        lines = json.dumps(values).encode()
        if len(lines) < 60_000:
            self._worker.tell(worker_channel.StandbysChanged, standbys=lines)

    def answer(self) -> None:
        """An answer, to what it was asked or to what not."""
        how = self._script.number()
        if how & 1:
            self._main.ask(Beat, rate=None).addErrback(lambda _: None)
        kind, number = (b"_answer", b"_error")[how >> 1 & 1], b"%x" % (how >> 4)
        rest = self._script.piece()
        box = amp.Box({kind: number, b"_error_code": rest, b"_error_description": rest})
        self._pair.ends[1][1].written += box.serialize()

    def end(self) -> None:
        """One of its sessions, or another worker's."""
        pid = [*self._pids, self._others][self._script.number() & 3]
        self._worker.tell(worker_channel.SessionEnded, pid=pid)

    def wait(self) -> None:
        self._clock.advance(self._script.number())


_DOES: tuple[Callable[[_Nonsense], None], ...] = (
    _Nonsense.say,
    _Nonsense.command,
    _Nonsense.report,
    _Nonsense.answer,
    _Nonsense.end,
    _Nonsense.wait,
)


def _run(data: bytes) -> None:
    _Nonsense(Script(data)).run()


def _seeds() -> Iterator[bytes]:
    for number in range(len(_SAID)):
        for asks in range(2):
            for values in (b"\4\x0c\x2c\4", b"\2\2\2\2", b"\3\3\3\3", b"\0\0", b"\1\1x\1\1y\1\0"):
                yield b"\1" + bytes([number, asks]) + values
                yield b"\1" + bytes([number, asks]) + values + b"\4\0" + b"\4\3"
    for field in range(16):
        for value in (b"null", b"-1", b'"x"', b"[1,2,3]", b"[1,2,3,4,5]", b"1e999", b"["):
            yield b"\2\0" + bytes([field, len(value)]) + value
    for how in range(0, 64, 3):
        yield b"\3" + bytes([how]) + b"\7UNKNOWN"
    for nonsense in (b"\0\0", b"\xff\xff", b"\0\1a\0\0\0\0", b"\0\7_answer\0\1\1\0\0"):
        yield b"\0" + bytes([len(nonsense)]) + nonsense


_S = "walstream.services."

TARGETS = (
    Target(
        "channel",
        _run,
        (_S + "worker_host", _S + "worker_sessions", _S + "worker_values", _S + "worker_standbys"),
        _seeds,
        (b"_command", b"_ask", b"_answer", b"_error", b"StandbysChanged", b"null", b"1e400"),
        512,
        logs_faults=True,
    ),
)
