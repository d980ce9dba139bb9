"""A TCP proxy whose connections a test can cut, as a network does."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from threading import Lock, Thread

__all__ = ["CuttableProxy"]

# A reset instead of an orderly end.
_AT_ONCE = struct.pack("ii", 1, 0)


class CuttableProxy:
    """Passes connections to a loopback port on to another one.

    :ivar port: the port to connect to.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = Lock()
        self._open: set[socket.socket] = set()

    def __enter__(self) -> CuttableProxy:
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would leave the thread in accept, and the port open.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection, at both ends."""
        with self._lock:
            for end in self._open:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                    end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
                end.close()
            self._open.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with self._lock:
                    self._open.add(client)
                server = socket.create_connection(("127.0.0.1", self._target))
                with self._lock:
                    self._open.add(server)
                for source, target in ((client, server), (server, client)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        # Also when the source was reset: the other end is to hear of it.
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
