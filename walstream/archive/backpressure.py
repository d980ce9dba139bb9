"""How a sink holds back its producer, in Twisted's words."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer

__all__ = ["Backpressure"]

# So many complete segments may wait to become durable before the producer is paused, and so few
# must be left before it goes on. One would do for speed; four ride out a slow fsync.
_PAUSE_AT = 4
_RESUME_AT = 2


class Backpressure:
    """Pauses and resumes the producer by how many segments are not durable yet."""

    def __init__(self) -> None:
        self._producer: IPushProducer | None = None
        self._is_paused = False
        self._is_stopped = False

    def register(self, producer: IPushProducer, streaming: bool) -> None:
        """As `IConsumer.registerProducer`.

        :raises RuntimeError: if there is a producer already, or it is a pull producer.
        """
        if self._producer is not None:
            raise RuntimeError(f"cannot register {producer!r}: {self._producer!r} is registered")
        if not streaming:
            raise RuntimeError(f"cannot register {producer!r}: WAL comes from push producers only")
        self._producer = producer
        if self._is_stopped:
            producer.stopProducing()
        elif self._is_paused:
            producer.pauseProducing()

    def unregister(self) -> None:
        """As `IConsumer.unregisterProducer`."""
        self._producer = None

    def begin(self) -> None:
        """A new stream: the failure of the one before is over."""
        self._is_paused = self._is_stopped = False

    def unsynced(self, segments: int) -> None:
        """So many segments are complete and not yet durable."""
        if segments >= _PAUSE_AT and not self._is_paused:
            self._is_paused = True
            if self._producer is not None:
                self._producer.pauseProducing()
        elif segments <= _RESUME_AT and self._is_paused:
            self._is_paused = False
            if self._producer is not None and not self._is_stopped:
                self._producer.resumeProducing()

    def stop(self) -> None:
        """Nothing more can be taken."""
        self._is_stopped = True
        if self._producer is not None:
            self._producer.stopProducing()
