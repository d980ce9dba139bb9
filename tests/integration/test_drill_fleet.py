"""Standbys that are stopped, killed and started; longer: ``python -m tests.drills fleet``."""

from __future__ import annotations

from pathlib import Path

from tests.drills import fleet
from tests.servers import Clusters

# The hub's own memory may grow by this much with four standbys: a few of their constants.
_GROWTH = 16 << 20


def test_a_troubled_fleet(clusters: Clusters, directory: Path) -> None:
    """All end identical; whoever was left alone kept its session, the primary its one walsender."""
    plan = fleet.Plan(standbys=4, victims=2, seconds=6, seed=7)
    outcome = fleet.drill(clusters, directory, plan)
    print(outcome.summary(plan))
    assert not outcome.troubles
    before, most = outcome.memory
    assert most - before < _GROWTH
    assert set(outcome.walsenders) == {("walstream",)}
