"""The keys of CancelRequests: whoever has a session's may break its stream off."""

from __future__ import annotations

from secrets import token_bytes

from walstream.wire.startup import PROTOCOL_3_2

__all__ = ["new_key", "told"]

# Protocol 3.0 has keys of four bytes; from 3.2 on PostgreSQL's have 32.
_SHORT = 4
_LONG = 32


def new_key() -> bytes:
    """A key for a session of which it is not known yet which protocol it speaks."""
    return token_bytes(_LONG)


def told(key: bytes, version: int) -> bytes:
    """The key as a client of that version of the protocol is told it."""
    return key if version >= PROTOCOL_3_2 else key[:_SHORT]
