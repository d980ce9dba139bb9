"""The ``walstream`` command: tools for archives, for people and for ``restore_command``.

Each command is a module of its own, which is imported when it is asked for: PostgreSQL starts
``walstream restore-wal`` once for each segment.
"""

from walstream.cli.main import main

__all__ = ["main"]
