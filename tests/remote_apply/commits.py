"""One client that commits on the primary, and looks on the standby."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.servers.daemon import wait_until
from walstream.embedded import Cluster

__all__ = ["Visibility", "watch_commits"]

# Server-side statements: what is measured is the commit, not the parser.
_PREPARE = "PREPARE {} (int) AS {}"


@dataclass(slots=True)
class Visibility:
    """What was seen.

    :ivar count: how many commits there were.
    :ivar invisible: the rows that were not there when their commits had returned.
    :ivar seconds: how long each commit took.
    """

    count: int = 0
    invisible: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        ordered = sorted(self.seconds)
        visible = self.count - len(self.invisible)
        middle, late = (ordered[int(self.count * part)] * 1000 for part in (0.5, 0.99))
        return f"{visible} of {self.count} visible; commits p50 {middle:.2f} ms, p99 {late:.2f} ms"


def watch_commits(primary: Cluster, standby: Cluster, count: int) -> Visibility:
    """Commit *count* rows on the primary, one by one, and look for each on the standby at once."""
    seen = Visibility(count)
    primary.query("CREATE TABLE IF NOT EXISTS rows (row int PRIMARY KEY)")
    wait_until(lambda: standby.query("SELECT to_regclass('rows')") != [(None,)], "a table")
    with primary.connect() as writer, standby.connect() as reader:
        writer.execute("TRUNCATE rows")
        writer.execute(_PREPARE.format("put", "INSERT INTO rows VALUES ($1)").encode())
        reader.execute(_PREPARE.format("look", "SELECT 1 FROM rows WHERE row = $1").encode())
        for number in range(count):
            put, look = f"EXECUTE put ({number})", f"EXECUTE look ({number})"
            begun = time.monotonic()
            writer.execute(put.encode())
            seen.seconds.append(time.monotonic() - begun)
            if reader.execute(look.encode()).fetchone() is None:
                seen.invisible.append(number)
    return seen
