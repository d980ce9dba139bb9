"""Real PostgreSQL servers in temporary directories, for the demo and for tests.

Everything here is synchronous, keeps to the loopback interface, and ends with the process that
started it. As root the servers run as an unprivileged user, since PostgreSQL refuses root.

>>> with workspace() as base:
...     installation = Installation.from_package().for_user(Account.for_servers(), base / "bin")
...     with Cluster(installation, base / "primary") as primary:
...         primary.initdb()
...         primary.start()
...         print(primary.query("SELECT version()"))
"""

from walstream.embedded.cluster import Cluster
from walstream.embedded.configuration import FAST_SETTINGS
from walstream.embedded.installation import Installation
from walstream.embedded.processes import Account, EmbeddedError, workspace

__all__ = [
    "FAST_SETTINGS",
    "Account",
    "Cluster",
    "EmbeddedError",
    "Installation",
    "workspace",
]
