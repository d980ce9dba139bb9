"""What a cluster's configuration files say, and on which port it listens.

Source: PostgreSQL's documentation, "Setting Parameters" and "The pg_hba.conf File".
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Mapping
from itertools import count

from walstream.embedded.processes import EmbeddedError

__all__ = ["FAST_SETTINGS", "free_port", "settings_text"]

# For servers that live for seconds, on a machine that does other things besides.
FAST_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    # Stays on: without it the WAL writer's delay is part of every wait for a standby.
    "synchronous_commit": "on",
    "shared_buffers": "16MB",
    "max_connections": "20",
    "autovacuum": "off",
    # Shared memory in files of the data directory: nothing is left in /dev/shm by a killed server.
    "dynamic_shared_memory_type": "mmap",
    "log_replication_commands": "on",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    # The default of 5 s would be part of every reconnect.
    "wal_retrieve_retry_interval": "100ms",
}

# Below the ports that systems give to outgoing connections: one of those could take a server's
# port while it is down, and a client that retries could even be connected to itself.
_PORTS = range(10200, 32728)
# Each process has a part of them to itself, and takes them in turn: nobody else is given one that
# has no listener yet, or none at the moment. Processes that were started together have different
# parts.
_PARTS = 64
_PART = len(_PORTS) // _PARTS
_turns = count(random.randrange(_PART))


def free_port() -> int:
    """A loopback port that nothing listens on, and that was not given out for a long while."""
    ports = _PORTS[os.getpid() % _PARTS :: _PARTS]
    for _ in ports:
        port = ports[next(_turns) % _PART]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EmbeddedError(f"no free port among {_PART} from {ports[0]} to {ports[-1]}")


def settings_text(settings: Mapping[str, str | int]) -> str:
    """Lines for ``postgresql.conf``, where of several lines for a setting the last one counts."""
    return "".join(f"{name} = {_quoted(str(value))}\n" for name, value in settings.items())


def _quoted(value: str) -> str:
    if "\n" in value:
        raise EmbeddedError(f"a setting's value cannot have more than one line: {value!r}")
    doubled = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{doubled}'"
