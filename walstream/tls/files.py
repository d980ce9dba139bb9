"""Certificates, keys and lists of revoked certificates, out of files; what is wrong is said.

The rules about a key's permissions, and the words, are PostgreSQL's
(``check_ssl_key_file_permissions``; ``initialize_SSL`` in libpq).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
)
from OpenSSL import SSL, crypto

from walstream.errors import FormatError
from walstream.wire.encryption import openssl_words

__all__ = ["load_chain", "load_key", "trust", "use_chain", "use_revoked"]

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_BUT_READING_GROUP = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
_PERMISSIONS = (
    "has group or world access; it must have permissions u=rw (0600) or less if owned by the "
    "current user, or permissions u=rw,g=r (0640) or less if owned by root"
)


def load_chain(path: Path, what: str = "certificate") -> list[x509.Certificate]:
    """The certificates of a PEM file: one's own first, then those that lead to an authority.

    :raises FormatError: if there are none.
    """
    data = _read(path, what)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise FormatError(f'could not load {what} file "{path}": {error}') from error


def load_key(path: Path, *, password: bytes | None = None, own: bool = False) -> PrivateKeyTypes:
    """A private key of a PEM or DER file, which nobody else may be able to read.

    :param password: what it is encrypted by.
    :param own: whether it has to belong to us, or to root.
    :raises FormatError: if others can read it, or it is none.
    """
    _check_permissions(path, own)
    data = _read(path, "private key")
    load = load_pem_private_key if b"-----BEGIN" in data else load_der_private_key
    try:
        try:
            return load(data, password)
        except TypeError:
            if password is None:
                raise
            # A password for a key that needs none is none of our business, as with OpenSSL.
            return load(data, None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        # Not what the library says of it, which is about its own parameters.
        why = "it is encrypted" if password is None and isinstance(error, TypeError) else str(error)
        raise FormatError(f'could not load private key file "{path}": {why}') from None


def use_chain(
    context: SSL.Context, chain: list[x509.Certificate], key: PrivateKeyTypes, path: Path
) -> None:
    """Have *context* show this certificate.

    :param path: the key's file.
    :raises FormatError: if the key, read from *path*, is not the certificate's.
    """
    try:
        context.use_certificate(chain[0])
        for certificate in chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(key)  # type: ignore[arg-type] # it says itself which it can't
        context.check_privatekey()
    except (SSL.Error, crypto.Error, TypeError) as error:
        raise FormatError(
            f'certificate does not match private key file "{path}": {openssl_words(error)}'
        ) from error


def trust(context: SSL.Context, path: Path) -> list[x509.Certificate]:
    """Have *context* trust the authorities of a file.

    :raises FormatError: if there are none.
    """
    authorities = load_chain(path, "root certificate")
    try:
        context.load_verify_locations(os.fspath(path))
    except SSL.Error as error:
        raise FormatError(
            f'could not load root certificate file "{path}": {openssl_words(error)}'
        ) from error
    return authorities


def use_revoked(context: SSL.Context, file: Path | None, directory: Path | None = None) -> None:
    """Have *context* trust no certificate that is revoked, all along its chain.

    :param directory: of files that are named by the hash of who issued them (``c_rehash``).
    :raises FormatError: if *file* is no list of revoked certificates.
    """
    if file is not None:
        _check_revoked(file)
    if directory is not None and not directory.is_dir():
        raise FormatError(f'certificate revocation list directory "{directory}" does not exist')
    store = context.get_cert_store()
    assert store is not None, "every context has one"
    try:
        store.load_locations(file, directory)
    except crypto.Error as error:
        raise FormatError(
            f'could not load certificate revocation list file "{file}": {openssl_words(error)}'
        ) from error
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)


def _check_revoked(path: Path) -> None:
    data = _read(path, "certificate revocation list")
    try:
        x509.load_pem_x509_crl(data)
    except ValueError as error:
        raise FormatError(
            f'could not load certificate revocation list file "{path}": {error}'
        ) from error


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f'could not read {what} file "{path}": {error.strerror}') from error


def _check_permissions(path: Path, own: bool) -> None:
    try:
        status = path.stat()
    except OSError:
        return  # whoever reads it says why that can't be
    if not stat.S_ISREG(status.st_mode):
        raise FormatError(f'private key file "{path}" is not a regular file')
    if own and status.st_uid not in (os.geteuid(), 0):
        raise FormatError(f'private key file "{path}" must be owned by the current user or root')
    # A server that runs as root has no group that is to read along; libpq is not so strict.
    lenient = status.st_uid == 0 and not (own and os.geteuid() == 0)
    if status.st_mode & (_OTHERS_BUT_READING_GROUP if lenient else _OTHERS):
        raise FormatError(f'private key file "{path}" {_PERMISSIONS}')
