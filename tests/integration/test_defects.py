"""walstream has none of pg_receivewal's known defects, which `tests.defects` plays to both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.defects.receivers import pg_receivewal, walstream
from tests.defects.scenes import SCENES, Stage
from tests.servers import Clusters


@pytest.mark.parametrize("number", SCENES)
def test_walstream_has_not_the_defect(number: str, clusters: Clusters, tmp_path: Path) -> None:
    """Whatever triggers it: what comes of it is as an operator wants it."""
    seen = SCENES[number](Stage(clusters, tmp_path, walstream(), patience=20))
    assert seen.is_sound, seen.what


@pytest.mark.parametrize("number", ["1", "2", "3", "5"])
def test_the_trigger_is_one(number: str, clusters: Clusters, tmp_path: Path) -> None:
    """The same does harm to pg_receivewal, so that the scene shows what it is to show."""
    stage = Stage(clusters, tmp_path, pg_receivewal(clusters.installation), patience=2)
    seen = SCENES[number](stage)
    assert not seen.is_sound, seen.what
