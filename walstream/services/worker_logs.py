"""A worker's log, which is a part of its main process's: one event a line, through a pipe.

What is written to a pipe is there for the reader whatever becomes of the writer, so that the last
words of a worker that is killed are in the log as well.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from threading import Lock

from twisted.logger import (
    ILogObserver,
    InvalidLogLevelError,
    LogEvent,
    Logger,
    LogLevel,
    eventAsText,
)
from zope.interface import implementer

__all__ = ["LOG_DESCRIPTOR", "Lines", "PipeLog", "repeat_event", "repeat_output"]

#: The number under which a worker finds the pipe.
LOG_DESCRIPTOR = 4

# No line of a log is so long; what claims to be is cut.
_LONGEST_LINE = 1 << 20


@implementer(ILogObserver)
class PipeLog:
    """The observer of a worker: writes each event to a pipe before it returns, in any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = Lock()

    def __call__(self, event: LogEvent) -> None:
        """Write an event."""
        level = event.get("log_level", LogLevel.info)
        values = {
            "level": level.name,
            "namespace": event.get("log_namespace", ""),
            "text": eventAsText(event, includeTimestamp=False, includeSystem=False),
        }
        data = memoryview(json.dumps(values).encode() + b"\n")
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


class Lines:
    """Cuts what comes from a pipe into lines.

    :param take: called with each, without its end.
    """

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """More has come."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > _LONGEST_LINE:
            self.end()

    def end(self) -> None:
        """Nothing more comes."""
        rest, self._rest = self._rest, b""
        if rest:
            self._take(rest)


def repeat_event(worker: int, line: bytes) -> None:
    """Log what a worker's `PipeLog` wrote."""
    try:
        values = json.loads(line)
        level = LogLevel.lookupByName(values["level"])
        namespace, text = str(values["namespace"]), str(values["text"])
    except (ValueError, TypeError, KeyError, InvalidLogLevelError):
        repeat_output(worker, line)  # it was cut off
        return
    Logger(namespace).emit(level, "worker {worker}: {text}", worker=worker, text=text)


def repeat_output(worker: int, line: bytes) -> None:
    """Log what a worker, or Python in it, wrote to its standard output or error."""
    text = line.decode(errors="replace")
    Logger(__name__).warn("worker {worker}: {text}", worker=worker, text=text)
