"""A client's side of authentication: trust, cleartext, md5 and SCRAM-SHA-256, with and without TLS.

Source: PostgreSQL's documentation, "Message Flow", Start-up, and libpq's ``pg_fe_sendauth`` and
``check_expected_areq``, whose words those of a refusal are. What is seen to here is that no server
is told more than the user allows, gets the password twice, or is believed unproved. Where a
password comes from is not known here, and neither is how TLS is done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from walstream.errors import CommandError, ProtocolViolation, ServerNotTrusted
from walstream.wire.fields import FieldReader, text
from walstream.wire.login_demands import NO_DEMANDS, OAUTH, SCRAM, ChannelBinding, LoginDemands
from walstream.wire.messages import (
    AuthenticationCode,
    password_message,
    sasl_initial_response,
    sasl_response,
)
from walstream.wire.scram_client import ScramClientExchange, iterations_asked
from walstream.wire.scram_server import MECHANISM_PLUS
from walstream.wire.scram_verifier import MECHANISM

__all__ = ["PasswordExchange"]

_SUPPORTED: Final = "supported are trust, password, md5 and scram-sha-256"
_UNSUPPORTED: Final[Mapping[int, str]] = {
    AuthenticationCode.KERBEROS_V5: "Kerberos V5",
    AuthenticationCode.GSS: "GSSAPI",
    AuthenticationCode.GSS_CONTINUE: "GSSAPI",
    AuthenticationCode.SSPI: "SSPI",
}
# libpq's words for what a server asked for.
_REQUESTED: Final[Mapping[int, str]] = {
    AuthenticationCode.CLEARTEXT_PASSWORD: "a cleartext password",
    AuthenticationCode.MD5_PASSWORD: "a hashed password",
    AuthenticationCode.GSS: "GSSAPI authentication",
    AuthenticationCode.GSS_CONTINUE: "GSSAPI authentication",
    AuthenticationCode.SSPI: "SSPI authentication",
    **dict.fromkeys(
        (
            AuthenticationCode.SASL,
            AuthenticationCode.SASL_CONTINUE,
            AuthenticationCode.SASL_FINAL,
        ),
        "SASL authentication",
    ),
}
_SASL: Final = frozenset(
    {AuthenticationCode.SASL, AuthenticationCode.SASL_CONTINUE, AuthenticationCode.SASL_FINAL}
)
_MD5_SALT_SIZE: Final = 4
_OAUTH_BEARER: Final = "OAUTHBEARER"

# More than libpq's limit of an Authentication message, which the reader of messages sees to.
_LONGEST_MESSAGE: Final = 2_000
_MOST_MECHANISMS: Final = 20
# Iterations that take a few milliseconds: above, the work is for a thread.
_QUICK: Final = 10_000
# In place of a certificate's hash, where none is sent anyway.
_NO_HASH: Final = b"\0"


class PasswordExchange:
    """Answers a server's Authentication messages; one is good for one connection.

    Without demands, libpq's defaults hold, but for one thing: a password is sent as it is only to
    a server whose certificate was verified.

    :param password: None if none is known.
    :param nonce: what makes a SCRAM exchange unique; random unless given, as a test does.
    :ivar weakness: what the user should know of how the password was sent; None: nothing.
    """

    def __init__(
        self,
        user: str,
        password: str | None,
        demands: LoginDemands = NO_DEMANDS,
        *,
        nonce: str | None = None,
    ) -> None:
        self.weakness: str | None = None
        self._user = user
        self._password = password
        self._demands = demands
        self._nonce = nonce
        self._is_encrypted = self._is_verified = False
        self._end_point: bytes | None = None
        self._asked = False
        self._scram: ScramClientExchange | None = None

    def over_tls(self, end_point: bytes | None, *, verified: bool) -> None:
        """The connection is encrypted. To be told before the first message.

        :param end_point: the hash of the server's certificate (``tls-server-end-point``, RFC
            5929); None if it has none, as one signed by Ed25519.
        :param verified: whether the certificate was verified (``sslmode=verify-ca`` or more).
        """
        self._is_encrypted, self._end_point, self._is_verified = True, end_point, verified

    def is_laborious(self, code: int, data: bytes) -> bool:
        """Whether `respond` takes long enough to be called in a thread."""
        return code == AuthenticationCode.SASL_CONTINUE and iterations_asked(data) > _QUICK

    def respond(self, code: int, data: bytes) -> bytes | None:
        """The message that answers an Authentication message; None if it wants no answer.

        :param code: see `AuthenticationCode`.
        :param data: what follows the code in the message.
        :raises ServerNotTrusted: if the server asks for what it must not have, or does not prove
            what it has to.
        :raises CommandError: when a password is asked for and none is known (28P01), and when the
            server asks for what is not supported (28000).
        :raises ProtocolViolation: when the server breaks the protocol, or asks for too much work.
        """
        if len(data) > _LONGEST_MESSAGE:
            raise ProtocolViolation(f"authentication message of {len(data)} bytes is too long")
        self._check_required(code)
        self._check_channel_binding(code)
        match code:
            case AuthenticationCode.OK:
                return None
            case AuthenticationCode.CLEARTEXT_PASSWORD:
                return password_message(self._cleartext())
            case AuthenticationCode.MD5_PASSWORD:
                return password_message(self._md5(data))
            case AuthenticationCode.SASL:
                return self._scram_begin(data)
            case AuthenticationCode.SASL_CONTINUE:
                return sasl_response(self._scram_begun().proof(data))
            case AuthenticationCode.SASL_FINAL:
                self._scram_begun().verify(data)
                return None
        raise _unsupported(_UNSUPPORTED.get(code, f"method number {code}"))

    # What the user demands, as libpq's `check_expected_areq`.

    def _check_required(self, code: int) -> None:
        required = self._demands.required
        if code == AuthenticationCode.OK:
            # Also a server that cannot sign a SCRAM exchange could skip its end, and say that all
            # is well. libpq lets it, unless told to require SCRAM.
            if self._scram is not None and not self._scram.verified:
                raise ServerNotTrusted("the server did not prove that it knows the password")
            if required is not None and required.exchange and not self._asked:
                raise self._not_as_required("server did not complete authentication")
        elif required is not None and not required.allows(code):
            requested = _REQUESTED.get(code, "an unknown authentication type")
            raise self._not_as_required(f"server requested {requested}")

    def _check_channel_binding(self, code: int) -> None:
        if self._demands.channel_binding is not ChannelBinding.REQUIRE or code in _SASL:
            return
        if code != AuthenticationCode.OK:
            raise ServerNotTrusted(
                "channel binding required but not supported by server's authentication request"
            )
        if self._scram is None or not self._scram.is_bound:
            raise ServerNotTrusted(
                "channel binding required, but server authenticated client without channel binding"
            )

    def _not_as_required(self, reason: str) -> ServerNotTrusted:
        required = self._demands.required
        assert required is not None, "or nothing could fail it"
        return ServerNotTrusted(
            f'authentication method requirement "{required.text}" failed: {reason}'
        )

    # The methods.

    def _reveal(self) -> str:
        # Once: a server that asks again may be after the password in a weaker form.
        if self._asked:
            raise ProtocolViolation("the server asks for the password a second time")
        self._asked = True
        if not self._password:
            raise CommandError(
                "28P01",
                "the server asks for a password, and none is known: "
                "give one by --password-file, in a password file or in PGPASSWORD",
            )
        return self._password

    def _cleartext(self) -> bytes:
        if not (self._is_verified or self._demands.allows_cleartext_anywhere):
            raise ServerNotTrusted(
                "the server asks for the password in cleartext, and it is not known whose server "
                "it is: use sslmode=verify-full, or allow it by require_auth=password"
            )
        return _encoded(self._reveal())

    def _md5(self, salt: bytes) -> bytes:
        if len(salt) != _MD5_SALT_SIZE:
            raise ProtocolViolation(f"md5 salt of {len(salt)} bytes instead of {_MD5_SALT_SIZE}")
        inner = _md5_hex(_encoded(self._reveal()) + _encoded(self._user))
        if self._demands.required is None and not self._is_verified:
            self.weakness = (
                "the server asked for the password by md5, from which it can be guessed: change it "
                "to scram-sha-256 there and say require_auth=scram-sha-256 here, or say "
                "require_auth=md5 if md5 is meant"
            )
        return b"md5" + _md5_hex(inner + salt)

    def _scram_begin(self, data: bytes) -> bytes:
        mechanism = self._choose(_mechanisms(data))
        binds = self._is_encrypted and (self._demands.channel_binding is not ChannelBinding.DISABLE)
        # Where there is nothing to bind to, the server learns from us that it did not offer to.
        end_point = (self._end_point or _NO_HASH) if binds else None
        self._scram = ScramClientExchange(mechanism, self._reveal(), end_point, self._nonce)
        return sasl_initial_response(mechanism, self._scram.first())

    def _choose(self, offered: list[str]) -> str:
        """Which mechanism to use, as libpq's ``pg_SASL_init`` does."""
        wanted = self._demands.channel_binding
        if wanted is ChannelBinding.REQUIRE and not self._is_encrypted:
            raise ServerNotTrusted("channel binding required, but SSL not in use")
        if MECHANISM_PLUS in offered and not self._is_encrypted:
            # Somebody between us has taken TLS away.
            raise ServerNotTrusted(
                f"server offered {MECHANISM_PLUS} authentication over a non-SSL connection"
            )
        if MECHANISM_PLUS in offered and wanted is not ChannelBinding.DISABLE:
            if self._end_point is None:
                raise ServerNotTrusted(
                    "channel binding is not possible with the server's certificate, whose "
                    "signature has no hash: use another one, or channel_binding=disable"
                )
            chosen = MECHANISM_PLUS
        elif MECHANISM in offered:
            chosen = MECHANISM
        else:
            if _OAUTH_BEARER in offered:
                self._check_mechanism(_OAUTH_BEARER, OAUTH)
            raise _unsupported(f"SASL by {', '.join(offered) or 'no mechanism at all'}")
        self._check_mechanism(chosen, SCRAM)
        if wanted is ChannelBinding.REQUIRE and chosen != MECHANISM_PLUS:
            raise ServerNotTrusted(
                "channel binding is required, but server did not offer an authentication method "
                "that supports channel binding"
            )
        return chosen

    def _check_mechanism(self, mechanism: str, method: str) -> None:
        required = self._demands.required
        if required is not None and method not in required.methods:
            raise self._not_as_required(f"server requested {mechanism} authentication")

    def _scram_begun(self) -> ScramClientExchange:
        if self._scram is None:
            raise ProtocolViolation("the server continues a SASL exchange that was not begun")
        return self._scram


def _mechanisms(data: bytes) -> list[str]:
    reader = FieldReader(data)
    names: list[str] = []
    while name := reader.cstring():
        names.append(ascii(text(name))[1:-1])
        if len(names) > _MOST_MECHANISMS:
            raise ProtocolViolation(f"the server offers more than {_MOST_MECHANISMS} mechanisms")
    reader.end()
    return names


def _md5_hex(data: bytes) -> bytes:
    return hashlib.md5(data).hexdigest().encode("ascii")


def _encoded(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _unsupported(method: str) -> CommandError:
    return CommandError(
        "28000", f"the server asks for authentication by {method}; {_SUPPORTED} (see pg_hba.conf)"
    )
