"""How far a receiver is, for whoever wants to look."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ReceiverProgress"]


@dataclass(frozen=True, slots=True)
class ReceiverProgress:
    """How far one stream of a receiver is. Byte positions; 0 for what is not known.

    :ivar server_end: how far the server has WAL to send, by its own last word.
    :ivar write: what was last reported as written.
    :ivar flush: what was last reported as durable.
    :ivar apply: what was last reported as applied.
    :ivar silence: seconds since anything was last heard of the server.
    """

    server_end: int
    write: int
    flush: int
    apply: int
    silence: float
