"""The long run: ``python -m tests.remote_apply``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.integration.test_synchronous import demand
from tests.remote_apply.chain import Chain
from tests.remote_apply.commits import watch_commits
from tests.servers import Clusters, Templates, installation
from walstream.embedded import Account, workspace


def main() -> int:
    """Commit and look; 1 if a single row was not there."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.remote_apply",
        description="Look on a standby behind a hub for what a primary has committed.",
    )
    parser.add_argument("--count", type=int, default=10_000, help="commits; default: 10000")
    parser.add_argument("--version", type=int, default=18, help="PostgreSQL's; default: 18")
    parser.add_argument("--hubs", type=int, default=1, help="one behind another; default: 1")
    parser.add_argument(
        "--local",
        action="store_true",
        help="have the hub report what it has itself: then rows have to be missing",
    )
    arguments = parser.parse_args()
    options = ("--report-apply=local",) if arguments.local else None
    with workspace("walstream-remote-apply-") as base:
        account = Account.for_servers()
        programs = installation(arguments.version).for_user(account, base / "programs")
        clusters = Clusters(programs, base, Templates(base, account))
        archives = base / "archives"
        archives.mkdir()
        try:
            with Chain(clusters, Path(archives), hubs=arguments.hubs, options=options) as chain:
                demand(chain.primary, "hub1", "remote_apply")
                seen = watch_commits(chain.primary, chain.standby, arguments.count)
        finally:
            clusters.end()
    print(seen)
    return 1 if seen.invisible else 0


sys.exit(main())
