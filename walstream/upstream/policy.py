"""What walstream makes of every option that libpq knows: used, harmless, or refused.

Nothing is downgraded in silence: an option that asks for something this version can't give, or
that nobody has looked at yet, is an error that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from walstream.errors import FormatError
from walstream.upstream.settings import Setting, Settings

__all__ = ["check_policy"]

#: Options that `walstream.upstream.conninfo` reads.
_USED = frozenset(
    {
        "application_name",
        "client_encoding",
        "connect_timeout",
        "dbname",
        "fallback_application_name",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "load_balance_hosts",
        "options",
        "passfile",
        "password",
        "port",
        "replication",
        "require_auth",
        "requirepeer",
        "service",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcertmode",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    }
)

#: Options without effect, and why that harms nobody.
_HARMLESS: Mapping[str, str] = {
    "sslcompression": "nobody compresses any more, neither do libpq and OpenSSL",
    # They say how GSSAPI is to be done: a server that insists on it refuses the login.
    **dict.fromkeys(("gssdelegation", "gsslib", "krbsrvname"), "there is no GSSAPI"),
    "max_protocol_version": "protocol 3.0 is spoken, below every limit",
}


@dataclass(frozen=True, slots=True)
class _Restriction:
    """The values that can be honoured, those that libpq knows besides, and what to do instead."""

    possible: Set[str]
    known: Set[str] | None
    remedy: str


_RESTRICTED: Mapping[str, _Restriction] = {
    "sslkeylogfile": _Restriction(set(), None, "walstream writes the keys of TLS to no file"),
    # Required without TLS, the login is refused.
    "channel_binding": _Restriction({"disable", "prefer", "require"}, set(), ""),
    "gssencmode": _Restriction(
        {"disable", "prefer"},
        {"require"},
        "walstream does not speak GSSAPI; use gssencmode=disable on a network that you trust",
    ),
    "min_protocol_version": _Restriction(
        {"3.0"}, {"3.2", "latest"}, "walstream speaks protocol 3.0, with every server; leave it out"
    ),
    **dict.fromkeys(
        ("scram_client_key", "scram_server_key"),
        _Restriction(set(), None, "give the password itself, best in a password file"),
    ),
    **dict.fromkeys(
        ("oauth_client_id", "oauth_client_secret", "oauth_issuer", "oauth_scope"),
        _Restriction(
            set(), None, "walstream logs in by password (cleartext, md5, SCRAM-SHA-256) or trust"
        ),
    ),
}


def check_policy(settings: Settings) -> None:
    """Check that everything that was said can be honoured.

    :raises FormatError: naming the option, where it was said, and what to do instead.
    """
    for name, setting in settings.items():
        # To libpq an empty value is as good as none.
        if not setting.value or name in _USED or name in _HARMLESS:
            continue
        if (restriction := _RESTRICTED.get(name)) is not None:
            _check(name, setting, restriction)
        else:
            raise FormatError(
                f"{name} ({setting.origin}) is an option that this version of walstream does not "
                "know; leave it out"
            )


def _check(name: str, setting: Setting, restriction: _Restriction) -> None:
    value = setting.value
    if value in restriction.possible:
        return
    if restriction.known is not None and value not in restriction.known:
        raise FormatError(f'invalid {name} value: "{value}" ({setting.origin})')
    # Where any value is refused it may be a secret, and is not shown.
    shown = name if restriction.known is None else f"{name}={value}"
    raise FormatError(f"{shown} ({setting.origin}) is not possible: {restriction.remedy}")
