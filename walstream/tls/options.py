"""What a client wants of its TLS: libpq's ``sslmode`` and the options about it, read."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from walstream.tls.versions import TLSVersion

__all__ = ["CertificateMode", "ClientOptions", "Method", "SSLMode"]


class SSLMode(Enum):
    """How much is wanted (PostgreSQL documentation, "SSL Mode Descriptions")."""

    DISABLE = "disable"
    ALLOW = "allow"
    PREFER = "prefer"
    REQUIRE = "require"
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def verifies(self) -> bool:
        """Whether the server's certificate has to be known."""
        return self in (SSLMode.VERIFY_CA, SSLMode.VERIFY_FULL)


class CertificateMode(Enum):
    """Whether a client certificate is shown (``sslcertmode``)."""

    DISABLE = "disable"
    ALLOW = "allow"
    REQUIRE = "require"


class Method(Enum):
    """A way to speak with a server."""

    PLAIN = "without encryption"
    TLS = "with TLS"


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """The options; in brackets, libpq's names. Files are read at each connect.

    :ivar is_direct: TLS is spoken from the first byte on (``sslnegotiation=direct``).
    :ivar root: whom to trust to know servers (``sslrootcert``); None: whom the system trusts.
    :ivar certificate: ours (``sslcert``); where there is none, it is done without.
    :ivar key: its private key (``sslkey``).
    :ivar password: what that is encrypted by (``sslpassword``).
    :ivar revoked: certificates not to be trusted any more (``sslcrl``).
    :ivar revoked_directory: the same, as files named by ``c_rehash`` (``sslcrldir``).
    :ivar revoked_default: where such a list may be, if neither is given.
    :ivar names_host: tell the server which host is wanted (``sslsni``).
    :ivar least: the oldest version to speak (``ssl_min_protocol_version``).
    :ivar most: the newest; None: any (``ssl_max_protocol_version``).
    """

    mode: SSLMode = SSLMode.PREFER
    is_direct: bool = False
    root: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    password: str | None = field(default=None, repr=False)
    revoked: Path | None = None
    revoked_directory: Path | None = None
    revoked_default: Path | None = None
    certificate_mode: CertificateMode = CertificateMode.ALLOW
    names_host: bool = True
    least: TLSVersion = TLSVersion.V1_2
    most: TLSVersion | None = None

    @property
    def methods(self) -> tuple[Method, ...]:
        """What to try, in this order, on a connection that can be encrypted at all.

        (``select_next_encryption_method`` in libpq.)
        """
        match self.mode:
            case SSLMode.DISABLE:
                return (Method.PLAIN,)
            case SSLMode.ALLOW:
                return (Method.PLAIN, Method.TLS)
            case SSLMode.PREFER:
                return (Method.TLS, Method.PLAIN)
        return (Method.TLS,)
