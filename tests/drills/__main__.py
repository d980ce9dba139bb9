"""The long drills: ``python -m tests.drills``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.drills import backlog, chain, fleet
from tests.servers import Clusters, Templates, installation
from walstream.embedded import Account, workspace


def main() -> int:
    """Run a drill; 1 if something was not as it should be."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.drills", description="Drills with a hub and many real standbys."
    )
    parser.add_argument("--version", type=int, default=18, help="PostgreSQL's; default: 18")
    parser.add_argument("--seed", type=int, default=7, help="default: 7")
    parser.add_argument(
        "--directory",
        type=Path,
        help="where all of it is, and stays; one that every user can enter",
    )
    drills = parser.add_subparsers(dest="drill", required=True)
    options = drills.add_parser("fleet", help="many standbys, some of them troubled")
    options.add_argument("--standbys", type=int, default=12, help="default: 12")
    options.add_argument("--victims", type=int, default=3, help="default: 3")
    options.add_argument("--seconds", type=float, default=300, help="of load; default: 300")
    options.add_argument("--hub", default="", help="more options of the hub's, in one word")
    options = drills.add_parser("chain", help="a hub behind a hub behind a hub")
    options.add_argument("--rounds", type=int, default=30, help="default: 30")
    options.add_argument("--promotions", type=int, default=5, help="among them; default: 5")
    options = drills.add_parser("backlog", help="a standby of an old base backup")
    options.add_argument("--segments", type=int, default=200, help="default: 200")
    options.add_argument("--segment-size", type=int, default=16, help="MiB; default: 16")
    arguments = parser.parse_args()
    with _place(arguments.directory) as directory:
        programs = installation(arguments.version)
        account = Account.for_servers()
        programs = programs.for_user(account, directory / "programs")
        clusters = Clusters(programs, directory, Templates(directory, account))
        try:
            return _run(arguments, clusters, directory)
        finally:
            clusters.end()


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    if directory is None:
        with workspace("walstream-drill-") as made:
            yield made
    else:
        directory.mkdir(mode=0o755)
        yield directory.absolute()


def _run(arguments: argparse.Namespace, clusters: Clusters, directory: Path) -> int:
    """Run the drill, and say what came of it."""
    seed = arguments.seed
    if arguments.drill == "backlog":
        found = backlog.drill(clusters, directory, arguments.segments, arguments.segment_size)
        return _tell(found.summary(), found.troubles)
    if arguments.drill == "chain":
        chain_plan = chain.Plan(arguments.rounds, arguments.promotions, seed)
        survived = chain.drill(clusters, directory, chain_plan)
        return _tell(survived.summary(chain_plan), survived.troubles)
    options = tuple(arguments.hub.split())
    plan = fleet.Plan(arguments.standbys, arguments.victims, arguments.seconds, seed, options)
    outcome = fleet.drill(clusters, directory, plan)
    return _tell(outcome.summary(plan), outcome.troubles)


def _tell(summary: str, troubles: list[str]) -> int:
    print(summary)
    return 1 if troubles else 0


sys.exit(main())
