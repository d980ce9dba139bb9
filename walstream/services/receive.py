"""The receiving service: keeps a sink filled from an upstream, whatever happens to the connection.

It does not use `twisted.application.internet.ClientService`, whose state machine knows no
connection that is lost while it is being prepared (a login that is refused, say) and logs a
``NoTransition`` traceback for each.
"""

from __future__ import annotations

from typing import cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.errors import ArchiveError, Disconnected, SinkFailed, WalstreamError
from walstream.interfaces import IWALSink
from walstream.protocols.receiver import ReceiverSettings, StreamEnd, WALReceiver
from walstream.services.endpoint import UpstreamAddress
from walstream.services.outcome import Outcome
from walstream.services.retry import Backoff, Repetition, Verdict, verdict
from walstream.services.segment_log import SegmentLog

__all__ = ["ReceiverService"]

# Seconds that the last bytes of a connection may take once it is over.
_LAST_BYTES = 1.0


class ReceiverService(Service):
    """Connects, receives, and connects again until it is stopped or there is nothing more to do.

    May be started once.

    :param endpoint: an `UpstreamEndpoint`, or another whose addresses are `UpstreamAddress`es.
    :param sink: where the WAL goes; open, and neither opened nor closed here.
    :param retry: whether to connect again after an error (without: ``--no-loop``).
    :param grace: seconds that a stop in order may take before the connection is cut.
    :param verbose: log each finished segment.
    """

    _log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        sink: IWALSink,
        settings: ReceiverSettings,
        clock: IReactorTime,
        *,
        retry: bool = True,
        backoff: Backoff | None = None,
        grace: float = 10.0,
        verbose: bool = False,
    ) -> None:
        self._endpoint = endpoint
        self._sink = sink
        self._settings = settings
        self._clock = clock
        self._retry = retry
        self._backoff = Backoff() if backoff is None else backoff
        self._repetition = Repetition(clock)
        self._grace = grace
        self._segments = SegmentLog(sink, clock) if verbose else None
        self._outcome: Outcome[StreamEnd] = Outcome()
        self._loop: Deferred[None] | None = None
        self._receiver: WALReceiver | None = None
        self._stopping = False
        self._streaming_since: float | None = None

    def finished(self) -> Deferred[StreamEnd]:
        """Fires when receiving is over for good: the end position was reached, or it was stopped.

        :raises WalstreamError: (in the Deferred) what it gave up on: see `VERDICTS`; without
            *retry* any error.
        """
        return self._outcome.wait()

    def startService(self) -> None:
        """Connect, and keep connected."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._segments is not None:
            self._segments.start()
        self._loop = Deferred.fromCoroutine(self._run()).addBoth(self._ended)

    def stopService(self) -> Deferred[None]:
        """End the stream in order; fires when the sink has kept everything that came."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        if self._loop is None:
            return
        if self._receiver is None:
            self._loop.cancel()
        else:
            await self._close(self._receiver, self._grace)
        await self._outcome.wait().addErrback(lambda _: None)  # logged when it was set

    async def _close(self, receiver: WALReceiver, grace: float) -> None:
        """End what is not over yet, in order or, after *grace* seconds, at once."""
        try:
            await receiver.stop().addTimeout(grace, self._clock)
        except TimeoutError:
            self._log.warn(
                "the upstream did not end the connection within {seconds} s: cutting it",
                seconds=grace,
            )
            receiver.abort(Disconnected("the upstream did not end the connection in time"))

    async def _run(self) -> StreamEnd:
        failures = 0
        while True:
            try:
                return await self._receive()
            except (CancelledError, ConnectingCancelledError):
                return StreamEnd.STOPPED
            except Exception as error:
                if self._stopping and not isinstance(error, SinkFailed | ArchiveError):
                    self._log.warn("the stream did not end in order: {reason}", reason=str(error))
                    return StreamEnd.STOPPED
                if self._connection_was_good():
                    failures = 0
                    self._repetition.is_over()
                seconds = self._backoff.delay(failures)
                self._judge(error, seconds)
            failures += 1
            try:
                await deferLater(self._clock, seconds)
            except CancelledError:
                return StreamEnd.STOPPED

    async def _receive(self) -> StreamEnd:
        """Over one connection, until it is over."""
        self._streaming_since = None
        receiver = await self._connect()
        self._receiver = receiver
        try:
            receiver.streaming().addCallbacks(self._note_streaming, lambda _: None)
            return await receiver.finished
        finally:
            await self._close(receiver, _LAST_BYTES)
            self._receiver = None

    async def _connect(self) -> WALReceiver:
        factory = _ReceiverFactory(self._sink, self._settings, self._clock)
        connected: IProtocol | None = None
        try:
            connected = await self._endpoint.connect(factory)
            return cast(WALReceiver, connected)
        finally:
            for receiver in factory.built:
                if receiver is not connected:
                    # The endpoint has told why that host would not do.
                    receiver.finished.addErrback(lambda _: None)

    def _note_streaming(self, _: None) -> None:
        self._streaming_since = self._clock.seconds()

    def _connection_was_good(self) -> bool:
        """Whether there was a stream that lasted: a server that breaks off each one at once,
        since it has not the WAL, say, must not be asked ten times a second.
        """
        since = self._streaming_since
        return since is not None and self._clock.seconds() - since >= self._backoff.longest

    def _judge(self, error: Exception, seconds: float) -> None:
        """Say what happened, and raise *error* again if that was the end."""
        if not isinstance(error, WalstreamError):
            self._log.failure("receiving failed", Failure(error))
        if self._stopping or not self._retry or verdict(error) is Verdict.GIVE_UP:
            raise error
        if self._repetition.is_news(str(error)):
            self._log.error(
                "disconnected; trying again in {seconds} s: {reason}",
                seconds=round(seconds, 2),
                reason=str(error),
            )

    def _ended(self, result: StreamEnd | Failure) -> None:
        if self._segments is not None:
            self._segments.stop()
        if isinstance(result, Failure):
            self._log.error("receiving ended: {reason}", reason=result.getErrorMessage())
        self._outcome.set(result)


class _ReceiverFactory(Factory):
    """Builds the receivers of one attempt to connect, which may try several hosts."""

    noisy = False

    def __init__(self, sink: IWALSink, settings: ReceiverSettings, clock: IReactorTime) -> None:
        self.built: list[WALReceiver] = []
        self._sink = sink
        self._settings = settings
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> WALReceiver:
        address: object = addr
        if not isinstance(address, UpstreamAddress):
            raise TypeError(f"a receiver needs to know its login: {addr!r} is no UpstreamAddress")
        receiver = WALReceiver(self._sink, address.login, self._settings, self._clock)
        self.built.append(receiver)
        return receiver
