"""Who a server may be: libpq's ``require_auth``, ``channel_binding`` and ``requirepeer``.

Source: PostgreSQL's documentation, "Parameter Key Words"; libpq's ``pqConnectOptions2`` and
``check_expected_areq``, whose words these are. Pure values: what the server then asks for is
judged in `walstream.wire.authentication`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import Enum
from typing import Final

from walstream.errors import FormatError
from walstream.wire.messages import AuthenticationCode

__all__ = ["NO_DEMANDS", "OAUTH", "SCRAM", "ChannelBinding", "LoginDemands", "RequiredAuth"]

SCRAM: Final = "scram-sha-256"
OAUTH: Final = "oauth"
_NONE: Final = "none"
_PASSWORD: Final = "password"

# Which methods ask by which messages. The data of a GSSAPI and of an SSPI exchange look alike.
_METHODS: Final[Mapping[str, Set[int]]] = {
    _PASSWORD: {AuthenticationCode.CLEARTEXT_PASSWORD},
    "md5": {AuthenticationCode.MD5_PASSWORD},
    "gss": {AuthenticationCode.GSS, AuthenticationCode.GSS_CONTINUE},
    "sspi": {AuthenticationCode.SSPI, AuthenticationCode.GSS_CONTINUE},
    SCRAM: set(),
    OAUTH: set(),
}
_SASL: Final = frozenset({SCRAM, OAUTH})
_SASL_CODES: Final = frozenset(
    {AuthenticationCode.SASL, AuthenticationCode.SASL_CONTINUE, AuthenticationCode.SASL_FINAL}
)


class ChannelBinding(Enum):
    """libpq's ``channel_binding``: whether the login has to belong to this TLS connection."""

    DISABLE = "disable"
    PREFER = "prefer"
    REQUIRE = "require"


@dataclass(frozen=True, slots=True)
class RequiredAuth:
    """libpq's ``require_auth``, read.

    :ivar text: as it was written, for messages.
    :ivar methods: those by which the server may ask.
    :ivar exchange: whether it has to ask at all: nothing but ``none`` may let us in unasked.
    :ivar named: whether *methods* were named, and are not those that were left over.
    """

    text: str
    methods: Set[str]
    exchange: bool
    named: bool

    @classmethod
    def parse(cls, text: str) -> RequiredAuth:
        """Read a comma list of methods: those that will do, or, each with ``!``, those that won't.

        :raises FormatError: with libpq's words.
        """
        negated = text.startswith("!")
        seen: set[str] = set()
        for part in text.split(","):
            if part.startswith("!") is not negated:
                raise FormatError(
                    f'require_auth method "{part}" cannot be mixed with negative methods'
                    if negated
                    else f'negative require_auth method "{part}" cannot be mixed with '
                    "non-negative methods"
                )
            method = part.removeprefix("!")
            if method not in _METHODS and method != _NONE:
                raise FormatError(f'invalid require_auth value: "{method}"')
            if method in seen:
                raise FormatError(f'require_auth method "{part}" is specified more than once')
            seen.add(method)
        methods = frozenset(_METHODS.keys() - seen if negated else seen - {_NONE})
        return cls(text, methods, (_NONE in seen) is negated, not negated)

    def allows(self, code: int) -> bool:
        """Whether the server may ask by an Authentication message of this *code*."""
        if code in _SASL_CODES:
            return bool(self.methods & _SASL)
        return any(code in _METHODS[method] for method in self.methods)

    def insists_on(self, method: str) -> bool:
        """Whether *method* was named as one that will do."""
        return self.named and method in self.methods


@dataclass(frozen=True, slots=True)
class LoginDemands:
    """What has to be so before a server is told anything, or believed.

    :ivar required: None if every method will do that is not refused anyway.
    :ivar peer: the user that has to run the server at a UNIX socket (``requirepeer``); None: any.
    """

    required: RequiredAuth | None = None
    channel_binding: ChannelBinding = ChannelBinding.PREFER
    peer: str | None = None

    @property
    def allows_cleartext_anywhere(self) -> bool:
        """Whether the user has said that the password may be sent as it is."""
        return self.required is not None and self.required.insists_on(_PASSWORD)


NO_DEMANDS: Final = LoginDemands()
"""libpq's defaults."""
