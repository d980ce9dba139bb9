"""What many subscribers cost the primary: directly, and behind ``twistd walstream hub``.

    python -m benchmarks.subscribers [--rounds 4] [--seconds 8] [--subscribers 50] [--clients 8]

pgbench runs its simple-update script on a server without subscribers, with all of them on
itself, and with all of them on a hub that it feeds. In each round each of the three has one run.
The loss is what is missing of the commits per second without subscribers.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.commits import pgbench, primary_with_data
from benchmarks.measure import ratio_line
from benchmarks.readers import following
from benchmarks.serving import serving, walsenders
from walstream.embedded import Cluster, workspace
from walstream.formats.lsn import LSN

_SETTINGS: dict[str, str | int] = {"max_wal_senders": 120, "max_connections": 200}


def main() -> None:
    """Measure, and print the ratios."""
    options = _options()
    with ExitStack() as stack:
        base = stack.enter_context(workspace("walstream-benchmark-"))
        primary = stack.enter_context(primary_with_data(base, options.scale, _SETTINGS))
        rounds = [_round(primary, base, options, number) for number in range(options.rounds)]
    for name in ("direct", "hub"):
        rates = [round[name] / round["none"] for round in rounds]
        print(ratio_line(f"commits per second with subscribers, {name}", rates, "none"))
    losses = [(r["none"] - r["hub"]) / (r["none"] - r["direct"]) for r in rounds]
    print(ratio_line("loss behind the hub, of the direct loss", losses, "<= 0.7"))
    share = statistics.median(round["hub cpu"] / round["direct cpu"] for round in rounds)
    print(f"CPU of the primary's walsenders per commit, with the hub of without: {share:.3f}x")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=8, help="of each run")
    parser.add_argument("--subscribers", type=int, default=50)
    parser.add_argument("--clients", type=int, default=8, help="pgbench's")
    parser.add_argument("--scale", type=int, default=50, help="pgbench's")
    return parser.parse_args()


def _round(
    primary: Cluster, base: Path, options: argparse.Namespace, number: int
) -> dict[str, float]:
    ways = ["none", "direct", "hub"]
    ways = [*ways[number % 3 :], *ways[: number % 3]]
    figures: dict[str, float] = {}
    for way in ways:
        with _subscribed(primary, base / f"archive-{number}", way, options.subscribers):
            pgbench(primary, options.clients, 1)
            senders = walsenders(primary)
            before = senders.cpu()
            commits, figures[way] = pgbench(primary, options.clients, options.seconds)
            figures[f"{way} cpu"] = senders.cpu_since(before) / commits
    described = "  ".join(f"{way} {figures[way]:6.0f}/s" for way in ("none", "direct", "hub"))
    print(f"  {described}", flush=True)
    return figures


@contextmanager
def _subscribed(primary: Cluster, archive: Path, way: str, count: int) -> Iterator[None]:
    """Have subscribers follow, in that way."""
    if way == "none":
        yield
    elif way == "direct":
        with following(primary.port, _position(primary), count):
            yield
    else:
        upstream = primary.conninfo(application_name="hub")
        arguments = ("hub", "--upstream", upstream, "--archive", str(archive))
        with (
            serving("hub", *arguments) as hub,
            following(hub.port, _position(primary), count),
        ):
            yield


def _position(primary: Cluster) -> LSN:
    return LSN.parse(str(primary.query("SELECT pg_current_wal_flush_lsn()::text")[0][0]))


if __name__ == "__main__":
    main()
