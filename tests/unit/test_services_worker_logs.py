"""Tests for walstream.services.worker_logs: a worker's log in its main process's."""

from __future__ import annotations

import os
from typing import cast

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    globalLogPublisher,
)
from twisted.trial.unittest import SynchronousTestCase

from walstream.services.worker_logs import Lines, PipeLog, repeat_event, repeat_output


class WorkerLogTests(SynchronousTestCase):
    """From a logger in the worker to an observer in the main process."""

    def setUp(self) -> None:
        self.reading, writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.writing = os.fdopen(writing, "wb", buffering=0)
        self.addCleanup(self.writing.close)
        observer = LogPublisher(PipeLog(writing))
        self.log = Logger("walstream.some.module", observer=observer)
        self.events: list[LogEvent] = []
        observe = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def heard(self) -> list[tuple[LogLevel, str, str]]:
        """What arrives of all that was logged."""
        lines = Lines(lambda line: repeat_event(2, line))
        lines.feed(os.read(self.reading, 1 << 16))
        lines.end()
        return [
            (e["log_level"], e["log_namespace"], e["log_format"].format(**e)) for e in self.events
        ]

    def test_an_event(self) -> None:
        """It has its level and its namespace, and says whose it is."""
        self.log.info("hello {name}", name="wörld {x}")
        self.log.warn("two\nlines")
        namespace = "walstream.some.module"
        self.assertEqual(
            self.heard(),
            [
                (LogLevel.info, namespace, "worker 2: hello wörld {x}"),
                (LogLevel.warn, namespace, "worker 2: two\nlines"),
            ],
        )

    def test_a_failure(self) -> None:
        """With its traceback."""
        try:
            raise ZeroDivisionError("for the test")
        except ZeroDivisionError:
            self.log.failure("it failed")
        ((level, _, text),) = self.heard()
        self.assertIs(level, LogLevel.critical)
        self.assertIn("worker 2: it failed\nTraceback (most recent call last)", text)
        self.assertIn("ZeroDivisionError: for the test", text)

    def test_what_is_no_event(self) -> None:
        """The last line of a worker that was killed may be half a line."""
        self.log.info("whole")
        self.writing.write(b'{"level": "info", "names')
        self.assertEqual(
            [text for _, _, text in self.heard()],
            ["worker 2: whole", 'worker 2: {"level": "info", "names'],
        )

    def test_output(self) -> None:
        """What Python itself says, when it cannot go on for one."""
        repeat_output(1, b"Fatal Python error: \xff")
        self.assertEqual(
            [event["log_format"].format(**event) for event in self.events],
            ["worker 1: Fatal Python error: �"],
        )

    def test_nobody_reads(self) -> None:
        """To log is no error then."""
        os.close(self.reading)
        try:
            self.log.info("hello")
        finally:
            self.reading = os.open(os.devnull, os.O_RDONLY)


class LinesTests(SynchronousTestCase):
    """`Lines`."""

    def test_lines(self) -> None:
        """However they are cut."""
        heard: list[bytes] = []
        lines = Lines(heard.append)
        for piece in (b"on", b"e\ntwo\n\nth", b"ree"):
            lines.feed(piece)
        self.assertEqual(heard, [b"one", b"two", b""])
        lines.end()
        lines.end()
        self.assertEqual(heard[3:], [b"three"])

    def test_a_line_without_an_end(self) -> None:
        """It costs a bounded amount of memory."""
        heard: list[bytes] = []
        lines = Lines(heard.append)
        for _ in range(40):
            lines.feed(b"x" * (1 << 16))
        self.assertTrue(heard)
        self.assertLess(max(map(len, heard)), 2 << 20)
