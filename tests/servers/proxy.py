"""A TCP proxy on the loopback interface that can be cut, stalled and closed to newcomers."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Self

from walstream.embedded.configuration import free_port

__all__ = ["Proxy"]

# What one direction may hold before it stops reading.
_HELD = 1 << 20
# SO_LINGER with no time to linger: close(2) sends a reset.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections to a port, from a thread of its own, until the context is left.

    :param target: the port that it forwards to; it may have no listener at times.
    :param piece: bytes that it takes at a time.
    :ivar port: the port that it listens on.
    """

    def __init__(self, target: int, piece: int = 65536) -> None:
        self.port = free_port()
        self._target = target
        self._piece = piece
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._waker, self._woken = socket.socketpair()
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._ends: dict[socket.socket, _End] = {}
        self._is_stalled = False
        self._is_running = True
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._order(self._stop)
        self._thread.join(10)
        for connection in (self._listener, self._waker, self._woken):
            connection.close()
        self._selector.close()

    def cut(self, *, reset: bool = True) -> None:
        """End all connections, by a reset or else in order; new ones are taken."""
        self._order(lambda: self._end_all(reset))

    def stall(self) -> None:
        """Forward nothing, and close nothing: to both sides the other one has fallen silent."""
        self._order(lambda: self._set_stalled(True))

    def release(self) -> None:
        """Forward again."""
        self._order(lambda: self._set_stalled(False))

    def _order(self, order: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            order()
            done.set()

        self._orders.put(run)
        self._waker.send(b"x")
        done.wait(10)

    # In the thread.

    def _run(self) -> None:
        while self._is_running:
            for key, events in self._selector.select():
                if key.fileobj is self._woken:
                    self._woken.recv(100)
                    while not self._orders.empty():
                        self._orders.get()()
                elif key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._ends:
                    self._transfer(self._ends[key.fileobj], events)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
        except OSError:
            client.close()
            return
        one, other = _End(client), _End(server)
        one.peer, other.peer = other, one
        for end in (one, other):
            end.socket.setblocking(False)
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[end.socket] = end
            self._watch(end)

    def _transfer(self, end: _End, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                data = end.socket.recv(self._piece)
                if not data:
                    self._end(end, reset=False)
                    return
                end.peer.pending += data
            target = end.peer if events & selectors.EVENT_READ else end
            if target.pending:
                with suppress(BlockingIOError):
                    sent = target.socket.send(target.pending)
                    del target.pending[:sent]
        except OSError:
            self._end(end, reset=True)
            return
        self._watch(end)
        self._watch(end.peer)

    def _watch(self, end: _End) -> None:
        events = 0
        if not self._is_stalled:
            if len(end.peer.pending) < _HELD:
                events |= selectors.EVENT_READ
            if end.pending:
                events |= selectors.EVENT_WRITE
        if end.events == events:
            return
        if not end.events:
            self._selector.register(end.socket, events)
        elif not events:
            self._selector.unregister(end.socket)
        else:
            self._selector.modify(end.socket, events)
        end.events = events

    def _set_stalled(self, stalled: bool) -> None:
        self._is_stalled = stalled
        for end in list(self._ends.values()):
            self._watch(end)

    def _end(self, end: _End, *, reset: bool) -> None:
        for each in (end, end.peer):
            if self._ends.pop(each.socket, None) is None:
                continue
            if each.events:
                self._selector.unregister(each.socket)
            if reset:
                with suppress(OSError):
                    each.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            elif each.pending:
                with suppress(OSError):  # what the other side has said last
                    each.socket.setblocking(True)
                    each.socket.settimeout(1)
                    each.socket.sendall(each.pending)
            each.socket.close()

    def _end_all(self, reset: bool) -> None:
        for end in list(self._ends.values()):
            self._end(end, reset=reset)

    def _stop(self) -> None:
        self._is_running = False
        self._end_all(True)


class _End:
    """One of the two sockets of a connection, and what waits to be sent to it."""

    peer: _End

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.pending = bytearray()
        self.events = 0
