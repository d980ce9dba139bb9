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
from hashlib import sha256
from secrets import token_bytes
from typing import Final

from scramp import ScramException, ScramMechanism

from walstream.errors import FormatError

__all__ = ["DEFAULT_ITERATIONS", "MECHANISM", "ScramVerifier"]

MECHANISM: Final = "SCRAM-SHA-256"

DEFAULT_ITERATIONS: Final = 4096
"""PostgreSQL's default of ``scram_iterations``."""

_SALT_SIZE: Final = 16  # SCRAM_DEFAULT_SALT_LEN
_KEY_SIZE: Final = 32
_FORM: Final = re.compile(r"SCRAM-SHA-256\$([0-9]{1,9}):([^$:]+)\$([^$:]+):([^$:]+)", re.ASCII)


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
        mechanism = ScramMechanism(MECHANISM)
        salt = token_bytes(_SALT_SIZE) if salt is None else salt
        try:
            made = mechanism.make_auth_info(password, iteration_count=iterations, salt=salt)
        except ScramException as error:
            raise FormatError(f"no verifier can be made: {error}") from error
        made_salt, stored_key, server_key, count = made
        return cls(count, made_salt, stored_key, server_key)

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
