"""What is known of a connection once it is encrypted, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Encryption", "Subject", "openssl_words"]


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose certificate it is.

    :ivar common_name: the first of its subject; empty if there is none.
    :ivar distinguished_name: the whole subject, as ``clientname=DN`` in ``pg_hba.conf`` means it:
        in the form of RFC 2253, the most special part first.
    """

    common_name: str
    distinguished_name: str


@dataclass(frozen=True, slots=True)
class Encryption:
    """The TLS of one connection.

    :ivar protocol: its version, such as ``TLSv1.3``.
    :ivar cipher: OpenSSL's name of the cipher suite.
    :ivar bits: how many of the key's bits are secret.
    :ivar end_point: the hash of the server's certificate (``tls-server-end-point``, RFC 5929); None
        if there is none for such a certificate.
    :ivar subject: whose certificate the client has shown, signed by an authority that is trusted;
        None if it has shown none.
    """

    protocol: str
    cipher: str
    bits: int
    end_point: bytes | None = field(default=None, repr=False)
    subject: Subject | None = None

    def __str__(self) -> str:
        """As PostgreSQL's log has it."""
        return f"SSL enabled (protocol={self.protocol}, cipher={self.cipher}, bits={self.bits})"


def openssl_words(error: BaseException | None) -> str:
    """What an error says; OpenSSL's, as pyOpenSSL raises them, are lists of entries."""
    entries = error.args[0] if error is not None and error.args else None
    if isinstance(entries, list | tuple) and entries:
        return "; ".join(str(entry[-1]) for entry in entries if entry)
    return str(error) or type(error).__name__
