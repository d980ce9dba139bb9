"""Past the transport, for gigabytes: reads into one reused buffer, writes straight from views.

Twisted's TCP transport allocates a bytes object for every read, and copies what it writes. That
costs about a third of a walreceiver's and half of a walsender's CPU time. The two classes here go
past it on a plain TCP or UNIX connection, and keep its contract to the letter:

* `DirectReader` replaces what a transport does when its socket is readable. Pausing, resuming,
  end of file and errors stay the transport's.
* `DirectWriter` sends on the socket itself, but only while the transport holds nothing of its own,
  so that whatever is written to the transport before or after stays in order. What the socket
  does not take is kept as views, and goes out before anything of the transport's does. While it
  is kept the transport's producer is paused, in the transport's own words.

TLS has a way of its own, `walstream.protocols.direct_tls`. Other transports and tests go the
ordinary way: `direct_connection` tells them apart.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet import main
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ITransport
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure

__all__ = ["DirectReader", "DirectWriter", "direct_connection"]

# What one read may bring. Measured: 1 MiB needs a tenth less CPU than 256 KiB, more gains nothing.
READ_SIZE = 1 << 20


def direct_connection(transport: ITransport | None) -> Connection | None:
    """The transport as a connection that can be read from and written to directly, else None."""
    connection: Any = transport
    if isinstance(connection, Connection) and not getattr(connection, "TLS", False):
        return connection
    return None


class DirectReader:
    """Reads a connection's socket into one buffer that is used again and again.

    :param deliver: called with a view of what was read; the view is valid until it returns.
    """

    def __init__(
        self,
        transport: Connection,
        deliver: Callable[[memoryview], None],
        read_size: int = READ_SIZE,
    ) -> None:
        self._socket: socket.socket = transport.socket
        self._deliver = deliver
        self._view = memoryview(bytearray(read_size))
        self._transport: Any = transport
        transport.doRead = self._do_read  # type: ignore[method-assign]

    def detach(self) -> None:
        """Let the transport read for itself again."""
        vars(self._transport).pop("doRead", None)

    def _do_read(self) -> ConnectionLost | ConnectionDone | None:
        # As `Connection.doRead`, which tells the reactor of a lost connection by returning it.
        try:
            size = self._socket.recv_into(self._view)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not size:
            return main.CONNECTION_DONE
        self._take(self._view[:size])
        return None

    def _take(self, received: memoryview) -> None:
        self._deliver(received)


class DirectWriter:
    """Sends views on a connection's socket, in order with what the transport writes.

    :ivar batch: how many messages are best written at a time.
    :param send_buffer: the size to give the socket's send buffer, in bytes.
    """

    # Measured: eight give nearly all of what batching can gain.
    batch = 8

    def __init__(self, transport: Connection, send_buffer: int) -> None:
        self._socket: socket.socket = transport.socket
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self._transport: Any = transport
        self._unsent: list[memoryview] = []
        self._ordinary_do_write: Callable[[], Failure | Exception | int | None] = transport.doWrite
        transport.doWrite = self._do_write  # type: ignore[method-assign]

    def may_write(self) -> bool:
        """Whether it is the time to write; if not, the producer is paused until it is."""
        if self._unsent or not self._transport_is_drained():
            self.pause_producer()
            return False
        return True

    def write(self, parts: Sequence[bytes | memoryview]) -> int:
        """Send *parts*, all of them; to be called only when `may_write` says so.

        What the socket does not take now is kept, and the producer paused until it is gone. A
        lost connection is found out by the transport, as always. The result is the bytes' number.
        """
        try:
            sent = self._socket.sendmsg(parts)
        except OSError:
            # The socket is full, or the connection is gone: `_do_write` will see which.
            sent = 0
        self._unsent = _behind(parts, sent)
        if self._unsent:
            self.pause_producer()
        return sent

    def pause_producer(self) -> None:
        """Pause the transport's producer until the socket takes more, at the next turn at least."""
        transport = self._transport
        transport.producerPaused = True
        transport.startWriting()
        if transport.producer is not None:
            transport.producer.pauseProducing()

    def _transport_is_drained(self) -> bool:
        transport = self._transport
        return not transport._tempDataLen and transport.offset == len(transport.dataBuffer)

    def _do_write(self) -> Failure | Exception | int | None:
        if self._unsent:
            try:
                sent = self._socket.sendmsg(self._unsent)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError:
                return main.CONNECTION_LOST
            self._unsent = _behind(self._unsent, sent)
            if self._unsent:
                return None
        # Nothing of ours is left. The transport writes its own, if any; once that is out too, it
        # resumes its producer, or closes if it was told to.
        return self._ordinary_do_write()


def _behind(parts: Sequence[bytes | memoryview], sent: int) -> list[memoryview]:
    """What is left of *parts* behind their first *sent* bytes."""
    rest: list[memoryview] = []
    for part in parts:
        size = len(part)
        if sent >= size:
            sent -= size
            continue
        rest.append(memoryview(part)[sent:])
        sent = 0
    return rest
