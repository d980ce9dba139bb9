"""A few cycles of the torture run, whose long form is ``python -m tests.torture``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture.run import torture
from walstream.embedded import Installation

_KINDS = ("both", "fsync", "power", "full")


def test_every_confirmed_commit_is_in_the_archive(
    installation: Installation, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kills, power cuts, full and failing disks: a recovered server has all that was confirmed."""
    status = torture(directory / "run", installation, cycles=len(_KINDS), seed=7, kinds=_KINDS)
    output = capsys.readouterr().out
    assert status == 0, output
    assert "losses: 0" in output
