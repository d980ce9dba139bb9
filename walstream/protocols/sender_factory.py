"""A walsender's sessions: one is made for each connection, and all are drained at the end."""

from __future__ import annotations

from collections.abc import Collection
from itertools import count

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from walstream.interfaces import IGate, ISlotStore, IWALProvider
from walstream.protocols.cancel_keys import new_key
from walstream.protocols.encrypting import TLSServer
from walstream.protocols.laggards import Laggards
from walstream.protocols.limits import Limits
from walstream.protocols.open_gate import OpenGate
from walstream.protocols.sender import WALSender
from walstream.protocols.serving import Serving
from walstream.protocols.settings import SenderSettings
from walstream.protocols.standbys import Standby, Standbys

__all__ = ["WALSenderFactory"]

# Connections that are on their way out, besides clients and strangers: half of what
# `walstream.services.descriptors` leaves for everything else.
_GOING = 50


class WALSenderFactory(Factory):
    """Makes a `WALSender` for every connection.

    :ivar standbys: the clients that were let in, as others see them.
    :ivar limits: what the sessions share.
    :ivar most_clients: how many clients there may be here; 0: any number.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        provider: IWALProvider,
        slots: ISlotStore,
        settings: SenderSettings,
        clock: IReactorTime,
        limits: Limits | None = None,
        tls: TLSServer | None = None,
        gate: IGate | None = None,
    ) -> None:
        """
        :param limits: what the sessions share; None for the limits of the settings, in this
            process alone.
        :param tls: how connections are encrypted; None if they are not.
        :param gate: decides who comes in; None: everybody does.
        """
        self.standbys = Standbys()
        self.limits = limits or Limits.of(settings, provider, clock)
        self._serving = Serving(
            provider,
            slots,
            settings,
            clock,
            self.limits,
            self.standbys,
            OpenGate() if gate is None else gate,
            self.cancel,
            tls,
        )
        self.most_clients = settings.max_clients
        self._clock = clock
        self._pids = count(1)
        self._sessions: dict[int, WALSender] = {}
        self._is_draining = False
        self._grace: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []
        slots.watch_terminations(self._terminate)
        if settings.lag_warning:
            self.standbys.watch(Laggards(self.standbys, self._end_for, settings.lag_warning, clock))

    @property
    def sessions(self) -> Collection[WALSender]:
        """The sessions of this moment."""
        return self._sessions.values()

    def startFactory(self) -> None:
        """It is listened for clients. Whoever hands over connections himself has to call this."""
        self.limits.start()

    def stopFactory(self) -> None:
        """Nobody is listened for any more."""
        self.limits.stop()

    def buildProtocol(self, addr: IAddress | None) -> WALSender | None:
        """A session for a new connection; none once the sender is being stopped, or in a flood.

        Twisted takes any number of connections in one turn of the reactor, and none of those that
        have to go for them is gone before the next one.
        """
        if self._is_draining or self.is_flooded:
            return None
        return self.session(next(self._pids))

    @property
    def is_flooded(self) -> bool:
        """Whether there are as many connections as there may be, with those that are to go."""
        most, strangers = self.most_clients, self._serving.settings.max_strangers
        return bool(most) and len(self._sessions) >= most + strangers + _GOING

    def session(self, pid: int) -> WALSender:
        """A session of that number."""
        session = WALSender(self._serving, pid, new_key(), self.gone)
        self._sessions[pid] = session
        return session

    def look(self) -> None:
        """Have `standbys` tell how far each of them was sent to at this moment."""
        for session in self._sessions.values():
            session.look()

    def drain(self, grace: float) -> Deferred[None]:
        """End all sessions as PostgreSQL's shutdown does; abort those left after *grace* seconds.

        Streams first send everything there is and wait until it is acknowledged. Asked again, it
        fires together with the first time.
        """
        if not self._is_draining:
            self._is_draining = True
            self.limits.stop()
            self._shut_down_all(grace)
        if not self._sessions:
            return succeed(None)
        drained: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(drained)
        return drained

    def _shut_down_all(self, grace: float) -> None:
        if self._sessions:
            self._grace = self._clock.callLater(grace, self._abort_all)
        for session in list(self._sessions.values()):
            session.shut_down()

    def _abort_all(self) -> None:
        for session in list(self._sessions.values()):
            self._log.warn(
                "replication connection {pid} did not end in time: aborted", pid=session.pid
            )
            session.abort("shut down")

    def gone(self, session: WALSender) -> None:
        """A session has ended."""
        self._sessions.pop(session.pid, None)
        if not self._is_draining or self._sessions:
            return
        if self._grace is not None and self._grace.active():
            self._grace.cancel()
        while self._waiting:
            self._waiting.pop(0).callback(None)

    def _terminate(self, pid: int) -> None:
        session = self._sessions.get(pid)
        if session is not None:
            session.terminate()

    def _end_for(self, standby: Standby) -> int:
        """Up to where a client could have WAL: to the end, unless it is to have it later.

        What is known of the client is up to date then.
        """
        session = self._sessions.get(standby.pid)
        if session is not None:
            session.look()
            if session.is_delayed and session.stream is not None:
                return session.stream.available
        return self._serving.provider.end().lsn

    def cancel(self, pid: int, key: bytes) -> None:
        """A CancelRequest has come: nothing happens if it names no session, or has not its key."""
        session = self._sessions.get(pid)
        if session is not None:
            session.cancel(key)
