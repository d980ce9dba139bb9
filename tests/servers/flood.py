"""A flood of clients that mean no good: ``python -m tests.servers.flood PORT SECONDS LEAST [tls]``.

It floods for so long, and until it has made so many connections, and prints how many these were. A
process of its own, so that it slows nobody who measures.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from walstream.wire.messages import query
from walstream.wire.startup import SSL_REQUEST_CODE, startup_message

# So many of its connections are open at a time: the oldest are let go of then.
_OPEN: Final = 2000
# So many of the last ones are gone on with: who is let in at all answers at once.
_YOUNG: Final = 40
# Seconds that it takes longer at most: nobody may be there any more.
_PATIENCE: Final = 60.0
_LOGIN: Final = startup_message({"user": "flood", "replication": "true"})
_SSL: Final = (8).to_bytes(4, "big") + SSL_REQUEST_CODE.to_bytes(4, "big")

# What clients say at once; some of them go on with zeros, a byte here and there.
_WORDS: Final = (
    b"",  # waits
    _LOGIN[:20],  # begins, and waits
    _LOGIN,  # is let in, and waits
    _LOGIN + query("SHOW ALL") * 1000,  # never reads
    _LOGIN + b"Q\0\1\0\0",  # begins a query
    _SSL * 2,
    b"GET / HTTP/1.1\r\n\r\n",
)


class _Client:
    """One that says something at once, and zeros after it."""

    def __init__(self, words: bytes) -> None:
        self.connection = socket.socket()
        self.connection.setblocking(False)
        self._words = words

    def connect(self, port: int) -> bool:
        """Begin; whether that can be."""
        connecting = self.connection.connect_ex(("127.0.0.1", port))
        return connecting in (0, errno.EINPROGRESS)

    def begin(self) -> None:
        """Say the first words."""
        self.send(self._words)

    def go_on(self) -> None:
        """A byte more."""
        self.send(b"\0")

    def send(self, data: bytes) -> None:
        """Say *data*, as far as it is taken."""
        with suppress(OSError):
            self.connection.send(data)  # or it is not connected yet, or not any more


class _TLSClient(_Client):
    """One that comes by TLS, and stops in the middle of it, or behind it.

    :param direct: begins with TLS; otherwise asks for it.
    :param most: so many bytes of each flight of its own are sent.
    :param words: what it says when it is through.
    """

    def __init__(self, words: bytes, *, direct: bool, most: int = 1 << 20) -> None:
        super().__init__(words)
        self._most = most
        self._direct = direct
        self._is_through = self._has_begun = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _CONTEXT.wrap_bio(self._incoming, self._outgoing)

    def begin(self) -> None:
        """Ask for it, or begin."""
        if self._direct:
            self._step()
        else:
            self.send(_SSL)

    def go_on(self) -> None:
        """A step of the handshake, if the server has answered."""
        with suppress(OSError):
            while data := self.connection.recv(65536):
                if not self._has_begun and not self._direct:
                    data = data[1:]
                self._incoming.write(data)
                self._step()

    def _step(self) -> None:
        self._has_begun = True
        with suppress(ssl.SSLError):
            if not self._is_through:
                self._tls.do_handshake()
                self._is_through = True
                self._tls.write(self._words)
        self.send(self._outgoing.read()[: self._most])


_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CONTEXT.check_hostname = False
_CONTEXT.verify_mode = ssl.CERT_NONE
_CONTEXT.set_alpn_protocols(["postgresql"])


def _hello() -> bytes:
    """The first words of a client that begins with TLS."""
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        _CONTEXT.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    return outgoing.read()


class Flood:
    """Makes connections as fast as it can, and does with each what its kind does.

    :ivar made: how many it has made.
    """

    def __init__(self, port: int, *, tls: bool) -> None:
        self.made = 0
        self._port = port
        self._random = random.Random(1)
        self._open: deque[_Client] = deque()
        self._kinds: list[Callable[[], _Client]] = [
            lambda: _Client(self._random.choice((*_WORDS, self._random.randbytes(100))))
        ]
        if tls:
            hello = _hello()
            self._kinds += [
                lambda: _Client(hello),  # has the server work, and does nothing by itself
                lambda: _Client(hello[: self._random.randrange(len(hello))]),
                lambda: _TLSClient(_LOGIN, direct=True, most=self._random.choice((1, 5, 200))),
                lambda: _TLSClient(_LOGIN, direct=False, most=self._random.choice((1, 5, 200))),
                lambda: _TLSClient(self._random.choice(_WORDS), direct=True),
                lambda: _TLSClient(self._random.choice(_WORDS), direct=False),
            ]

    def go(self, seconds: float, least: int) -> None:
        """For that long, and until it has made so many, if it can make them at all."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * _OPEN), hard))
        end = time.monotonic() + seconds
        while time.monotonic() < (end if self.made >= least else end + _PATIENCE):
            self._connect()
            for _ in range(5):
                self._go_on()

    def _connect(self) -> None:
        client = self._random.choice(self._kinds)()
        if not client.connect(self._port):
            client.connection.close()
            return
        self.made += 1
        client.begin()
        self._open.append(client)
        while len(self._open) >= min(_OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 50):
            self._open.popleft().connection.close()

    def _go_on(self) -> None:
        if not self._open:
            return
        young = self._random.random() < 0.5
        number = self._random.randrange(min(_YOUNG, len(self._open)) if young else len(self._open))
        self._open[-1 - number].go_on()


def main() -> None:
    """Flood."""
    os.nice(5)
    flood = Flood(int(sys.argv[1]), tls="tls" in sys.argv[4:])
    flood.go(float(sys.argv[2]), int(sys.argv[3]))
    print(flood.made)


if __name__ == "__main__":
    main()
