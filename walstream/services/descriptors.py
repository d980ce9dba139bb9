"""File descriptors: as many as the clients need, and no more clients than there are.

A client costs one descriptor, its connection. When there are none left, no segment can be opened:
what is received could not be kept. So clients are turned away before that.
"""

from __future__ import annotations

import resource
from dataclasses import replace

from twisted.logger import Logger

from walstream.protocols.settings import SenderSettings

__all__ = ["with_room_for_clients"]

# For everything but connections: the archive's files, the reactor, the upstream, the log.
_OWN = 100
# What "any number of clients" is taken for.
_MANY = 1 << 20

_log = Logger()


def with_room_for_clients(settings: SenderSettings) -> SenderSettings:
    """*settings*, with no more clients than this process can have descriptors for.

    The soft limit (RLIMIT_NOFILE) is raised first, as far as the hard limit allows it and it is
    needed.
    """
    besides = settings.max_strangers + _OWN
    room = max(1, _raise_limit((settings.max_clients or _MANY) + besides) - besides)
    if settings.max_clients > room:
        _log.warn(
            "there are file descriptors for {room} clients only, not for {wanted}: raise the hard "
            "limit (LimitNOFILE in a unit file), or lower --max-clients",
            room=room,
            wanted=settings.max_clients,
        )
    return replace(settings, max_clients=min(room, settings.max_clients or room))


def _raise_limit(wanted: int) -> int:
    """Raise the limit to *wanted*, if that is more than it is; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft >= wanted:
        return soft
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
