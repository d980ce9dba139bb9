"""Tests for walstream.demo.screen."""

from __future__ import annotations

import io
import os

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.test_demo_sample import SAMPLE
from walstream.demo.picture import ASCII, FANCY, block, line
from walstream.demo.screen import Output, PlainScreen, TerminalScreen, screen_on


class Terminal(io.StringIO):
    """A terminal of 80 columns: it has no descriptor to ask for another number."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown(text: str) -> list[str]:
    """The lines that a terminal shows after it was sent *text*, by the sequences that we use."""
    lines: list[str] = []
    row = 0
    for part in text.replace("\x1b[J", "\x1b[J\n").splitlines():
        rest = part
        if rest.startswith("\x1b[") and "F" in rest[:6]:
            up, rest = rest[2:].split("F", 1)
            row -= int(up)
        if rest == "\x1b[J":
            del lines[row:]
            continue
        lines[row : row + 1] = [rest.removesuffix("\x1b[K")]
        row += 1
    return lines


class PlainScreenTests(SynchronousTestCase):
    """Lines, one after the other."""

    def test_everything_is_a_line(self) -> None:
        """What is said and what is shown, as it comes, without any control sequence."""
        stream = io.StringIO()
        screen = PlainScreen(Output(stream))
        screen.say("begin")
        screen.show(SAMPLE, 0.0)
        screen.leave()
        screen.say("end")
        self.assertEqual(stream.getvalue(), f"begin\n{line(SAMPLE, 0.0)}\nend\n")


class TerminalScreenTests(SynchronousTestCase):
    """A picture in its place."""

    def setUp(self) -> None:
        self.stream = Terminal()
        self.screen = TerminalScreen(Output(self.stream), ASCII)
        self.picture = list(block(SAMPLE, 0.0, ASCII))

    def test_draws_the_picture_in_its_place(self) -> None:
        """However often it is shown, it is there once."""
        for _ in range(3):
            self.screen.show(SAMPLE, 0.0)
        self.assertEqual(shown(self.stream.getvalue()), self.picture)

    def test_says_above_the_picture(self) -> None:
        """The picture moves down, whole."""
        self.screen.say("begin")
        self.screen.show(SAMPLE, 0.0)
        self.screen.say("one\ntwo")
        self.screen.show(SAMPLE, 0.0)
        self.assertEqual(shown(self.stream.getvalue()), ["begin", "one", "two", *self.picture])

    def test_the_last_picture_can_stay(self) -> None:
        """What comes after it comes below it."""
        self.screen.show(SAMPLE, 0.0)
        self.screen.leave()
        self.screen.say("end")
        self.assertEqual(shown(self.stream.getvalue()), [*self.picture, "end"])

    def test_no_line_of_the_picture_wraps(self) -> None:
        """In a narrow terminal, lines are cut; a wrapped one would take two rows."""
        output = Output(self.stream)
        output.columns = lambda: 20  # type: ignore[method-assign]
        TerminalScreen(output, ASCII).show(SAMPLE, 0.0)
        lines = shown(self.stream.getvalue())
        self.assertEqual(lines, [text[:20] for text in self.picture])


class OutputTests(SynchronousTestCase):
    """A stream that goes away."""

    def test_a_reader_that_has_left_is_noticed_and_no_failure(self) -> None:
        """The other end of a pipe is closed: nothing is raised, now or when Python ends."""
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", encoding="utf-8") as stream:
            output = Output(stream)
            self.assertFalse(PlainScreen(output).is_gone)
            output.write("somebody there?\n")
            self.assertTrue(PlainScreen(output).is_gone)
            output.write("nobody\n")
        # Closing has flushed what was left, without an error.

    def test_knows_the_width_of_no_terminal(self) -> None:
        """A stream without a terminal, or without a descriptor, is as wide as any."""
        self.assertEqual(Output(io.StringIO()).columns(), 80)


class ScreenOnTests(SynchronousTestCase):
    """Which screen an output gets."""

    def test_a_pipe_gets_lines(self) -> None:
        """And so does a file."""
        self.assertIsInstance(screen_on(Output(io.StringIO()), {"TERM": "xterm"}), PlainScreen)

    def test_a_terminal_gets_a_picture(self) -> None:
        """In Unicode, if it takes that."""
        stream = Terminal()
        screen = screen_on(Output(stream), {"TERM": "xterm"})
        screen.show(SAMPLE, 0.0)
        self.assertEqual(shown(stream.getvalue()), list(block(SAMPLE, 0.0, FANCY)))

    def test_a_terminal_without_unicode_gets_ascii(self) -> None:
        """By the encoding of the stream."""
        stream = Terminal()
        stream.encoding = "ascii"
        screen_on(Output(stream), {"TERM": "xterm"}).show(SAMPLE, 0.0)
        self.assertTrue(stream.getvalue().isascii())

    def test_a_dumb_terminal_gets_lines(self) -> None:
        """It does not know the sequences; one without a name may not."""
        for environment in ({"TERM": "dumb"}, {}):
            self.assertIsInstance(screen_on(Output(Terminal()), environment), PlainScreen)
