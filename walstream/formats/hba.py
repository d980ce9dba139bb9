"""``pg_hba.conf``: which connections may come in, and what they have to prove.

The lines are PostgreSQL's as they are (documentation, "The pg_hba.conf File"; ``hba.c``), and so
are the words for what is wrong with them. The first line that means a connection decides; if none
does, there is no entry. What only a database server has is refused when the file is read, with the
line and the reason, rather than never met in silence: membership of roles, and methods that are
not offered here. Lines about other databases may say what they want: they never mean us.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from walstream.errors import FormatError
from walstream.formats.auth_file import AuthLine, Files, Token, read_auth_file
from walstream.formats.client_address import IPAddress
from walstream.formats.hba_address import ANYWHERE, AddressRule, Near, parse_address
from walstream.formats.name_pattern import name_pattern

__all__ = [
    "AuthMethod",
    "ClientCertificate",
    "ConnectionKind",
    "HBARule",
    "IncomingConnection",
    "depends_on_name",
    "first_match",
    "read_hba",
]


class ConnectionKind(Enum):
    """The first word of a line: how a client is connected."""

    LOCAL = "local"
    HOST = "host"
    HOSTSSL = "hostssl"
    HOSTNOSSL = "hostnossl"
    HOSTGSSENC = "hostgssenc"
    HOSTNOGSSENC = "hostnogssenc"

    def means(self, *, is_local: bool, is_encrypted: bool) -> bool:
        """Whether that is how: over a UNIX socket, with TLS. GSSAPI encryption is not offered."""
        if self is ConnectionKind.LOCAL or is_local:
            return self is ConnectionKind.LOCAL and is_local
        match self:
            case ConnectionKind.HOSTSSL:
                return is_encrypted
            case ConnectionKind.HOSTNOSSL:
                return not is_encrypted
        return self is not ConnectionKind.HOSTGSSENC


class AuthMethod(Enum):
    """What a client has to prove, of PostgreSQL's methods those that are offered here."""

    TRUST = "trust"
    REJECT = "reject"
    SCRAM = "scram-sha-256"
    CERT = "cert"
    PEER = "peer"


class ClientCertificate(Enum):
    """What a client's certificate has to be: the option ``clientcert``."""

    ANY = "any"
    """None is needed."""
    VERIFY_CA = "verify-ca"
    """There has to be one, of an authority that is trusted."""
    VERIFY_FULL = "verify-full"
    """Its name has to be the user's as well, or be mapped to it."""


@dataclass(frozen=True, slots=True)
class IncomingConnection:
    """What the rules go by.

    :ivar address: where it comes from; None for a UNIX socket.
    :ivar host_names: the names of that address that lead back to it.
    """

    user: str
    address: IPAddress | None
    is_encrypted: bool
    host_names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class HBARule:
    """A line about physical replication.

    :ivar ident_map: the map of ``pg_ident.conf`` by which a name becomes a user.
    :ivar uses_distinguished_name: whether a certificate's name is all of its subject
        (``clientname=DN``), and not its common name only.
    """

    line: AuthLine
    kind: ConnectionKind
    users: Sequence[Token]
    address: AddressRule
    method: AuthMethod
    ident_map: str | None = None
    client_certificate: ClientCertificate = ClientCertificate.ANY
    uses_distinguished_name: bool = False

    def means(self, connection: IncomingConnection, near: Near) -> bool:
        """Whether it is about a physical replication connection like this one.

        :param near: our own addresses.
        """
        return self.could_mean(connection) and (
            connection.address is None
            or self.address.means(connection.address, connection.host_names, near)
        )

    def could_mean(self, connection: IncomingConnection) -> bool:
        """Whether it would, if only the address were the right one."""
        is_local = connection.address is None
        return self.kind.means(is_local=is_local, is_encrypted=connection.is_encrypted) and any(
            _means_user(token, connection.user) for token in self.users
        )


def first_match(
    rules: Sequence[HBARule], connection: IncomingConnection, near: Near
) -> HBARule | None:
    """The rule that decides about a connection; None: there is no entry."""
    return next((rule for rule in rules if rule.means(connection, near)), None)


def depends_on_name(rules: Sequence[HBARule], connection: IncomingConnection, near: Near) -> bool:
    """Whether the names of the client's host have to be known to tell which rule decides."""
    if connection.address is None:
        return False
    for rule in rules:
        if rule.address.host_name is not None and rule.could_mean(connection):
            return True
        if rule.means(connection, near):
            return False
    return False


def read_hba(path: str, files: Files) -> list[HBARule]:
    """Read the rules about physical replication; ``all`` databases do not include it.

    :raises FormatError: for the first line that is wrong. Of lines about other databases no more
        is looked at than tells that they are.
    """
    rules = (_rule(line) for line in read_auth_file(path, files))
    return [rule for rule in rules if rule is not None]


# Lines

# The words for what a server offers, and we don't.
_NOT_OFFERED: Final = frozenset(
    {"bsd", "gss", "ident", "ldap", "oauth", "pam", "password", "radius", "sspi"}
)
# A verifier of SCRAM is asked for by SCRAM, also where the rule says md5 (documentation, "Password
# Authentication"), and there are no others here.
_METHODS: Final = {method.value: method for method in AuthMethod} | {"md5": AuthMethod.SCRAM}


