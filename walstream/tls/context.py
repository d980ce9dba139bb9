"""What is negotiated at most and at least, on both ends."""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

from walstream.tls.versions import TLSVersion

__all__ = ["ALPN", "new_context"]

ALPN: Final = b"postgresql"
"""The protocol's registered name (RFC 7301; PostgreSQL 17)."""

# For TLS 1.2: forward secrecy and authenticated encryption, which everything since OpenSSL 1.0.1
# has. Those of TLS 1.3 are all like that.
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:!eNULL"

# ``SSL_MODE_ENABLE_PARTIAL_WRITE``, which pyOpenSSL sets, and does not name.
_PARTIAL_WRITE: Final = 0x1

_OPTIONS: Final = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_NO_TICKET
    | SSL.OP_CIPHER_SERVER_PREFERENCE
)


def new_context(least: TLSVersion, most: TLSVersion | None = None) -> SSL.Context:
    """A context that neither compresses, nor renegotiates, nor resumes sessions, as PostgreSQL's.

    :param most: None for the newest version that there is.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(least.number)
    if most is not None:
        context.set_max_proto_version(most.number)
    context.set_options(_OPTIONS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(_CIPHERS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # What is written is always taken, since it goes to memory: all of it in one call, then.
    context.clear_mode(_PARTIAL_WRITE)
    return context
