"""Where the demo shows itself: a terminal, on which the picture is drawn in place, or a stream of
lines. Knows nothing of what it shows.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol, TextIO

from walstream.demo.picture import ASCII, FANCY, Style, block, line
from walstream.demo.sample import Sample

__all__ = ["Output", "PlainScreen", "Screen", "TerminalScreen", "screen_on"]

# ECMA-48: to the start of the line so many lines up; erase to the end of the line, of the screen.
_UP, _ERASE_LINE, _ERASE_BELOW = "\x1b[{}F", "\x1b[K", "\x1b[J"

_FALLBACK_COLUMNS = 80


class Output:
    """A stream that may go away, as when a terminal is closed or ``head`` has seen enough.

    :ivar is_gone: whether it has.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_gone = False

    def write(self, text: str) -> None:
        """Write at once, if it is still there."""
        if self.is_gone:
            return
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            self.is_gone = True
            self._silence()

    def columns(self) -> int:
        """How many characters a line of the terminal has at this moment."""
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or _FALLBACK_COLUMNS
        except OSError:
            return _FALLBACK_COLUMNS

    def _silence(self) -> None:
        # What is still buffered would fail again at the interpreter's end (documentation of
        # Python's signal module, "Note on SIGPIPE").
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self.stream.fileno())


class Screen(Protocol):
    """Shows what goes on.

    :ivar interval: seconds after which to show the next sample.
    """

    interval: float

    @property
    def is_gone(self) -> bool:
        """Whether nobody can see it any more."""

    def say(self, text: str) -> None:
        """Show a text of one line or more, for good."""

    def show(self, sample: Sample, speed: float) -> None:
        """Show a sample; *speed* is that of the WAL in bytes per second."""

    def leave(self) -> None:
        """What is shown now stays."""


class PlainScreen:
    """One line after the other."""

    interval = 1.0

    def __init__(self, output: Output) -> None:
        self._output = output

    @property
    def is_gone(self) -> bool:
        """See `Screen.is_gone`."""
        return self._output.is_gone

    def say(self, text: str) -> None:
        """See `Screen.say`."""
        self._output.write(text + "\n")

    def show(self, sample: Sample, speed: float) -> None:
        """See `Screen.show`."""
        self._output.write(line(sample, speed) + "\n")

    def leave(self) -> None:
        """See `Screen.leave`."""


class TerminalScreen:
    """A picture that is drawn again in its place; what is said appears above it."""

    interval = 0.2

    def __init__(self, output: Output, style: Style) -> None:
        self._output = output
        self._style = style
        self._picture: Sequence[str] = []

    @property
    def is_gone(self) -> bool:
        """See `Screen.is_gone`."""
        return self._output.is_gone

    def say(self, text: str) -> None:
        """See `Screen.say`."""
        self._draw(text.split("\n"), self._picture)

    def show(self, sample: Sample, speed: float) -> None:
        """See `Screen.show`."""
        self._draw([], block(sample, speed, self._style))

    def leave(self) -> None:
        """See `Screen.leave`."""
        self._picture = []

    def _draw(self, above: Sequence[str], picture: Sequence[str]) -> None:
        """In one write, or it would flicker. The cursor ends up in the line below all."""
        up = _UP.format(len(self._picture)) if self._picture else ""
        # A line that wraps would be two, and the next picture in the wrong place.
        columns = self._output.columns()
        lines = [*above, *(text[:columns] for text in picture)]
        self._output.write(up + "".join(f"{text}{_ERASE_LINE}\n" for text in lines) + _ERASE_BELOW)
        self._picture = picture


def screen_on(output: Output, environment: Mapping[str, str]) -> Screen:
    """The right screen for an output."""
    if not output.stream.isatty() or environment.get("TERM", "dumb") == "dumb":
        return PlainScreen(output)
    is_unicode = (output.stream.encoding or "").lower().replace("-", "").startswith("utf")
    return TerminalScreen(output, FANCY if is_unicode else ASCII)
