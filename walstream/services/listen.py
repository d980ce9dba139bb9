"""Whether a server endpoint string reaches further than this machine.

Nobody is authenticated yet, so that is the one question about ``--listen`` that matters.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from twisted.internet.endpoints import serverFromString

from walstream.errors import FormatError

__all__ = ["check_endpoint"]

_REMEDY = (
    "this version lets every client in, so it listens on this machine only, e.g. "
    "tcp:5433:interface=127.0.0.1 or unix:/run/walstream/.s.PGSQL.5433; "
    "--trust-network allows more, on a network that you trust"
)


def check_endpoint(description: str, *, trust_network: bool) -> None:
    """Check a server endpoint string.

    :param trust_network: whether clients from other machines may come in.
    :raises FormatError: if it isn't one, or one that other machines can reach without trust.
    """
    kind, _, rest = description.partition(":")
    if kind == "ssl":
        raise FormatError(
            f"{description!r} will not do: this version of walstream does not speak TLS, and "
            "PostgreSQL's clients ask for it after they connected; use a tcp: or unix: endpoint"
        )
    try:
        # A reactor is needed to listen, not to read the string.
        reactor: Any = None
        serverFromString(reactor, description)
    except Exception as error:
        raise FormatError(
            f"{description!r} is not a server endpoint ({error}); "
            "one is, for example, tcp:5433:interface=127.0.0.1"
        ) from error
    if not trust_network:
        _check_reach(description, kind, rest)


def _check_reach(description: str, kind: str, rest: str) -> None:
    if kind == "unix":
        return
    if kind not in ("tcp", "tcp6"):
        raise FormatError(
            f"{description!r} will not do: from where it can be reached is not to be seen; {_REMEDY}"
        )
    interface = _argument(rest, "interface", at=1)
    if not _is_loopback(interface):
        where = f"interface {interface}" if interface else "all interfaces"
        raise FormatError(f"{description!r} will not do: it listens on {where}; {_REMEDY}")


def _argument(rest: str, name: str, *, at: int) -> str:
    """An argument of an endpoint string, given as ``name=value`` or by its place."""
    by_place: list[str] = []
    for part in re.split(r"(?<!\\):", rest):
        key, equals, value = part.partition("=")
        if equals and key == name:
            return value.replace("\\", "")
        if not equals:
            by_place.append(part)
    return by_place[at].replace("\\", "") if len(by_place) > at else ""


def _is_loopback(interface: str) -> bool:
    if interface == "localhost":
        return True
    try:
        return ipaddress.ip_address(interface).is_loopback
    except ValueError:
        return False
