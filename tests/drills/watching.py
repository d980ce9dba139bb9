"""Looks at a primary and a hub every now and then, while a drill runs."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from typing import Self

import psycopg

from tests.servers.daemon import Walstream
from walstream.embedded import Cluster

__all__ = ["Watch"]

_EVERY_SECONDS = 0.1


class Watch:
    """Samples, from a thread of its own, while the context lasts.

    :ivar senders: how often the primary had which walsenders: their names, sorted.
    :ivar memory: the hub's own memory in bytes at each look.
    """

    def __init__(self, primary: Cluster, hub: Walstream) -> None:
        self.senders: Counter[tuple[str, ...]] = Counter()
        self.memory: list[int] = []
        self._primary = primary
        self._hub = hub
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(30)

    @property
    def most_memory(self) -> int:
        """The most memory that the hub had."""
        return max(self.memory)

    def _run(self) -> None:
        with self._primary.connect() as connection:
            while not self._is_over.wait(_EVERY_SECONDS):
                with suppress(psycopg.Error, OSError, StopIteration):
                    self._look(connection)

    def _look(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        query = "SELECT application_name FROM pg_stat_replication ORDER BY 1"
        names = tuple(str(row[0]) for row in connection.execute(query))
        self.senders[names] += 1
        self.memory.append(self._hub.memory())
