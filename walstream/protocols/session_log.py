"""What the log has to say of a client's session: one line for each thing that happens to it.

Who was authenticated, let in, refused, and how it ended, in the manner of PostgreSQL's
``log_connections`` and ``log_disconnections``. Of what clients say themselves, nothing can forge a
line or a field (`walstream.formats.log_text`).
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from walstream.errors import CommandError
from walstream.formats.log_text import printable
from walstream.protocols.welcome import Client
from walstream.wire.encryption import Encryption

__all__ = ["SessionLog"]


class SessionLog:
    """The lines of one session.

    :param pid: the session's number, by which its lines are found.
    """

    _log = Logger()

    def __init__(self, pid: int, clock: IReactorTime) -> None:
        self._pid = pid
        self._clock = clock
        self._origin = "[unknown]"
        self._since = 0.0
        self._client: Client | None = None
        self._is_in = False
        self._is_refused = False

    def connected(self, address: tuple[str, int] | None) -> None:
        """It begins. No line: who has said nothing is worth none.

        :param address: where it comes from, and the port; None for a UNIX socket.
        """
        self._origin = "host=[local]" if address is None else "host={} port={}".format(*address)
        self._since = self._clock.seconds()

    def introduced(self, client: Client) -> None:
        """It says who it is. No line before it is known whether that is so."""
        self._client = client

    def not_encrypted(self, why: str) -> None:
        """Encryption was begun, and came to nothing."""
        self._log.warn(
            "replication connection {pid}: could not accept SSL connection: {origin}: {reason}",
            pid=self._pid,
            origin=self._origin,
            reason=printable(why),
        )

    def authenticated(self, identity: str | None) -> None:
        """It has proved who it is; None: nobody has asked, and there is nothing to say."""
        if identity is not None:
            self._log.info(
                "replication connection {pid}: connection authenticated: {identity}",
                pid=self._pid,
                identity=identity,
            )

    def authorized(self, encryption: Encryption | None) -> None:
        """It is let in."""
        self._is_in = True
        self._log.info(
            "replication connection {pid} authorized: {client}{encryption} {origin}",
            pid=self._pid,
            client=str(self._client),
            encryption=f" {encryption}" if encryption is not None else "",
            origin=self._origin,
        )

    def refused(self, error: CommandError) -> None:
        """It is not let in; here it is said why, also what the client is not told."""
        self._is_refused = True
        self._log.warn(
            "replication connection {pid} refused: {client}{origin}: {reason}{detail}",
            pid=self._pid,
            client=f"{self._client} " if self._client is not None else "",
            origin=self._origin,
            reason=printable(error.message),
            detail=printable(f": {error.log_detail}" if error.log_detail else ""),
        )

    def ended(self, reason: str, progress: str) -> None:
        """The connection is gone.

        :param progress: how far it came, to stand behind a figure.
        """
        if self._is_in:
            self._log.info(
                "replication connection {pid} ended: {client} {origin}: {reason}; "
                "session time {duration}{progress}",
                pid=self._pid,
                client=str(self._client),
                origin=self._origin,
                reason=printable(reason),
                duration=_session_time(self._clock.seconds() - self._since),
                progress=progress,
            )
        elif self._client is not None and not self._is_refused:
            self._log.info(
                "replication connection {pid} did not come in: {client} {origin}: {reason}",
                pid=self._pid,
                client=str(self._client),
                origin=self._origin,
                reason=printable(reason),
            )


def _session_time(seconds: float) -> str:
    """As PostgreSQL's ``log_disconnections`` words it."""
    minutes, rest = divmod(max(0.0, seconds), 60)
    return f"{int(minutes) // 60}:{int(minutes) % 60:02}:{rest:06.3f}"
