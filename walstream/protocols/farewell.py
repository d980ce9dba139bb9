"""Recognizing, by what it says in a stream, that a server shuts down and waits for us alone.

PostgreSQL's walsender waits, at the end of a shutdown, until the flush position that we report is
the end of all WAL, and asks for a reply after each of ours that is not (``WalSndDone``). Otherwise
it asks only when it has not heard of us for half of ``wal_sender_timeout``. So we ask for a reply
in our turn, and look at the server's own clock in both messages: whoever asks again in the very
moment in which our reply came in is waiting for another one. walstream's own sender does the same.

A network's delay changes nothing in that, nor does a timeout that was set anew meanwhile.
"""

from __future__ import annotations

__all__ = ["Farewell"]

# Microseconds that a walsender may take from one message to the next one; it takes a few. Half of a
# timeout that anybody could live with is more.
_AT_ONCE = 50_000

# How often in a row it has to happen: a clock may be set.
_ROUNDS = 2


class Farewell:
    """Follows what one server asks and answers. Times are the server's, in microseconds."""

    def __init__(self) -> None:
        self._answered: int | None = None
        self._rounds = 0

    def answers(self, time: int) -> None:
        """The server has answered a status update that asked for it."""
        self._answered = time

    def asks(self, time: int) -> bool:
        """The server asks for a reply; whether that shows that it waits to shut down."""
        answered, self._answered = self._answered, None
        if answered is not None and 0 <= time - answered <= _AT_ONCE:
            self._rounds += 1
        else:
            self._rounds = 0
        return self._rounds >= _ROUNDS
