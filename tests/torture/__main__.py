"""The long run: ``python -m tests.torture``."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tests.servers import installation
from tests.torture.plan import KINDS
from tests.torture.run import torture


def main() -> int:
    """Run so many cycles; 1 if anything was lost, or hangs."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.torture",
        description="Torture walstream as the only synchronous standby of a primary.",
    )
    parser.add_argument("--cycles", type=int, default=300, help="default: 300")
    parser.add_argument("--seed", type=int, default=7, help="default: 7")
    parser.add_argument(
        "--directory", type=Path, required=True, help="of the run; one that every user can enter"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run in the directory")
    parser.add_argument("--version", type=int, default=18, help="PostgreSQL's; default: 18")
    parser.add_argument(
        "--faults", default=",".join(KINDS), help="what breaks; default: %(default)s"
    )
    parser.add_argument("--compress", help="have walstream compress, as its --compress says")
    arguments = parser.parse_args()
    # What was made is taken away again, and a run can be gone on with, as after Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = ("--compress", arguments.compress) if arguments.compress else ()
    return torture(
        arguments.directory.absolute(),
        installation(arguments.version),
        cycles=arguments.cycles,
        seed=arguments.seed,
        kinds=tuple(arguments.faults.split(",")),
        resume=arguments.resume,
        options=options,
    )


sys.exit(main())
