"""A flood of clients that mean no good: ``python -m tests.servers.flood PORT SECONDS``.

Prints how many connections it made. A process of its own, so that it slows nobody who measures.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import socket
import sys
import time
from collections import deque
from typing import Final

from walstream.wire.messages import query
from walstream.wire.startup import SSL_REQUEST_CODE, startup_message

# So many of its connections are open at a time: the oldest are let go of then.
_OPEN: Final = 2000
_LOGIN: Final = startup_message({"user": "flood", "replication": "true"})
_SSL: Final = (8).to_bytes(4, "big") + SSL_REQUEST_CODE.to_bytes(4, "big")


class Flood:
    """Makes connections as fast as it can, and does with each what its kind does.

    :ivar made: how many it has made.
    """

    def __init__(self, port: int) -> None:
        self.made = 0
        self._port = port
        self._random = random.Random(1)
        self._open: deque[tuple[socket.socket, bytes]] = deque()

    def go(self, seconds: float) -> None:
        """For that long."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * _OPEN), hard))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._connect()
            self._drip()

    def _connect(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        if connection.connect_ex(("127.0.0.1", self._port)) not in (0, errno.EINPROGRESS):
            connection.close()
            return
        self.made += 1
        says = self._random.choice(
            (
                b"",  # waits
                _LOGIN[:20],  # begins, and waits
                _LOGIN,  # is let in, and waits
                _LOGIN + query("SHOW ALL") * 1000,  # never reads
                _LOGIN + b"Q\0\1\0\0",  # begins a query
                _SSL * 2,
                self._random.randbytes(100),
                b"GET / HTTP/1.1\r\n\r\n",
            )
        )
        _send(connection, says)
        self._open.append((connection, says))
        while len(self._open) >= min(_OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 50):
            self._open.popleft()[0].close()

    def _drip(self) -> None:
        """A byte here and there."""
        for _ in range(5):
            connection, _ = self._random.choice(self._open) if self._open else (None, b"")
            if connection is not None:
                _send(connection, b"\0")


def _send(connection: socket.socket, data: bytes) -> None:
    try:
        connection.send(data)
    except OSError:
        return  # not connected yet, or not any more


def main() -> None:
    """Flood."""
    os.nice(5)
    flood = Flood(int(sys.argv[1]))
    flood.go(float(sys.argv[2]))
    print(flood.made)


if __name__ == "__main__":
    main()
