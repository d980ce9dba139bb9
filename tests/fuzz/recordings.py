"""What real clients and servers said to one another, as they said it: the files of ``corpus``.

``python -m tests.fuzz.record`` makes them. A file ``NAME.client`` has what the client sent, and
``NAME.server`` what it was answered, cut where it becomes nothing but WAL.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from walstream.wire.frames import Frame, FrameReader, StartupPacket, StartupReader

__all__ = ["CORPUS", "client_frames", "client_streams", "server_frames", "server_streams"]

CORPUS = Path(__file__).parent / "corpus"


@cache
def client_streams() -> tuple[bytes, ...]:
    """All that each client sent."""
    return tuple(path.read_bytes() for path in sorted(CORPUS.glob("*.client")))


@cache
def server_streams() -> tuple[bytes, ...]:
    """All that each server answered, as far as it was kept."""
    return tuple(path.read_bytes() for path in sorted(CORPUS.glob("*.server")))


@cache
def client_frames() -> tuple[Frame, ...]:
    """Every message that clients sent behind the startup packet, once."""
    frames: dict[Frame, None] = {}
    for stream in client_streams():
        reader = StartupReader()
        reader.feed(stream)
        while _is_request(reader.next()):
            pass
        frames |= dict.fromkeys(_frames(reader.take_rest()))
    return tuple(frames)


@cache
def server_frames() -> tuple[Frame, ...]:
    """Every message that servers sent, once."""
    frames: dict[Frame, None] = {}
    for stream in server_streams():
        frames |= dict.fromkeys(_frames(stream.removeprefix(b"N")))
    return tuple(frames)


def _is_request(packet: StartupPacket | None) -> bool:
    return packet is not None and packet.code >> 16 != 3


def _frames(stream: bytes) -> list[Frame]:
    reader = FrameReader(lambda _: 1 << 24)
    reader.feed(stream)
    frames = []
    while (frame := reader.next()) is not None:
        frames.append(frame)
    return frames
