"""The demo's hub: what ``twistd walstream hub`` runs, on loopback and over a fresh archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo
from twisted.internet.defer import Deferred, succeed

from walstream.embedded.configuration import free_port
from walstream.protocols.receiver import ReceiverSettings
from walstream.protocols.settings import SenderSettings
from walstream.services import assembly
from walstream.services.hub import HubService
from walstream.services.outcome import Outcome
from walstream.upstream import parse_conninfo

__all__ = ["Hub"]


class Hub:
    """A hub that is started and stopped once.

    :ivar port: where it listens, once it was started.
    """

    port: int

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._service: HubService | None = None

    def conninfo(self, **parameters: str) -> str:
        """How to connect to it, as libpq wants it; *parameters* are added."""
        return make_conninfo(f"host=127.0.0.1 port={self.port} user=postgres", **parameters)

    def start(self, upstream: str, archive: Path) -> Deferred[None]:
        """Start; fires when it listens.

        :param upstream: how it connects to the primary.
        """
        self.port = free_port()  # not before: servers choose theirs in the same way
        self._service = assembly.hub(
            self._reactor,
            archive,
            parse_conninfo(upstream, {}),
            # It serves what is durable, so that has to become so as it comes.
            ReceiverSettings(synchronous=True),
            f"tcp:{self.port}:interface=127.0.0.1",
            SenderSettings(),
        )
        self._service.startService()
        return self._service.ready()

    def finished(self) -> Deferred[Any]:
        """Fires when it has ended, by itself or not."""
        return Outcome[Any]().wait() if self._service is None else self._service.finished()

    def stop(self) -> Deferred[None]:
        """Stop it, if it was started; fires when its archive is closed."""
        return succeed(None) if self._service is None else self._service.stopService()
