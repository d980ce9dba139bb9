"""Past Twisted's TLS, on loopback: what is sent arrives, in order, and ends come as they should."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.abstract import FileDescriptor
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.certificates import Authority
from walstream.protocols.direct_tls import TLSReader, TLSWriter, reader_for, writer_for
from walstream.tls.server import ServerFiles, ServerTLS

running: Any = reactor

_BLOCK = bytes(range(256)) * 400
_BLOCKS = 60


@implementer(IHandshakeListener, IPushProducer)
class Sender(Protocol):
    """Writes past Twisted, and by it, in turn.

    :ivar wrote: the hash of all that it wrote.
    """

    def __init__(self, tls: ServerTLS) -> None:
        self.wrote = hashlib.sha256()
        self.left = _BLOCKS
        self.is_done = False
        self.lost: Failure | None = None
        self._tls = tls
        self._writer: Any = None
        self._is_paused = False

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.startTLS(self._tls.context)
        assert writer_for(transport, 65536) is None, "in the middle of the handshake"
        transport.registerProducer(self, True)

    def handshakeCompleted(self) -> None:
        self._writer = writer_for(self.transport, 65536)
        assert isinstance(self._writer, TLSWriter)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._is_paused = False
        while self._writer is not None and self.left and not self._is_paused:
            if not self._writer.may_write():
                return
            self.left -= 1
            head = b"block %d" % self.left
            self._writer.write([head, memoryview(_BLOCK)])
            small = b"small" * (self.left % 3)
            cast(Any, self.transport).write(small)
            for part in (head, _BLOCK, small):
                self.wrote.update(part)
        self.is_done = not self.left

    def pauseProducing(self) -> None:
        self._is_paused = True

    def stopProducing(self) -> None:
        self._is_paused = True

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost = reason


@implementer(IHandshakeListener)
class Receiver(Protocol):
    """Reads past Twisted, and stops to read now and then.

    :ivar read: the hash of all that it read.
    """

    def __init__(self) -> None:
        self.read = hashlib.sha256()
        self.size = 0
        self.lost: Failure | None = None
        self._reads = 0

    def connectionMade(self) -> None:
        cast(Any, self.transport).startTLS(CertificateOptions())

    def handshakeCompleted(self) -> None:
        assert isinstance(reader_for(self.transport, self.take), TLSReader)

    def dataReceived(self, data: bytes) -> None:
        self.take(memoryview(data))  # what came with the end of the handshake

    def take(self, data: memoryview) -> None:
        self.read.update(data)
        self.size += len(data)
        self._reads += 1
        if self._reads % 5 == 0:
            transport: Any = self.transport
            transport.pauseProducing()
            running.callLater(0.005, transport.resumeProducing)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost = reason


class Listening(Factory):
    """Makes one sender."""

    noisy = False

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def buildProtocol(self, addr: object) -> Sender:
        return self._sender


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    """Has a certificate."""
    issued = Authority(tmp_path, "authority").issue("localhost", "127.0.0.1")
    return Sender(ServerTLS(ServerFiles(issued.certificate, issued.key)))


async def between(sender: Sender, end: Callable[[Receiver], object]) -> Receiver:
    """All that the sender sends, until the receiver is lost after *end*."""
    port = running.listenTCP(0, Listening(sender), interface="127.0.0.1")
    receiver = Receiver()
    try:
        endpoint = TCP4ClientEndpoint(running, "127.0.0.1", port.getHost().port)
        await connectProtocol(endpoint, receiver)
        await until(lambda: sender.is_done)
        end(receiver)
        await until(lambda: receiver.lost is not None and sender.lost is not None)
    finally:
        await port.stopListening()
    return receiver


async def until(happened: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        await deferLater(running, 0.002)


@pytest_twisted.ensureDeferred
async def test_in_order(sender: Sender) -> None:
    """Through pauses at both ends, and small writes in between; then it is closed in order."""

    def close(_: Receiver) -> None:
        transport: Any = sender.transport
        transport.unregisterProducer()
        transport.loseConnection()

    receiver = await between(sender, close)
    assert receiver.read.hexdigest() == sender.wrote.hexdigest()
    assert receiver.lost is not None and receiver.lost.check(ConnectionDone)


@pytest_twisted.ensureDeferred
async def test_garbage(sender: Sender) -> None:
    """What is no TLS ends the connection with an error; what came before is delivered."""

    def spoil(_: Receiver) -> None:
        transport: Any = sender.transport
        transport.protocol._aggregator.flush()
        FileDescriptor.write(transport, b"\x17\x03\x03\0\x20" + b"garbage!" * 4)

    receiver = await between(sender, spoil)
    assert receiver.read.hexdigest() == sender.wrote.hexdigest()
    assert receiver.lost is not None and not receiver.lost.check(ConnectionDone)


@pytest_twisted.ensureDeferred
async def test_the_receiver_goes(sender: Sender) -> None:
    """The sender hears of it, whatever is still to be written."""
    receiver = await between(
        sender, lambda receiver: cast(Any, receiver.transport).abortConnection()
    )
    assert receiver.size <= _BLOCKS * (len(_BLOCK) + 20)
