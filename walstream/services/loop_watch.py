"""Whether a hub may be following a standby that follows the hub.

Such a circle looks as if all were well: both are connected, and answer each other's keepalives. But
no WAL will ever come to either. A hub with several upstream hosts gets there when the primary is
lost and the next host in its list is a standby of its own; and it stays, since nothing ever breaks
off, when the primary is back. The protocol does not tell from whom a standby receives. What can be
seen is that the upstream is a standby, and that one who streams from us has the same address.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.logger import Logger

from walstream.formats.log_text import word
from walstream.protocols.standbys import Standby, Standbys, StandbyState

__all__ = ["LoopWatch"]

_STREAMING = (StandbyState.CATCHUP, StandbyState.STREAMING)


class LoopWatch:
    """Says so once for each upstream connection, when it begins or when a standby comes later.

    :param standbys: those who stream from us.
    """

    _log = Logger()

    def __init__(self, standbys: Standbys) -> None:
        self._standbys = standbys
        self._upstream = ""
        self._address: str | None = None
        self._parameters: Mapping[str, str] = {}
        standbys.watch(self)

    def connected(self, upstream: str, address: str | None, parameters: Mapping[str, str]) -> None:
        """The WAL comes from *upstream* now.

        :param address: its IP address; None for a UNIX socket, which is on this machine.
        :param parameters: what it tells of itself (ParameterStatus), kept up to date.
        """
        self._upstream, self._address = upstream, _place(address)
        self._parameters = parameters
        for standby in self._standbys:
            self.standby_changed(standby)

    def disconnected(self) -> None:
        """The WAL comes from nowhere at this moment."""
        self._address = None

    def standby_changed(self, standby: Standby) -> None:
        """See `StandbyWatcher`."""
        if self._address is None or standby.state not in _STREAMING:
            return
        if self._parameters.get("in_hot_standby") != "on":
            return
        if _place(standby.address and standby.address[0]) == self._address:
            self._address = None  # once is enough
            self._log.warn(
                "the upstream {upstream} is a standby, and {name}, which streams from here, is on "
                "the same machine: if they are one server, this hub and that standby follow each "
                "other, and no WAL comes to either until it is promoted. "
                "target_session_attrs=read-write keeps a hub from following standbys",
                upstream=self._upstream,
                name=word(standby.application_name or standby.user),
            )

    def standby_left(self, standby: Standby) -> None:
        """See `StandbyWatcher`."""


def _place(address: str | None) -> str:
    """The machine of that address: loopback and UNIX sockets are one."""
    if address is None or address.startswith("127.") or address == "::1":
        return "here"
    return address.removeprefix("::ffff:")
