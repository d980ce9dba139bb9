"""Where the upstream is and as whom to log in there: connection strings, by libpq's rules."""

from walstream.upstream.conninfo import parse_conninfo
from walstream.upstream.hosts import DEFAULT_PORT, UpstreamHost
from walstream.upstream.private_file import read_secret
from walstream.upstream.settings import secrets_in
from walstream.upstream.upstream import TargetSessionAttrs, Upstream

__all__ = [
    "DEFAULT_PORT",
    "TargetSessionAttrs",
    "Upstream",
    "UpstreamHost",
    "parse_conninfo",
    "read_secret",
    "secrets_in",
]
