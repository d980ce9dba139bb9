"""Where the log goes while the demo has the terminal: to a file, and what matters to the screen.

``twistd -n`` logs to standard output, where log lines would tear the picture.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, cast

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    eventAsText,
    textFileLogObserver,
)

__all__ = ["DemoLog", "HeldOutput"]


class HeldOutput:
    """Stands in for standard output when twistd looks for a place to log to.

    What is written is held until the demo takes the log over, and then dropped. If that never
    comes, since twistd fails before (it can't write its pidfile, say), it is shown at the end.
    """

    def __init__(
        self, stream: TextIO, at_exit: Callable[[Callable[[], None]], object] = atexit.register
    ) -> None:
        self._stream = stream
        self._held: list[str] | None = []
        at_exit(self.release)

    def write(self, text: str) -> int:
        """As a text stream's."""
        if self._held is not None:
            self._held.append(text)
        return len(text)

    def flush(self) -> None:
        """As a text stream's."""

    def isatty(self) -> bool:
        """It is none."""
        return False

    def drop(self) -> None:
        """Whatever was written, and will be, is not wanted."""
        self._held = None

    def release(self) -> None:
        """Show what is still held."""
        if self._held:
            self._stream.write("".join(self._held))
            self._stream.flush()
        self._held = None


class DemoLog:
    """Writes the log to a file, and says warnings and errors aloud.

    :param publisher: where log events come from.
    :param held: told to drop what twistd logs by its own means.
    """

    def __init__(self, publisher: LogPublisher, held: HeldOutput) -> None:
        self._publisher = publisher
        self._held = held
        self._file: TextIO | None = None
        self._observers: list[ILogObserver] = []

    def begin(self, say: Callable[[str], None]) -> None:
        """Say warnings and errors from now on."""
        self._held.drop()

        def observe(event: LogEvent) -> None:
            if text := eventAsText(event, includeTimestamp=False, includeSystem=False):
                say(text)

        warnings = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
        self._add(FilteringLogObserver(cast(ILogObserver, observe), [warnings]))

    def write_to(self, path: Path) -> None:
        """Write everything to a new file from now on."""
        self._file = path.open("w", encoding="utf-8")
        self._add(textFileLogObserver(self._file))

    def end(self) -> None:
        """Close the file, and say no more."""
        while self._observers:
            self._publisher.removeObserver(self._observers.pop())
        if self._file is not None:
            self._file.close()

    def _add(self, observer: ILogObserver) -> None:
        self._observers.append(observer)
        self._publisher.addObserver(observer)
