"""A client's side of password authentication: cleartext, md5 and SCRAM-SHA-256.

Source: PostgreSQL's documentation, "Message Flow", Start-up, and "SASL Authentication". The SCRAM
computations are the scramp library's; what is seen to here is that no server can make us work for
long, get the password twice, or be believed unproved. Where a password comes from is not known
here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from scramp import ScramClient, ScramException

from walstream.errors import CommandError, ProtocolViolation
from walstream.wire.fields import FieldReader, text
from walstream.wire.messages import (
    AuthenticationCode,
    password_message,
    sasl_initial_response,
    sasl_response,
)

__all__ = ["PasswordExchange"]

_MECHANISM: Final = "SCRAM-SHA-256"
_SUPPORTED: Final = "supported are trust, password, md5 and scram-sha-256"
_UNSUPPORTED: Final[Mapping[int, str]] = {
    AuthenticationCode.KERBEROS_V5: "Kerberos V5",
    AuthenticationCode.GSS: "GSSAPI",
    AuthenticationCode.GSS_CONTINUE: "GSSAPI",
    AuthenticationCode.SSPI: "SSPI",
}
_MD5_SALT_SIZE: Final = 4

# RFC 7677 asks for 4096 iterations at least, which is PostgreSQL's default too. A million takes
# the better part of a second, during which the reactor stands still.
_FEWEST_ITERATIONS: Final = 4096
_MOST_ITERATIONS: Final = 1_000_000
_ITERATIONS: Final = re.compile(rb"(?:^|,)i=([0-9]+)(?:,|$)")
# About as long as any authentication message that PostgreSQL takes (PG_MAX_AUTH_TOKEN_LENGTH).
_LONGEST_MESSAGE: Final = 64 * 1024

# PostgreSQL takes the user from the startup packet and ignores the name in a SCRAM message; scramp
# follows RFC 5802 and does not let it be empty.
_NO_NAME: Final = "*"


class PasswordExchange:
    """Answers a server's Authentication messages; one is good for one connection.

    :param password: None if none is known.
    :param nonce: what makes a SCRAM exchange unique; random unless given, as a test does.
    """

    def __init__(self, user: str, password: str | None, *, nonce: str | None = None) -> None:
        self._user = user
        self._password = password
        self._nonce = nonce
        self._asked = False
        self._scram: _ScramExchange | None = None

    def respond(self, code: int, data: bytes) -> bytes | None:
        """The message that answers an Authentication message; None if it wants no answer.

        :param code: see `AuthenticationCode`.
        :param data: what follows the code in the message.
        :raises CommandError: when a password is asked for and none is known (28P01), and when the
            server asks for what is not supported (28000).
        :raises ProtocolViolation: when the server breaks the protocol, asks for too much, or does
            not prove that it knows the password.
        """
        if len(data) > _LONGEST_MESSAGE:
            raise ProtocolViolation(f"authentication message of {len(data)} bytes is too long")
        match code:
            case AuthenticationCode.OK:
                self._accepted()
                return None
            case AuthenticationCode.CLEARTEXT_PASSWORD:
                return password_message(_encoded(self._reveal()))
            case AuthenticationCode.MD5_PASSWORD:
                return password_message(self._md5(data))
            case AuthenticationCode.SASL:
                return self._scram_begin(data)
            case AuthenticationCode.SASL_CONTINUE:
                return self._scram_begun().proof(data)
            case AuthenticationCode.SASL_FINAL:
                self._scram_begun().verify(data)
                return None
        raise _unsupported(_UNSUPPORTED.get(code, f"method number {code}"))

    def _accepted(self) -> None:
        # A server that cannot sign a SCRAM exchange could skip its end and say that all is well.
        if self._scram is not None and not self._scram.verified:
            raise ProtocolViolation("the server did not prove that it knows the password")

    def _reveal(self) -> str:
        # Once: a server that asks again may be after the password in a weaker form.
        if self._asked:
            raise ProtocolViolation("the server asks for the password a second time")
        self._asked = True
        if not self._password:
            raise CommandError(
                "28P01",
                "the server asks for a password, and none is known: "
                "give one in the connection string, in PGPASSWORD or in a password file",
            )
        return self._password

    def _md5(self, salt: bytes) -> bytes:
        if len(salt) != _MD5_SALT_SIZE:
            raise ProtocolViolation(f"md5 salt of {len(salt)} bytes instead of {_MD5_SALT_SIZE}")
        inner = _md5_hex(_encoded(self._reveal()) + _encoded(self._user))
        return b"md5" + _md5_hex(inner + salt)

    def _scram_begin(self, data: bytes) -> bytes:
        offered = _mechanisms(data)
        if _MECHANISM not in offered:
            raise _unsupported(f"SASL by {', '.join(offered) or 'no mechanism at all'}")
        self._scram = _ScramExchange(self._reveal(), self._nonce)
        return sasl_initial_response(_MECHANISM, self._scram.first())

    def _scram_begun(self) -> _ScramExchange:
        if self._scram is None:
            raise ProtocolViolation("the server continues a SASL exchange that was not begun")
        return self._scram


class _ScramExchange:
    # One SCRAM-SHA-256 exchange. scramp itself refuses steps that come out of their order.

    def __init__(self, password: str, nonce: str | None) -> None:
        try:
            self._client = ScramClient([_MECHANISM], _NO_NAME, password, c_nonce=nonce)
        except ScramException:
            # A password that SASLprep does not allow is used as it is ("SASL Authentication").
            self._client = ScramClient([_MECHANISM], _NO_NAME, "", c_nonce=nonce)
            self._client.password = _encoded(password)
        self.verified = False

    def first(self) -> bytes:
        return bytes(self._client.get_client_first(), "ascii")

    def proof(self, server_first: bytes) -> bytes:
        _check_iterations(server_first)
        try:
            self._client.set_server_first(_ascii(server_first))
            return sasl_response(bytes(self._client.get_client_final(), "ascii"))
        except ScramException as error:
            raise _unacceptable(error) from error

    def verify(self, server_final: bytes) -> None:
        try:
            self._client.set_server_final(_ascii(server_final))
        except ScramException as error:
            raise _unacceptable(error) from error
        self.verified = True


def _check_iterations(server_first: bytes) -> None:
    # A message without a count is left to scramp, which refuses it.
    match = _ITERATIONS.search(server_first)
    if match is None:
        return
    # Nine digits are more than enough to be too many, and cheap to read.
    count = int(match[1][:9])
    if not _FEWEST_ITERATIONS <= count <= _MOST_ITERATIONS:
        raise ProtocolViolation(
            f"the server asks for {count} SCRAM iterations; {_FEWEST_ITERATIONS} to "
            f"{_MOST_ITERATIONS} are accepted (its scram_iterations when the password was set)"
        )


def _mechanisms(data: bytes) -> list[str]:
    reader = FieldReader(data)
    names = []
    while name := reader.cstring():
        names.append(text(name))
    return names


def _md5_hex(data: bytes) -> bytes:
    return hashlib.md5(data).hexdigest().encode("ascii")


def _encoded(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _ascii(message: bytes) -> str:
    try:
        return message.decode("ascii")
    except UnicodeDecodeError as error:
        raise ProtocolViolation("SCRAM message is not ASCII") from error


def _unsupported(method: str) -> CommandError:
    return CommandError(
        "28000", f"the server asks for authentication by {method}; {_SUPPORTED} (see pg_hba.conf)"
    )


def _unacceptable(error: ScramException) -> ProtocolViolation:
    return ProtocolViolation(f"the server's SCRAM exchange is not acceptable: {error}")
