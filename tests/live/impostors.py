"""A server that is not what it says: played by a script, on a real loopback socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from tests.unit.conversation import COPY_BOTH, READY_FOR_QUERY
from walstream.formats.lsn import LSN
from walstream.testing.wal import SYSTEM_IDENTIFIER
from walstream.wire.frames import FrameReader
from walstream.wire.messages import (
    Column,
    ColumnType,
    authentication_ok,
    command_complete,
    data_row,
    parameter_status,
    row_description,
)

__all__ = ["LET_IN", "Impostor", "Move", "dripping", "impostor", "row"]

#: What a server says next: bytes, made of what it was sent if need be; the last one is repeated.
Move = bytes | Callable[[bytes], bytes]

LET_IN = authentication_ok() + parameter_status("server_version", "18.6") + READY_FOR_QUERY


def row(*values: str) -> bytes:
    """An answer of one row."""
    columns = [Column("x", ColumnType.TEXT) for _ in values]
    cells = data_row([value.encode() for value in values])
    return row_description(columns) + cells + command_complete("SHOW") + READY_FOR_QUERY


class Impostor(Protocol):
    """Lets in by *moves*, one for each message of the client's, then answers questions.

    :param answers: what to say to a question that begins so, if not what a good server says.
    :ivar heard: everything that the client has sent.
    """

    def __init__(self, moves: Sequence[Move], answers: Mapping[str, Move], end: int) -> None:
        self.heard = bytearray()
        self._moves = iter(moves)
        self._answers = {
            "IDENTIFY_SYSTEM": row(str(SYSTEM_IDENTIFIER), "1", str(LSN(end)), ""),
            "SHOW wal_segment_size": row("1MB"),
            "SHOW wal_sender_timeout": row("1min"),
            "SHOW synchronous_standby_names": row(""),
            "SHOW synchronous_commit": row("on"),
            "START_REPLICATION": COPY_BOTH,
            **answers,
        }
        self._reader: FrameReader | None = None
        self._drip: LoopingCall | None = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        move = next(self._moves, None)
        if move is not None:
            self._make(move, data)
            return
        if self._reader is None:
            self._reader = FrameReader(lambda _: 1 << 20)
        self._reader.feed(data)
        while (frame := self._reader.next()) is not None:
            if frame.kind == ord("Q"):
                question = frame.body.rstrip(b"\0").decode()
                for beginning, answer in self._answers.items():
                    if question.startswith(beginning):
                        self._make(answer, frame.body)

    def _make(self, move: Move, data: bytes) -> None:
        said = move if isinstance(move, bytes) else move(data)
        if isinstance(said, Dripping):
            drip: Iterator[int] = iter(said)
            self._drip = LoopingCall(self._say_next, drip)
            self._drip.start(0.05).addErrback(lambda _: None)
        else:
            self._write(said)

    def _say_next(self, drip: Iterator[int]) -> None:
        self._write(bytes([next(drip)]))

    def _write(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._drip is not None:
            with suppress(AssertionError):
                self._drip.stop()


class Dripping(bytes):
    """Sent byte after byte, twenty a second."""


def dripping(data: bytes) -> Dripping:
    """See `Dripping`."""
    return Dripping(data)


class _Impostors(Factory):
    """:ivar all: those that were built."""

    noisy = False

    def __init__(self, make: Callable[[], Impostor]) -> None:
        self.all: list[Impostor] = []
        self._make = make

    def buildProtocol(self, addr: object) -> Impostor:
        self.all.append(self._make())
        return self.all[-1]


def impostor(
    moves: Sequence[Move] = (LET_IN,), answers: Mapping[str, Move] | None = None, end: int = 0
) -> _Impostors:
    """A factory of impostors.

    :param end: the end of the WAL that they claim to have.
    """
    return _Impostors(lambda: Impostor(moves, answers or {}, end))
