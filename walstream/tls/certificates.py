"""What a certificate says: whose it is, and the hash by which a login is bound to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from walstream.wire.encryption import Subject

__all__ = ["end_point", "subject"]

# OpenSSL's short names, where they are not a certificate's own; what is not here goes by number.
_NAMES: Final[Mapping[x509.ObjectIdentifier, str]] = {
    NameOID.COMMON_NAME: "CN",
    NameOID.SURNAME: "SN",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.COUNTRY_NAME: "C",
    NameOID.LOCALITY_NAME: "L",
    NameOID.STATE_OR_PROVINCE_NAME: "ST",
    NameOID.STREET_ADDRESS: "street",
    NameOID.ORGANIZATION_NAME: "O",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OU",
    NameOID.TITLE: "title",
    NameOID.GIVEN_NAME: "GN",
    NameOID.INITIALS: "initials",
    NameOID.GENERATION_QUALIFIER: "generationQualifier",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.USER_ID: "UID",
    NameOID.DOMAIN_COMPONENT: "DC",
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.POSTAL_CODE: "postalCode",
    NameOID.BUSINESS_CATEGORY: "businessCategory",
}

# RFC 5929 section 4.1 takes SHA-256 in place of what is too weak.
_WEAK: Final = (hashes.MD5, hashes.SHA1)


def end_point(certificate: x509.Certificate) -> bytes | None:
    """The certificate's hash, by the method of its own signature (``tls-server-end-point``).

    None for a signature that uses no hash, Ed25519 for one: there is no channel binding then.
    """
    try:
        method = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if method is None:
        return None
    return certificate.fingerprint(hashes.SHA256() if isinstance(method, _WEAK) else method)


def subject(certificate: x509.Certificate) -> Subject:
    """Whose certificate it is.

    :raises ValueError: for a name with a zero character in it, which is meant to be read by half.
    """
    found = certificate.subject
    common = [_text(each) for each in found.get_attributes_for_oid(NameOID.COMMON_NAME)]
    name = ",".join("+".join(_parts(each)) for each in reversed(found.rdns))
    if any("\0" in _text(attribute) for attribute in found):
        raise ValueError("SSL certificate's name contains embedded null")
    return Subject(common[0] if common else "", name)


def _parts(rdn: x509.RelativeDistinguishedName) -> Iterator[str]:
    # What `X509_NAME_print_ex` gives with XN_FLAG_RFC2253, which PostgreSQL compares with.
    for attribute in reversed(list(rdn)):
        yield f"{_NAMES.get(attribute.oid, attribute.oid.dotted_string)}={_escaped(attribute)}"


def _escaped(attribute: x509.NameAttribute[str | bytes]) -> str:
    if isinstance(attribute.value, bytes):
        return f"#{attribute.value.hex().upper()}"
    octets = attribute.value.encode("utf-8")
    last = len(octets) - 1
    return "".join(_character(octet, at, last) for at, octet in enumerate(octets))


def _character(octet: int, at: int, last: int) -> str:
    if octet < 0x20 or octet > 0x7E:
        return f"\\{octet:02X}"
    character = chr(octet)
    at_an_end = (at == 0 and character in " #") or (at == last and character == " ")
    return f"\\{character}" if at_an_end or character in ',+"\\<>;' else character


def _text(attribute: x509.NameAttribute[str | bytes]) -> str:
    value = attribute.value
    return value if isinstance(value, str) else value.decode("latin-1")