def _rule(line: AuthLine) -> HBARule | None:
    fields = iter(line.fields)
    kind = _kind(line, _single(line, next(fields), "connection type"))
    databases = _field(line, fields, "database specification")
    if not any(token.is_keyword("replication") for token in databases):
        return None
    users = _field(line, fields, "role specification")
    _check_users(line, databases, users)
    address = ANYWHERE
    if kind is not ConnectionKind.LOCAL:
        address = _address(line, fields)
    word = _single(line, _field(line, fields, "authentication method"), "authentication type")
    method = _method(line, kind, word)
    options = dict(_option(line, token) for tokens in fields for token in tokens)
    return _with_options(line, kind, users, address, method, options)


def _field(line: AuthLine, fields: Iterator[Sequence[Token]], what: str) -> Sequence[Token]:
    field = next(fields, None)
    if field is None:
        raise line.wrong(f"end-of-line before {what}")
    return field


def _single(line: AuthLine, tokens: Sequence[Token], what: str) -> Token:
    if len(tokens) > 1:
        raise line.wrong(f"multiple values specified for {what}")
    return tokens[0] if tokens else Token("")


def _kind(line: AuthLine, token: Token) -> ConnectionKind:
    try:
        return ConnectionKind(token.text)
    except ValueError:
        raise line.wrong(f'invalid connection type "{token.text}"') from None


def _check_users(line: AuthLine, databases: Sequence[Token], users: Sequence[Token]) -> None:
    for token in (*databases, *users):
        if token.text.startswith("/"):
            _check_pattern(line, token.text[1:])
    for token in users:
        if not token.is_quoted and token.text.startswith("+"):
            raise line.wrong(
                f"{token.text} means the members of a role, which only a database server knows: "
                "name the users"
            )


def _check_pattern(line: AuthLine, text: str) -> None:
    try:
        name_pattern(text)
    except FormatError as error:
        raise line.wrong(str(error)) from None


def _address(line: AuthLine, fields: Iterator[Sequence[Token]]) -> AddressRule:
    token = _single(line, _field(line, fields, "IP address specification"), "host address")

    def mask() -> str:
        tokens = next(fields, None)
        if tokens is None:
            raise line.wrong(
                "end-of-line before netmask specification (specify an address range in CIDR "
                "notation, or provide a separate netmask)"
            )
        return _single(line, tokens, "netmask").text

    try:
        return parse_address(token, mask)
    except FormatError as error:
        raise line.wrong(str(error)) from None


def _method(line: AuthLine, kind: ConnectionKind, token: Token) -> AuthMethod:
    if token.text in _NOT_OFFERED:
        offered = ", ".join(sorted(_METHODS))
        raise line.wrong(
            f'authentication method "{token.text}" is not offered by walstream; there are {offered}'
        )
    method = _METHODS.get(token.text)
    if method is None:
        raise line.wrong(f'invalid authentication method "{token.text}"')
    if method is AuthMethod.PEER and kind is not ConnectionKind.LOCAL:
        raise line.wrong("peer authentication is only supported on local sockets")
    if method is AuthMethod.CERT and kind is not ConnectionKind.HOSTSSL:
        raise line.wrong("cert authentication is only supported on hostssl connections")
    return method


# Options

_MAPPED: Final = frozenset({AuthMethod.PEER, AuthMethod.CERT})


def _option(line: AuthLine, token: Token) -> tuple[str, str]:
    name, equals, value = token.text.partition("=")
    if not equals:
        raise line.wrong(f"authentication option not in name=value format: {token.text}")
    if name not in ("map", "clientcert", "clientname"):
        raise line.wrong(f'unrecognized authentication option name: "{name}"')
    return name, value


def _with_options(
    line: AuthLine,
    kind: ConnectionKind,
    users: Sequence[Token],
    address: AddressRule,
    method: AuthMethod,
    options: dict[str, str],
) -> HBARule:
    if "map" in options and method not in _MAPPED:
        raise line.wrong(
            'authentication option "map" is only valid for authentication methods peer and cert'
        )
    for name in ("clientcert", "clientname"):
        if name in options and kind is not ConnectionKind.HOSTSSL:
            raise line.wrong(f'{name} can only be configured for "hostssl" rows')
    certificate = _client_certificate(line, method, options.get("clientcert"))
    return HBARule(
        line,
        kind,
        users,
        address,
        method,
        ident_map=options.get("map") or None,  # an empty name is as good as none
        client_certificate=certificate,
        uses_distinguished_name=_client_name(line, options.get("clientname")),
    )


def _client_certificate(line: AuthLine, method: AuthMethod, value: str | None) -> ClientCertificate:
    if method is AuthMethod.CERT:
        if value not in (None, ClientCertificate.VERIFY_FULL.value):
            raise line.wrong(
                'clientcert only accepts "verify-full" when using "cert" authentication'
            )
        return ClientCertificate.VERIFY_FULL
    if value is None:
        return ClientCertificate.ANY
    if value not in (ClientCertificate.VERIFY_CA.value, ClientCertificate.VERIFY_FULL.value):
        raise line.wrong(f'invalid value for clientcert: "{value}"')
    return ClientCertificate(value)


def _client_name(line: AuthLine, value: str | None) -> bool:
    if value not in (None, "CN", "DN"):
        raise line.wrong(f'invalid value for clientname: "{value}"')
    return value == "DN"


def _means_user(token: Token, user: str) -> bool:
    if token.text.startswith("/"):
        return name_pattern(token.text[1:]).search(user) is not None
    return token.is_keyword("all") or token.text == user
