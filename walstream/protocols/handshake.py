"""A TLS handshake, which goes on when it is its turn.

A step of it is a millisecond of the only processor that Python has: a hundred clients that say
their first words at the same time would keep every stream waiting for a tenth of a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from walstream.protocols.turns import Turns

__all__ = ["Handshake"]


class Handshake:
    """Stands before the TLS of one connection until the handshake is over.

    Like `walstream.protocols.direct` it takes the place of one method, here ``dataReceived`` of
    what ``startTLS`` has put between transport and session, and keeps to what that means. While
    there is something that waits, nothing is to be read.

    :param tls: Twisted's `TLSMemoryBIOProtocol`.
    :param regulate: called when `is_waiting` has changed.
    """

    def __init__(self, tls: Any, turns: Turns, regulate: Callable[[], None]) -> None:
        self._tls = tls
        self._turns = turns
        self._regulate = regulate
        self._data = b""
        self._take: Callable[[bytes], None] | None = tls.dataReceived
        tls.dataReceived = self.received

    @property
    def is_waiting(self) -> bool:
        """Whether something of it waits for its turn."""
        return bool(self._data)

    def received(self, data: bytes) -> None:
        """Something of the handshake has come."""
        if self._data:
            self._data += data
            return
        self._data = data
        self._turns.ask(self._go_on)
        if self._data:
            self._regulate()

    def end(self) -> None:
        """It is over, or nobody wants it any more."""
        if self._take is not None:
            self._take = None
            vars(self._tls).pop("dataReceived", None)
            # In a flood most have gone before it is their turn: others are not to wait for them.
            self._turns.forget(self._go_on)

    def _go_on(self) -> None:
        data, self._data = self._data, b""
        # Before, since whoever is told what comes of it may have had enough.
        self._regulate()
        if self._take is not None:
            self._take(data)
