"""The clients' record: which commits the primary has confirmed.

Commits are counted per table and client. A client's counters grow by one with each attempt, so what
is confirmed is a few runs of counters, with a hole where an answer did not come: such a commit may
be there or not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Record", "Run"]


@dataclass(slots=True)
class Run:
    """Commits of one client in one table, confirmed from the first to the last.

    :ivar epoch: the number of the table.
    """

    epoch: int
    client: int
    first: int
    last: int


class Record:
    """What was confirmed, in memory and in a file.

    :param path: of the file. It is continued if it is there.
    :ivar total: how many commits.
    :ivar next_client: a number that no client has had.
    """

    def __init__(self, path: Path) -> None:
        self.total = 0
        self.next_client = 1
        self._lock = threading.Lock()
        self._grown = threading.Condition(self._lock)
        self._latest: dict[tuple[int, int], Run] = {}
        self._runs: list[Run] = []
        if path.exists():
            for line in path.read_text().splitlines():
                words = line.split()
                if len(words) == 3:  # the last line may be cut off
                    self._count(*map(int, words))
        self._file = path.open("a", buffering=1)
        self._file.write("\n")  # behind a line that was cut off

    def confirmed(self, epoch: int, client: int, counter: int) -> None:
        """The primary has confirmed this commit. From any thread."""
        with self._lock:
            self._count(epoch, client, counter)
            self._file.write(f"{epoch} {client} {counter}\n")
            self._grown.notify_all()

    def wait_for(self, total: int, timeout: float) -> bool:
        """Wait until so many commits are confirmed in all; False after *timeout* seconds."""
        with self._lock:
            return self._grown.wait_for(lambda: self.total >= total, timeout)

    def runs(self, since: int) -> list[Run]:
        """What is confirmed in the tables from *since* on."""
        with self._lock:
            return [
                Run(run.epoch, run.client, run.first, run.last)
                for run in self._runs
                if run.epoch >= since
            ]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs(0))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _count(self, epoch: int, client: int, counter: int) -> None:
        self.total += 1
        self.next_client = max(self.next_client, client + 1)
        run = self._latest.get((epoch, client))
        if run is not None and run.last == counter - 1:
            run.last = counter
            return
        self._latest[epoch, client] = run = Run(epoch, client, counter, counter)
        self._runs.append(run)
