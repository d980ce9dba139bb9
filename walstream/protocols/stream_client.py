"""A client that also takes streams, and that gives up a server which says nothing when asked."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from walstream.errors import Disconnected, ProtocolViolation, WalstreamError
from walstream.protocols.client import ReplicationClient
from walstream.protocols.direct import DirectReader
from walstream.protocols.direct_tls import reader_for
from walstream.protocols.login import Login
from walstream.protocols.phases import ReceiverPhase
from walstream.protocols.questions import Answer
from walstream.protocols.receiver_settings import Dialect
from walstream.protocols.silence import SilenceWatch
from walstream.wire.frames import Frame
from walstream.wire.stream import StreamReader, WALPayload

__all__ = ["StreamClient"]

T = TypeVar("T")

# Seconds that a server has to close a connection too.
_CLOSING = 5.0


class StreamClient(ReplicationClient):
    """Switches between messages and streams, as the server does.

    :param receive_timeout: seconds that a server may take to answer what it is asked, all of it; 0:
        any number. In a stream it is a subclass that listens.
    """

    def __init__(
        self, login: Login, dialect: Dialect, clock: IReactorTime, receive_timeout: float
    ) -> None:
        super().__init__(login)
        self._clock = clock
        self._closing: IDelayedCall | None = None
        self._modern = dialect is Dialect.MODERN
        self._direct: DirectReader | None = None
        self._stream: StreamReader | None = None
        self._silence = SilenceWatch(clock, receive_timeout, lambda: None, self.server_is_silent)

    def close(self, reason: WalstreamError) -> None:
        """See `ReplicationClient.close`. The server has its time for it: TLS waits for ever."""
        waits = self.encryption is not None and self.phase is not ReceiverPhase.CLOSED
        super().close(reason)
        transport: Any = self.transport
        if waits and transport.connected:
            transport.resumeProducing()  # or its answer would not be read
            self._closing = self._clock.callLater(_CLOSING, transport.abortConnection)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """The connection is gone."""
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        super().connectionLost(reason)

    # For subclasses to override.

    def received(self) -> None:
        """Something of a stream has arrived: WAL that fills a page, or a whole message."""

    def take_stream(self, stream: StreamReader, data: memoryview) -> None:
        """Take what the server sent in a stream."""

    def handle_in_stream(self, frame: Frame) -> None:
        """Do what a message in a stream asks for, or means."""

    # Asking.

    def ask(self, text: str) -> Deferred[Answer]:
        """As `query`, and no longer than a server may take to answer."""
        return self.in_time(self.query(text))

    def in_time(self, answer: Deferred[T]) -> Deferred[T]:
        """Give a server up that takes too long for *answer*, a byte a second say."""
        self._silence.start()
        return answer.addBoth(self._came_in_time)

    def _came_in_time(self, answer: T) -> T:
        self._silence.stop()
        return answer

    def server_is_silent(self) -> None:
        """Give the server up."""
        self.abort(Disconnected("the server has been silent for too long"))

    # Reading, or not.

    def pause_reading(self) -> None:
        """Read nothing more from the server for now."""
        self._producer().pauseProducing()

    def resume_reading(self) -> None:
        """Read on."""
        self._producer().resumeProducing()

    def _producer(self) -> Any:
        # A transport is a push producer of what it reads (ITCPTransport says so; ITransport not).
        return self.transport

    # Taking messages, and streams.

    def receive(self, data: memoryview) -> None:
        """Take what the server sent, from any buffer: nothing of it is kept after the call."""
        if self._stream is None:
            super().receive(data)
            return
        try:
            self.take_stream(self._stream, data)
        except WalstreamError as error:
            self.abort(error)

    def reads_frames(self) -> bool:
        """In a stream, messages are cut by a reader that keeps no WAL."""
        return super().reads_frames() and self._stream is None

    def handle(self, frame: Frame) -> None:
        """Handle one message, in a stream or outside."""
        was_streaming = self._stream is not None
        if chr(frame.kind) in "WH":
            self._enter_stream(frame)
        super().handle(frame)
        if was_streaming:
            self.handle_in_stream(frame)

    def take_frames(self) -> None:
        """Handle whole messages; what follows the beginning of a stream belongs to it."""
        super().take_frames()
        if self._stream is not None and (rest := self._reader.take_rest()):
            self.take_stream(self._stream, memoryview(rest))

    def _enter_stream(self, frame: Frame) -> None:
        if (chr(frame.kind) == "W") is not self._modern:
            raise ProtocolViolation(
                "the server answers in the other dialect: "
                f"{'CopyOutResponse' if self._modern else 'CopyBothResponse'}"
            )
        self._stream = StreamReader(WALPayload.MODERN if self._modern else WALPayload.DESIGN_2009)
        self._direct = reader_for(self.transport, self.receive)

    def leave_stream(self, stream: StreamReader) -> None:
        """The server has ended the stream: what follows is messages again."""
        self._stream = None
        if self._direct is not None:
            self._direct.detach()
            self._direct = None
        self._reader.feed(stream.take_rest())
        self.take_frames()
