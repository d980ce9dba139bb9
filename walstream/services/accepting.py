"""Taking connections a few at a time, so that a flood of them leaves streams their turn."""

from __future__ import annotations

from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import Port

__all__ = ["accept_few"]

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
