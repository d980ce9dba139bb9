"""Connection strings: everything that libpq takes, made into an `Upstream`.

URIs and ``key=value`` strings are read by libpq itself; defaults come from a service file and the
``PG…`` variables of the environment, as there (PostgreSQL documentation, "Connection Strings",
"Environment Variables"). Three things differ, on purpose:

* ``replication`` is not taken from a user: the receiver asks for it itself, always.
* Without ``connect_timeout`` a host gets `DEFAULT_CONNECT_TIMEOUT`, since a service that waits
  for ever helps nobody; 0 waits for ever.
* ``dbname`` counts only in the string itself, since it means nothing to a walsender: the database
  is ``replication`` otherwise, also in the password file, as for PostgreSQL's own tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twisted.logger import Logger

from walstream.errors import FormatError
from walstream.protocols.login import Login
from walstream.upstream.encryption import parse_encryption
from walstream.upstream.home import home_directory, system_user
from walstream.upstream.hosts import parse_hosts
from walstream.upstream.policy import check_policy
from walstream.upstream.private_file import credentials_directory
from walstream.upstream.settings import CONNECTION_STRING, Settings, gather
from walstream.upstream.upstream import TargetSessionAttrs, Upstream
from walstream.wire.login_demands import ChannelBinding, LoginDemands, RequiredAuth

__all__ = ["CREDENTIAL", "DEFAULT_APPLICATION_NAME", "DEFAULT_CONNECT_TIMEOUT", "parse_conninfo"]

#: Seconds. Twisted's own for a connection; a login is included here.
DEFAULT_CONNECT_TIMEOUT = 30.0

#: Nobody's name by accident: a receiver that reports its flush position becomes a synchronous
#: standby where ``synchronous_standby_names`` lists it.
DEFAULT_APPLICATION_NAME = "walstream"

#: What systemd has to call the password (``LoadCredential=``) for it to be found untold.
CREDENTIAL = "walstream.upstream.password"

_TCP_OPTIONS = (
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)

_log = Logger()


def parse_conninfo(
    text: str, environ: Mapping[str, str], password_file: Path | None = None
) -> Upstream:
    """Read a connection string.

    :param environ: the environment, such as ``os.environ``.
    :param password_file: a file with the password and nothing else. It wins over everything but
        the string itself, which must not give one as well.
    :raises FormatError: naming the option, if something is wrong or can't be honoured.
    """
    settings = _with_password_file(gather(text, environ), password_file)
    check_policy(settings)
    _warn_of_replication(settings)
    credentials = credentials_directory(environ.get("CREDENTIALS_DIRECTORY"))
    return Upstream(
        hosts=parse_hosts(*(_value(settings, name) for name in ("host", "hostaddr", "port"))),
        account=_account(settings),
        password_file=password_file or _credential(credentials),
        credentials=credentials,
        passfile=Path(_value(settings, "passfile") or home_directory(environ) / ".pgpass"),
        wanted=_wanted(settings),
        shuffled=_shuffled(settings),
        connect_timeout=_connect_timeout(settings),
        tls=parse_encryption(settings, environ),
        tcp_options={
            name: _integer(settings, name) for name in _TCP_OPTIONS if _value(settings, name)
        },
    )


def _with_password_file(settings: Settings, password_file: Path | None) -> Settings:
    password = settings.get("password")
    if password_file is None or password is None or not password.value:
        return settings
    if password.origin == CONNECTION_STRING:
        raise FormatError(
            "there is a password in the connection string and another one in the password file "
            f"{str(password_file)!r}: leave one of them out"
        )
    return {name: setting for name, setting in settings.items() if name != "password"}


def _credential(credentials: Path | None) -> Path | None:
    """The password that systemd gives to this service, if it does."""
    if credentials is None or not (path := credentials / CREDENTIAL).is_file():
        return None
    return path


def _warn_of_replication(settings: Settings) -> None:
    if "replication" in settings:
        _log.warn(
            "replication={value} ({origin}) is ignored: walstream asks for replication itself",
            value=settings["replication"].value,
            origin=settings["replication"].origin,
        )


def _account(settings: Settings) -> Login:
    user = _value(settings, "user") or system_user()
    if not user:
        raise FormatError("no user is given, and the system has no name for this one: add user=")
    database = settings.get("dbname")
    in_string = database is not None and database.origin == CONNECTION_STRING
    return Login(
        user=user,
        password=_value(settings, "password") or None,
        application_name=_value(settings, "application_name")
        or _value(settings, "fallback_application_name")
        or DEFAULT_APPLICATION_NAME,
        database=(database.value if database and in_string else "") or "replication",
        parameters=_parameters(settings),
        demands=_demands(settings),
    )


def _demands(settings: Settings) -> LoginDemands:
    required = _value(settings, "require_auth")
    try:
        return LoginDemands(
            RequiredAuth.parse(required) if required else None,
            ChannelBinding(_value(settings, "channel_binding") or "prefer"),
            _value(settings, "requirepeer") or None,
        )
    except FormatError as error:
        raise FormatError(f"{error} ({settings['require_auth'].origin})") from None


def _parameters(settings: Settings) -> dict[str, str]:
    parameters = {
        name: _value(settings, name)
        for name in ("options", "client_encoding")
        if _value(settings, name)
    }
    # To libpq "auto" is the locale's encoding. Nothing that a walsender says depends on it.
    if parameters.get("client_encoding") == "auto":
        del parameters["client_encoding"]
    return parameters


def _wanted(settings: Settings) -> TargetSessionAttrs:
    value = _value(settings, "target_session_attrs") or "any"
    try:
        return TargetSessionAttrs(value)
    except ValueError:
        raise _invalid(settings, "target_session_attrs") from None


def _shuffled(settings: Settings) -> bool:
    value = _value(settings, "load_balance_hosts") or "disable"
    if value not in ("disable", "random"):
        raise _invalid(settings, "load_balance_hosts")
    return value == "random"


def _connect_timeout(settings: Settings) -> float | None:
    if not _value(settings, "connect_timeout"):
        return DEFAULT_CONNECT_TIMEOUT
    seconds = _integer(settings, "connect_timeout")
    return float(seconds) if seconds > 0 else None


def _integer(settings: Settings, name: str) -> int:
    try:
        return int(_value(settings, name) or 0)
    except ValueError:
        origin = settings[name].origin
        raise FormatError(
            f'invalid integer value "{settings[name].value}" for connection option "{name}" '
            f"({origin})"
        ) from None


def _invalid(settings: Settings, name: str) -> FormatError:
    setting = settings[name]
    return FormatError(f'invalid {name} value: "{setting.value}" ({setting.origin})')


def _value(settings: Settings, name: str) -> str:
    return settings[name].value if name in settings else ""
