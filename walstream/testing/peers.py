"""The other side of a connection, scripted: a test that reads like a transcript.

::

    transport = FlowTransport()
    transport.connect(receiver)
    server = ScriptedPeer(transport, plays="server")
    server.expect_startup({"user": "postgres", "replication": "true"})
    server.send(authentication_ok(), ready_for_query())
    server.expect(query("IDENTIFY_SYSTEM"))

What does not come as the script says fails the test with the messages in words, and with what
was exchanged before. `every_cut` has the same bytes arrive in all the ways in which TCP may cut
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn, Protocol, TypeVar

from walstream.errors import ProtocolViolation
from walstream.testing.transcript import Role, describe, describe_startup
from walstream.testing.transport import FlowTransport
from walstream.wire.frames import Frame, FrameReader, StartupPacket, StartupReader
from walstream.wire.startup import PROTOCOL_3_0, parse_startup

__all__ = ["Expected", "ScriptedPeer", "every_cut"]

M = TypeVar("M")
M_co = TypeVar("M_co", covariant=True)

#: A message as it is on the wire, or what is to be true of one.
Expected = bytes | Callable[[Frame], bool]

_REMEMBERED = 12  # messages of the past that a failure shows


class _Reader(Protocol[M_co]):
    """`FrameReader` and `StartupReader`."""

    def feed(self, data: bytes) -> None: ...
    def next(self) -> M_co | None: ...
    def take_rest(self) -> bytes: ...


class ScriptedPeer:
    """Plays one side by the script, against the protocol that is connected to a transport.

    :ivar transcript: what was exchanged, in words; ``>`` is what the peer sent.
    """

    def __init__(self, transport: FlowTransport, plays: Role) -> None:
        """Play the *server* or the *client* to the protocol of *transport*."""
        self.transport = transport
        self.transcript: list[str] = []
        self._self: Role = plays
        self._other: Role = "client" if plays == "server" else "server"
        self._unread = b""

    def send(self, *messages: bytes) -> None:
        """Send each of these messages in a piece of its own."""
        for message in messages:
            self.transcript += [f"> {line}" for line in self._in_words(message, self._self)]
            self.transport.deliver(message)

    def expect(self, *expected: Expected) -> list[Frame]:
        """Read as many messages as are *expected*, each of which must be like it.

        Bytes may be several messages. A predicate that has a docstring or a name is quoted.
        """
        wanted = [each for item in expected for each in self._expectations(item)]
        found: list[Frame] = []
        for number, (is_it, words) in enumerate(wanted):
            message = self._next_frame()
            if message is None or not is_it(message):
                got = describe(message, self._other) if message is not None else self._nothing()
                self._fail(f"message {number + 1} of {len(wanted)} to be {words}", got)
            self.transcript.append(f"< {describe(message, self._other)}")
            found.append(message)
        return found

    def expect_startup(
        self, expected: Mapping[str, str] | Callable[[StartupPacket], bool]
    ) -> StartupPacket:
        """Read a startup packet: with these parameters among others, or for which it is true."""
        packet = self._next_packet()
        if packet is None:
            self._fail("a startup packet", self._nothing())
        if callable(expected):
            good, words = expected(packet), _name(expected)
        else:
            good = packet.code == PROTOCOL_3_0 and _has(parse_startup(packet.body), expected)
            words = f"StartupMessage with {dict(expected)}"
        if not good:
            self._fail(words, describe_startup(packet))
        self.transcript.append(f"< {describe_startup(packet)}")
        return packet

    def expect_bytes(self, expected: bytes) -> None:
        """Read bytes that are no message, such as the answer to an SSLRequest."""
        self._read_until(lambda: len(self._unread) >= len(expected))
        got, rest = self._unread[: len(expected)], self._unread[len(expected) :]
        if got != expected:
            self._fail(f"the bytes {expected!r}", repr(got) if got else self._nothing())
        self._unread = rest
        self.transcript.append(f"< {expected!r}")

    def expect_silence(self) -> None:
        """Nothing was written."""
        self._read_until(lambda: bool(self._unread))
        if self._unread:
            self._fail("silence", "\n    ".join(self._in_words(self._unread, self._other)))

    def expect_closed(self) -> None:
        """Nothing more was written, and the connection is closed."""
        self.expect_silence()
        if self.transport.peer_saw == "open":
            self._fail("the end of the connection", "it is open")

    # Reading.

    def _next_frame(self) -> Frame | None:
        return self._next(FrameReader(_any_length))

    def _next_packet(self) -> StartupPacket | None:
        return self._next(StartupReader())

    def _next(self, reader: _Reader[M]) -> M | None:
        reader.feed(self._unread)
        try:
            while (message := reader.next()) is None and (data := self.transport.take()):
                reader.feed(data)
        except ProtocolViolation as error:
            self._fail("a message", f"{error}: {reader.take_rest()[:60]!r}")
        self._unread = reader.take_rest()
        return message

    def _read_until(self, enough: Callable[[], bool]) -> None:
        while not enough() and (data := self.transport.take()):
            self._unread += data

    # Words.

    def _expectations(self, expected: Expected) -> Iterator[tuple[Callable[[Frame], bool], str]]:
        if callable(expected):
            yield expected, _name(expected)
            return
        messages = _frames(expected)
        if not messages:
            raise ValueError(f"{expected!r} is not a whole message")
        for message in messages:
            yield message.__eq__, describe(message, self._other)

    def _in_words(self, data: bytes, sender: Role) -> list[str]:
        if messages := _frames(data):
            return [describe(message, sender) for message in messages]
        packet = _startup(data) if sender == "client" else None
        return [repr(data[:60]) if packet is None else describe_startup(packet)]

    def _nothing(self) -> str:
        if self._unread:
            return f"the beginning of a message: {self._unread[:60]!r}"
        state = self.transport.peer_saw
        return "nothing" if state == "open" else f"nothing, and the connection's {state}"

    def _fail(self, expected: str, got: str) -> NoReturn:
        past = "\n    ".join(self.transcript[-_REMEMBERED:]) or "nothing"
        raise AssertionError(
            f"the {self._self} expected\n    {expected}\nand got\n    {got}\nafter\n    {past}"
        )


def every_cut(data: bytes) -> Iterator[tuple[bytes, ...]]:
    """Give *data* whole, in two pieces cut at each place, and byte by byte."""
    yield (data,)
    for place in range(1, len(data)):
        yield data[:place], data[place:]
    yield tuple(data[place : place + 1] for place in range(len(data)))


def _frames(data: bytes) -> list[Frame]:
    """The messages that *data* consists of; none if it does not."""
    reader = FrameReader(_any_length)
    reader.feed(data)
    messages = []
    try:
        while (message := reader.next()) is not None:
            messages.append(message)
    except ProtocolViolation:
        return []
    return [] if reader.take_rest() else messages


def _startup(data: bytes) -> StartupPacket | None:
    """The startup packet that *data* is; None if it is none."""
    reader = StartupReader()
    reader.feed(data)
    try:
        return reader.next()
    except ProtocolViolation:
        return None


def _any_length(kind: int) -> int:
    return 1 << 30


def _has(parameters: Mapping[str, str], expected: Mapping[str, str]) -> bool:
    return all(parameters.get(name) == value for name, value in expected.items())


def _name(predicate: Callable[..., bool]) -> str:
    words = predicate.__doc__ or getattr(predicate, "__name__", None) or repr(predicate)
    return words.strip().splitlines()[0]
