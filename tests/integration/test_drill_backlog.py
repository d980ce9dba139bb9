"""A standby that is far behind, and nothing but ``primary_conninfo`` to help it."""

from __future__ import annotations

from pathlib import Path

from tests.drills import backlog
from tests.servers import Clusters


def test_two_hundred_segments_in_one_session(clusters: Clusters, directory: Path) -> None:
    """From an old base backup, through an archive compressed by zstd, to the live tail."""
    outcome = backlog.drill(clusters, directory, segments=200)
    print(outcome.summary())
    assert outcome.compressed >= 200
    assert not outcome.troubles
