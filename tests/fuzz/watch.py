"""What has to be true of every session, whatever its peer says: it is watched while it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogBeginner, globalLogPublisher
from zope.interface import implementer

from walstream.wire.frames import FrameReader, StartupReader

__all__ = ["checked_phases", "held_bytes", "no_failure_logged", "no_timers", "quiet_log"]


def quiet_log() -> None:
    """Keep no log: Twisted would remember its last 65,536 events."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)


@implementer(ILogObserver)
class _Faults:
    """Collects what is logged of faults."""

    def __init__(self) -> None:
        self.found: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_level") is LogLevel.critical or "log_failure" in event:
            self.found.append(event)


@contextmanager
def no_failure_logged() -> Iterator[None]:
    """Nothing is logged that is a fault of ours."""
    faults = _Faults()
    globalLogPublisher.addObserver(faults)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(faults)
    for event in faults.found:
        failure = event.get("log_failure")
        if failure is not None:
            failure.raiseException()
        raise AssertionError(str(event))


@contextmanager
def checked_phases(
    session: type[Any],
    transitions: Mapping[Any, Mapping[str, Any]],
    own: Collection[tuple[str, str]],
    last: Enum | None = None,
) -> Iterator[None]:
    """Sessions of that class go from phase to phase as the table has it, or of their own accord.

    :param own: the names of phases that follow one another without a message.
    :param last: the phase that any other may lead to, and none comes after; None: there is no such.
    """
    table = {(before, after) for before, row in transitions.items() for after in row.values()}

    def read(self: Any) -> Enum:
        phase: Enum = self.__dict__["phase"]
        return phase

    def write(self: Any, phase: Enum) -> None:
        before = self.__dict__.get("phase", phase)
        is_allowed = phase is before or (
            before is not last
            and (phase is last or (before, phase) in table or (before.name, phase.name) in own)
        )
        assert is_allowed, f"from {before} to {phase}"
        self.__dict__["phase"] = phase

    setattr(session, "phase", property(read, write))  # noqa: B010 - it has no such attribute
    try:
        yield
    finally:
        del session.phase


def held_bytes(*holders: object) -> int:
    """How many bytes of incomplete messages sessions, or parts of them, keep."""
    held = 0
    for holder in holders:
        for value in vars(holder).values():
            if isinstance(value, FrameReader | StartupReader):
                held += len(value._buffer)
    return held


def no_timers(clock: Clock) -> None:
    """Nothing is left that would happen later."""
    assert clock.getDelayedCalls() == [], clock.getDelayedCalls()
