"""Certificates of every kind, made as they are needed, with keys that are made at once."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "Issued", "write_key"]

_DAY = datetime.timedelta(days=1)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def write_key(path: Path, key: Any, *, password: bytes | None = None, mode: int = 0o600) -> Path:
    """A private key in a file that nobody else may read."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    path.write_bytes(data)
    path.chmod(mode)
    return path


def name(common_name: str, *others: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    """A name that ends with a common name; an empty one is left out."""
    attributes = [x509.NameAttribute(oid, value) for oid, value in others]
    if common_name:
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    return x509.Name(attributes)


def _alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    found: list[x509.GeneralName] = []
    for each in names:
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(each)))
        except ValueError:
            found.append(x509.DNSName(each.removeprefix("DNS:")))
    return x509.SubjectAlternativeName(found)


class Issued:
    """A certificate with its key, in files.

    :ivar certificate: the file of the certificate, and of those that lead to the authority.
    :ivar key: the file of the private key.
    """

    def __init__(self, stem: Path, chain: Sequence[x509.Certificate], key: Any) -> None:
        self.x509 = chain[0]
        self.private_key = key
        self.certificate = stem.with_name(f"{stem.name}.crt")
        pem = [each.public_bytes(serialization.Encoding.PEM) for each in chain]
        self.certificate.write_bytes(b"".join(pem))
        self.key = write_key(stem.with_name(f"{stem.name}.key"), key)


class Authority:
    """Issues certificates into a directory.

    :ivar certificate: the file of its own certificate.
    :param above: the authority that has issued this one; None: it is a root.
    """

    def __init__(self, directory: Path, common_name: str, above: Authority | None = None) -> None:
        self.directory = directory
        self.key: Any = ec.generate_private_key(ec.SECP256R1())
        self.name = name(common_name)
        self._above = above
        signer = above or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(signer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - _DAY)
            .not_valid_after(_now() + _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
            )
        )
        self.x509 = builder.sign(signer.key, hashes.SHA256())
        self.certificate = directory / f"{common_name}.crt"
        self.certificate.write_bytes(self.x509.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        common_name: str,
        *alternatives: str,
        stem: str = "",
        expired: bool = False,
        subject: x509.Name | None = None,
        key: Any = None,
        method: Any = None,
        no_method: bool = False,
        **how: Any,
    ) -> Issued:
        """A certificate for a name, and for *alternatives*: hosts' names and addresses.

        An address behind ``DNS:`` is there as a name.

        :param stem: the name of its files, if it isn't the common name.
        :param subject: in place of *common_name*.
        :param method: the signature's hash; with *no_method*, it has none.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        begin, end = _now() - 3 * _DAY, _now() + (-_DAY if expired else _DAY)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or name(common_name))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        if alternatives:
            builder = builder.add_extension(_alternatives(alternatives), critical=False)
        made = builder.sign(self.key, None if no_method else method or hashes.SHA256(), **how)
        chain = [made] if self._above is None else [made, self.x509]
        return Issued(self.directory / (stem or common_name or "nameless"), chain, key)

    def revoke(self, *issued: Issued, file: str = "revoked.crl") -> Path:
        """The list of what is revoked, as a file."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(_now() - _DAY)
            .next_update(_now() + _DAY)
        )
        for each in issued:
            revoked = (
                x509.RevokedCertificateBuilder()
                .serial_number(each.x509.serial_number)
                .revocation_date(_now() - _DAY)
                .build()
            )
            builder = builder.add_revoked_certificate(revoked)
        path = self.directory / file
        made = builder.sign(self.key, hashes.SHA256())
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        return path
