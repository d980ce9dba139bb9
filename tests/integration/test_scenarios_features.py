"""PostgreSQL's 027_stream_regress, in small: many features, through a hub, the dumps compared.

The regression suite itself is not in the servers' packages; ``features.sql`` stands in for it.
"""

from __future__ import annotations

from pathlib import Path

from tests.integration.chain import KEEP, running_hub, walreceiver
from tests.servers import Clusters
from tests.servers.comparing import amcheck, await_end, differing
from walstream.embedded import Cluster

_FEATURES = Path(__file__).with_name("features.sql")

# What is not in a dump of one database.
_SHARED = """
SELECT 'database', datname, dattablespace FROM pg_database
UNION ALL SELECT 'tablespace', spcname, oid FROM pg_tablespace
UNION ALL SELECT 'role', rolname, oid FROM pg_authid
UNION ALL SELECT 'prepared', gid, 0 FROM pg_prepared_xacts
ORDER BY 1, 2
"""


def test_many_features_pass_the_hub(clusters: Clusters, directory: Path, tmp_path: Path) -> None:
    """027_stream_regress: the standby has all of it, sound, and goes on as a primary."""
    settings = {"max_prepared_transactions": "5", "autovacuum": "on", "autovacuum_naptime": "1s"}
    primary = clusters.primary(settings=KEEP | settings)
    primary.query("CREATE EXTENSION amcheck")
    base = directory / "base"
    with running_hub(primary.conninfo(), tmp_path / "archive") as hub:
        primary.base_backup(base, "-X", "none")
        standby = clusters.standby_of(base, hub.conninfo(), "standby")
        before = walreceiver(standby)
        run_features(primary, directory)
        await_end(primary, [standby])
        assert standby.query(_SHARED) == primary.query(_SHARED)
        assert not differing(primary, [standby])
        assert amcheck(standby) == ""
        assert walreceiver(standby) == before
        standby.promote()
        standby.query("DROP SCHEMA s CASCADE")


def run_features(primary: Cluster, directory: Path) -> None:
    """Run the script."""
    script = directory / "features.sql"
    script.write_text(_FEATURES.read_text())
    script.chmod(0o644)
    tool = primary.installation.tool("psql")
    primary.run([tool, "-X", "-q", "-f", script, "-d", primary.conninfo()])
