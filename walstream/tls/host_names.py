"""Whether a certificate is a host's, by libpq's rules.

(PostgreSQL documentation, "Client Verification of Server Certificates";
``pgtls_verify_peer_name_matches_certificate_guts`` in libpq.) They are NSS's rather than the
RFC's: names of the kind that was asked for, DNS or address, leave the common name without a say;
those of the other kind don't.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

from cryptography import x509
from cryptography.x509.oid import NameOID

from walstream.errors import ServerNotTrusted

__all__ = ["check_host"]


def check_host(certificate: x509.Certificate, host: str) -> None:
    """Check that *certificate* is that of *host*, a name or an address as it was given.

    :raises ServerNotTrusted: with libpq's words, if it is not.
    """
    if not host:
        raise ServerNotTrusted("host name must be specified for a verified SSL connection")
    examined: list[str] = []
    for name, fits in _names(certificate, host):
        if fits:
            return
        examined.append(name)
    if not examined:
        raise ServerNotTrusted("could not get server's host name from server certificate")
    first, others = examined[0], len(examined) - 1
    more = f" (and {others} other name{'s' if others > 1 else ''})" if others else ""
    raise ServerNotTrusted(
        f'server certificate for "{first}"{more} does not match host name "{host}"'
    )


def _names(certificate: x509.Certificate, host: str) -> Iterator[tuple[str, bool]]:
    """The certificate's names, and whether each means *host*."""
    address = _address(host)
    has_its_kind = False
    for name in _alternatives(certificate):
        if isinstance(name, x509.DNSName):
            has_its_kind = has_its_kind or address is None
            yield _shown(name.value), _means(name.value, host)
        elif isinstance(name, x509.IPAddress):
            has_its_kind = has_its_kind or address is not None
            packed = getattr(name.value, "packed", b"")  # a network has none, and fits nothing
            yield str(name.value), packed == address
    if has_its_kind:
        return
    for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[:1]:
        text = attribute.value if isinstance(attribute.value, str) else ""
        yield _shown(text), _means(text, host)


def _alternatives(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(
            certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
    except x509.ExtensionNotFound:
        return []
    except ValueError as error:
        raise ServerNotTrusted(f"the server's certificate cannot be read: {error}") from error


def _address(host: str) -> bytes | None:
    for read in (socket.inet_aton, lambda text: socket.inet_pton(socket.AF_INET6, text)):
        try:
            return bytes(read(host))
        except (OSError, UnicodeError):
            pass
    return None


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]


def _means(pattern: str, host: str) -> bool:
    if "\0" in pattern:
        raise ServerNotTrusted("SSL certificate's name contains embedded null")
    pattern, host = _lower(pattern), _lower(host)
    return pattern == host or _is_wildcard_of(pattern, host)


def _is_wildcard_of(pattern: str, host: str) -> bool:
    """Whether *pattern* is ``*.`` and all of *host* behind its first label."""
    if len(pattern) < 3 or not pattern.startswith("*.") or len(pattern) > len(host):
        return False
    return host.endswith(pattern[1:]) and "." not in host[: len(host) - len(pattern) + 1]


def _lower(text: str) -> str:
    # As `pg_strcasecmp` does where it matters: host names are ASCII.
    return "".join(chr(ord(each) + 32) if "A" <= each <= "Z" else each for each in text)
