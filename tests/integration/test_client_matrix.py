"""Real clients by every method, and in every way that is wrong: told the same as by PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from tests.client_matrix.cases import ANOTHER_VERSION, DIRECT, EVERY, FAILURES, METHODS
from tests.client_matrix.outcome import of_another_version, outcomes, surprises
from tests.client_matrix.table import missing
from tests.client_matrix.world import world
from tests.servers import Clusters, every_version, installation, selected_majors

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "clients.md"


# Versions in between are spared what the oldest and the newest are asked: whoever comes in, and
# every fourth of those that do not.
SOME = (*METHODS, DIRECT, *FAILURES[::4])


@every_version
def test_every_client_is_told_what_a_server_tells_it(clusters: Clusters, directory: Path) -> None:
    """pg_receivewal, a standby and psycopg2 stream, or fail, in the same words at both.

    What differs is listed with its reason, and the manual has what they print. The oldest and the
    newest pg_receivewal come besides.
    """
    majors, major = selected_majors(), clusters.installation.major
    oldest_and_newest = {majors[0], majors[-1]}
    others = oldest_and_newest - {major}
    with world(clusters, directory) as made:
        found = outcomes(made, EVERY if major in oldest_and_newest else SOME)
        for other in sorted(others):
            found += of_another_version(made, ANOTHER_VERSION, installation(other))
        assert surprises(made, found) == []
        for process in (made.hub, made.sender):
            assert "Traceback" not in process.text
    assert missing(DOCUMENT.read_text(), found) == []
