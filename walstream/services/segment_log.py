"""What ``--verbose`` adds to the log: each segment that has become durable."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from walstream.formats.lsn import LSN
from walstream.interfaces import IWALSink, WALPosition

__all__ = ["SegmentLog"]


class SegmentLog:
    """Looks at a sink every second, and logs the ends of the segments that it has passed."""

    _log = Logger()

    def __init__(self, sink: IWALSink, clock: IReactorTime) -> None:
        self._sink = sink
        self._seen: WALPosition | None = None
        self._look_again = LoopingCall(self.look)
        self._look_again.clock = clock

    def start(self) -> None:
        """Look from now on; what is durable already is no news."""
        self._seen = self._sink.durable_position()
        self._look_again.start(1.0, now=False)

    def stop(self) -> None:
        """Look once more, and then no longer."""
        if self._look_again.running:
            self._look_again.stop()
            self.look()

    def look(self) -> None:
        """Log what is new."""
        identity, position = self._sink.identity, self._sink.durable_position()
        if identity is None or position is None:
            return
        seen, self._seen = self._seen, position
        size = identity.segment_size
        if seen is None or seen.timeline != position.timeline:
            # The first WAL ever, or of a timeline, begins in the segment that it is in.
            return
        for number in range(size.number(seen.lsn), size.number(position.lsn)):
            self._log.info(
                "finished segment at {lsn} (timeline {timeline})",
                lsn=str(LSN(size.start(number + 1))),
                timeline=position.timeline,
            )
