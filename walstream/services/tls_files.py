"""The files of a server's TLS, read again while it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads

from walstream.archive.lane import Lane, ThreadLane

if TYPE_CHECKING:
    from walstream.tls.server import ServerTLS

__all__ = ["TLSFiles"]


class TLSFiles:
    """Has them read in a thread, since a file system may keep one waiting.

    Opened before it is told to `reload`, and closed after: see `Storage`.

    :param lane: one thread, so that of two readings the later one counts.
    """

    def __init__(self, tls: ServerTLS, lane: Lane) -> None:
        self._tls = tls
        self._lane = lane

    @classmethod
    def of(cls, tls: ServerTLS, reactor: IReactorFromThreads) -> TLSFiles:
        """With a thread of its own."""
        return cls(tls, ThreadLane(reactor, "walstream-tls"))

    def open(self) -> Deferred[None]:
        """Nothing to do: they were read when `tls` was made."""
        return succeed(None)

    def reload(self) -> Deferred[bool]:
        """See `ServerTLS.reload`."""
        return self._tls.reload(self._lane.run)

    def close(self) -> Deferred[None]:
        """Read no more; what is being read is not waited for."""
        self._lane.close()
        return succeed(None)
