"""libpq's options about TLS, made into a value.

(PostgreSQL documentation, "SSL Support"; ``pqConnectOptions2`` in libpq, whose words these are.)
Two things differ, both towards the safe side: TLS 1.2 is the least that is spoken, whatever
``ssl_min_protocol_version`` allows, and a list of revoked certificates that was named but can't be
read is an error, where libpq does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

from twisted.logger import Logger

from walstream.errors import FormatError
from walstream.tls.extra import REMEDY, is_installed
from walstream.tls.options import CertificateMode, ClientOptions, SSLMode
from walstream.tls.versions import TLSVersion
from walstream.upstream.home import home_directory
from walstream.upstream.settings import Settings

__all__ = ["parse_encryption"]

_SYSTEM = "system"
_OLD_VERSIONS = ("TLSv1", "TLSv1.1")
_OPTIONAL = frozenset({SSLMode.DISABLE, SSLMode.ALLOW, SSLMode.PREFER})

_log = Logger()
_E = TypeVar("_E", bound=Enum)


def parse_encryption(settings: Settings, environ: Mapping[str, str]) -> ClientOptions | None:
    """How the connection is to be encrypted; None: not at all.

    :raises FormatError: naming the option, if something is wrong or can't be honoured.
    """
    mode = _mode(settings)
    is_direct = _is_direct(settings, mode)
    options = _options(settings, environ, mode, is_direct)
    if mode is SSLMode.DISABLE and options.certificate_mode is not CertificateMode.REQUIRE:
        return None
    if is_installed():
        return options
    if mode not in _OPTIONAL or options.certificate_mode is CertificateMode.REQUIRE:
        raise FormatError(f"sslmode={mode.value} is not possible: {REMEDY}")
    # As libpq does where it was built without TLS; but not in silence.
    _log.info(
        "connecting without TLS, which sslmode={mode} allows: {why}", mode=mode.value, why=REMEDY
    )
    return None


def _options(
    settings: Settings, environ: Mapping[str, str], mode: SSLMode, is_direct: bool
) -> ClientOptions:
    files = home_directory(environ) / ".postgresql"
    root = _value(settings, "sslrootcert")
    return ClientOptions(
        mode=mode,
        is_direct=is_direct,
        root=None if root == _SYSTEM else Path(root or files / "root.crt"),
        certificate=_path(settings, "sslcert") or files / "postgresql.crt",
        key=_path(settings, "sslkey") or files / "postgresql.key",
        password=_value(settings, "sslpassword") or None,
        revoked=_path(settings, "sslcrl"),
        revoked_directory=_path(settings, "sslcrldir"),
        revoked_default=files / "root.crl",
        certificate_mode=_one_of(CertificateMode, settings, "sslcertmode") or CertificateMode.ALLOW,
        names_host=_value(settings, "sslsni") in ("", "1"),
        **_versions(settings),
    )


def _mode(settings: Settings) -> SSLMode:
    is_system = _value(settings, "sslrootcert") == _SYSTEM
    default = SSLMode.VERIFY_FULL if is_system else SSLMode.PREFER
    mode = _one_of(SSLMode, settings, "sslmode") or default
    if is_system and mode is not SSLMode.VERIFY_FULL:
        raise FormatError(
            f'weak sslmode "{mode.value}" may not be used with sslrootcert=system '
            '(use "verify-full")'
        )
    return mode


def _is_direct(settings: Settings, mode: SSLMode) -> bool:
    value = _value(settings, "sslnegotiation") or "postgres"
    if value not in ("postgres", "direct"):
        raise _invalid(settings, "sslnegotiation")
    if value == "direct" and mode in _OPTIONAL:
        raise FormatError(
            f'weak sslmode "{mode.value}" may not be used with sslnegotiation=direct '
            '(use "require", "verify-ca", or "verify-full")'
        )
    return value == "direct"


def _versions(settings: Settings) -> dict[str, TLSVersion]:
    found = {}
    least = _value(settings, "ssl_min_protocol_version")
    if least not in _OLD_VERSIONS:
        version = _one_of(TLSVersion, settings, "ssl_min_protocol_version")
        found["least"] = version or TLSVersion.V1_2
    most = _value(settings, "ssl_max_protocol_version")
    if most in _OLD_VERSIONS:
        raise FormatError(
            f"ssl_max_protocol_version={most} ({settings['ssl_max_protocol_version'].origin}) is "
            "not possible: walstream speaks TLSv1.2 and TLSv1.3"
        )
    version = _one_of(TLSVersion, settings, "ssl_max_protocol_version")
    if version is not None:
        found["most"] = version
        if version.number < found.get("least", TLSVersion.V1_2).number:
            raise FormatError("invalid SSL protocol version range")
    return found


def _one_of(kind: type[_E], settings: Settings, name: str) -> _E | None:
    value = _value(settings, name)
    if not value:
        return None
    try:
        return kind(value)
    except ValueError:
        raise _invalid(settings, name) from None


def _path(settings: Settings, name: str) -> Path | None:
    value = _value(settings, name)
    return Path(value).absolute() if value else None


def _value(settings: Settings, name: str) -> str:
    return settings[name].value if name in settings else ""


def _invalid(settings: Settings, name: str) -> FormatError:
    setting = settings[name]
    # libpq puts the names of these two in quotes, and no others.
    name = f'"{name}"' if name.endswith("_protocol_version") else name
    return FormatError(f'invalid {name} value: "{setting.value}" ({setting.origin})')
