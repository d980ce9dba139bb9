"""The demo: a primary, a hub and a standby behind it, real servers all, in a temporary directory.

It takes the terminal and the environment of its process for its own, so it is for the command
line: ``twistd -n walstream demo``.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Protocol

from twisted.logger import globalLogPublisher

from walstream.demo.logs import DemoLog, HeldOutput
from walstream.demo.screen import Output, screen_on
from walstream.demo.service import DemoService, DemoSettings
from walstream.demo.stage import Stage

__all__ = ["DemoOptionsLike", "make_demo_service"]


class DemoOptionsLike(Protocol):
    """The options of the command, checked.

    :ivar seconds: for how long to show it; None: until told to stop.
    :ivar rows: how many rows to write a second.
    """

    seconds: float | None
    rows: int


def make_demo_service(options: DemoOptionsLike, reactor: Any) -> DemoService:
    """The service behind ``twistd walstream demo``. To be called before logging begins."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]  # they would steer every connection
    output, errors = Output(sys.stdout), Output(sys.stderr)
    sys.stdout = held = HeldOutput(sys.stdout)
    service = DemoService(
        DemoSettings(options.rows, options.seconds),
        Stage(reactor),
        screen_on(output, os.environ),
        DemoLog(globalLogPublisher, held),
        reactor,
        errors.write,
    )
    _end_on_hang_up(service, reactor)
    return service


def _end_on_hang_up(service: DemoService, reactor: Any) -> None:
    """A terminal that is closed ends the demo as Ctrl-C does, unless nohup says otherwise."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(service.end))
