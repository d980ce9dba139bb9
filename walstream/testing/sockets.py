"""The ground under `walstream.testing.transport`: a socket in memory and the turns of a reactor.

`MemorySocket` is what `twisted.internet.tcp.Connection` needs of a socket object. It has no
buffer of its own towards the peer: what the peer does not read stays in Twisted's buffer, so that
a test sees every pause and resume at a byte count that it can work out.

`Turns` is what a transport needs of a reactor: it calls ``doRead`` and ``doWrite`` as
`twisted.internet.posixbase` does, at moments that a `Clock` and the test decide. Neither knows
anything of TLS, nor of what the peer makes of the bytes.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from typing import cast

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor, IWriteDescriptor
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["DuplicateSocket", "MemorySocket", "Turns"]


class MemorySocket:
    """One end of a connection, as the kernel would show it to Twisted.

    :ivar inbox: what the peer has sent and the transport has not received.
    :ivar ended: the peer has closed its end in order.
    :ivar reset: the peer has reset the connection.
    :ivar closed: the transport has closed its end.
    :ivar taken: how many bytes the peer has read.
    """

    def __init__(self, room: Callable[[], int], absorb: Callable[[bytes], None]) -> None:
        """*room* says how many bytes the peer would read now, *absorb* is given them."""
        self._room = room
        self._absorb = absorb
        self._options: dict[tuple[int, int], int | bytes] = {}
        self.inbox = bytearray()
        self.ended = False
        self.reset = False
        self.closed = False
        self.taken = 0

    def recv(self, size: int) -> bytes:
        """Give the next bytes of the peer, or nothing after its end."""
        if self.inbox:
            data = bytes(self.inbox[:size])
            del self.inbox[:size]
            return data
        if self.reset:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        if self.ended:
            return b""
        raise BlockingIOError(errno.EWOULDBLOCK, "Resource temporarily unavailable")

    def recv_into(self, view: memoryview) -> int:
        """As `recv`, into *view*; gives the number of bytes."""
        data = self.recv(len(view))
        view[: len(data)] = data
        return len(data)

    def send(self, data: memoryview) -> int:
        """Give the peer as much as it reads now; EWOULDBLOCK when that is nothing."""
        if self.reset:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        if self.ended:
            # A closed TCP peer answers data with a reset, which only the next call notices.
            self.reset = bool(data)
            return len(data)
        taken = bytes(data[: self._room()])
        if data and not taken:
            raise BlockingIOError(errno.EWOULDBLOCK, "Resource temporarily unavailable")
        self.taken += len(taken)
        self._absorb(taken)
        return len(taken)

    def sendmsg(self, parts: Iterable[bytes | memoryview]) -> int:
        """As `send`, of several pieces."""
        return self.send(memoryview(b"".join(parts)))

    def dup(self) -> DuplicateSocket:
        """Give another descriptor of the same connection."""
        return DuplicateSocket(self)

    @property
    def readable(self) -> bool:
        """Whether `recv` has something to tell: bytes, the end, or a reset."""
        return bool(self.inbox) or self.ended or self.reset

    @property
    def writable(self) -> bool:
        """Whether `send` would take a byte."""
        return self.ended or self._room() > 0

    @property
    def aborted(self) -> bool:
        """Whether the transport closed its end with a reset, which Twisted asks of SO_LINGER."""
        return self.closed and (socket.SOL_SOCKET, socket.SO_LINGER) in self._options

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """Remember an option."""
        self._options[level, option] = value

    def getsockopt(self, level: int, option: int) -> int | bytes:
        """Give the remembered value of an option; 0 for one that was never set."""
        return self._options.get((level, option), 0)

    def setblocking(self, flag: bool) -> None:
        """Nothing ever blocks here."""

    def fileno(self) -> int:
        """No descriptor of the operating system belongs to it."""
        return -1

    def shutdown(self, how: int) -> None:
        """Twisted calls it before `close` when it closes in order."""

    def close(self) -> None:
        """Let go of the connection."""
        self.closed = True


class DuplicateSocket:
    """A second descriptor of a connection; to close it is not the end of the connection.

    :ivar closed: whether this descriptor is closed.
    """

    def __init__(self, memory: MemorySocket) -> None:
        self.closed = False
        self._socket = memory

    def send(self, data: bytes) -> int:
        """As `MemorySocket.send`."""
        if self.closed:
            raise OSError(errno.EBADF, "Bad file descriptor")
        return self._socket.send(memoryview(data))

    def close(self) -> None:
        """Close this descriptor only."""
        self.closed = True


class Turns:
    """What a descriptor uses of a reactor; its turns happen in `run`, or when the clock moves.

    :ivar unsent: gives what the descriptor still has to write.
    :ivar drained: called whenever that has become nothing.
    """

    _log = Logger()

    def __init__(self, clock: Clock, connection: MemorySocket) -> None:
        self._clock = clock
        self._socket = connection
        self._reader: IReadDescriptor | None = None
        self._writer: IWriteDescriptor | None = None
        self._scheduled: IDelayedCall | None = None
        self._running = False
        self._in_vain = False
        self._is_deaf = False
        self.callLater = clock.callLater  # which abortConnection calls
        self.unsent: Callable[[], bytes] = lambda: b""
        self.drained: Callable[[], None] = lambda: None

    def addReader(self, reader: IReadDescriptor) -> None:
        """Call ``doRead`` when the socket is readable."""
        self._reader = reader
        self.schedule()

    def addWriter(self, writer: IWriteDescriptor) -> None:
        """Call ``doWrite`` when the socket is writable, and once in any case."""
        self._writer = writer
        self._in_vain = self._is_deaf = False
        self.schedule()

    def removeReader(self, reader: IReadDescriptor) -> None:
        """Call ``doRead`` no more."""
        self._reader = None

    def removeWriter(self, writer: IWriteDescriptor) -> None:
        """Call ``doWrite`` no more, which Twisted asks for when it has nothing left to write."""
        self._writer = None
        self.drained()

    def schedule(self) -> None:
        """Have a turn as soon as the clock moves, if there is anything to do in it."""
        if self._scheduled is None and not self._running and self._next() is not None:
            self._scheduled = self._clock.callLater(0, self.run)

    def run(self) -> None:
        """Take turns until nothing is ready."""
        if self._running:
            return
        if self._scheduled is not None and self._scheduled.active():
            self._scheduled.cancel()
        self._scheduled = None
        self._running = True
        try:
            while (event := self._next()) is not None:
                event()
        finally:
            self._running = False

    def _next(self) -> Callable[[], None] | None:
        reader, writer = self._reader, self._writer
        if getattr(reader or writer, "_aborting", False):
            # Twisted's abortConnection: nothing is read or written any more, until the reactor's
            # next turn, which ends the connection. Here that is when the clock moves.
            return None
        if reader is not None and self._socket.readable:
            return lambda: self._do(reader, reader.doRead)
        if writer is not None and self._socket.reset:
            # epoll reports a reset to whoever is registered, before anything is written.
            return lambda: self._lose(writer, ConnectionLost())
        if self._is_deaf:
            return None
        if writer is not None and (self._socket.writable or self._has_nothing_to_send()):
            return lambda: self._write(writer)
        return None

    def _has_nothing_to_send(self) -> bool:
        # A real socket that is full would not be writable, but most that are empty are: so a
        # transport without data learns at once that it may close.
        return not self.unsent() and not self._in_vain

    def _write(self, writer: IWriteDescriptor) -> None:
        # One that is still registered afterwards has data of which `unsent` knows nothing.
        self._in_vain = not self._socket.writable
        before = self._socket.taken, self.unsent()
        self._do(writer, writer.doWrite)
        # An aborted transport does nothing any more, but may be registered until the clock moves.
        after = self._socket.taken, self.unsent()
        self._is_deaf = after == before != (before[0], b"") and not self._socket.reset

    def _do(
        self, descriptor: IReadDescriptor | IWriteDescriptor, event: Callable[[], object]
    ) -> None:
        # As Twisted: whatever an application lets out is logged, and costs the connection.
        try:
            why = cast("Exception | None", event())
        except Exception as error:
            self._log.failure("Unhandled error in the protocol of an in-memory transport")
            why = error
        if why is not None:
            self._lose(descriptor, why)

    def _lose(self, descriptor: IReadDescriptor | IWriteDescriptor, why: Exception) -> None:
        self._reader = self._writer = None
        with self._log.failuresHandled("Unhandled error while a connection was lost"):
            descriptor.connectionLost(Failure(why))
