"""Readers that discard: clients of a walsender that take bytes off their sockets, and do no more.

They live in processes of their own, so that what is measured is the sender. The kernel throws the
bytes away without copying them (MSG_TRUNC, tcp(7)), so that they cost as little as can be.
"""

from __future__ import annotations

import multiprocessing
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from walstream.formats.lsn import LSN
from walstream.wire.commands import StartReplication
from walstream.wire.frames import FrameReader, backend_limit
from walstream.wire.messages import query
from walstream.wire.startup import startup_message

__all__ = ["Piece", "Readers", "connect", "following", "readers"]

_HEAD = 30  # of each message of 128 KiB, in bytes
_MESSAGE = 128 * 1024
_READ = 1 << 20
# Seconds after which a run is given up.
_PATIENCE = 600


@dataclass(frozen=True, slots=True)
class Piece:
    """What one reader reads: whole messages, so that it is known how many bytes come."""

    start: LSN
    size: int

    @property
    def bytes(self) -> int:
        """How many bytes that is on the wire, the messages' heads included."""
        return self.size + self.size // _MESSAGE * _HEAD


class Readers:
    """Readers that have logged in, and wait."""

    def __init__(self, processes: Sequence[Connection]) -> None:
        self._processes = processes

    def read(self) -> float:
        """Have each read its piece; the seconds until the last one was done."""
        begun = time.perf_counter()
        for process in self._processes:
            process.send("go")
        for process in self._processes:
            if process.recv() != "done":
                raise RuntimeError("a reader has failed; see above")
        return time.perf_counter() - begun


@contextmanager
def readers(port: int, pieces: Sequence[Piece], processes: int = 1) -> Iterator[Readers]:
    """Readers of a sender, one for each piece, in so many processes. They leave in the end."""
    context = multiprocessing.get_context("fork")
    running, ends = [], []
    for number in range(min(processes, len(pieces))):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_run, args=(theirs, port, pieces[number::processes]), daemon=True
        )
        process.start()
        theirs.close()
        running.append(process)
        ends.append(ours)
    try:
        for end in ends:
            if end.recv() != "ready":
                raise RuntimeError("a reader could not log in; see above")
        yield Readers(ends)
    finally:
        for end in ends:
            _dismiss(end)
        for process in running:
            process.join(20)
            process.kill()


@contextmanager
def following(port: int, start: LSN, count: int) -> Iterator[None]:
    """So many readers that follow a sender's live tail from *start* on, in a process of their own.

    They look at their sockets a hundred times a second: to be woken by each small message would
    cost more than to send it.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_follow, args=(theirs, port, start, count), daemon=True)
    process.start()
    theirs.close()
    try:
        if ours.recv() != "ready":
            raise RuntimeError("a reader could not log in; see above")
        yield
    finally:
        _dismiss(ours)
        process.join(20)
        process.kill()


def connect(port: int, name: str = "benchmark") -> socket.socket:
    """A connection that is logged in."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    parameters = {"user": "postgres", "replication": "on", "application_name": name}
    connection.sendall(startup_message(parameters))
    reader = FrameReader(backend_limit)
    while True:
        frame = reader.next()
        if frame is None:
            data = connection.recv(4096)
            if not data:
                raise RuntimeError("the sender has closed the connection")
            reader.feed(data)
        elif frame.kind == ord("Z"):
            return connection
        elif frame.kind == ord("E"):
            raise RuntimeError(f"the sender refuses: {frame.body!r}")


def _run(parent: Connection, port: int, pieces: Sequence[Piece]) -> None:
    left = {connect(port): piece for piece in pieces}
    poll = select.epoll()
    by_number = {connection.fileno(): connection for connection in left}
    parent.send("ready")
    parent.recv()
    deadline = time.monotonic() + _PATIENCE
    missing = {}
    for connection, piece in left.items():
        connection.sendall(query(StartReplication(piece.start, 1, None).text()))
        connection.setblocking(False)
        missing[connection] = piece.bytes
        poll.register(connection, select.EPOLLIN)
    buffer = bytearray(_READ)
    while missing and time.monotonic() < deadline:
        for number, _ in poll.poll(1.0):
            connection = by_number[number]
            size = connection.recv_into(buffer, 0, socket.MSG_TRUNC)
            if not size:
                raise RuntimeError("the sender has closed a connection")
            missing[connection] -= size
            if missing[connection] <= 0:
                poll.unregister(connection)
                del missing[connection]
    parent.send("late" if missing else "done")
    _wait_for_the_end(parent)


def _follow(parent: Connection, port: int, start: LSN, count: int) -> None:
    connections = [connect(port) for _ in range(count)]
    for connection in connections:
        connection.sendall(query(StartReplication(start, 1, None).text()))
        connection.setblocking(False)
    parent.send("ready")
    buffer = bytearray(_READ)
    while not parent.poll(0.01):
        for connection in connections:
            try:
                connection.recv_into(buffer, 0, socket.MSG_TRUNC)
            except BlockingIOError:
                continue


def _dismiss(end: Connection) -> None:
    """Let a process go. It was forked, so it has our end too, and would not see it closed."""
    with suppress(BrokenPipeError):
        end.send("leave")
    end.close()


def _wait_for_the_end(parent: Connection) -> None:
    # The sender's processes are looked at before the connections go.
    try:
        parent.recv()
    except EOFError:
        return
