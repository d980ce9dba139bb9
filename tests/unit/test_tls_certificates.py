"""Tests for walstream.tls.certificates."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID
from twisted.trial.unittest import SynchronousTestCase

from walstream.tls.certificates import end_point, subject

_NOW = datetime.datetime(2026, 1, 1)
_EC = ec.generate_private_key(ec.SECP256R1())


def certificate(
    *rdns: list[tuple[x509.ObjectIdentifier, str]],
    key: Any = _EC,
    method: Any = None,
    **how: Any,
) -> x509.Certificate:
    """A certificate with these parts of a name, the most general first."""
    name = x509.Name(
        [
            x509.RelativeDistinguishedName([x509.NameAttribute(oid, text) for oid, text in rdn])
            for rdn in rdns
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(_NOW)
        .not_valid_after(_NOW)
    )
    return builder.sign(key, method, **how)


class EndPointTests(SynchronousTestCase):
    """``tls-server-end-point``."""

    def test_by_the_signature(self) -> None:
        """The hash is that of the certificate's own signature."""
        for method, name in ((hashes.SHA256(), "sha256"), (hashes.SHA384(), "sha384")):
            found = certificate(method=method)
            expected = hashlib.new(name, found.public_bytes(_der())).digest()
            self.assertEqual(end_point(found), expected)

    def test_probabilistic_signature(self) -> None:
        """RSA-PSS has it in its parameters."""
        scheme = padding.PSS(padding.MGF1(hashes.SHA512()), padding.PSS.DIGEST_LENGTH)
        key = rsa.generate_private_key(65537, 2048)
        found = certificate(key=key, method=hashes.SHA512(), rsa_padding=scheme)
        expected = hashlib.sha512(found.public_bytes(_der())).digest()
        self.assertEqual(end_point(found), expected)

    def test_without_a_hash(self) -> None:
        """Ed25519 has none: there is no channel binding."""
        self.assertIsNone(end_point(certificate(key=ed25519.Ed25519PrivateKey.generate())))


class SubjectTests(SynchronousTestCase):
    """Whose certificate it is; expected is what ``openssl x509 -nameopt RFC2253`` prints."""

    def test_order(self) -> None:
        """The most special part comes first, by OpenSSL's short names."""
        found = subject(
            certificate(
                [(NameOID.COUNTRY_NAME, "CH")],
                [(NameOID.ORGANIZATION_NAME, "PGDG")],
                [(NameOID.ORGANIZATIONAL_UNIT_NAME, "Testing")],
                [(NameOID.COMMON_NAME, "ssltestuser-dn")],
                [(NameOID.EMAIL_ADDRESS, "a@example.com")],
                method=hashes.SHA256(),
            )
        )
        self.assertEqual(found.common_name, "ssltestuser-dn")
        self.assertEqual(
            found.distinguished_name,
            "emailAddress=a@example.com,CN=ssltestuser-dn,OU=Testing,O=PGDG,C=CH",
        )

    def test_escapes(self) -> None:
        """What has a meaning is escaped, and what is not ASCII is shown as octets."""
        for text, escaped in (
            ("a,b+c", r"a\,b\+c"),
            ('"q"\\<>;', r"\"q\"\\\<\>\;"),
            (" a b ", r"\ a b\ "),
            ("#a#", r"\#a#"),
            ("é", r"\C3\A9"),
            ("\x01", r"\01"),
            ("=", "="),
        ):
            found = subject(certificate([(NameOID.COMMON_NAME, text)], method=hashes.SHA256()))
            self.assertEqual(found.distinguished_name, f"CN={escaped}")
            self.assertEqual(found.common_name, text)

    def test_several_at_once(self) -> None:
        """Parts that belong together are joined by a plus."""
        found = subject(
            certificate(
                [(NameOID.COMMON_NAME, "a"), (NameOID.USER_ID, "b")], method=hashes.SHA256()
            )
        )
        self.assertIn(found.distinguished_name, ("CN=a+UID=b", "UID=b+CN=a"))

    def test_nobody(self) -> None:
        """A certificate may name nobody."""
        found = subject(certificate(method=hashes.SHA256()))
        self.assertEqual((found.common_name, found.distinguished_name), ("", ""))


def _der() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER
