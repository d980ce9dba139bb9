"""A server's TLS: certificate, key and whom to trust, of files that may be exchanged any time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from walstream.errors import FormatError
from walstream.tls import verification
from walstream.tls.certificates import end_point, subject
from walstream.tls.context import ALPN, new_context
from walstream.tls.files import load_chain, load_key, trust, use_chain, use_revoked
from walstream.tls.versions import TLSVersion
from walstream.wire.encryption import Encryption

__all__ = ["ServerContext", "ServerFiles", "ServerTLS"]


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """What a server's TLS is made of; in brackets, PostgreSQL's names.

    :ivar certificate: ours, and those between it and an authority (``ssl_cert_file``).
    :ivar key: the private key (``ssl_key_file``).
    :ivar authorities: who has to have signed a client's certificate, if it has one; None: none is
        asked for (``ssl_ca_file``).
    :ivar revoked: clients' certificates that are not good any more: a file of lists, or a
        directory of files that ``c_rehash`` has named (``ssl_crl_file``, ``ssl_crl_dir``).
    :ivar least: the oldest version of TLS that is spoken (``ssl_min_protocol_version``).
    """

    certificate: Path
    key: Path
    authorities: Path | None = None
    revoked: Path | None = None
    least: TLSVersion = TLSVersion.V1_2


class _NoApplicationProtocol(SSL.Error):
    """A client speaks another protocol than ours: it gets an alert that says so (RFC 7301)."""

    def __init__(self) -> None:
        super().__init__([("", "", "the client offers other protocols (ALPN) than postgresql")])


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    """The files as they were when it was made. Connections keep the context that they began with.

    :raises FormatError: if one of the files is not what it should be.
    """

    def __init__(self, files: ServerFiles) -> None:
        chain = load_chain(files.certificate)
        self._context = new_context(files.least)
        use_chain(self._context, chain, load_key(files.key, own=True), files.key)
        if files.authorities is not None:
            self._ask_for_certificates(files.authorities, files.revoked)
        self._context.set_alpn_select_callback(_choose_protocol)
        self._end_point = end_point(chain[0])

    def serverConnectionForTLS(
        self,
        tlsProtocol: TLSMemoryBIOProtocol,
    ) -> SSL.Connection:
        """Begin a handshake. Twisted calls this."""
        return SSL.Connection(self._context, None)

    def encryption(self, connection: SSL.Connection) -> Encryption:
        """What came of the handshake.

        :raises ValueError: if the client's certificate has a name that is none.
        """
        shown = connection.get_peer_certificate(as_cryptography=True)
        return Encryption(
            connection.get_protocol_version_name(),
            connection.get_cipher_name() or "",
            connection.get_cipher_bits() or 0,
            self._end_point,
            None if shown is None else subject(shown),
        )

    def chose_protocol(self, connection: SSL.Connection) -> bool:
        """Whether client and server have said to each other that they speak PostgreSQL's (ALPN)."""
        return connection.get_alpn_proto_negotiated() == ALPN

    def failure(self, connection: SSL.Connection | None, error: BaseException) -> str:
        """Why a handshake came to nothing."""
        return verification.failure(connection, error)

    def _ask_for_certificates(self, authorities: Path, revoked: Path | None) -> None:
        for certificate in trust(self._context, authorities):
            self._context.add_client_ca(certificate)
        if revoked is not None:
            file, directory = (None, revoked) if revoked.is_dir() else (revoked, None)
            use_revoked(self._context, file, directory)
        # Who has none comes in all the same, as far as TLS is concerned.
        self._context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE, verification.remember)


#: Has the files read elsewhere than in the reactor's thread: see `walstream.archive.lane.Lane`.
Run: TypeAlias = Callable[[Callable[[], ServerContext]], Deferred[ServerContext]]


class ServerTLS:
    """A server's TLS of this moment.

    :ivar context: for the connections that begin now.
    :ivar files: what it is made of, again and again.
    :raises FormatError: if one of the files is not what it should be.
    """

    _log = Logger()

    def __init__(self, files: ServerFiles) -> None:
        self.files = files
        self.context = ServerContext(files)

    def reload(self, run: Run) -> Deferred[bool]:
        """Read the files again; whether they are in force. If not, the old state stays so.

        Connections that there are go on as they are.

        :param run: has it done in a thread; of several readings, one after the other.
        """
        return Deferred.fromCoroutine(self._reload(run))

    async def _reload(self, run: Run) -> bool:
        try:
            self.context = await run(lambda: ServerContext(self.files))
        except (FormatError, OSError) as error:
            self._log.error(
                "TLS was not reloaded, the old certificate stays in force: {reason}",
                reason=str(error),
            )
            return False
        self._log.info("TLS: {path} was read again", path=str(self.files.certificate))
        return True


def _choose_protocol(_: SSL.Connection, offered: Sequence[bytes]) -> bytes:
    if ALPN not in offered:
        raise _NoApplicationProtocol
    return ALPN
