"""Why a peer's certificate was not believed, which OpenSSL does not say by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionDone, ConnectionLost

from walstream.wire.encryption import openssl_words

__all__ = ["failure", "remember"]

# ``X509_verify_cert_error_string``, of what one meets. The numbers are X509_V_ERR_…
_WHY: Final[Mapping[int, str]] = {
    2: "unable to get issuer certificate",
    3: "unable to get certificate CRL",
    7: "certificate signature failure",
    9: "certificate is not yet valid",
    10: "certificate has expired",
    11: "CRL is not yet valid",
    12: "CRL has expired",
    18: "self-signed certificate",
    19: "self-signed certificate in certificate chain",
    20: "unable to get local issuer certificate",
    21: "unable to verify the first certificate",
    22: "certificate chain too long",
    23: "certificate revoked",
    24: "invalid CA certificate",
    26: "unsuitable certificate purpose",
    66: "EE certificate key too weak",
    67: "CA certificate key too weak",
    68: "CA signature digest algorithm too weak",
}


def remember(
    connection: SSL.Connection, certificate: crypto.X509, number: int, depth: int, ok: int
) -> bool:
    """What OpenSSL calls for each certificate of a chain: its verdict stands, and is remembered."""
    if not ok:
        serial = certificate.to_cryptography().serial_number
        why = _WHY.get(number, f"error {number}")
        connection.set_app_data(f"{why} (at depth {depth}, serial number {serial:X})")
    return bool(ok)


def failure(connection: SSL.Connection | None, error: BaseException) -> str:
    """Why there is no encryption on this connection: *error* is what ended it."""
    if isinstance(error, ConnectionLost | ConnectionDone):
        return "unexpected eof while reading"  # as OpenSSL calls it, and Twisted does not
    why = openssl_words(error)
    told = connection.get_app_data() if connection is not None else None
    return f"{why}: {told}" if isinstance(told, str) and "certificate" in why else why
