"""A client's TLS: one connection's context, made of libpq's options and the files they name."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from walstream.errors import FormatError, ServerNotTrusted
from walstream.tls import verification
from walstream.tls.certificates import end_point
from walstream.tls.context import ALPN, new_context
from walstream.tls.files import load_chain, load_key, trust, use_chain, use_revoked
from walstream.tls.host_names import check_host
from walstream.tls.options import CertificateMode, ClientOptions, SSLMode
from walstream.wire.encryption import Encryption

__all__ = ["ClientContext"]

# What OpenSSL says of itself when it has read a CertificateRequest. There is no other way to learn
# that one has come: `SSL_CTX_set_cert_cb`, which libpq has for it, is not pyOpenSSL's.
_CERTIFICATE_REQUEST = b"read server certificate request"


@implementer(IOpenSSLClientConnectionCreator)
class ClientContext:
    """The TLS of one attempt to connect; the files are as they were when it was made.

    :param host: the host's name, as it was given; empty if only its address was.
    :ivar is_verified: whether the server's certificate has to be signed by whom we trust: always
        where it is known whom, as with libpq.
    :raises FormatError: if one of the files is not what it should be.
    """

    def __init__(self, options: ClientOptions, host: str) -> None:
        self._options = options
        self._host = host
        self._was_asked = False
        self._context = new_context(options.least, options.most)
        self.is_verified = self._trust()
        self._shows_certificate = self._show_certificate()
        self._context.set_alpn_protos([ALPN])
        self._context.set_info_callback(self._note)

    def clientConnectionForTLS(
        self,
        tlsProtocol: TLSMemoryBIOProtocol,
    ) -> SSL.Connection:
        """Begin a handshake. Twisted calls this."""
        connection = SSL.Connection(self._context, None)
        if self._options.names_host and _is_name(self._host):
            connection.set_tlsext_host_name(self._host.encode("utf-8", "surrogateescape"))
        return connection

    def finish(self, connection: SSL.Connection) -> Encryption:
        """The handshake is over: what has come of it.

        :raises ServerNotTrusted: if it will not do, with libpq's words.
        """
        self._check_protocol(connection)
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise ServerNotTrusted("the server has no certificate")
        if self._options.mode is SSLMode.VERIFY_FULL:
            check_host(certificate, self._host)
        self._check_asked()
        return Encryption(
            connection.get_protocol_version_name(),
            connection.get_cipher_name() or "",
            connection.get_cipher_bits() or 0,
            end_point(certificate),
        )

    def failure(self, connection: SSL.Connection | None, error: BaseException) -> str:
        """Why a handshake came to nothing."""
        return f"SSL error: {verification.failure(connection, error)}"

    # Making it.

    def _trust(self) -> bool:
        """Whom to trust, if it is known; whether it is (``initialize_SSL`` in libpq)."""
        root = self._options.root
        if root is None:
            self._context.set_default_verify_paths()
        elif root.exists():
            trust(self._context, root)
            self._distrust()
        elif self._options.mode.verifies:
            raise FormatError(
                f'root certificate file "{root}" does not exist: either provide the file, use the '
                "system's trusted roots with sslrootcert=system, or change sslmode to disable "
                "server certificate verification"
            )
        else:
            return False
        self._context.set_verify(SSL.VERIFY_PEER, verification.remember)
        return True

    def _distrust(self) -> None:
        options = self._options
        if options.revoked is not None or options.revoked_directory is not None:
            use_revoked(self._context, options.revoked, options.revoked_directory)
        elif options.revoked_default is not None and options.revoked_default.exists():
            use_revoked(self._context, options.revoked_default)

    def _show_certificate(self) -> bool:
        """Our certificate, if there is one; whether there is."""
        options = self._options
        if options.certificate is None or options.certificate_mode is CertificateMode.DISABLE:
            return False
        if not options.certificate.exists():
            return False
        chain = load_chain(options.certificate)
        if options.key is None or not options.key.exists():
            raise FormatError(f'certificate present, but not private key file "{options.key}"')
        use_chain(self._context, chain, self._load_key(options.key), options.key)
        return True

    def _load_key(self, path: Path) -> PrivateKeyTypes:
        password = self._options.password
        return load_key(path, password=None if password is None else password.encode())

    # In the handshake, and after.

    def _note(self, connection: SSL.Connection, _where: int, _result: int) -> None:
        if connection.get_state_string().endswith(_CERTIFICATE_REQUEST):
            self._was_asked = True

    def _check_protocol(self, connection: SSL.Connection) -> None:
        chosen = connection.get_alpn_proto_negotiated()
        if not chosen and self._options.is_direct:
            raise ServerNotTrusted(
                "direct SSL connection was established without ALPN protocol negotiation extension"
            )
        if chosen and chosen != ALPN:
            raise ServerNotTrusted("SSL connection was established with unexpected ALPN protocol")

    def _check_asked(self) -> None:
        if self._options.certificate_mode is not CertificateMode.REQUIRE:
            return
        if not self._was_asked:
            raise ServerNotTrusted("server did not request an SSL certificate")
        if not self._shows_certificate:
            raise ServerNotTrusted("server accepted connection without a valid SSL certificate")


def _is_name(host: str) -> bool:
    """Whether it is to be named to the server: RFC 6066 wants no addresses."""
    return bool(host) and bool(set(host) - set("0123456789.")) and ":" not in host
