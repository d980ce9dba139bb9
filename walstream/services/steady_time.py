"""Timers that a step of the wall clock neither delays nor sets off.

Twisted's reactors go by the time of day (Twisted issue 2424). When NTP, or a person, sets it back
by an hour, whatever was to happen in ten seconds happens in an hour: no status updates until then.
When it is set forward, all that waits happens at once, and every timeout has run out.
"""

from __future__ import annotations

import time
from typing import Any

__all__ = ["use_steady_time"]


def use_steady_time(reactor: Any) -> None:
    """Have *reactor* go by a clock that is never set; it begins at the time of day.

    For a process that is walstream's own: an application that has walstream as a guest decides
    that for itself.

    :param reactor: `IReactorTime`, whose timers go by its ``seconds``, as those of all of Twisted's
        reactors do.
    """
    beginning = time.time() - time.monotonic()
    reactor.seconds = lambda: beginning + time.monotonic()
