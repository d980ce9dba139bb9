"""The receiving service: keeps a sink filled from an upstream, whatever happens to the connection.

It does not use `twisted.application.internet.ClientService`, whose state machine knows no
connection that is lost while it is being prepared (a login that is refused, say) and logs a
``NoTransition`` traceback for each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import (
    IAddress,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from walstream.errors import (
    ArchiveError,
    Disconnected,
    ServerError,
    SinkFailed,
    UpstreamRefused,
    WalstreamError,
)
from walstream.interfaces import IWALSink
from walstream.protocols.downstream import NOBODY, Downstream
from walstream.protocols.progress import ReceiverProgress
from walstream.protocols.receiver import Dialect, ReceiverSettings, StreamEnd, WALReceiver
from walstream.protocols.synchronous import SynchronousDuty
from walstream.services.endpoint import UpstreamAddress
from walstream.services.loop_watch import LoopWatch
from walstream.services.outcome import Outcome
from walstream.services.retry import Backoff, Repetition, Verdict, verdict
from walstream.services.segment_log import SegmentLog
from walstream.services.synchronous_watch import Inquiry, SynchronousWatch
from walstream.services.upstream_record import UpstreamRecord

__all__ = ["ReceiverService"]

# Seconds that the last bytes of a connection may take once it is over.
_LAST_BYTES = 1.0


def _nothing() -> Deferred[None]:
    return succeed(None)


class ReceiverService(Service):
    """Connects, receives, and connects again until it is stopped or there is nothing more to do.

    May be started once.

    :ivar record: what became of the connection.
    :param endpoint: an `UpstreamEndpoint`, or another whose addresses are `UpstreamAddress`es.
    :param sink: where the WAL goes; open, and neither opened nor closed here.
    :param inquiry: asks the server, while it streams, what it demands of its standbys; None: it
        is asked at each connect only.
    :param retry: whether to connect again after an error (without: ``--no-loop``).
    :param grace: seconds that a stop in order may take before the connection is cut.
    :param verbose: log each finished segment.
    :param loop_watch: is told from whom the WAL comes.
    :param prepare: done before each attempt to connect; what it raises is the attempt's failure.
    :ivar downstream: for whom the WAL is received besides: what they have, and what they need.
    """

    _log = Logger()

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        sink: IWALSink,
        settings: ReceiverSettings,
        clock: IReactorTime,
        *,
        inquiry: Inquiry | None = None,
        retry: bool = True,
        backoff: Backoff | None = None,
        grace: float = 10.0,
        verbose: bool = False,
        loop_watch: LoopWatch | None = None,
        downstream: Downstream = NOBODY,
        prepare: Callable[[], Deferred[None]] = _nothing,
    ) -> None:
        self.record = UpstreamRecord(settings.wall_clock or clock.seconds)
        self._endpoint = endpoint
        self._sink = sink
        self._settings = settings
        self._clock = clock
        self._duty = SynchronousDuty(settings, downstream.applied)
        self.downstream = downstream
        self._watch: SynchronousWatch | None = None
        if inquiry is not None and settings.dialect is Dialect.MODERN:
            self._watch = SynchronousWatch(inquiry, clock, settings.synchronous_check)
        self._retry = retry
        self._backoff = Backoff() if backoff is None else backoff
        self._repetition = Repetition(clock)
        self._grace = grace
        self._segments = SegmentLog(sink, clock) if verbose else None
        self._loop_watch = loop_watch
        self._prepare = prepare
        self._outcome: Outcome[StreamEnd] = Outcome()
        self._loop: Deferred[None] | None = None
        self._receiver: WALReceiver | None = None
        self._stopping = False
        self._streaming_since: float | None = None

    @property
    def progress(self) -> ReceiverProgress | None:
        """How far the stream is; None while there is none."""
        return None if self._receiver is None else self._receiver.progress

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
                if self._streamed_for(self._backoff.longest):
                    failures = 0
                    self._repetition.is_over()
                seconds = self._backoff.delay(failures)
                if self._was_cut_off(error):
                    seconds = 0.0  # commits may be waiting for us
                self._judge(error, seconds)
            failures += 1
            try:
                await deferLater(self._clock, seconds)
            except CancelledError:
                return StreamEnd.STOPPED

    async def _receive(self) -> StreamEnd:
        """Over one connection, until it is over."""
        self._streaming_since = None
        self.record.connecting()
        await self._prepare()
        receiver, address = await self._connect()
        self.record.connects(str(address.host))
        self._receiver = receiver
        try:
            streaming = receiver.streaming()
            streaming.addCallbacks(self._note_streaming, lambda _: None, (receiver, address))
            return await receiver.finished
        except UpstreamRefused:
            # It will be so next time, while another host may have what continues our WAL.
            address.pass_over()
            raise
        finally:
            if self._watch is not None:
                self._watch.stop()
            if self._loop_watch is not None:
                self._loop_watch.disconnected()
            await self._close(receiver, _LAST_BYTES)
            self._receiver = None

    async def _connect(self) -> tuple[WALReceiver, UpstreamAddress]:
        factory = _ReceiverFactory(
            self._sink, self._settings, self._clock, self._duty, self.downstream
        )
        connected: WALReceiver | None = None
        try:
            connected = cast(WALReceiver, await self._endpoint.connect(factory))
            return connected, factory.built[connected]
        finally:
            for receiver in factory.built:
                if receiver is not connected:
                    # The endpoint has told why that host would not do.
                    receiver.finished.addErrback(lambda _: None)

    def _note_streaming(self, _: None, receiver: WALReceiver, address: UpstreamAddress) -> None:
        self._streaming_since = self._clock.seconds()
        self.record.streams()
        if self._watch is not None and self._duty.depends_on_demands:
            self._watch.start(address.host, receiver.learn)
        if self._loop_watch is not None:
            host = getattr(receiver.transport and receiver.transport.getPeer(), "host", None)
            self._loop_watch.connected(str(address.host), host, receiver.parameters)

    def _streamed_for(self, seconds: float) -> bool:
        """Whether there was a stream that lasted: a server that breaks off each one at once,
        since it has not the WAL, say, must not be asked ten times a second.
        """
        since = self._streaming_since
        return since is not None and self._clock.seconds() - since >= seconds

    def _was_cut_off(self, error: Exception) -> bool:
        """Whether a good connection has ended, and not by our own fault."""
        is_theirs = isinstance(error, Disconnected | ServerError)
        return is_theirs and self._streamed_for(self._backoff.settled)

    def _judge(self, error: Exception, seconds: float) -> None:
        """Say what happened, and raise *error* again if that was the end."""
        if not isinstance(error, WalstreamError):
            self._log.failure("receiving failed", Failure(error))
        if self._stopping or not self._retry or verdict(error) is Verdict.GIVE_UP:
            raise error
        self.record.waits(str(error), seconds)
        if self._repetition.is_news(str(error)):
            self._log.error(
                "disconnected; trying again in {seconds} s: {reason}",
                seconds=round(seconds, 2),
                reason=str(error),
            )

    def _ended(self, result: StreamEnd | Failure) -> None:
        if self._segments is not None:
            self._segments.stop()
        error = result.getErrorMessage() if isinstance(result, Failure) else None
        self.record.stops(error)
        if error is not None:
            self._log.error("receiving ended: {reason}", reason=error)
        self._outcome.set(result)


class _ReceiverFactory(Factory):
    """Builds the receivers of one attempt to connect, which may try several hosts."""

    noisy = False

    def __init__(
        self,
        sink: IWALSink,
        settings: ReceiverSettings,
        clock: IReactorTime,
        duty: SynchronousDuty,
        downstream: Downstream,
    ) -> None:
        self.built: dict[WALReceiver, UpstreamAddress] = {}
        self._sink = sink
        self._settings = settings
        self._clock = clock
        self._duty = duty
        self._downstream = downstream

    def buildProtocol(self, addr: IAddress | None) -> WALReceiver:
        address: object = addr
        if not isinstance(address, UpstreamAddress):
            raise TypeError(f"a receiver needs to know its login: {addr!r} is no UpstreamAddress")
        receiver = WALReceiver(
            self._sink, address.login, self._settings, self._clock, self._duty, self._downstream
        )
        self.built[receiver] = address
        return receiver
