"""What a user said about the connection, and where it was said: string, service, environment.

The order is libpq's (``conninfo_add_defaults``): what the connection string says wins over its
service's definition, and that over the environment. Nothing here knows what an option means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from walstream.errors import FormatError
from walstream.upstream.servicefile import find_service

__all__ = ["CONNECTION_STRING", "Setting", "Settings", "gather", "secrets_in"]

#: The origin of what stands in the connection string itself.
CONNECTION_STRING = "the connection string"


_SECRETS = ("password", "sslpassword", "oauth_client_secret")
# A password as an option, or before the host of a URI.
_MAY_BE_SECRET = re.compile(r"pass|secret|://[^/?]*:[^/?]*@")


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of an option, and where it comes from, for messages."""

    value: str = field(repr=False)
    origin: str


#: By libpq's name of the option. What nobody said is not in it.
Settings = Mapping[str, Setting]


def gather(text: str, environ: Mapping[str, str]) -> Settings:
    """All that is said: in *text*, in the service that it or the environment names, in *environ*.

    :raises FormatError: with libpq's words if *text* is not a connection string; also if the
        service isn't defined, or its file has a faulty line.
    """
    settings = _connection_string(text)
    service = settings.get("service") or _variable(environ, "PGSERVICE")
    if service is not None and service.value:
        definition = find_service(service.value, environ, _option_names())
        origin = f"service {service.value!r}"
        settings = {name: Setting(value, origin) for name, value in definition.items()} | settings
    return _environment(environ) | settings


def _connection_string(text: str) -> dict[str, Setting]:
    try:
        parsed = conninfo_to_dict(text)
    except (psycopg.Error, UnicodeError) as error:
        words = _without_secrets(text, str(error).strip())
        raise FormatError(f"the connection string cannot be read: {words}") from None
    return {name: Setting(str(value), CONNECTION_STRING) for name, value in parsed.items()}


def secrets_in(text: str) -> list[str]:
    """The options in a connection string whose values are nobody else's business."""
    try:
        parsed = _connection_string(text)
    except FormatError:
        return []
    return [name for name in _SECRETS if name in parsed and parsed[name].value]


def _without_secrets(text: str, words: str) -> str:
    """libpq's words for a mistake quote the place, which may be a part of a password."""
    if _MAY_BE_SECRET.search(text) is None:
        return words
    return re.sub(r'"[^\n]*"', '"…" (not shown, since there is a password in it)', words)


def _environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    settings: dict[str, Setting] = {}
    # PGREQUIRESSL is libpq's oldest way to ask for TLS; PGSSLMODE wins over it.
    if environ.get("PGREQUIRESSL", "").startswith("1"):
        settings["sslmode"] = Setting("require", _variable_origin("PGREQUIRESSL"))
    for option in pq.Conninfo.get_defaults():
        setting = option.envvar and _variable(environ, option.envvar.decode())
        if setting:
            settings[option.keyword.decode()] = setting
    return settings


def _variable(environ: Mapping[str, str], name: str) -> Setting | None:
    value = environ.get(name)
    return None if value is None else Setting(value, _variable_origin(name))


def _variable_origin(name: str) -> str:
    return f"the environment variable {name}"


def _option_names() -> frozenset[str]:
    return frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())
