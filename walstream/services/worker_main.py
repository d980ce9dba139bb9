"""The program that a worker runs: ``python -m walstream.services.worker_main NUMBER ARCHIVE``.

It is started by `walstream.services.worker_process`, and is of no use to anybody else.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import Any

from twisted.logger import globalLogBeginner

from walstream.services.worker_channel import CHANNEL_DESCRIPTOR, connect
from walstream.services.worker_logs import LOG_DESCRIPTOR, PipeLog

__all__ = ["main"]


def main() -> None:
    """Serve until the main process says that it is over, or is gone."""
    # These come to all processes of a terminal or a control group. When it is over is for the main
    # process to say, which sees the clients off.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    globalLogBeginner.beginLoggingTo([PipeLog(LOG_DESCRIPTOR)], redirectStandardIO=False)

    from twisted.internet import reactor

    from walstream.archive.reader import ArchiveReader
    from walstream.services.steady_time import use_steady_time
    from walstream.services.worker import Worker

    def over(in_order: bool) -> None:
        if not in_order:
            # Without waiting for anything, a thread on a slow disk for one: clients have to see
            # at once that there is nobody. Nothing that we do has to be finished.
            os._exit(1)
        running.stop()

    running: Any = reactor
    use_steady_time(running)
    reader = ArchiveReader(sys.argv[2], running)
    connect(running, Worker(running, reader, over), CHANNEL_DESCRIPTOR)
    os.close(CHANNEL_DESCRIPTOR)
    gc.freeze()  # as `ProcessService`
    running.run(installSignalHandlers=False)


if __name__ == "__main__":
    main()
