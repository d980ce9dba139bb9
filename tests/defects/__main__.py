"""The table: ``python -m tests.defects``."""

from __future__ import annotations

import argparse
import sys

from tests.defects.receivers import pg_receivewal, walstream
from tests.defects.scenes import SCENES, Stage
from tests.servers import Clusters, Templates, installation
from walstream.embedded import Account, workspace


def main() -> int:
    """Play each scene to both; 1 if walstream has a defect."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.defects",
        description="Play the known defects of pg_receivewal to it and to walstream.",
    )
    parser.add_argument("--version", type=int, default=18, help="PostgreSQL's; default: 18")
    parser.add_argument("--patience", type=float, default=10, help="seconds; default: 10")
    parser.add_argument("--only", default=",".join(SCENES), help="default: %(default)s")
    arguments = parser.parse_args()
    programs = installation(arguments.version)
    status = 0
    for number in arguments.only.split(","):
        scene = SCENES[number]
        print(f"{number}: {(scene.__doc__ or '').splitlines()[0]}")
        for receiver in (pg_receivewal(programs), walstream()):
            with workspace("walstream-defects-") as base:
                clusters = Clusters(programs, base, Templates(base, Account.for_servers()))
                try:
                    seen = scene(Stage(clusters, base, receiver, arguments.patience))
                finally:
                    clusters.end()
            print(f"    {receiver.name:13} {seen.what}", flush=True)
            if receiver.name == "walstream" and not seen.is_sound:
                status = 1
    return status


sys.exit(main())
