"""A worker's channel in memory, for the tests of what goes through it."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure

from walstream.services.worker_channel import Channel

__all__ = ["ChannelPair"]


class _End:
    """The transport of one end: what was written waits until the test has it delivered."""

    disconnecting = False

    def __init__(self) -> None:
        self.written = b""
        self.descriptors: list[int] = []
        self.producer: IPushProducer | None = None
        self.is_closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def sendFileDescriptor(self, descriptor: int) -> None:  # noqa: N802
        self.descriptors.append(descriptor)

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def loseConnection(self) -> None:
        self.is_closing = True

    def abortConnection(self) -> None:
        self.is_closing = True


class ChannelPair:
    """Two ends, and what is on its way between them. Descriptors pass as the numbers they are."""

    def __init__(self, main: Channel, worker: Channel) -> None:
        self.ends = [(main, _End()), (worker, _End())]
        for channel, transport in self.ends:
            channel.makeConnection(transport)

    @property
    def worker_transport(self) -> _End:
        """The worker's."""
        return self.ends[1][1]

    def on_its_way(self, end: int) -> bytes:
        """What the main process (0) or the worker (1) has sent, and has not been delivered."""
        return self.ends[end][1].written

    def deliver(self) -> None:
        """Deliver all that is on its way, and what is answered to it."""
        while any(transport.written for _, transport in self.ends):
            for (_, source), (target, _) in zip(self.ends, reversed(self.ends), strict=True):
                written, source.written = source.written, b""
                descriptors, source.descriptors = source.descriptors, []
                for descriptor in descriptors:
                    receiver: Any = target
                    receiver.fileDescriptorReceived(descriptor)
                if written:
                    target.dataReceived(written)

    def cut(self) -> None:
        """Both ends see that the other one is gone; what was on its way is lost."""
        for channel, _ in self.ends:
            if channel.is_open:
                channel.connectionLost(Failure(ConnectionDone()))
