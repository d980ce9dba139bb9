"""Who connects to a control socket: accepted, told one document, and seen off."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPullProducer,
    IReactorTime,
    IReadDescriptor,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["ControlFactory", "ControlPort"]

# Seconds that a reader may take for a document: nobody needs more, and its pieces are kept.
_PATIENCE: Final = 10.0
# Readers at a time. More are turned away, and `walstream status` asks again.
_MOST_READERS: Final = 8
# Seconds that no connection is accepted after the process had no descriptor for one.
_REST: Final = 1.0


class ControlFactory(Factory):
    """Makes the answers, to a few readers at a time.

    :param document: the pieces of a document, made as they are asked for.
    """

    noisy = False

    def __init__(self, document: Callable[[], Iterable[bytes]], clock: IReactorTime) -> None:
        self.answers: set[_Answer] = set()
        self._document = document
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """An answer; none if there are enough readers."""
        if len(self.answers) >= _MOST_READERS:
            return None
        answer = _Answer(iter(self._document()), self._clock, self.answers.discard)
        self.answers.add(answer)
        return answer

    def abort_all(self) -> None:
        """End all answers."""
        for answer in list(self.answers):
            answer.abort()


@implementer(IPullProducer)
class _Answer(Protocol):
    """One document for one reader. What it has to say is not read.

    A pull producer: a reader that does not read costs the transport's buffer and one piece, until
    its time is over.
    """

    _log = Logger()

    def __init__(
        self, pieces: Iterator[bytes], clock: IReactorTime, gone: Callable[[_Answer], None]
    ) -> None:
        self._pieces = pieces
        self._clock = clock
        self._gone = gone
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Say it."""
        self._timer = self._clock.callLater(_PATIENCE, self.abort)
        self._transport().registerProducer(self, False)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It was said, or the reader is gone."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._gone(self)

    def abort(self) -> None:
        """Say no more."""
        self._transport().abortConnection()

    def resumeProducing(self) -> None:
        """The next piece."""
        try:
            piece = next(self._pieces, None)
        except Exception:
            self._log.failure("cannot tell how this process is")
            self.abort()
            return
        if piece is not None:
            self._transport().write(piece)
            return
        self._transport().unregisterProducer()
        self._transport().loseConnection()

    def stopProducing(self) -> None:
        """The reader is gone; `connectionLost` follows."""

    def _transport(self) -> Any:
        return self.transport


@implementer(IReadDescriptor)
class ControlPort:
    """Accepts connections.

    Twisted's own port would bind in the reactor's thread, which may wait for a disk, and could not
    be closed once its path is gone.
    """

    _log = Logger()

    def __init__(self, listener: socket.socket, factory: ControlFactory, reactor: Any) -> None:
        self._listener = listener
        self._factory = factory
        self._reactor = reactor
        self._rest: IDelayedCall | None = None

    def start(self) -> None:
        """Accept from now on."""
        self._rest = None
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Accept no more."""
        if self._rest is not None and self._rest.active():
            self._rest.cancel()
        self._reactor.removeReader(self)
        self._listener.close()

    def fileno(self) -> int:
        """For the reactor."""
        return self._listener.fileno()

    def logPrefix(self) -> str:
        """For the reactor."""
        return "control"

    def doRead(self) -> None:
        """Somebody has connected."""
        try:
            connection, _ = self._listener.accept()
            with connection:
                connection.setblocking(False)
                self._reactor.adoptStreamConnection(
                    connection.fileno(), socket.AF_UNIX, self._factory
                )
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._reactor.removeReader(self)
                self._rest = self._reactor.callLater(_REST, self.start)
        except Exception:
            # The reactor would close the port, for good.
            self._log.failure("a reader of the control socket could not be answered")

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
        self._listener.close()
