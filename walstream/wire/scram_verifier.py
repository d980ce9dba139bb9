"""What is kept of a password: a SCRAM-SHA-256 verifier, in the text form of ``pg_authid``.

It proves that a client knows the password, and does not tell it. The text is
``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey``, as PostgreSQL's ``rolpassword`` has it
(documentation, "pg_authid"), so that verifiers can be copied from a server.
"""

from __future__ import annotations

import binascii
import hmac
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from hashlib import pbkdf2_hmac, sha256
from secrets import compare_digest, token_bytes
from typing import Final

from walstream.errors import FormatError
from walstream.wire.scram_password import scram_password

__all__ = ["DEFAULT_ITERATIONS", "MECHANISM", "ScramVerifier"]

MECHANISM: Final = "SCRAM-SHA-256"

DEFAULT_ITERATIONS: Final = 4096
"""PostgreSQL's default of ``scram_iterations``."""

_MOST_ITERATIONS: Final = 10_000_000  # some seconds
_SALT_SIZE: Final = 16  # SCRAM_DEFAULT_SALT_LEN
_KEY_SIZE: Final = 32
_FORM: Final = re.compile(r"SCRAM-SHA-256\$([1-9][0-9]{0,8}):([^$:]+)\$([^$:]+):([^$:]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """A verifier; its keys are as secret as a password, and don't show."""

    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> ScramVerifier:
        """Read the text form.

        :raises FormatError: if it is none; its words tell nothing of *text*, which may be secret.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise FormatError(
                "not a SCRAM-SHA-256 verifier, which is SCRAM-SHA-256$iterations:salt$key:key"
            )
        try:
            salt, stored_key, server_key = (
                b64decode(part, validate=True) for part in match.groups()[1:]
            )
        except (binascii.Error, ValueError):
            raise FormatError(
                "not a SCRAM-SHA-256 verifier: what should be base64 is not"
            ) from None
        if len(stored_key) != _KEY_SIZE or len(server_key) != _KEY_SIZE:
            raise FormatError(f"not a SCRAM-SHA-256 verifier: its keys have not {_KEY_SIZE} bytes")
        return cls(int(match[1]), salt, stored_key, server_key)

    @classmethod
    def of(
        cls, password: str, *, iterations: int = DEFAULT_ITERATIONS, salt: bytes | None = None
    ) -> ScramVerifier:
        """The verifier of a password. Takes milliseconds, or with many iterations seconds.

        :param salt: random unless given.
        :raises FormatError: if that many iterations are not possible.
        """
        if not DEFAULT_ITERATIONS <= iterations <= _MOST_ITERATIONS:
            raise FormatError(
                f"no verifier can be made with {iterations} iterations: {DEFAULT_ITERATIONS} to "
                f"{_MOST_ITERATIONS} are possible"
            )
        salt = token_bytes(_SALT_SIZE) if salt is None else salt
        return cls(iterations, salt, *_keys(password, salt, iterations))

    def is_of(self, password: str) -> bool:
        """Whether it is that password's. Takes as long as making it."""
        keys = _keys(password, self.salt, self.iterations)
        return compare_digest(b"".join(keys), self.stored_key + self.server_key)

    @classmethod
    def mock(cls, user: str, secret: bytes, iterations: int = DEFAULT_ITERATIONS) -> ScramVerifier:
        """The verifier of a user that does not exist, which no password fits.

        It is the same each time, so that nobody can tell such a user from others by asking twice
        (``scram_mock_salt``).

        :param secret: what nobody knows; the same for as long as it is to be the same.
        :param iterations: as many as other verifiers have.
        """
        salt = hmac.digest(secret, user.encode("utf-8", "surrogateescape"), sha256)[:_SALT_SIZE]
        return cls(iterations, salt, bytes(_KEY_SIZE), bytes(_KEY_SIZE))

    def __str__(self) -> str:
        """The text form."""
        salt, stored, server = (
            b64encode(part).decode("ascii")
            for part in (self.salt, self.stored_key, self.server_key)
        )
        return f"{MECHANISM}${self.iterations}:{salt}${stored}:{server}"


def _keys(password: str, salt: bytes, iterations: int) -> tuple[bytes, bytes]:
    """StoredKey and ServerKey (RFC 5802 section 3)."""
    salted = pbkdf2_hmac("sha256", scram_password(password), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", sha256)
    return sha256(client_key).digest(), hmac.digest(salted, b"Server Key", sha256)
