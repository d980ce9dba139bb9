"""What code under test says in the log, for tests that expect it to say something."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

__all__ = ["capture_log", "captured_log"]


@implementer(ILogObserver)
class _Texts:
    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        self.texts.append(formatEvent(event))


def capture_log(case: SynchronousTestCase) -> list[str]:
    """The texts of all that is logged until the test is over, as it comes."""
    observer = _Texts()
    globalLogPublisher.addObserver(observer)
    case.addCleanup(globalLogPublisher.removeObserver, observer)
    return observer.texts


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """The texts of all that is logged while the context lasts, as it comes."""
    observer = _Texts()
    globalLogPublisher.addObserver(observer)
    try:
        yield observer.texts
    finally:
        globalLogPublisher.removeObserver(observer)
