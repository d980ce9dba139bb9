"""A hub behind a hub behind a hub; the long form is ``python -m tests.drills chain``."""

from __future__ import annotations

from pathlib import Path

from tests.drills import chain
from tests.servers import Clusters


def test_a_chain_survives_its_links(clusters: Clusters, directory: Path) -> None:
    """Hubs, and a sender between them, are killed and come back in any order, the primary for
    good: a standby at each link follows all of it.
    """
    plan = chain.Plan(rounds=2, promotions=1, seed=5)
    outcome = chain.drill(clusters, directory, plan)
    print(outcome.summary(plan))
    assert not outcome.troubles
    assert outcome.timeline == 2
