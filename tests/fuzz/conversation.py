"""A peer that does what a script says, to a session that is looked at after each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from twisted.internet.task import Clock

from tests.fuzz.script import Script
from tests.unit.conversation import NOW
from walstream.testing.transport import FlowTransport
from walstream.wire.frames import frame

__all__ = ["Conversation", "saying"]


class Conversation:
    """One connection, from its peer's side.

    :cvar times: seconds that `wait` may take.
    """

    times: ClassVar[Sequence[float]] = (0.0, 0.1, 0.5, 1.0, 5.0, 10.0, 31.0, 61.0)

    def __init__(self, script: Script) -> None:
        self._script = script
        self._clock = Clock()
        self._clock.advance(NOW)
        self._transport = FlowTransport("tcp", self._clock)
        self._ended = False

    def run(self, does: Sequence[Callable[[Any], None]]) -> None:
        """All that the script says, and then the connection is lost.

        :param does: what can be done: methods, which the script names by their numbers.
        """
        while self._script and not self._ended:
            does[self._script.number() % len(does)](self)
            self._check()
        self._close()

    def _check(self) -> None:
        """What has to be true at any time."""
        raise NotImplementedError

    def _close(self) -> None:
        """Lose the connection; and what has to be true then."""
        raise NotImplementedError

    # What any peer does.

    def say(self) -> None:
        self._transport.deliver(self._script.piece())

    def drip(self) -> None:
        for byte in self._script.piece():
            self._transport.deliver(bytes([byte]))

    def say_frame(self) -> None:
        kind = self._script.number()
        self._transport.deliver(frame(bytes([kind]), self._script.piece()))

    def wait(self) -> None:
        self._clock.advance(self.times[self._script.number() % len(self.times)])


def saying(say: bytes, data: bytes) -> bytes:
    """The script of a peer that says all of *data*.

    :param say: the number of `Conversation.say`.
    """
    pieces = (data[at : at + 255] for at in range(0, len(data), 255))
    return b"".join(say + bytes([len(piece)]) + piece for piece in pieces)
