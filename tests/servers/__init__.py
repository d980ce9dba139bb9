"""Real PostgreSQL servers of every supported version, for the tests and the benchmarks.

``@every_version`` runs a test once for each version, ``@on_versions(16, 17)`` for those; without
either, a test that uses the `installation` fixture runs on the newest version.
"""

import pytest

from tests.servers.clusters import Clusters, Templates
from tests.servers.versions import ServersUnavailable, fetch, installation, selected_majors

__all__ = [
    "Clusters",
    "ServersUnavailable",
    "Templates",
    "every_version",
    "fetch",
    "installation",
    "on_versions",
    "selected_majors",
]

on_versions = pytest.mark.postgresql
every_version = pytest.mark.postgresql()
