"""Taking connections a few at a time, so that a flood of them leaves streams their turn.

And none at all while there are enough that nobody has looked after yet: the kernel keeps them.
"""

from __future__ import annotations

from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import Port

__all__ = ["Inlet", "accept_few"]

# In one turn of the reactor. Twisted begins with a hundred and takes 20 more in each turn in which
# there were enough; two thousand a second kept a standby waiting for most of a second.
_FEW = 20


def accept_few(port: IListeningPort) -> None:
    """Have *port* take few connections in one turn, whatever it would do by itself."""
    if not isinstance(port, Port):
        return  # a test's, or of a kind of its own
    kind = type(port)
    few = property(lambda self: _FEW, lambda self, number: None)
    port.__class__ = type(kind.__name__, (kind,), {"numberAccepts": few})


class Inlet:
    """The ports that connections come from: closed for a while, and opened again."""

    def __init__(self) -> None:
        self._closed: set[Port] = set()

    def close_behind(self, connection: object) -> None:
        """Accept no more where *connection* came from; in this turn some may still come."""
        port = getattr(connection, "server", None)
        if isinstance(port, Port) and port not in self._closed:
            self._closed.add(port)
            port.stopReading()

    def open(self) -> None:
        """Accept what has come meanwhile."""
        while self._closed:
            port = self._closed.pop()
            if port.connected and not port.disconnecting:
                port.startReading()
