"""The long drills: ``python -m tests.drills``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.drills import fleet
from tests.servers import Clusters, Templates, installation
from walstream.embedded import Account, workspace


def main() -> int:
    """Run a drill; 1 if something was not as it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.drills", description="Drills with a hub and many real standbys."
    )
    parser.add_argument("--version", type=int, default=18, help="PostgreSQL's; default: 18")
    parser.add_argument("--seed", type=int, default=7, help="default: 7")
    drills = parser.add_subparsers(dest="drill", required=True)
    options = drills.add_parser("fleet", help="many standbys, some of them troubled")
    options.add_argument("--standbys", type=int, default=12, help="default: 12")
    options.add_argument("--victims", type=int, default=3, help="default: 3")
    options.add_argument("--seconds", type=float, default=300, help="of load; default: 300")
    arguments = parser.parse_args()
    with workspace("walstream-drill-") as directory:
        programs = installation(arguments.version)
        account = Account.for_servers()
        programs = programs.for_user(account, directory / "programs")
        clusters = Clusters(programs, directory, Templates(directory, account))
        try:
            return _run(arguments, clusters, directory)
        finally:
            clusters.end()


def _run(arguments: argparse.Namespace, clusters: Clusters, directory: Path) -> int:
    plan = fleet.Plan(arguments.standbys, arguments.victims, arguments.seconds, arguments.seed)
    outcome = fleet.drill(clusters, directory, plan)
    print(outcome.summary(plan))
    return 1 if outcome.troubles else 0


sys.exit(main())
